//! Worker on a queue, which shares the queue with other workers.
//!
//! The broker sends messages unasked, up to the prefetch limit, and gives those that are not
//! acknowledged to other workers when the connection ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{FutureExt, StreamExt};
use lapin::message::Delivery as Message;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};
use tokio::time::timeout;
use tracing::debug;

use super::connect::{CLOSE_TIMEOUT, Endpoint, close};
use super::consumer::{delivery, header};
use super::failure::{code, refusal};
use super::publisher::{declare_passive, exists, prepare_target};
use super::{RabbitSettings, names, renewal};
use crate::broker::consumer::DeliveryTag;
use crate::broker::error::Failure;
use crate::broker::{BrokerError, BrokerOptions, Consumer, Delivery, QueueType, WorkerOptions};

/// How long to wait for a message if there is none.
const WAIT: Duration = Duration::from_millis(50);
/// Time between the two checks that find a queue empty. The count of a quorum queue can lag.
const RECHECK_AFTER: Duration = Duration::from_millis(300);
/// The argument for where to start in a stream, and the header of a stream's messages.
const STREAM_OFFSET: &str = "x-stream-offset";

/// A worker on a queue.
struct QueueWorker {
    queue: String,
    /// Tells deliveries to this worker from those to another one, whose numbers are the same.
    id: u64,
    connection: Connection,
    channel: Channel,
    messages: lapin::Consumer,
    prefetch: u16,
    /// Messages that have arrived and were not returned yet.
    buffer: VecDeque<Message>,
    /// Numbers of the deliveries that were returned and not acknowledged, with those messages whose
    /// return should not count.
    in_hand: BTreeMap<u64, Option<Message>>,
    /// The numbers from which on they count towards the prefetch limit.
    window_start: u64,
    /// The number of the last message that has arrived.
    last_arrived: u64,
}

/// Connects to a queue. Declares it if it does not exist, as a run does.
///
/// # Errors
///
/// If the broker cannot be reached, the queue does not exist and may not be declared, or it is a
/// stream.
pub(in crate::broker) async fn open(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    worker: WorkerOptions,
) -> Result<Box<dyn Consumer>, BrokerError> {
    names::check(&worker.queue)?;
    let settings = RabbitSettings::new(endpoint, options);
    Ok(Box::new(connect(&settings, worker).await?))
}

async fn connect(settings: &RabbitSettings, worker: WorkerOptions) -> Result<QueueWorker, Failure> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let name = format!("labelcast worker {}", worker.worker);
    let connection = settings.endpoint.connect(&name).await?;
    prepare_queue(&connection, settings, &worker.queue).await?;
    let (channel, messages) = consume(&connection, &worker).await?;
    Ok(QueueWorker {
        prefetch: worker.prefetch.max(1),
        queue: worker.queue,
        id: NEXT.fetch_add(1, Ordering::Relaxed),
        connection,
        channel,
        messages,
        buffer: VecDeque::new(),
        in_hand: BTreeMap::new(),
        window_start: 0,
        last_arrived: 0,
    })
}

/// Makes sure that the queue exists. One of another type than a run would declare is used as it is.
async fn prepare_queue(
    connection: &Connection,
    settings: &RabbitSettings,
    queue: &str,
) -> Result<(), Failure> {
    if exists(connection, queue).await? {
        return Ok(());
    }
    if !settings.declare || settings.exchange.is_some() {
        // Behind an exchange, its owner decides which queues there are.
        let text = format!("there is no queue {queue}");
        return Err(BrokerError::WrongQueue(text).into());
    }
    if settings.queue_type == QueueType::Stream {
        return Err(is_stream(queue).into());
    }
    prepare_target(connection, settings, queue).await
}

fn is_stream(queue: &str) -> BrokerError {
    BrokerError::WrongQueue(format!(
        "{queue} is a stream, whose messages cannot be acknowledged: use a quorum or classic queue"
    ))
}

/// Starts to consume. Asks for messages from a stream's start, so that a stream is recognised by its
/// first message, however old that is. Brokers that know that a queue is none refuse that.
async fn consume(
    connection: &Connection,
    worker: &WorkerOptions,
) -> Result<(Channel, lapin::Consumer), Failure> {
    let mut from_start = FieldTable::default();
    let first = AMQPValue::LongString("first".into());
    from_start.insert(STREAM_OFFSET.into(), first);
    match try_consume(connection, worker, from_start).await {
        Err(error) if refuses_offset(&error) => {
            Ok(try_consume(connection, worker, FieldTable::default()).await?)
        }
        consuming => Ok(consuming?),
    }
}

async fn try_consume(
    connection: &Connection,
    worker: &WorkerOptions,
    arguments: FieldTable,
) -> Result<(Channel, lapin::Consumer), lapin::Error> {
    let channel = connection.create_channel().await?;
    let prefetch = worker.prefetch.max(1);
    let messages = subscribe(&channel, &worker.queue, prefetch, arguments).await?;
    Ok((channel, messages))
}

async fn subscribe(
    channel: &Channel,
    queue: &str,
    prefetch: u16,
    arguments: FieldTable,
) -> Result<lapin::Consumer, lapin::Error> {
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    let options = BasicConsumeOptions::default();
    channel
        .basic_consume(queue.into(), "".into(), options, arguments)
        .await
}

fn refuses_offset(error: &lapin::Error) -> bool {
    refusal(error).is_some_and(|(code, text)| {
        code == code::PRECONDITION_FAILED && text.contains(STREAM_OFFSET)
    })
}

#[async_trait]
impl Consumer for QueueWorker {
    async fn receive(&mut self, most: u64) -> Result<Vec<Delivery>, BrokerError> {
        if most == 0 {
            return Ok(Vec::new());
        }
        self.buffer_arrived()?;
        if self.buffer.is_empty() {
            if self.is_window_full() {
                self.renew_window().await?;
            }
            self.wait(WAIT).await?;
            self.buffer_arrived()?;
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut received = Vec::new();
        while received.len() < most
            && let Some(message) = self.buffer.pop_front()
        {
            let total = renewal::deliveries(&message);
            if renewal::is_worn(&message) && self.put_at_end(&message, total).await? {
                continue;
            }
            received.push(delivery(&message, self.id));
            let tag = message.delivery_tag;
            let kept = renewal::counts_much(&message).then_some(message);
            self.in_hand.insert(tag, kept);
        }
        Ok(received)
    }

    /// Ignores deliveries of an earlier connection, which the broker has taken back.
    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        for delivery in deliveries {
            let DeliveryTag::Number { number, consumer } = delivery.tag else {
                continue;
            };
            if consumer == self.id && self.in_hand.remove(&number).is_some() {
                // Not `multiple`: deliveries are completed in any order.
                let acked = self.channel.basic_ack(number, BasicAckOptions::default());
                acked.await.map_err(Failure::from)?;
            }
        }
        Ok(())
    }

    /// The broker delivers those of an earlier connection again.
    fn holds(&self, delivery: &Delivery) -> bool {
        match delivery.tag {
            DeliveryTag::Number { consumer, .. } => consumer == self.id,
            DeliveryTag::Entry(_) => false,
        }
    }

    /// Does not see messages in the hands of other workers, which the broker tells nobody.
    async fn is_drained(&mut self) -> Result<bool, BrokerError> {
        if self.has_more().await? {
            return Ok(false);
        }
        self.wait(RECHECK_AFTER).await?;
        Ok(!self.has_more().await?)
    }

    async fn leave(&mut self) -> Result<(), BrokerError> {
        let left = timeout(CLOSE_TIMEOUT, self.try_leave()).await;
        close(&self.connection).await;
        match left {
            Ok(left) => Ok(left?),
            Err(_) => Err(BrokerError::Unavailable("it is silent".to_owned())),
        }
    }
}

impl QueueWorker {
    /// Moves the messages that have arrived to the buffer.
    fn buffer_arrived(&mut self) -> Result<(), Failure> {
        while let Some(next) = self.messages.next().now_or_never() {
            self.buffer(next)?;
        }
        Ok(())
    }

    /// Waits until a message arrives, for at most this long.
    async fn wait(&mut self, most: Duration) -> Result<(), Failure> {
        match timeout(most, self.messages.next()).await {
            Ok(next) => self.buffer(next),
            Err(_) => Ok(()),
        }
    }

    fn buffer(&mut self, next: Option<Result<Message, lapin::Error>>) -> Result<(), Failure> {
        // The broker has cancelled the consumer: the queue was deleted, or its node is down. Opening
        // it again tells.
        let gone =
            || Failure::Transient(format!("the broker has ended delivery of {}", self.queue));
        let message = next.ok_or_else(gone)??;
        if header(&message, STREAM_OFFSET).is_some() {
            return Err(is_stream(&self.queue).into());
        }
        self.last_arrived = message.delivery_tag;
        self.buffer.push_back(message);
        Ok(())
    }

    /// Whether the broker sends no more until one of its last messages is acknowledged.
    fn is_window_full(&self) -> bool {
        let in_window = self.in_hand.range(self.window_start..);
        in_window.count() >= usize::from(self.prefetch)
    }

    /// Subscribes again: the limit counts only messages of the last subscription. So messages that
    /// take long keep no others from being received, and the broker sends few ahead of their time. A
    /// broker counts those too when a worker dies.
    async fn renew_window(&mut self) -> Result<(), Failure> {
        self.unsubscribe().await?;
        self.window_start = self.last_arrived + 1;
        let none = FieldTable::default();
        self.messages = subscribe(&self.channel, &self.queue, self.prefetch, none).await?;
        debug!(in_hand = self.in_hand.len(), "subscribed again");
        Ok(())
    }

    /// Whether there are messages to receive, now or as soon as they arrive.
    async fn has_more(&mut self) -> Result<bool, Failure> {
        self.buffer_arrived()?;
        if !self.buffer.is_empty() {
            return Ok(true);
        }
        let ready = declare_passive(&self.channel, &self.queue).await?;
        self.buffer_arrived()?;
        Ok(ready > 0 || !self.buffer.is_empty())
    }

    /// Ends the subscription, and keeps what has arrived before its end.
    async fn unsubscribe(&mut self) -> Result<(), Failure> {
        let tag = self.messages.tag();
        let cancel = BasicCancelOptions::default();
        self.channel.basic_cancel(tag, cancel).await?;
        while let Some(next) = self.messages.next().await {
            self.buffer(Some(next))?;
        }
        Ok(())
    }

    /// Puts a copy of a message at the end of the queue, and acknowledges it. Returns whether that was
    /// possible.
    async fn put_at_end(&self, message: &Message, deliveries: u64) -> Result<bool, Failure> {
        let put = renewal::put_at_end(&self.connection, &self.queue, message, deliveries);
        if let Err(error) = put.await.map_err(BrokerError::from) {
            debug!("a message stays where it is in {}: {error}", self.queue);
            return Ok(false);
        }
        let tag = message.delivery_tag;
        let acked = self.channel.basic_ack(tag, BasicAckOptions::default());
        acked.await?;
        Ok(true)
    }

    /// Gives back everything that is not acknowledged, those that have only arrived too.
    async fn try_leave(&mut self) -> Result<(), Failure> {
        // First, or the broker would send them here again.
        self.unsubscribe().await?;
        let arrived = self.buffer.drain(..).filter(renewal::counts_much);
        let in_hand = std::mem::take(&mut self.in_hand).into_values().flatten();
        for message in in_hand.chain(arrived).collect::<Vec<_>>() {
            let before = renewal::deliveries(&message).saturating_sub(1);
            self.put_at_end(&message, before).await?;
        }
        let all = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        self.channel.basic_nack(0, all).await?;
        Ok(self.channel.close(200, "OK".into()).await?)
    }
}
