//! One run's hold on a queue in memory.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use uuid::Uuid;

use super::{Memory, Queue, Record};
use crate::batch::Batch;
use crate::broker::error::{Failure, SessionError};
use crate::broker::reconcile::{Extent, Next, reconcile};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{
    BrokerError, Checkpoint, Delivered, Outcome, Recovered, ResumePoint, SessionContext,
    SnapshotSession, SnapshotSink, Start, Unfinished, Written,
};

/// Batches in flight.
const WINDOW: usize = 2;

pub(super) struct MemorySink {
    memory: Memory,
    context: SessionContext,
}

impl MemorySink {
    pub(super) fn new(memory: Memory, context: SessionContext) -> Self {
        Self { memory, context }
    }
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
            retries: SessionRetries::new(&self.context.retry),
        };
        Ok((recovered, Box::new(session)))
    }
}

/// A batch that was sent.
pub(super) struct InFlight {
    pub(super) extent: Extent,
    pub(super) chat_ids: Vec<String>,
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
    fn sent(&self, batch: &Batch) -> InFlight {
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
                ..Delivered::default()
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
        let sent = self.sent(batch);
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
