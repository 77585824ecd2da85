//! Sinks, which chats are published to: one module per broker, and here what they have in common.
//!
//! The lock and the checkpoint live where the messages live, so there is no other store to run, to
//! mount or to lose.

mod backpressure;
pub mod blackhole;
pub mod lines;
pub mod rabbitmq;
mod record;
pub mod redis;
pub mod retry_policy;
mod url;

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::{Batch, Digest, Position};
use crate::exit::Exit;
use crate::message::Layout;
use crate::shutdown::Cause;

/// The sink's settings: destination, queue and message layout.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// stdout, a file or a broker.
    pub destination: Destination,
    /// The queue's name, with its placeholders.
    pub queue: String,
    /// What messages look like.
    pub layout: Layout,
}

impl SinkSettings {
    /// The queue of a label.
    pub fn queue_for(&self, label_id: &str, instance_id: &str) -> String {
        filled_in(&self.queue, label_id, instance_id)
    }
}

/// A queue's name with its placeholders filled in.
pub(crate) fn filled_in(queue: &str, label_id: &str, instance_id: &str) -> String {
    queue
        .replace("{label_id}", label_id)
        .replace("{instance_id}", instance_id)
}

/// Where chats are published to.
#[derive(Clone, Debug)]
pub enum Destination {
    /// JSON lines.
    Lines(lines::Destination),
    /// RabbitMQ.
    RabbitMq(Box<rabbitmq::RabbitSettings>),
    /// Redis Streams.
    Redis(Box<redis::RedisSettings>),
}

/// Scope of a lock and a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The queue's name, with placeholders replaced.
    pub queue: String,
    /// The label.
    pub label_id: String,
    /// The account.
    pub instance_id: String,
}

/// Durable progress of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The run.
    pub run_id: Uuid,
    /// Number of list entries that were processed.
    pub position: Position,
    /// The digest at that position.
    pub digest: Digest,
    /// Number of the run's chats that are on the queue.
    pub chats: u64,
}

impl Checkpoint {
    /// Returns the checkpoint of a run that starts or restarts at position 0.
    pub fn start_of(run_id: Uuid) -> Self {
        Self {
            run_id,
            position: 0,
            digest: Digest::of_nothing(),
            chats: 0,
        }
    }
}

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Where to resume.
    pub from: Checkpoint,
    /// Further positions behind `from` at which the list must have these digests, because parts of
    /// the queue may have got further than others.
    pub expected_digests: Vec<(Position, Digest)>,
    /// When its checkpoint was last updated.
    pub at: SystemTime,
    /// Whether its list has changed since it began.
    pub list_changed: bool,
}

impl Unfinished {
    /// Returns an unfinished run that must be published from the start.
    pub fn from_the_start(run_id: Uuid, at: SystemTime) -> Self {
        Self {
            from: Checkpoint::start_of(run_id),
            expected_digests: Vec::new(),
            at,
            list_changed: false,
        }
    }
}

/// How to start publishing.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// As a new run.
    New(Uuid),
    /// Where an earlier process stopped.
    Resumed(&'a Unfinished),
    /// From the start under the same id, because the list has changed.
    Again(Uuid),
}

impl Start<'_> {
    /// Returns the requested resume point. The sink may report a different one.
    pub(crate) fn resume_point(self) -> Unfinished {
        match self {
            Self::New(run_id) | Self::Again(run_id) => {
                Unfinished::from_the_start(run_id, SystemTime::now())
            }
            Self::Resumed(unfinished) => unfinished.clone(),
        }
    }
}

/// What earlier runs left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// A run that has not ended.
    pub unfinished: Option<Unfinished>,
    /// Number of chats in the last complete run.
    pub last_complete: Option<u64>,
}

/// What this process has durably put on the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Chats.
    pub chats: u64,
    /// Messages, each with one chat or several.
    pub messages: u64,
    /// Chats that were skipped because they were already on the queue.
    pub suppressed: u64,
}

/// How a run ended, as recorded on the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole list is on the queue.
    Complete {
        /// Number of chats in the list.
        chats: u64,
    },
    /// The whole list is on the queue, but was not accepted as complete.
    Rejected,
    /// A later process may resume the run.
    Unfinished,
}

/// A queue for the chats of one label.
///
/// The order of calls is `open`, `start`, then `publish` for each batch, `start` again if the list
/// must be published from another position, `flush`, and `finish`.
pub trait Sink {
    /// Takes the lock, and returns what earlier runs left.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Locked`] if another run is alive.
    fn open(&mut self) -> impl Future<Output = Result<Recovered, BrokerError>>;

    /// Assigns the following batches to a run. Returns where they must begin.
    ///
    /// # Errors
    ///
    /// If the checkpoint cannot be written.
    fn start(&mut self, start: Start<'_>) -> impl Future<Output = Result<Unfinished, BrokerError>>;

    /// Accepts the batch that follows the one before. The batch may not be durable yet when this
    /// returns. If the sink cannot accept it yet, the call waits (backpressure).
    ///
    /// # Errors
    ///
    /// If this batch, or one before it, cannot be made durable.
    fn publish(&mut self, batch: &Batch) -> impl Future<Output = Result<(), BrokerError>>;

    /// Makes everything published so far durable, together with a checkpoint that covers it.
    ///
    /// # Errors
    ///
    /// If that fails. [`Sink::delivered`] still tells how much is durable.
    fn flush(&mut self) -> impl Future<Output = Result<(), BrokerError>>;

    /// Returns what was durably put on the queue since `open`.
    fn delivered(&self) -> Delivered;

    /// Records how the run ended, after a `flush`, and releases the lock.
    ///
    /// # Errors
    ///
    /// If the end cannot be recorded.
    fn finish(&mut self, outcome: Outcome) -> impl Future<Output = Result<(), BrokerError>>;
}

/// Reasons for a sink to fail.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Another run is alive.
    #[error("another run holds {0}")]
    Locked(String),
    /// A file could not be read or written.
    #[error("{what} {}: {error}", path.display())]
    File {
        /// The failed operation, as the start of a sentence.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error from the operating system.
        error: io::Error,
    },
    /// The sink's path is a directory, a device or a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Writing to stdout failed.
    #[error("could not write to stdout: {0}")]
    Stdout(io::Error),
    /// The reader of our stdout has closed it.
    #[error("the reader of stdout has gone")]
    ReaderGone,
    /// The broker cannot be reached or cannot accept messages, and the retries are used up or would
    /// not help.
    #[error("cannot reach the broker: {0}")]
    Unavailable(String),
    /// The broker refuses the login, or the user lacks a permission.
    #[error("the broker refused the credentials: {0}")]
    Credentials(String),
    /// The queue's name is used for something else, or the queue cannot take messages.
    #[error("the queue cannot be used: {0}")]
    WrongQueue(String),
    /// A setting does not fit the broker.
    #[error("{problem}")]
    Misconfigured {
        /// The problem.
        problem: String,
        /// What to set instead, with its flag.
        fix: &'static str,
    },
    /// The queue has lost entries that it had confirmed; publishing must restart from the enclosed
    /// point.
    #[error("the queue lost entries that it had confirmed")]
    Rewound(Box<Unfinished>),
    /// A stop was requested while waiting.
    #[error("cut short by {0}")]
    Interrupted(Cause),
    /// A thread of this process ended unexpectedly.
    #[error("a bug in labelcast: {0}")]
    Bug(String),
}

impl BrokerError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Locked(_) => Exit::Locked,
            Self::File { .. } | Self::Stdout(_) => Exit::File,
            Self::NotAFile(_) | Self::WrongQueue(_) | Self::Misconfigured { .. } => Exit::Settings,
            Self::Unavailable(_) | Self::Rewound(_) => Exit::Unavailable,
            Self::Credentials(_) => Exit::Credentials,
            Self::Interrupted(_) => Exit::Interrupted,
            // Closing a pipe early is intended, as in `labelcast run | head`.
            Self::ReaderGone => Exit::Complete,
            Self::Bug(_) => Exit::Bug,
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Locked(_) => Some("wait for it to end, or stop it: it can be resumed"),
            Self::NotAFile(_) => Some("for a pipe or a device, use --sink - and redirect stdout"),
            Self::Credentials(_) => {
                Some("check user and password in the sink's URL, and the user's permissions")
            }
            Self::Misconfigured { fix, .. } => Some(fix),
            Self::WrongQueue(_) => Some("choose another --queue, or inspect the existing one"),
            Self::Unavailable(_) => {
                Some("check the sink's URL and the broker, then run again to resume")
            }
            _ => None,
        }
    }
}
