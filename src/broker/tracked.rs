//! A sink of any kind, with a store beside it that knows who is in the label and what was published.
//!
//! A chat is recorded as published only after the queue has confirmed its message. A crash in
//! between therefore repeats chats at worst, and loses none; and as the decisions about a batch are
//! noted before its chats are handed over, the next process records what the queue has instead of
//! repeating it.
//!
//! Each list is read from its start, so that each of its chats is confirmed as a member. Up to where
//! the queue has the run's chats (the proven prefix), entries are only recorded.

mod apply;
mod decide;
mod events;
mod pass;
mod removal;
mod session;
mod tracking;
mod window;

use async_trait::async_trait;
use tracing::info;

pub(super) use self::events::TrackedEvents;
use self::pass::check_set;
use self::session::TrackedSession;
pub(super) use self::tracking::TrackedOnDemand;
use super::store::{StateStore, Stored};
use super::{BrokerError, EventSink, Recovered, SnapshotSession, SnapshotSink};
use crate::state::Selection;

/// A sink with a store beside it.
pub(super) struct Tracked {
    /// The sink, which itself knows nothing of the selection.
    pub(super) inner: Box<dyn SnapshotSink>,
    pub(super) store: Box<dyn StateStore>,
    /// The queue for chats that have left, if they are published.
    pub(super) removals: Option<Box<dyn EventSink>>,
    pub(super) selection: Selection,
}

#[async_trait]
impl SnapshotSink for Tracked {
    async fn open(
        mut self: Box<Self>,
    ) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
        let stored = self.store.open().await?;
        let (mut store, selection) = (self.store, self.selection);
        let (mut recovered, inner) = match open(&stored, &selection, self.inner).await {
            Ok(opened) => opened,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        recovered.unfinished = recovered.unfinished.filter(|unfinished| {
            let run_id = unfinished.resume_point.at.run_id;
            let mode = selection.mode();
            let run = stored.note.run.as_ref().filter(|run| run.run_id == run_id);
            let is_same = run.is_some_and(|run| run.mode == mode);
            if !is_same {
                info!(%run_id, mode, "unfinished run is of another mode or state; starting a new run");
            }
            is_same
        });
        let session = TrackedSession::new(inner, store, self.removals, selection, stored);
        Ok((recovered, Box::new(session)))
    }
}

/// Opens a store as a run would, and closes it again.
///
/// # Errors
///
/// The error that a run would end with.
pub(super) async fn check(
    mut store: Box<dyn StateStore>,
    selection: &Selection,
) -> Result<(), BrokerError> {
    let stored = store.open().await?;
    store.close().await;
    match &selection.membership {
        Some(membership) => check_set(&stored, membership.publish),
        None => Ok(()),
    }
}

/// Opens the sink, if the members are known as well as the run needs them.
async fn open(
    stored: &Stored,
    selection: &Selection,
    inner: Box<dyn SnapshotSink>,
) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
    if let Some(membership) = &selection.membership {
        check_set(stored, membership.publish)?;
    }
    inner.open().await
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic)]
mod tests;
