//! Where chats go. Each broker is known to one file here; this one holds what they have in common.
//!
//! The lock and the checkpoint live where the messages live, so there is no other store to run,
//! to mount or to lose.

pub mod lines;
pub mod nowhere;

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::{Batch, Digest, Position};
use crate::error::Exit;

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
    /// Valid entries before that position.
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

/// What earlier runs left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// A run that did not come to its end, and when it last moved.
    pub unfinished: Option<(Checkpoint, SystemTime)>,
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
    fn open(&mut self) -> impl Future<Output = Result<Past, SinkError>>;

    /// From here on, batches belong to a run and begin at a position: of a new run, of one that is
    /// gone on with, or of one whose list has changed and is published from the start again.
    ///
    /// # Errors
    ///
    /// When the checkpoint cannot be written.
    fn start(&mut self, from: &Checkpoint) -> impl Future<Output = Result<(), SinkError>>;

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
    /// A thread of our own came to a bad end.
    #[error("a bug in labelcast: {0}")]
    Bug(String),
}

impl SinkError {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Locked(_) => Exit::Locked,
            Self::File { .. } | Self::Stdout(_) => Exit::File,
            Self::NotAFile(_) => Exit::Settings,
            // Whoever cuts a pipe short does so on purpose, as in `labelcast run | head`.
            Self::ReaderGone => Exit::Complete,
            Self::Bug(_) => Exit::Bug,
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Locked(_) => Some("wait for it to end, or stop it: it can be resumed"),
            Self::NotAFile(_) => Some("for a pipe or a device, use --sink - and redirect stdout"),
            _ => None,
        }
    }
}
