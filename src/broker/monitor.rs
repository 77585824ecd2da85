//! Reading how many members labels have, and how many messages wait on queues, without a lock.

use std::time::SystemTime;

use async_trait::async_trait;

use super::{BrokerError, Target};

/// The number of members of a label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemberCount {
    /// Members now. Events move it, and each whole list sets it afresh.
    pub members: u64,
    /// The time that the last whole list was current as of; `None` if there was none yet, so that
    /// the number is not exact.
    pub listed_at: Option<SystemTime>,
}

/// Where members are kept: the sink itself, or a state beside it.
#[async_trait]
pub trait MemberMonitor: Send {
    /// Returns the number of members of each label, in their order.
    ///
    /// # Errors
    ///
    /// If the state cannot be read, at the first attempt.
    async fn members(&mut self, targets: &[Target]) -> Result<Vec<MemberCount>, BrokerError>;
}

/// How full a queue is. `None` where the broker does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueDepth {
    /// Messages on the queue. On a Redis stream, also those that were consumed and not trimmed.
    pub messages: Option<u64>,
    /// Messages that consumers have not taken yet: the largest lag of a consumer group.
    pub lag: Option<u64>,
}

/// Where messages wait for consumers.
#[async_trait]
pub trait QueueMonitor: Send {
    /// Returns the depth of each label's queue, in their order. A queue that does not exist is
    /// empty.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached, at the first attempt.
    async fn depths(&mut self, targets: &[Target]) -> Result<Vec<QueueDepth>, BrokerError>;
}
