//! The last run of a label, as it is stored.

use std::time::{Duration, SystemTime};

/// How a label's last run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastRun {
    /// The label.
    pub label_id: String,
    /// The run, a `UUIDv7`.
    pub run_id: String,
    /// How it ended.
    pub status: RunStatus,
    /// Chats in the list, as far as it was read.
    pub chats: u64,
    /// Chats that were put on the queue.
    pub published: u64,
    /// When it ended.
    pub finished_at: SystemTime,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it failed, without names, ids or secrets.
    pub error: Option<String>,
}

/// The outcome of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunStatus {
    /// The whole list was read, and all of it is on the queue.
    Complete,
    /// A part is published; the next run resumes.
    Partial,
    /// It failed.
    Failed,
    /// A guard stopped it.
    Guarded,
}

impl RunStatus {
    /// Returns the spelling in reports, metrics and the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Guarded => "guarded",
        }
    }
}
