//! The settings of a run.

use std::time::Duration;

use crate::shard::Shard;
use crate::state::Selection;

/// Which labels a run is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// All labels of the account.
    All,
    /// These labels, each once.
    These(Vec<String>),
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// The labels to publish.
    pub labels: Labels,
    /// The share of the labels that this process publishes; `None` for all.
    pub shard: Option<Shard>,
    /// Number of labels that are published at once.
    pub concurrency: usize,
    /// Time limit, counted from the start.
    pub deadline: Option<Duration>,
    /// How long an unfinished run can be resumed; `None` for never.
    pub resume_window: Option<Duration>,
    /// Which chats are published, and what is recorded about the list.
    pub selection: Selection,
    /// `--min-chats`.
    pub min_chats: u64,
    /// `--max-shrink`, in percent.
    pub max_shrink: Option<u8>,
    /// Accepted number of invalid entries.
    pub max_invalid: u64,
    /// Whether to check first that the label exists.
    pub check_label: bool,
    /// Whether nothing is published.
    pub dry_run: bool,
}

impl RunSettings {
    /// Whether a label is one of those that the settings name, and belongs to this process's share.
    pub fn is_asked_for(&self, label_id: &str) -> bool {
        let is_named = match &self.labels {
            Labels::All => true,
            Labels::These(labels) => labels.iter().any(|label| label == label_id),
        };
        is_named && self.is_for(label_id)
    }

    /// Whether a label belongs to this process's share.
    pub fn is_for(&self, label_id: &str) -> bool {
        self.shard.is_none_or(|shard| shard.has(label_id))
    }
}
