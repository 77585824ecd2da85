//! Brokers, which chats are published to: one module each, and here what they have in common.
//!
//! The lock and the checkpoint live where the messages live, so there is no other store to run, to
//! mount or to lose.
//!
//! | to | implement | and use |
//! | --- | --- | --- |
//! | publish whole lists | [`SnapshotSink`], [`SnapshotSession`] | `retries`, `reconcile`, `backpressure`, `record` |
//! | publish single events, or any other messages | [`EventSink`], [`MessageSink`] | `retries` |
//! | read a queue | [`Consumer`] | |
//! | keep members and times of publication for a sink of any kind | `store::StateStore` | |
//! | delete what is stored | a function for [`factory::Broker::purge`] | `retries` |
//!
//! A new broker is a folder with these, a line in each function of [`factory`], and a line in the
//! conformance suite.

mod backpressure;
mod blackhole;
mod checkpoint;
mod consumer;
mod counts;
mod embedded;
mod error;
pub mod factory;
mod lines;
pub mod memory;
mod monitor;
mod options;
mod partition;
mod purge;
mod rabbitmq;
mod reconcile;
mod record;
mod redis;
mod retries;
mod store;
mod stream_protocol;
mod tracked;
mod url;

use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;

pub use self::checkpoint::{
    Checkpoint, Delivered, Outcome, Recovered, ResumePoint, Start, Target, Unfinished, Written,
};
pub(crate) use self::consumer::TAIL_GROUP;
pub use self::consumer::{Consumer, ConsumerOptions, Delivery, WORKER_PREFIX, WorkerOptions};
pub use self::counts::CountStore;
pub use self::error::BrokerError;
pub use self::monitor::{MemberCount, MemberMonitor, QueueDepth, QueueMonitor};
pub use self::options::{BrokerOptions, QueueType};
pub use self::partition::partition_of;
pub use self::purge::{Purge, PurgeOutcome, PurgeSelection, Purged};
use crate::batch::Batch;
use crate::message::{LabelEvent, Layout, ReadyMessage};
use crate::retry::RetryPolicy;
use crate::state::{Removal, Selection};

/// A queue that the whole list of a label can be published to.
#[async_trait]
pub trait SnapshotSink: Send {
    /// Takes the lock, and returns what earlier runs left.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Locked`] if another run is alive.
    async fn open(self: Box<Self>) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError>;
}

/// One run's hold on a queue.
///
/// The order of calls is `start`, then for each time that the list is requested `begin_list` and
/// `write` for each batch from the resume point on, `restart` if the list has changed, `flush`,
/// `remove_absent` for a whole list, and `finish`.
#[async_trait]
pub trait SnapshotSession: Send {
    /// Assigns the following batches to a run.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot be written.
    async fn start(&mut self, start: Start) -> Result<(), BrokerError>;

    /// Announces a list that is about to be requested, and which is current as of this time, by the
    /// clock of the API. A session that keeps the membership goes back to the start of the list:
    /// it records the members again, and publishes none of them twice.
    ///
    /// # Errors
    ///
    /// If batches before cannot be made durable.
    async fn begin_list(&mut self, _as_of: SystemTime) -> Result<Written, BrokerError> {
        Ok(Written::Done)
    }

    /// Where the next batch must begin.
    fn resume_point(&self) -> &ResumePoint;

    /// Accepts the batch at the resume point, and moves that behind the batch. The batch may not be
    /// durable yet when this returns. If the broker cannot accept it yet, the call waits
    /// (backpressure).
    ///
    /// # Errors
    ///
    /// If this batch, or one before it, cannot be made durable.
    async fn write(&mut self, batch: &Batch) -> Result<Written, BrokerError>;

    /// Makes everything written so far durable, together with a checkpoint that covers it.
    ///
    /// # Errors
    ///
    /// If that fails. [`SnapshotSession::delivered`] still tells how much is durable.
    async fn flush(&mut self) -> Result<Written, BrokerError>;

    /// Notes that the list stalls. What was written may be flushed, so that events need not wait for
    /// it.
    ///
    /// # Errors
    ///
    /// As for [`SnapshotSession::flush`].
    async fn idle(&mut self) -> Result<Written, BrokerError> {
        Ok(Written::Done)
    }

    /// Flushes, and goes back to the start of the list under the same run id, because the list has
    /// changed.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot be written.
    async fn restart(&mut self) -> Result<(), BrokerError>;

    /// Removes the members that a whole list, all of it flushed, does not contain. Does nothing if
    /// the session keeps no membership.
    ///
    /// # Errors
    ///
    /// If that fails. Some members may have been removed.
    async fn remove_absent(&mut self) -> Result<Removal, BrokerError> {
        Ok(Removal::Removed)
    }

    /// Returns what was durably put on the queue since the session was opened.
    fn delivered(&self) -> Delivered;

    /// Records how the run ended, after a `flush`, and releases the lock.
    ///
    /// # Errors
    ///
    /// If the end cannot be recorded.
    async fn finish(self: Box<Self>, outcome: Outcome) -> Result<(), BrokerError>;
}

/// A queue that single events of a label can be published to, by many writers at once and without a
/// lock.
#[async_trait]
pub trait EventSink: Send {
    /// Publishes events, in order. All of them are durable when this returns; after an error, the
    /// first ones may be. An event may be published again: consumers know it by its id.
    ///
    /// # Errors
    ///
    /// If an event cannot be made durable, after all retries.
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError>;

    /// Marks the label as tracked, as its first event does: later runs keep the membership without
    /// being told. Does nothing where none is kept.
    ///
    /// # Errors
    ///
    /// If the mark may not be durable.
    async fn mark_tracked(&mut self) -> Result<(), BrokerError> {
        Ok(())
    }

    /// Waits for what a run may hold for long, so that the next [`EventSink::publish`] does not.
    /// [`EventSink::release`] ends the hold.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Unavailable`] if it is still held after all retries.
    async fn reserve(&mut self) -> Result<(), BrokerError> {
        Ok(())
    }

    /// Ends the hold of [`EventSink::reserve`].
    fn release(&mut self) {}
}

/// A queue that messages can be published to which were written before, by many writers at once.
#[async_trait]
pub trait MessageSink: Send {
    /// Publishes messages, in order. All of them are durable when this returns; after an error, the
    /// first ones may be. A message may be published again: consumers know it by its id, and a
    /// broker that remembers ids drops the repeat.
    ///
    /// # Errors
    ///
    /// If a message cannot be made durable, after all retries.
    async fn publish(&mut self, messages: &[ReadyMessage]) -> Result<(), BrokerError>;
}

/// The outcome of publishing an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventOutcome {
    /// It is on the queue.
    Published,
    /// An event with the same id was already on the queue. Only brokers that remember ids report
    /// this.
    Duplicate,
    /// The chat has left the label. This is recorded, and not published.
    Recorded,
    /// The chat is a member now, and was published so recently that it is not published again.
    Suppressed,
    /// The chat was, or was not, a member before. Only where the membership is kept, as for the next.
    Unchanged,
    /// A list or an event of a later time is known.
    Stale,
}

impl EventOutcome {
    /// Returns the spelling in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Duplicate => "duplicate",
            Self::Recorded => "recorded",
            Self::Suppressed => "suppressed",
            Self::Unchanged => "unchanged",
            Self::Stale => "stale",
        }
    }
}

/// The context of a session.
#[derive(Clone)]
pub struct SessionContext {
    /// The queue and its label.
    pub target: Target,
    /// The layout of messages.
    pub layout: Layout,
    /// How to retry, and until when.
    pub retry: RetryPolicy,
    /// Which chats of the list are published.
    pub selection: Selection,
    /// The observer of pauses.
    pub pauses: Arc<dyn PauseObserver>,
}

/// An observer of pauses in publishing whose reasons a user should see.
pub trait PauseObserver: Send + Sync {
    /// Publishing pauses, for this reason.
    fn paused(&self, reason: &'static str);

    /// Publishing continues.
    fn resumed(&self);
}

/// Shows no pauses: they are in the log, or whoever waits is told otherwise.
pub struct NoPauses;

impl PauseObserver for NoPauses {
    fn paused(&self, _reason: &'static str) {}

    fn resumed(&self) {}
}

/// The result of checking that a run could publish.
#[derive(Debug, Default)]
pub struct Finding {
    /// A description of what works.
    pub good: String,
    /// Warnings: what works, but may lose data later.
    pub doubtful: Vec<String>,
}

impl From<String> for Finding {
    fn from(good: String) -> Self {
        Self {
            good,
            doubtful: Vec::new(),
        }
    }
}
