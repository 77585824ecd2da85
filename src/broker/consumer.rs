//! Consumers of a queue, which receive messages and acknowledge them after processing.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::BrokerError;

/// Default consumer group of `labelcast tail`. Backpressure ignores it, because the group remains
/// after somebody has run `tail`.
pub(crate) const TAIL_GROUP: &str = "labelcast-tail";

/// How a consumer reads a queue.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The queue, by its whole name.
    pub queue: String,
    /// The consumer group, where the broker has groups.
    pub group: String,
    /// The consumer's name in the group.
    pub consumer: String,
    /// Whether acknowledged messages are removed from the consumer's queue or group.
    pub ack: bool,
    /// Whether acknowledged messages are also deleted from the queue, for all consumers.
    pub delete: bool,
    /// Whether to wait for a queue and for messages that do not exist yet.
    pub follow: bool,
}

/// The start of the names of workers. A broker that keeps the names of workers forgets those with this
/// start that are gone.
pub const WORKER_PREFIX: &str = "labelcast-";

/// How a worker takes messages from a queue that it shares with other workers.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// The queue, by its whole name. It need not exist yet.
    pub queue: String,
    /// The consumer group, where the broker has groups.
    pub group: String,
    /// The worker's name in the group, which no other process has, with [`WORKER_PREFIX`].
    pub worker: String,
    /// The maximum number of deliveries in hand, where the broker sends them unasked.
    pub prefetch: u16,
    /// Deliveries of a worker that has shown no sign of life for this long are taken over.
    pub takeover_after: Duration,
}

/// A message that was received and is not acknowledged yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The broker's handle for the acknowledgement.
    pub(super) tag: DeliveryTag,
    /// How often the message was delivered, this time included, as far as the broker counts.
    pub deliveries: u64,
    /// The message for display: its identifying properties and its contents.
    pub message: Map<String, Value>,
}

/// The broker's handle of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeliveryTag {
    /// The id of an entry in a stream.
    Entry(String),
    /// The number of a delivery on its channel, and the consumer that it was delivered to: numbers
    /// begin anew with each channel.
    Number { number: u64, consumer: u64 },
}

/// A reader of one queue.
#[async_trait]
pub trait Consumer: Send {
    /// Returns the next messages, at most `most`; empty if there are none at the moment.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached.
    async fn receive(&mut self, most: u64) -> Result<Vec<Delivery>, BrokerError>;

    /// Acknowledges messages in the order in which they were received, as the options demand.
    /// Messages that are never acknowledged are delivered again.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached.
    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), BrokerError>;

    /// Whether a delivery of an earlier consumer with the same name can still be acknowledged by this
    /// one. If not, the broker delivers the message again.
    fn holds(&self, _delivery: &Delivery) -> bool {
        true
    }

    /// Tells the broker that deliveries are still in hand, so that no other worker takes them over.
    /// A delivery that another worker has taken over meanwhile remains there.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached.
    async fn keep(&mut self, _deliveries: &[&Delivery]) -> Result<(), BrokerError> {
        Ok(())
    }

    /// Whether the queue is empty: no message waits, and as far as the broker tells, none is in the
    /// hands of any worker.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached.
    async fn is_drained(&mut self) -> Result<bool, BrokerError> {
        Ok(false)
    }

    /// Gives back all deliveries that are not acknowledged, so that another worker gets them at once,
    /// and leaves the queue.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached. It then gives them to another worker after some time.
    async fn leave(&mut self) -> Result<(), BrokerError> {
        Ok(())
    }
}
