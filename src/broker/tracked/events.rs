//! Single events with a store beside the queue: published if they change the membership, and
//! recorded after the message was confirmed.
//!
//! A crash in between leaves no record, so the sender's repeat is published again, as the same
//! message.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::Instant;

use super::apply::{EventRules, apply_all};
use super::session::seconds;
use crate::broker::store::{EventChanges, EventStore, Found, Saved};
use crate::broker::{BrokerError, EventOutcome, EventSink};
use crate::message::LabelEvent;
use crate::shutdown::Shutdown;
use crate::state::Selection;

/// The longest wait for a run that has chats in flight: while consumers are too slow, it may have
/// them for long. Senders of webhooks wait for two seconds.
const LONGEST_WAIT: Duration = Duration::from_millis(1500);
/// Pause between two looks whether it is this batch's turn.
const PAUSE: Duration = Duration::from_millis(5);

/// A queue for events, with a store beside it.
pub(in crate::broker) struct TrackedEvents {
    /// The queue, which itself knows nothing of the members.
    pub(in crate::broker) queue: Box<dyn EventSink>,
    /// The queue for chats that have left, if they are published.
    pub(in crate::broker) removals: Option<Box<dyn EventSink>>,
    pub(in crate::broker) store: Box<dyn EventStore>,
    pub(in crate::broker) selection: Selection,
    pub(in crate::broker) shutdown: Shutdown,
}

#[async_trait]
impl EventSink for TrackedEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        // Before the turn is taken: the run that holds the queue may wait for the turn.
        let reserved = Reserved(&mut *self.queue);
        reserved.0.reserve().await?;
        let mut publishing = Publishing {
            queue: reserved,
            removals: self.removals.as_deref_mut(),
            store: &mut *self.store,
            shutdown: &self.shutdown,
        };
        publishing.publish(events, &self.selection).await
    }

    async fn mark_tracked(&mut self) -> Result<(), BrokerError> {
        // Each write in the turn of events marks it.
        while let Some(found) = self.store.take_turn(&[], &[]).await? {
            if self.store.write(found, EventChanges::default()).await? == Saved::Done {
                break;
            }
        }
        Ok(())
    }
}

/// A queue that is released also if publishing is given up in the middle.
struct Reserved<'a>(&'a mut dyn EventSink);

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// One call of [`EventSink::publish`].
struct Publishing<'a> {
    queue: Reserved<'a>,
    removals: Option<&'a mut (dyn EventSink + 'static)>,
    store: &'a mut dyn EventStore,
    shutdown: &'a Shutdown,
}

impl Publishing<'_> {
    async fn publish(
        &mut self,
        events: &[LabelEvent],
        selection: &Selection,
    ) -> Result<Vec<EventOutcome>, BrokerError> {
        // Events whose messages are confirmed, of a turn that was lost.
        let mut sent: HashSet<String> = HashSet::new();
        loop {
            let found = self.take_turn(events).await?;
            let rules = EventRules {
                suppress_for: selection.suppress_for,
                publishes_removals: self.removals.is_some(),
                now: seconds(SystemTime::now()),
            };
            let applied = apply_all(rules, events, &found);
            let unsent = |events: &[LabelEvent]| -> Vec<LabelEvent> {
                let unsent = events.iter().filter(|event| !sent.contains(&event.id));
                unsent.cloned().collect()
            };
            let (added, removed) = (unsent(&applied.added), unsent(&applied.removed));
            if let Err(error) = self.send(&added, &removed).await {
                self.store.release_turn(found).await;
                return Err(error);
            }
            sent.extend(added.into_iter().chain(removed).map(|event| event.id));
            if applied.changes.ids.is_empty() {
                self.store.release_turn(found).await;
                return Ok(applied.outcomes);
            }
            if self.store.write(found, applied.changes).await? == Saved::Done {
                return Ok(applied.outcomes);
            }
            // The turn was lost, because the queue was slow. What it has confirmed is not sent again.
        }
    }

    /// Waits for the turn.
    async fn take_turn(&mut self, events: &[LabelEvent]) -> Result<Found, BrokerError> {
        let chats: Vec<String> = events.iter().map(|event| event.chat_id.clone()).collect();
        let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
        let until = Instant::now() + LONGEST_WAIT;
        loop {
            if let Some(found) = self.store.take_turn(&chats, &ids).await? {
                return Ok(found);
            }
            if Instant::now() >= until {
                let text = "a run has these chats in flight for long".to_owned();
                return Err(BrokerError::Unavailable(text));
            }
            tokio::select! {
                cause = self.shutdown.drained() => return Err(BrokerError::Interrupted(cause)),
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Makes messages durable: one call for each queue.
    async fn send(
        &mut self,
        added: &[LabelEvent],
        removed: &[LabelEvent],
    ) -> Result<(), BrokerError> {
        if !added.is_empty() {
            self.queue.0.publish(added).await?;
        }
        if let Some(removals) = self.removals.as_mut().filter(|_| !removed.is_empty()) {
            removals.publish(removed).await?;
        }
        Ok(())
    }
}
