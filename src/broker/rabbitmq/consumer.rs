//! Consumer of a queue, which acknowledges messages or leaves them to be returned to the queue.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use lapin::message::Delivery as Message;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicGetOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use serde_json::Map;

use super::connect::Endpoint;
use super::publisher::declare_passive;
use super::renewal;
use crate::broker::consumer::DeliveryTag;
use crate::broker::error::Failure;
use crate::broker::{BrokerError, Consumer, ConsumerOptions, Delivery, QueueType};

/// Messages of a stream that may be in flight at once.
const PREFETCH: u16 = 100;
/// A stream that has sent nothing for this long is at its end for the moment.
const QUIET: Duration = Duration::from_secs(2);
/// Interval of checks of an empty queue.
const CHECK_EVERY: Duration = Duration::from_millis(200);

/// A consumer of a queue.
struct QueueConsumer {
    options: ConsumerOptions,
    /// Keeps the connection open, without which the channel would be closed.
    _connection: Connection,
    channel: Channel,
    source: Source,
}

/// How messages are received.
enum Source {
    /// One at a time, on request.
    Queue,
    /// As the broker sends them. A stream is read from its start and keeps what was read.
    Stream(lapin::Consumer),
}

/// Connects to an existing queue.
///
/// # Errors
///
/// If the broker cannot be reached, or the queue does not exist.
pub(in crate::broker) async fn open(
    endpoint: &Endpoint,
    queue_type: QueueType,
    options: ConsumerOptions,
) -> Result<Box<dyn Consumer>, BrokerError> {
    if options.delete {
        return Err(BrokerError::Misconfigured {
            problem: "--delete is for Redis only".to_owned(),
            fix: "use --ack, which removes what was read from a RabbitMQ queue",
        });
    }
    let consumer = connect(endpoint, queue_type, options)
        .await
        .map_err(outside)?;
    Ok(Box::new(consumer))
}

async fn connect(
    endpoint: &Endpoint,
    queue_type: QueueType,
    options: ConsumerOptions,
) -> Result<QueueConsumer, Failure> {
    let connection = endpoint.connect("labelcast tail").await?;
    let channel = connection.create_channel().await?;
    declare_passive(&channel, &options.queue).await?;
    let source = match queue_type {
        QueueType::Stream => Source::Stream(consume(&channel, &options.queue).await?),
        QueueType::Quorum | QueueType::Classic => Source::Queue,
    };
    Ok(QueueConsumer {
        options,
        _connection: connection,
        channel,
        source,
    })
}

#[async_trait]
impl Consumer for QueueConsumer {
    /// Returns one message at a time, so that no other is held back from other consumers.
    async fn receive(&mut self, _most: u64) -> Result<Vec<Delivery>, BrokerError> {
        let received = match &mut self.source {
            Source::Stream(stream) => match tokio::time::timeout(QUIET, stream.next()).await {
                Err(_) => None,
                Ok(Some(message)) => Some(message.map_err(|error| outside(error.into()))?),
                Ok(None) => return Err(BrokerError::Unavailable("the queue is gone".to_owned())),
            },
            Source::Queue => {
                let queue = self.options.queue.as_str().into();
                let got = self.channel.basic_get(queue, BasicGetOptions::default());
                let got = got.await.map_err(|error| outside(error.into()))?;
                if got.is_none() && self.options.follow {
                    tokio::time::sleep(CHECK_EVERY).await;
                }
                got.map(|got| got.delivery)
            }
        };
        let received = received.iter();
        Ok(received.map(|message| delivery(message, 0)).collect())
    }

    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        // For a stream, an acknowledgement only grants credit for more messages.
        let acknowledges = self.options.ack || matches!(self.source, Source::Stream(_));
        let Some(DeliveryTag::Number { number, .. }) =
            deliveries.last().map(|delivery| &delivery.tag)
        else {
            return Ok(());
        };
        if !acknowledges {
            return Ok(());
        }
        self.channel
            .basic_ack(*number, BasicAckOptions { multiple: true })
            .await
            .map_err(|error| outside(error.into()))
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

async fn consume(channel: &Channel, queue: &str) -> Result<lapin::Consumer, lapin::Error> {
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
pub(super) fn delivery(received: &Message, consumer: u64) -> Delivery {
    let mut message = Map::new();
    let properties = &received.properties;
    let mut text = |name: &str, text: Option<&str>| {
        if let Some(text) = text {
            message.insert(name.to_owned(), text.into());
        }
    };
    text(
        "message_id",
        properties.message_id().as_ref().map(|id| id.as_str()),
    );
    text("type", properties.kind().as_ref().map(|kind| kind.as_str()));
    if let Some(AMQPValue::LongString(event)) = header(received, "event") {
        text("event", Some(&event.to_string()));
    }
    message.insert("redelivered".to_owned(), received.redelivered.into());
    let data = serde_json::from_slice(&received.data)
        .unwrap_or_else(|_| String::from_utf8_lossy(&received.data).into());
    message.insert("data".to_owned(), data);
    Delivery {
        tag: DeliveryTag::Number {
            number: received.delivery_tag,
            consumer,
        },
        deliveries: renewal::deliveries(received),
        message,
    }
}

/// Returns a header of a message.
pub(super) fn header<'a>(received: &'a Message, name: &str) -> Option<&'a AMQPValue> {
    received.properties.headers().as_ref()?.inner().get(name)
}
