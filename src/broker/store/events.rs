//! What events read and write.

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;

use super::{Known, Saved};
use crate::broker::BrokerError;
use crate::state::record::Record;

/// The state of one queue, label and account, for events. There may be many of them beside the run
/// that holds the state, and none takes its lock.
#[async_trait]
pub(in crate::broker) trait EventStore: Send {
    /// Takes the turn, and returns what is known of chats and events; `None` if that must wait,
    /// because a run has one of the chats in flight, or somebody else has the turn.
    ///
    /// # Errors
    ///
    /// If the store fails, or [`BrokerError::Locked`] if another process holds it.
    async fn take_turn(
        &mut self,
        chats: &[String],
        ids: &[&str],
    ) -> Result<Option<Found>, BrokerError>;

    /// Writes all of the changes, or none, and ends the turn. Begins a set of members if there is
    /// none, and marks the label as tracked.
    ///
    /// # Errors
    ///
    /// If the store fails. After a lost connection, the changes may be there.
    async fn write(&mut self, found: Found, changes: EventChanges) -> Result<Saved, BrokerError>;

    /// Ends the turn without changes.
    async fn release_turn(&mut self, found: Found);

    /// Whether the label is tracked, because there was an event. Takes no turn, and creates nothing.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn is_tracked(&mut self) -> Result<bool, BrokerError>;
}

/// What is known before a batch of events.
#[derive(Debug)]
pub(in crate::broker) struct Found {
    /// The chats, in their order.
    pub(in crate::broker) chats: Vec<Known>,
    /// Which of the ids are those of earlier events.
    pub(in crate::broker) is_known: Vec<bool>,
    /// The time that the last whole list was current as of, in seconds since 1970.
    pub(in crate::broker) listed_at: Option<u64>,
    /// Whether times of publication are kept for the queue.
    pub(in crate::broker) has_times: bool,
    /// The turn, where it ends with this.
    pub(in crate::broker) turn: Option<OwnedMutexGuard<()>>,
}

/// Changes that are written together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct EventChanges {
    /// Records of chats.
    pub(in crate::broker) records: Vec<(String, Record)>,
    /// By how much the number of members changes.
    pub(in crate::broker) joined: i64,
    /// Changes of the membership.
    pub(in crate::broker) changes: u64,
    /// Chats that were published at `published_at`, in seconds since 1970.
    pub(in crate::broker) published: Vec<String>,
    pub(in crate::broker) published_at: u64,
    /// Ids of events to remember.
    pub(in crate::broker) ids: Vec<String>,
}
