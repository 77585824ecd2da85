//! Values that cross the broker boundary: where a run stands, and how it began and ended.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::batch::{Batch, Digest, Position};

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

    /// Moves past a batch, of which `chats` chats are on the queue.
    pub(super) fn advance(&mut self, batch: &Batch, chats: u64) {
        self.position = batch.end();
        self.digest = batch.digest();
        self.chats += chats;
    }
}

/// Where the next batch must begin, and the digests that the list must have there and at later
/// positions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResumePoint {
    /// Position, digest there, and chats up to there.
    pub at: Checkpoint,
    /// Digests that the list must have at positions behind `at`, because some messages behind `at`
    /// may already have been published.
    pub expected_digests: Vec<(Position, Digest)>,
}

impl ResumePoint {
    /// Returns the resume point of a run that must be published from the start.
    pub fn start_of(run_id: Uuid) -> Self {
        Self::from(Checkpoint::start_of(run_id))
    }

    /// Moves past a batch that the session has accepted.
    pub(super) fn advance(&mut self, batch: &Batch) {
        self.at.advance(batch, u64::from(batch.chats()));
        self.expected_digests
            .retain(|(position, _)| *position > batch.end());
    }
}

impl From<Checkpoint> for ResumePoint {
    fn from(at: Checkpoint) -> Self {
        Self {
            at,
            expected_digests: Vec::new(),
        }
    }
}

/// A run that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Where to resume.
    pub resume_point: ResumePoint,
    /// When its checkpoint was last updated.
    pub updated_at: SystemTime,
    /// Whether its list has changed since it began.
    pub list_changed: bool,
}

/// What earlier runs left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// A run that has not ended.
    pub unfinished: Option<Unfinished>,
    /// Number of chats in the last complete run.
    pub last_complete: Option<u64>,
}

/// How a session starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// As a new run.
    New(Uuid),
    /// Where an earlier process stopped.
    Resumed(Unfinished),
}

impl Start {
    /// Returns the requested resume point. The session may have to go back further.
    pub(super) fn resume_point(&self) -> ResumePoint {
        match self {
            Self::New(run_id) => ResumePoint::start_of(*run_id),
            Self::Resumed(unfinished) => unfinished.resume_point.clone(),
        }
    }
}

/// Result of a call that hands over batches, or makes them durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Written {
    /// The call has done what it promises.
    Done,
    /// The queue has lost entries that it had confirmed. The session has gone back to an earlier
    /// resume point, where the next batch must begin.
    Rewound,
    /// Nobody reads stdout any more.
    ReaderGone,
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
    /// Chats that were skipped because they were members before.
    pub known: u64,
    /// Members that have left.
    pub removed: u64,
}

impl Delivered {
    /// Adds what another part of the queue has.
    pub(super) fn add(&mut self, other: Self) {
        self.chats += other.chats;
        self.messages += other.messages;
        self.suppressed += other.suppressed;
        self.known += other.known;
        self.removed += other.removed;
    }

    /// Takes back chats that were confirmed and lost, and will be published again.
    pub(super) fn take_back(&mut self, chats: u64, ids_per_message: u32) {
        self.chats = self.chats.saturating_sub(chats);
        let messages = chats.div_ceil(u64::from(ids_per_message.max(1)));
        self.messages = self.messages.saturating_sub(messages);
    }
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
