//! Batches on their way to the queue, by either protocol.

use super::connections::Connections;
use super::in_flight::{InFlight, Oldest};
use super::publisher::MessageTemplate;
use super::stream_flight::StreamFlight;
use crate::batch::Batch;
use crate::broker::error::Failure;

/// Batches on their way, in order.
pub(super) enum Outbox {
    /// Over AMQP.
    Amqp(InFlight),
    /// Over the stream protocol.
    Stream(StreamFlight),
}

impl Outbox {
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Amqp(batches) => batches.is_empty(),
            Self::Stream(batches) => batches.is_empty(),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Amqp(batches) => batches.is_full(),
            Self::Stream(batches) => batches.is_full(),
        }
    }

    /// Adds a copy of a batch with this number of messages, to be sent.
    pub(super) fn push(&mut self, batch: &Batch, messages: usize) {
        match self {
            Self::Amqp(batches) => batches.push(batch, messages),
            Self::Stream(batches) => batches.push(batch, messages as u64),
        }
    }

    /// Returns the oldest `count` batches.
    pub(super) fn oldest(&self, count: usize) -> Box<dyn Iterator<Item = &Batch> + '_> {
        match self {
            Self::Amqp(batches) => Box::new(batches.oldest(count)),
            Self::Stream(batches) => Box::new(batches.oldest(count)),
        }
    }

    /// Removes the oldest `count` batches. Returns how many messages they had.
    pub(super) fn drop_oldest(&mut self, count: usize) -> u64 {
        match self {
            Self::Amqp(batches) => batches.drop_oldest(count),
            Self::Stream(batches) => batches.drop_oldest(count),
        }
    }

    /// Sets the highest publishing id that was confirmed, also to an earlier process; 0 for none.
    pub(super) fn set_confirmed_id(&mut self, id: u64) {
        match self {
            Self::Amqp(_) => {}
            Self::Stream(batches) => batches.set_confirmed_id(id),
        }
    }

    /// The highest publishing id of the oldest `count` batches and those before; 0 for none.
    pub(super) fn last_id(&self, count: usize) -> u64 {
        match self {
            Self::Amqp(_) => 0,
            Self::Stream(batches) => batches.last_id(count),
        }
    }

    /// Discards all batches.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Amqp(batches) => batches.clear(),
            Self::Stream(batches) => batches.clear(),
        }
    }

    /// Marks what is unconfirmed as unsent, because the connection is lost.
    pub(super) fn mark_unsent(&mut self) {
        match self {
            Self::Amqp(batches) => batches.mark_unsent(),
            Self::Stream(batches) => batches.mark_unsent(),
        }
    }

    /// Takes the last publishing id of the broker after a reconnect. Returns whether it has got more
    /// since it was last asked.
    pub(super) fn see(&mut self, last_id: u64) -> bool {
        match self {
            Self::Amqp(_) => false,
            Self::Stream(batches) => batches.see(last_id),
        }
    }

    /// Whether a broker whose last publishing id is this one has lost messages that it had confirmed.
    pub(super) fn is_lost(&self, last_id: u64) -> bool {
        match self {
            Self::Amqp(_) => false,
            Self::Stream(batches) => batches.is_lost(last_id),
        }
    }

    /// Sends unsent messages. The newest batch may not be written yet when this returns.
    pub(super) async fn send(
        &mut self,
        connections: &mut Connections,
        template: Option<&MessageTemplate>,
        base: u64,
    ) -> Result<(), Failure> {
        match self {
            Self::Amqp(batches) => {
                if let (Some(publisher), Some(template)) = (&connections.publisher, template) {
                    batches.send(|batch, wants| publisher.send_batch(template, batch, wants));
                }
                batches.wait_until_written().await
            }
            Self::Stream(batches) => match (&mut connections.producer, template) {
                (Some(producer), Some(template)) => batches.send(producer, template, base).await,
                _ => Ok(()),
            },
        }
    }

    /// Waits for the outcome of the oldest batch, and of later ones that are confirmed with it.
    pub(super) async fn wait_for_oldest(
        &mut self,
        connections: &Connections,
    ) -> Result<Oldest, Failure> {
        match self {
            Self::Amqp(batches) => batches.wait_for_oldest().await,
            Self::Stream(batches) => match &connections.producer {
                Some(producer) => batches
                    .wait_for_oldest(producer)
                    .await
                    .map(Oldest::Confirmed),
                None => Ok(Oldest::Confirmed(0)),
            },
        }
    }
}
