//! The settings of a run.

use std::time::Duration;

use crate::shard::Shard;

/// Which labels a run is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Labels {
    /// Those that the account has.
    All,
    /// These, each once.
    These(Vec<String>),
}

/// What a run does with the list.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// Which labels.
    pub labels: Labels,
    /// Which part of them; `None` for all.
    pub shard: Option<Shard>,
    /// When to end, counted from the start.
    pub deadline: Option<Duration>,
    /// How long an unfinished run can be resumed; `None` for never.
    pub resume_window: Option<Duration>,
    /// Fewer chats stop the run.
    pub min_chats: u64,
    /// Shrinking by more percent stops the run.
    pub max_shrink: Option<u8>,
    /// So many invalid entries are acceptable.
    pub max_invalid: u64,
    /// Whether to look first whether the label exists.
    pub check_label: bool,
    /// Whether to publish nothing.
    pub dry_run: bool,
}

impl RunSettings {
    /// Whether a label is in the part of them that the run is for.
    pub fn is_for(&self, label_id: &str) -> bool {
        self.shard.is_none_or(|shard| shard.has(label_id))
    }
}
