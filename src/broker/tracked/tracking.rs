//! Runs that ask for no members, to a label that events track.

use async_trait::async_trait;

use super::Tracked;
use crate::broker::store::EventStore;
use crate::broker::{BrokerError, Recovered, SnapshotSession, SnapshotSink};

/// A sink that keeps the members only if the label is tracked.
pub(in crate::broker) struct TrackedOnDemand {
    /// Tells whether it is.
    pub(in crate::broker) store: Box<dyn EventStore>,
    /// The sink that keeps the members.
    pub(in crate::broker) tracked: Tracked,
    /// The sink that does not.
    pub(in crate::broker) plain: Box<dyn SnapshotSink>,
    /// Number of chats in a message.
    pub(in crate::broker) ids_per_message: u32,
}

#[async_trait]
impl SnapshotSink for TrackedOnDemand {
    async fn open(
        mut self: Box<Self>,
    ) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
        if !self.store.is_tracked().await? {
            return self.plain.open().await;
        }
        if self.ids_per_message > 1 {
            return Err(BrokerError::Misconfigured {
                problem: "the members of this label are tracked".to_owned(),
                fix: "leave out --ids-per-message",
            });
        }
        drop(self.store);
        Box::new(self.tracked).open().await
    }
}
