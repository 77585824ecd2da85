//! Options that a user sets for a broker. Each broker uses some of them.

use std::time::Duration;

/// Types of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated.
    #[default]
    Quorum,
    /// On one node.
    Classic,
    /// A log that can be read repeatedly.
    Stream,
}

impl QueueType {
    /// All types.
    pub const ALL: [Self; 3] = [Self::Quorum, Self::Classic, Self::Stream];

    /// Returns the name of the type, in settings as at the broker.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
            Self::Stream => "stream",
        }
    }
}

/// Options of all brokers.
#[derive(Clone, Debug, Default)]
pub struct BrokerOptions {
    /// How long messages and the records beside the queue are kept.
    pub retain: Option<Duration>,
    /// Number of pending messages at which publishing waits.
    pub max_pending: Option<u64>,
    /// Whether to put messages on the queue that mark the start and the end of a run.
    pub marker: bool,
    /// Number of partitions that chats are spread over; `None` for a single queue with the queue's
    /// own name.
    pub partitions: Option<u32>,
    /// Number of replicas that must confirm a batch before it counts as durable.
    pub min_replicas: u32,
    /// Exchange to publish to, with the queue's name as routing key; `None` to publish to the queue
    /// itself.
    pub exchange: Option<String>,
    /// Type that the queue is declared with.
    pub queue_type: QueueType,
    /// Whether the queue must exist and is not declared.
    pub no_declare: bool,
}
