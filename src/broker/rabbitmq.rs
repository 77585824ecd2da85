//! RabbitMQ sink. Over AMQP 0-9-1 it has the strongest guarantees of that protocol: at-least-once
//! delivery, an error for every unroutable message, and few repeats, which carry the same message id.
//! Over the stream protocol, runs publish each chat exactly once: see `publishing_id`.
//!
//! Messages are persistent and mandatory, and the confirm of each is awaited. One connection holds
//! the lock and the checkpoint (see `lock` and `checkpoint`), another one publishes (`publisher`, or
//! the producer of `stream_protocol`). When either breaks, both are made anew, and what is unconfirmed
//! in the `outbox` is sent again under the same ids.

mod alarm;
mod appender;
mod backpressure;
mod check;
mod checkpoint;
mod connect;
mod connections;
mod consumer;
mod control;
mod events;
mod failure;
mod finish;
mod in_flight;
mod lifecycle;
mod lock;
mod messages;
mod monitor;
mod names;
mod outbox;
mod publisher;
mod publishing_id;
mod purge;
mod reconcile;
mod renewal;
mod session;
mod stream_flight;
mod stream_url;
mod unverified;
mod worker;

use std::time::Duration;

use async_trait::async_trait;

pub(super) use self::check::check;
pub(super) use self::connect::Endpoint;
pub(super) use self::consumer::open as consumer;
pub(super) use self::events::event_sink;
pub(super) use self::messages::message_sink;
pub(super) use self::monitor::RabbitMqMonitor;
pub(super) use self::names::{MAX_NAME, problem_with, removed_queue};
pub(super) use self::purge::purge;
use self::session::RabbitMqSession;
pub(super) use self::worker::open as worker;
use super::error::SessionError;
use super::factory::problem_with_braces;
use super::{
    BrokerError, BrokerOptions, QueueType, Recovered, SessionContext, SnapshotSession, SnapshotSink,
};

/// AMQP delivery mode of messages that survive a restart of the broker.
const PERSISTENT: u8 = 2;
/// Longest expiry that RabbitMQ accepts: 2^32 - 1 milliseconds, almost 50 days.
const MAX_RETAIN: Duration = Duration::from_millis(u32::MAX as u64);

/// Keys of the settings that only some brokers use, and this one does.
pub(super) const SETTINGS: [&str; 5] = [
    "sink.exchange",
    "sink.queue_type",
    "sink.no_declare",
    "sink.max_pending",
    "sink.marker",
];

/// Settings of the RabbitMQ sink.
#[derive(Clone, Debug)]
struct RabbitSettings {
    /// The broker.
    endpoint: Endpoint,
    /// Exchange to publish to, with the queue's name as routing key; `None` to publish to the queue
    /// itself.
    exchange: Option<String>,
    /// Type that the queue is declared with.
    queue_type: QueueType,
    /// Whether to declare the queue. If not, it must exist.
    declare: bool,
    /// Number of messages in the queue at which publishing waits.
    max_pending: Option<u64>,
    /// Whether to put messages on the queue that mark the start and the end of a run.
    marker: bool,
    /// How long messages and the queues beside the target are kept.
    retain: Option<Duration>,
}

impl RabbitSettings {
    fn new(endpoint: &Endpoint, options: &BrokerOptions) -> Self {
        Self {
            endpoint: endpoint.clone(),
            exchange: options.exchange.clone(),
            queue_type: queue_type(endpoint, options),
            declare: !options.no_declare,
            max_pending: options.max_pending,
            marker: options.marker,
            retain: options.retain,
        }
    }
}

/// The sink for `amqp://` and `amqps://`.
pub(super) struct RabbitMq {
    settings: RabbitSettings,
    context: SessionContext,
}

impl RabbitMq {
    /// Creates the sink without connecting.
    pub(super) fn new(
        endpoint: &Endpoint,
        options: &BrokerOptions,
        context: SessionContext,
    ) -> Self {
        Self {
            settings: RabbitSettings::new(endpoint, options),
            context,
        }
    }
}

#[async_trait]
impl SnapshotSink for RabbitMq {
    async fn open(self: Box<Self>) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
        names::check(&self.context.target.queue)?;
        let mut session = RabbitMqSession::new(self.settings, self.context);
        let recovered = session.load_checkpoint().await;
        let recovered = recovered.map_err(SessionError::into_failure)?;
        Ok((recovered, Box::new(session)))
    }
}

/// The number of messages in a batch.
pub(super) fn batch_messages(endpoint: &Endpoint) -> u32 {
    match endpoint.stream() {
        Some(_) => stream_flight::BATCH_MESSAGES,
        None => in_flight::BATCH_MESSAGES,
    }
}

/// The type that queues are declared with. The stream protocol knows no other than its own.
pub(super) fn queue_type(endpoint: &Endpoint, options: &BrokerOptions) -> QueueType {
    match endpoint.stream() {
        Some(_) => QueueType::Stream,
        None => options.queue_type,
    }
}

/// Returns what is wrong with the options or the name of a queue, by setting.
pub(super) fn problems(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    queue: &str,
) -> Vec<(&'static str, String)> {
    let mut problems: Vec<_> = problem_with_braces(queue).into_iter().collect();
    let exchange = options.exchange.as_deref().unwrap_or_default();
    if exchange.len() > MAX_NAME {
        let problem = format!("is over {MAX_NAME} bytes long");
        problems.push(("sink.exchange", problem));
    }
    if endpoint.stream().is_some() && !exchange.is_empty() {
        let problem = "the stream protocol publishes to streams only, and not to an exchange";
        problems.push(("sink.exchange", problem.to_owned()));
    }
    if options
        .retain
        .is_some_and(|retain| retain > MAX_RETAIN || retain.is_zero())
    {
        let problem = "RabbitMQ keeps messages for at most 49 days, or forever";
        problems.push(("sink.retain", problem.to_owned()));
    }
    let unseen = if !exchange.is_empty() {
        Some("an exchange")
    } else if queue_type(endpoint, options) == QueueType::Stream {
        Some("the readers of a stream")
    } else {
        None
    };
    if let (Some(behind), Some(_)) = (unseen, options.max_pending) {
        let problem = format!("cannot be seen: how many messages wait behind {behind}");
        problems.push(("sink.max_pending", problem));
    }
    problems
}

/// Converts a duration to milliseconds, limited to what RabbitMQ accepts.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.min(MAX_RETAIN).as_millis()).unwrap_or(u64::MAX)
}
