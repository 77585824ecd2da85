//! Consumers of a queue, which receive messages and acknowledge them after processing.

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

/// A message that was received and is not acknowledged yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The broker's handle for the acknowledgement.
    pub(super) tag: DeliveryTag,
    /// The message for display: its identifying properties and its contents.
    pub message: Map<String, Value>,
}

/// The broker's handle of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum DeliveryTag {
    /// The id of an entry in a stream.
    Entry(String),
    /// The number of a delivery on its channel.
    Number(u64),
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
}
