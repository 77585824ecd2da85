//! Where chats go. Each broker has a room here; this file holds what they have in common.
//!
//! The lock and the checkpoint live where the messages live, so there is no other store to run,
//! to mount or to lose.

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

/// Where chats go, and how.
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

/// Where chats go.
#[derive(Clone, Debug)]
pub enum Destination {
    /// JSON lines.
    Lines(lines::Destination),
    /// RabbitMQ.
    RabbitMq(Box<rabbitmq::RabbitSettings>),
    /// Redis Streams.
    Redis(Box<redis::RedisSettings>),
}

/// What a lock and a checkpoint are kept for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The queue's name, with its placeholders filled in.
    pub queue: String,
    /// The label.
    pub label_id: String,
    /// The account.
    pub instance_id: String,
}

/// How far a run has durably come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The run.
    pub run_id: Uuid,
    /// Entries of the list that were dealt with.
    pub position: Position,
    /// The digest at that position.
    pub digest: Digest,
    /// Chats of the run that are on the queue.
    pub chats: u64,
}

impl Checkpoint {
    /// Where a run begins, or begins again.
    pub fn start_of(run_id: Uuid) -> Self {
        Self {
            run_id,
            position: 0,
            digest: Digest::of_nothing(),
            chats: 0,
        }
    }
}

/// A run that did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Where to go on.
    pub from: Checkpoint,
    /// Further positions, behind `from`, at which the list has to have these digests: parts of the
    /// queue may have come further than others.
    pub expected_digests: Vec<(Position, Digest)>,
    /// When it last moved.
    pub at: SystemTime,
    /// Whether its list has changed since it began.
    pub list_changed: bool,
}

impl Unfinished {
    /// One that has to be published from the start.
    pub fn from_the_start(run_id: Uuid, at: SystemTime) -> Self {
        Self {
            from: Checkpoint::start_of(run_id),
            expected_digests: Vec::new(),
            at,
            list_changed: false,
        }
    }
}

/// How a run goes on.
#[derive(Clone, Copy, Debug)]
pub enum Start<'a> {
    /// It is a new one.
    New(Uuid),
    /// Where it stopped.
    Resumed(&'a Unfinished),
    /// Its list has changed: from the start, and under the same id.
    Again(Uuid),
}

impl Start<'_> {
    /// Where it goes on, as it was told.
    pub(crate) fn resume_point(self) -> Unfinished {
        match self {
            Self::New(run_id) | Self::Again(run_id) => {
                Unfinished::from_the_start(run_id, SystemTime::now())
            }
            Self::Resumed(unfinished) => unfinished.clone(),
        }
    }
}

/// What earlier runs left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// A run that did not come to its end.
    pub unfinished: Option<Unfinished>,
    /// How many chats the last complete run had.
    pub last_complete: Option<u64>,
}

/// What this process has durably put on the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Chats.
    pub chats: u64,
    /// Messages, which hold one chat or several.
    pub messages: u64,
    /// Chats that were on the queue already, and were passed over.
    pub suppressed: u64,
}

/// How a run ended, as far as the queue is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The whole list is on the queue.
    Complete {
        /// Chats in the list.
        chats: u64,
    },
    /// The whole list is on the queue, but it does not pass for a complete one.
    Rejected,
    /// A later run may go on.
    Unfinished,
}

/// A queue for the chats of one label.
///
/// The order of calls is `open`, `start`, then `publish` as often as there are batches, `start`
/// again where the list has to be published from another position, and `finish`.
pub trait Sink {
    /// Takes the lock, and tells what earlier runs left.
    ///
    /// # Errors
    ///
    /// [`SinkError::Locked`] when another run is alive.
    fn open(&mut self) -> impl Future<Output = Result<Recovered, SinkError>>;

    /// From here on, batches belong to a run; gives where they have to begin.
    ///
    /// # Errors
    ///
    /// When the checkpoint cannot be written.
    fn start(&mut self, start: Start<'_>) -> impl Future<Output = Result<Unfinished, SinkError>>;

    /// Takes a batch that follows the one before. It need not be durable when this returns; what
    /// the sink cannot take yet, it waits for.
    ///
    /// # Errors
    ///
    /// When this batch, or one before it, cannot be made durable.
    fn publish(&mut self, batch: &Batch) -> impl Future<Output = Result<(), SinkError>>;

    /// Makes all that was published durable, with a checkpoint that says so.
    ///
    /// # Errors
    ///
    /// When that fails. [`Sink::delivered`] tells how much is durable all the same.
    fn flush(&mut self) -> impl Future<Output = Result<(), SinkError>>;

    /// What was durably put on the queue since `open`.
    fn delivered(&self) -> Delivered;

    /// Writes down how the run ended, after a `flush`, and gives the lock back.
    ///
    /// # Errors
    ///
    /// When the end cannot be written down.
    fn finish(&mut self, outcome: Outcome) -> impl Future<Output = Result<(), SinkError>>;
}

/// Why a sink failed.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// Another run is alive.
    #[error("another run holds {0}")]
    Locked(String),
    /// A file could not be read or written.
    #[error("{what} {}: {error}", path.display())]
    File {
        /// What was tried, as the start of a sentence.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
    /// The sink's path is a directory, a device or a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// stdout could not be written to.
    #[error("could not write to stdout: {0}")]
    Stdout(io::Error),
    /// Whoever read our stdout has seen enough.
    #[error("the reader of stdout has gone")]
    ReaderGone,
    /// The broker cannot be reached, or cannot take anything, whatever was tried.
    #[error("cannot reach the broker: {0}")]
    Unavailable(String),
    /// The broker refuses the login, or what it allows.
    #[error("the broker refused the credentials: {0}")]
    Credentials(String),
    /// The queue's name belongs to something else.
    #[error("the queue cannot be used: {0}")]
    WrongQueue(String),
    /// A setting does not fit what the broker is.
    #[error("{problem}")]
    Misconfigured {
        /// What is wrong.
        problem: String,
        /// What to set instead, with its flag.
        fix: &'static str,
    },
    /// The queue has lost what it had confirmed: it has to be published from there again.
    #[error("the queue lost entries that it had confirmed")]
    Rewound(Box<Unfinished>),
    /// A stop came while waiting.
    #[error("cut short by {0}")]
    Interrupted(Cause),
    /// A thread of our own came to a bad end.
    #[error("a bug in labelcast: {0}")]
    Bug(String),
}

impl SinkError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Locked(_) => Exit::Locked,
            Self::File { .. } | Self::Stdout(_) => Exit::File,
            Self::NotAFile(_) | Self::WrongQueue(_) | Self::Misconfigured { .. } => Exit::Settings,
            Self::Unavailable(_) | Self::Rewound(_) => Exit::Unavailable,
            Self::Credentials(_) => Exit::Credentials,
            Self::Interrupted(_) => Exit::Interrupted,
            // Whoever cuts a pipe short does so on purpose, as in `labelcast run | head`.
            Self::ReaderGone => Exit::Complete,
            Self::Bug(_) => Exit::Bug,
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Locked(_) => Some("wait for it to end, or stop it: it can be resumed"),
            Self::NotAFile(_) => Some("for a pipe or a device, use --sink - and redirect stdout"),
            Self::Credentials(_) => {
                Some("check the user and password in the sink's URL, and what that user may do")
            }
            Self::Misconfigured { fix, .. } => Some(fix),
            Self::WrongQueue(_) => Some("choose another --queue, or look what is there"),
            Self::Unavailable(_) => Some("check the sink's URL and the broker; run again to go on"),
            _ => None,
        }
    }
}
