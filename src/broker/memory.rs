//! In-memory broker for tests, with scripted faults. It keeps the promises of a broker that writes
//! batch and checkpoint in one step: each chat of a run exactly once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::SystemTime;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::error::{Failure, SessionError};
use super::reconcile::{Extent, Next, reconcile};
use super::retries::{Retrying, SessionRetries, with_retry};
use super::{
    BrokerError, Checkpoint, Delivered, EventOutcome, EventSink, Outcome, Recovered, ResumePoint,
    SessionContext, SnapshotSession, SnapshotSink, Start, Unfinished, Written,
};
use crate::batch::Batch;
use crate::message::LabelEvent;

/// Batches in flight.
const WINDOW: usize = 2;

/// A fault, which affects one append.
#[derive(Clone, Debug)]
pub enum Fault {
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
    record: Option<Record>,
    last_complete: Option<u64>,
    /// Ids of events.
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
        Box::new(MemorySink {
            memory: self.clone(),
            context,
        })
    }

    /// Returns a sink for events.
    pub fn event_sink(&self, context: &SessionContext) -> Box<dyn EventSink> {
        Box::new(MemoryEvents {
            memory: self.clone(),
            retries: SessionRetries::new(context.retry.clone()),
        })
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
            None => Ok(append(&mut self.lock())),
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

struct MemorySink {
    memory: Memory,
    context: SessionContext,
}

#[async_trait]
impl SnapshotSink for MemorySink {
    async fn open(self: Box<Self>) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
        let alive = Arc::new(());
        let mut queue = self.memory.lock();
        if queue.holder.upgrade().is_some() {
            return Err(BrokerError::Locked(self.context.target.queue.clone()));
        }
        queue.holder = Arc::downgrade(&alive);
        queue.token += 1;
        let token = queue.token;
        let unfinished = queue.record.clone().filter(|record| !record.is_over);
        let recovered = Recovered {
            unfinished: unfinished.map(|record| Unfinished {
                resume_point: record.checkpoint.into(),
                updated_at: record.updated_at,
                list_changed: record.list_changed,
            }),
            last_complete: queue.last_complete,
        };
        drop(queue);
        let session = MemorySession {
            memory: self.memory,
            token,
            _alive: alive,
            phase: Phase::New,
            resume_point: ResumePoint::start_of(Uuid::nil()),
            resumed_chats: 0,
            in_flight: VecDeque::new(),
            delivered: Delivered::default(),
            retries: SessionRetries::new(self.context.retry),
        };
        Ok((recovered, Box::new(session)))
    }
}

/// A batch that was sent.
struct InFlight {
    extent: Extent,
    chat_ids: Vec<String>,
    suppressed: u64,
}

/// How far the session is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A new run, which is recorded with its first batch.
    New,
    /// The run is recorded.
    Recorded {
        /// Whether chats that are already on the queue are skipped.
        suppress: bool,
    },
}

struct MemorySession {
    memory: Memory,
    token: u64,
    /// Holds the lock.
    _alive: Arc<()>,
    phase: Phase,
    resume_point: ResumePoint,
    /// Chats that earlier sessions of the run put on the queue.
    resumed_chats: u64,
    in_flight: VecDeque<InFlight>,
    delivered: Delivered,
    retries: SessionRetries,
}

impl Retrying for MemorySession {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, _: &Failure) {}
}

impl MemorySession {
    fn run_id(&self) -> Uuid {
        self.resume_point.at.run_id
    }

    fn record(&mut self, suppress: bool) {
        let mut queue = self.memory.lock();
        let run_id = self.resume_point.at.run_id;
        let chats = queue.chats_of(run_id).len() as u64;
        queue.record = Some(Record {
            checkpoint: Checkpoint {
                chats,
                ..Checkpoint::start_of(run_id)
            },
            is_over: false,
            list_changed: suppress,
            updated_at: SystemTime::now(),
        });
        self.phase = Phase::Recorded { suppress };
    }

    /// Prepares a batch for sending, without chats that are already on the queue.
    fn prepare(&self, batch: &Batch) -> InFlight {
        let chats = batch.iter().map(|chat| String::from_utf8_lossy(chat.id));
        let mut chat_ids: Vec<String> = chats.map(String::from).collect();
        let all = chat_ids.len();
        if self.phase == (Phase::Recorded { suppress: true }) {
            let queue = self.memory.lock();
            let published = queue.chats_of(self.run_id());
            chat_ids.retain(|chat_id| !published.contains(chat_id.as_str()));
        }
        InFlight {
            extent: Extent {
                first: batch.first().max(self.resume_point.at.position),
                end: batch.end(),
                digest: batch.digest(),
            },
            suppressed: (all - chat_ids.len()) as u64,
            chat_ids,
        }
    }

    async fn confirm_oldest(&mut self) -> Result<(), SessionError> {
        with_retry!(self, self.try_confirm_oldest())
    }

    async fn try_confirm_oldest(&mut self) -> Result<(), Failure> {
        let run_id = self.run_id();
        let found = self.memory.checkpoint(self.token, run_id)?;
        let extents: Vec<Extent> = self.in_flight.iter().map(|batch| batch.extent).collect();
        let next = self.resume_point.at.position;
        let reconciled = reconcile(run_id, found, &extents, next, true);
        self.count_oldest(reconciled.applied);
        if let Next::Rewind(to) = reconciled.next {
            self.in_flight.clear();
            return Err(Failure::Rewound(Box::new(to)));
        }
        let Some(oldest) = self.in_flight.front() else {
            return Ok(());
        };
        let token = self.token;
        let append = |queue: &mut Queue| queue.append(token, run_id, oldest);
        if self.memory.append(append).await? {
            self.count_oldest(1);
            return Ok(());
        }
        Err(Failure::Transient("the batch was rejected".to_owned()))
    }

    fn count_oldest(&mut self, batches: usize) {
        for batch in self.in_flight.drain(..batches) {
            let chats = batch.chat_ids.len() as u64;
            self.delivered.add(Delivered {
                chats,
                messages: chats,
                suppressed: batch.suppressed,
            });
        }
    }

    async fn confirm_all(&mut self) -> Result<(), SessionError> {
        while !self.in_flight.is_empty() {
            self.confirm_oldest().await?;
        }
        if matches!(self.phase, Phase::Recorded { .. }) {
            // Nothing is in flight: compares the checkpoint only.
            self.confirm_oldest().await?;
        }
        Ok(())
    }

    async fn publish(&mut self, batch: &Batch) -> Result<(), SessionError> {
        if self.phase == Phase::New {
            self.record(false);
        }
        while self.in_flight.len() >= WINDOW {
            self.confirm_oldest().await?;
        }
        let sent = self.prepare(batch);
        self.in_flight.push_back(sent);
        self.resume_point.advance(batch);
        Ok(())
    }

    fn recover(&mut self, result: Result<(), SessionError>) -> Result<Written, BrokerError> {
        match result {
            Ok(()) => Ok(Written::Done),
            Err(SessionError::Failed(error)) => Err(error),
            Err(SessionError::Rewound(to)) => {
                self.resumed_chats = self.resumed_chats.min(to.at.chats);
                let confirmed = self.resumed_chats + self.delivered.chats;
                self.delivered
                    .take_back(confirmed.saturating_sub(to.at.chats), 1);
                self.resume_point = *to;
                if self.resume_point.at.position == 0 {
                    self.record(true);
                }
                Ok(Written::Rewound)
            }
        }
    }
}

#[async_trait]
impl SnapshotSession for MemorySession {
    async fn start(&mut self, start: Start) -> Result<(), BrokerError> {
        self.resume_point = start.resume_point();
        self.resumed_chats = self.resume_point.at.chats;
        if let Start::Resumed(unfinished) = start {
            let suppress = unfinished.list_changed;
            self.phase = Phase::Recorded { suppress };
        }
        Ok(())
    }

    fn resume_point(&self) -> &ResumePoint {
        &self.resume_point
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, BrokerError> {
        let published = self.publish(batch).await;
        self.recover(published)
    }

    async fn flush(&mut self) -> Result<Written, BrokerError> {
        let confirmed = self.confirm_all().await;
        self.recover(confirmed)
    }

    async fn restart(&mut self) -> Result<(), BrokerError> {
        match self.confirm_all().await {
            Ok(()) | Err(SessionError::Rewound(_)) => {}
            Err(SessionError::Failed(error)) => return Err(error),
        }
        self.resume_point = ResumePoint::start_of(self.run_id());
        self.record(true);
        Ok(())
    }

    fn delivered(&self) -> Delivered {
        self.delivered
    }

    async fn finish(mut self: Box<Self>, outcome: Outcome) -> Result<(), BrokerError> {
        if outcome != Outcome::Unfinished && self.phase == Phase::New {
            self.record(false);
        }
        let mut queue = self.memory.lock();
        if queue.token != self.token {
            return Err(BrokerError::Locked("memory".to_owned()));
        }
        if let Outcome::Complete { chats } = outcome {
            queue.last_complete = Some(chats);
        }
        if let (Phase::Recorded { .. }, Some(record)) = (self.phase, &mut queue.record) {
            record.is_over = outcome != Outcome::Unfinished;
        }
        Ok(())
    }
}

struct MemoryEvents {
    memory: Memory,
    retries: SessionRetries,
}

impl Retrying for MemoryEvents {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, _: &Failure) {}
}

#[async_trait]
impl EventSink for MemoryEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            let memory = self.memory.clone();
            let append = |queue: &mut Queue| queue.append_event(event);
            let appended = with_retry!(self, memory.append(append));
            outcomes.push(appended.map_err(SessionError::into_failure)?);
        }
        Ok(outcomes)
    }
}
