//! Reader of a queue as a consumer, which acknowledges messages or returns them to the queue.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer};
use serde_json::{Map, Value};

use super::connect::Endpoint;
use super::publisher::passive;
use crate::broker::BrokerError;
use crate::broker::retry_policy::Failure;

/// Messages of a stream that may be in flight at once.
const PREFETCH: u16 = 100;
/// A stream that has sent nothing for this long is at its end for the moment.
const QUIET: Duration = Duration::from_secs(2);

/// Settings of a reader.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The broker.
    pub endpoint: Endpoint,
    /// The queue.
    pub queue: String,
    /// Whether the queue is a stream, which is read from its start and keeps what was read.
    pub is_stream: bool,
    /// Acknowledge what was read, which removes it from the queue.
    pub ack: bool,
}

/// A reader of a queue.
pub struct Reader {
    tail: Tail,
    /// Keeps the connection open, without which the channel would be closed.
    _connection: Connection,
    channel: Channel,
    stream: Option<Consumer>,
    /// Delivery tag of the last message that was read.
    tag: u64,
}

impl Reader {
    /// Connects to an existing queue.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached, or the queue does not exist.
    pub async fn open(tail: Tail) -> Result<Self, BrokerError> {
        Self::connect(tail).await.map_err(outside)
    }

    async fn connect(tail: Tail) -> Result<Self, Failure> {
        let connection = tail.endpoint.connect("labelcast tail").await?;
        let channel = connection.create_channel().await?;
        passive(&channel, &tail.queue).await?;
        let stream = match tail.is_stream {
            true => Some(consume(&channel, &tail.queue).await?),
            false => None,
        };
        Ok(Self {
            tail,
            _connection: connection,
            channel,
            stream,
            tag: 0,
        })
    }

    /// Returns the next message; `None` if there is none at the moment.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached.
    pub async fn next(&mut self) -> Result<Option<Value>, BrokerError> {
        let delivery = match &mut self.stream {
            Some(stream) => match tokio::time::timeout(QUIET, stream.next()).await {
                Err(_) => None,
                Ok(Some(delivery)) => Some(delivery.map_err(|e| outside(Failure::from(e)))?),
                Ok(None) => return Err(BrokerError::Unavailable("the queue is gone".to_owned())),
            },
            None => {
                let options = BasicGetOptions::default();
                let got = self
                    .channel
                    .basic_get(self.tail.queue.as_str().into(), options);
                let got = got.await.map_err(|error| outside(Failure::from(error)))?;
                got.map(|got| got.delivery)
            }
        };
        Ok(delivery.map(|delivery| {
            self.tag = delivery.delivery_tag;
            message(&delivery)
        }))
    }

    /// Acknowledges all messages read so far, if the settings demand it.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached.
    pub async fn done(&mut self) -> Result<(), BrokerError> {
        // For a stream, an acknowledgement only grants credit for more messages.
        if !self.tail.ack && self.stream.is_none() {
            return Ok(());
        }
        self.channel
            .basic_ack(self.tag, BasicAckOptions { multiple: true })
            .await
            .map_err(|error| outside(Failure::from(error)))
    }
}

fn outside(failure: Failure) -> BrokerError {
    match failure {
        Failure::Transient(text) if text.contains("not supported by stream queues") => {
            BrokerError::WrongQueue(format!("{text}: use --queue-type stream"))
        }
        failure => failure.into(),
    }
}

async fn consume(channel: &Channel, queue: &str) -> Result<Consumer, lapin::Error> {
    channel
        .basic_qos(PREFETCH, BasicQosOptions::default())
        .await?;
    let mut arguments = FieldTable::default();
    let first = AMQPValue::LongString("first".into());
    arguments.insert("x-stream-offset".into(), first);
    let options = BasicConsumeOptions::default();
    channel
        .basic_consume(queue.into(), "".into(), options, arguments)
        .await
}

/// Converts a message for display: its identifying properties and its contents.
fn message(delivery: &Delivery) -> Value {
    let mut object = Map::new();
    let properties = &delivery.properties;
    let mut text = |name: &str, text: Option<&str>| {
        if let Some(text) = text {
            object.insert(name.to_owned(), text.into());
        }
    };
    text(
        "message_id",
        properties.message_id().as_ref().map(|id| id.as_str()),
    );
    text("type", properties.kind().as_ref().map(|kind| kind.as_str()));
    let headers = properties.headers().as_ref();
    if let Some(AMQPValue::LongString(event)) = headers.and_then(|h| h.inner().get("event")) {
        text("event", Some(&event.to_string()));
    }
    object.insert("redelivered".to_owned(), delivery.redelivered.into());
    let data = serde_json::from_slice(&delivery.data)
        .unwrap_or_else(|_| String::from_utf8_lossy(&delivery.data).into());
    object.insert("data".to_owned(), data);
    object.into()
}
