//! In-memory broker for tests, with scripted faults. It keeps the promises of a broker that writes
//! batch and checkpoint in one step: each chat of a run exactly once.

mod events;
mod messages;
mod session;

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::events::MemoryEvents;
use self::messages::MemoryMessages;
use self::session::{InFlight, MemorySink};
use super::error::Failure;
use super::{
    BrokerError, Checkpoint, EventOutcome, EventSink, MessageSink, SessionContext, SnapshotSink,
};
use crate::message::{LabelEvent, ReadyMessage};

/// A fault, which affects one append.
#[derive(Clone, Debug)]
pub enum Fault {
    /// None: the append succeeds, and the next one meets the next fault.
    Skip,
    /// The broker rejects it with a transient error.
    Refuse,
    /// The connection breaks before the broker has it.
    Cut,
    /// The broker applies it, and the reply is lost.
    LoseReply,
    /// Nothing happens until the token is cancelled.
    Hold(CancellationToken),
    /// The broker loses everything that it has, as after a restart without persistence.
    LoseAll,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The run that it belongs to.
    pub run_id: Uuid,
    /// The chat.
    pub chat_id: String,
}

/// A queue in memory. Clones share it.
#[derive(Clone, Default)]
pub struct Memory {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    messages: Vec<Message>,
    ready: Vec<ReadyMessage>,
    record: Option<Record>,
    last_complete: Option<u64>,
    /// Ids of events and of messages that were written before.
    events: HashSet<String>,
    /// The session that holds the lock, as long as it lives.
    holder: Weak<()>,
    /// Fencing token of the newest session.
    token: u64,
    faults: VecDeque<Fault>,
}

/// The checkpoint.
#[derive(Clone)]
struct Record {
    checkpoint: Checkpoint,
    is_over: bool,
    list_changed: bool,
    updated_at: SystemTime,
}

impl Memory {
    /// Returns a sink that publishes to this queue.
    pub fn sink(&self, context: SessionContext) -> Box<dyn SnapshotSink> {
        Box::new(MemorySink::new(self.clone(), context))
    }

    /// Returns a sink for events.
    pub fn event_sink(&self, context: &SessionContext) -> Box<dyn EventSink> {
        Box::new(MemoryEvents::new(self.clone(), context))
    }

    /// Returns a sink for messages that were written before.
    pub fn message_sink(&self, context: &SessionContext) -> Box<dyn MessageSink> {
        Box::new(MemoryMessages::new(self.clone(), context))
    }

    /// Adds a fault. Each append takes the oldest fault that is left.
    pub fn script(&self, fault: Fault) {
        self.lock().faults.push_back(fault);
    }

    /// Returns the number of scripted faults that no append has taken yet.
    pub fn faults_left(&self) -> usize {
        self.lock().faults.len()
    }

    /// All messages, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.lock().messages.clone()
    }

    /// All messages of [`Memory::message_sink`], in order.
    pub fn ready_messages(&self) -> Vec<ReadyMessage> {
        self.lock().ready.clone()
    }

    /// Nothing panics while it holds the lock, so a poisoned one is usable.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the checkpoint, if the token is still the newest.
    fn checkpoint(&self, token: u64, run_id: Uuid) -> Result<Option<Checkpoint>, Failure> {
        let queue = self.lock();
        if queue.token > token {
            return Err(BrokerError::Locked("memory".to_owned()).into());
        }
        let found = queue.record.as_ref().map(|record| record.checkpoint);
        Ok(found.filter(|found| found.run_id == run_id))
    }

    /// Runs an append, affected by the oldest fault that is left.
    async fn append<T>(&self, append: impl FnOnce(&mut Queue) -> T) -> Result<T, Failure> {
        let fault = self.lock().faults.pop_front();
        let failed = |text: &str| Err(Failure::Transient(text.to_owned()));
        match fault {
            None | Some(Fault::Skip) => Ok(append(&mut self.lock())),
            Some(Fault::Refuse) => failed("it is full"),
            Some(Fault::Cut) => failed("the connection is gone"),
            Some(Fault::LoseReply) => {
                append(&mut self.lock());
                failed("the reply is lost")
            }
            Some(Fault::Hold(until)) => {
                until.cancelled().await;
                Ok(append(&mut self.lock()))
            }
            Some(Fault::LoseAll) => {
                let mut queue = self.lock();
                queue.messages.clear();
                queue.ready.clear();
                queue.record = None;
                queue.events.clear();
                failed("the connection is gone")
            }
        }
    }
}

impl Queue {
    fn append_event(&mut self, event: &LabelEvent) -> EventOutcome {
        if !self.events.insert(event.id.clone()) {
            return EventOutcome::Duplicate;
        }
        self.messages.push(Message {
            run_id: event.run_id(),
            chat_id: event.chat_id.clone(),
        });
        EventOutcome::Published
    }

    /// Appends a message unless its id is known.
    fn append_ready(&mut self, message: &ReadyMessage) {
        if self.events.insert(message.id.clone()) {
            self.ready.push(message.clone());
        }
    }

    /// Appends a batch and moves the checkpoint, or does neither. Returns whether it did.
    fn append(&mut self, token: u64, run_id: Uuid, batch: &InFlight) -> bool {
        let is_newest = self.token == token;
        let Some(record) = self.record.as_mut().filter(|record| {
            let at = record.checkpoint;
            is_newest && at.run_id == run_id && at.position == batch.extent.first
        }) else {
            return false;
        };
        record.checkpoint.position = batch.extent.end;
        record.checkpoint.digest = batch.extent.digest;
        record.checkpoint.chats += batch.chat_ids.len() as u64;
        record.updated_at = SystemTime::now();
        let messages = batch.chat_ids.iter().map(|chat_id| Message {
            run_id,
            chat_id: chat_id.clone(),
        });
        self.messages.extend(messages);
        true
    }

    fn chats_of(&self, run_id: Uuid) -> HashSet<&str> {
        let of_run = self.messages.iter().filter(|it| it.run_id == run_id);
        of_run.map(|message| message.chat_id.as_str()).collect()
    }
}
