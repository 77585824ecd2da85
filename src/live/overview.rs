//! What supervisors may see: counts of labels and queues, and never an id or a name of a person.

use std::time::SystemTime;

use crate::enrich::metrics::Totals;

/// Everything that the dashboard shows, at one time. It is replaced as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Overview {
    /// When it was read.
    pub at: SystemTime,
    /// The followed labels, in the order of their ids.
    pub labels: Vec<LabelView>,
    /// Events that were received in each of the last minutes, the oldest first; the last one is the
    /// minute under way.
    pub events_by_minute: Vec<u64>,
    /// Why the broker or the state cannot be read; the numbers are then those of the last time.
    pub error: Option<String>,
    /// Time between two reconciliations (`--reconcile`), if there are any.
    pub reconcile_every: Option<std::time::Duration>,
    /// What is enriched within this process, if anything.
    pub enriched: Vec<EnrichedView>,
}

/// The chats of one queue whose contacts are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrichedView {
    /// The queue that the chat ids come from.
    pub queue: String,
    /// The numbers since the worker started.
    pub totals: Totals,
}

/// One label.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelView {
    /// Its id.
    pub label_id: String,
    /// Its name, if it is known.
    pub label_name: Option<String>,
    /// Its colour, as the API writes it (`#rrggbb`).
    pub color_hex: Option<String>,
    /// The number of chats; `None` before the first whole list.
    pub chats: Option<u64>,
    /// When the number last changed, or was last confirmed by a list.
    pub counted_at: Option<SystemTime>,
    /// Whether a whole list and all events since are counted.
    pub is_exact: bool,
    /// Whether the label was deleted at the API.
    pub is_deleted: bool,
    /// Its queue.
    pub queue: String,
    /// Messages on the queue, if the broker tells.
    pub messages: Option<u64>,
    /// Messages that consumers have not taken yet, if the broker tells.
    pub lag: Option<u64>,
    /// The last run, of any process.
    pub last_run: Option<LastRun>,
    /// Earlier numbers of chats, the oldest first.
    pub trend: Vec<Sample>,
}

/// The number of chats at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The time.
    pub at: SystemTime,
    /// The number.
    pub chats: u64,
}

pub use crate::state::runs::{LastRun, RunStatus};
