//! Reading a queue the way a consumer does: with acks, or giving back what was read.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, Consumer};
use serde_json::{Map, Value};

use super::connect::Endpoint;
use super::publisher::passive;
use crate::sink::SinkError;
use crate::sink::retry_policy::Failure;

/// Messages of a stream that are on their way at once.
const PREFETCH: u16 = 100;
/// A stream that has sent nothing for so long has come to its end, for now.
const QUIET: Duration = Duration::from_secs(2);

/// How to read.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The broker.
    pub endpoint: Endpoint,
    /// The queue.
    pub queue: String,
    /// Whether it is a stream, which is read from its start, and keeps what was read.
    pub is_stream: bool,
    /// Acknowledge what was read, which takes it off the queue.
    pub ack: bool,
}

/// A reader of a queue.
pub struct Reader {
    tail: Tail,
    /// Without it, the channel would be closed.
    _connection: Connection,
    channel: Channel,
    stream: Option<Consumer>,
    /// The last message that was read.
    tag: u64,
}

impl Reader {
    /// Connects with a queue that is there.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached, or there is no such queue.
    pub async fn open(tail: Tail) -> Result<Self, SinkError> {
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

    /// The next message; none when there are no more, or for now.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached.
    pub async fn next(&mut self) -> Result<Option<Value>, SinkError> {
        let delivery = match &mut self.stream {
            Some(stream) => match tokio::time::timeout(QUIET, stream.next()).await {
                Err(_) => None,
                Ok(Some(delivery)) => Some(delivery.map_err(|e| outside(Failure::from(e)))?),
                Ok(None) => return Err(SinkError::Unavailable("the queue is gone".to_owned())),
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

    /// Acknowledges, where it was asked for, what was read.
    ///
    /// # Errors
    ///
    /// When the broker cannot be reached.
    pub async fn done(&mut self) -> Result<(), SinkError> {
        // A stream takes acknowledgements only as a sign that it may send more.
        if !self.tail.ack && self.stream.is_none() {
            return Ok(());
        }
        self.channel
            .basic_ack(self.tag, BasicAckOptions { multiple: true })
            .await
            .map_err(|error| outside(Failure::from(error)))
    }
}

fn outside(failure: Failure) -> SinkError {
    match failure {
        Failure::Transient(text) if text.contains("not supported by stream queues") => {
            SinkError::WrongQueue(format!("{text}: use --queue-type stream"))
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

/// A message as it is shown: what tells it from others, and what is in it.
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
