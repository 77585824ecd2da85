//! The last run of a label, as it is stored.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
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

/// The stored form of a run, without the label's id.
#[derive(Serialize, Deserialize)]
struct Stored {
    run_id: String,
    status: RunStatus,
    chats: u64,
    published: u64,
    finished_at: String,
    elapsed_ms: u64,
    error: Option<String>,
}

impl LastRun {
    /// Returns the JSON that is stored under the label's id.
    pub fn to_json(&self) -> String {
        let stored = Stored {
            run_id: self.run_id.clone(),
            status: self.status,
            chats: self.chats,
            published: self.published,
            finished_at: humantime::format_rfc3339_millis(self.finished_at).to_string(),
            elapsed_ms: u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX),
            error: self.error.clone(),
        };
        serde_json::json!(stored).to_string()
    }

    /// Parses what [`LastRun::to_json`] returns; `None` for anything else.
    pub fn from_json(label_id: &str, json: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_str(json).ok()?;
        Some(Self {
            label_id: label_id.to_owned(),
            run_id: stored.run_id,
            status: stored.status,
            chats: stored.chats,
            published: stored.published,
            finished_at: humantime::parse_rfc3339(&stored.finished_at).ok()?,
            elapsed: Duration::from_millis(stored.elapsed_ms),
            error: stored.error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_read_as_it_was_written() {
        let run = LastRun {
            label_id: "4".to_owned(),
            run_id: "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".to_owned(),
            status: RunStatus::Guarded,
            chats: 7,
            published: 0,
            finished_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_209_000_123),
            elapsed: Duration::from_millis(1500),
            error: Some("a \"b\" ü".to_owned()),
        };
        assert_eq!(LastRun::from_json("4", &run.to_json()), Some(run));
        assert_eq!(LastRun::from_json("4", "{}"), None);
    }
}
