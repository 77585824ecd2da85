//! RabbitMQ sink, with the strongest guarantees of AMQP 0-9-1: at-least-once delivery, an error for
//! every unroutable message, and few repeats, which carry the same message id.
//!
//! Messages are persistent and mandatory, and the confirm of each is awaited. One connection holds
//! the lock and the checkpoint (see `lock` and `checkpoint`), another one publishes (`publisher`).
//! When either breaks, both are made anew, and what is unconfirmed in `in_flight` is sent again
//! under the same ids.

mod alarm;
mod backpressure;
pub mod check;
mod checkpoint;
pub mod connect;
mod control;
mod failure;
mod finish;
mod in_flight;
mod lifecycle;
mod lock;
mod names;
mod publisher;
pub mod tail;
mod unverified;

use std::time::Duration;

use uuid::Uuid;

use self::alarm::Alarm;
use self::checkpoint::Record;
use self::connect::Endpoint;
use self::control::Control;
pub(crate) use self::in_flight::BATCH_MESSAGES;
use self::in_flight::InFlight;
use self::names::Names;
pub(crate) use self::names::{MAX_NAME, problem_with};
use self::publisher::{Form, Publisher};
use self::unverified::Unverified;
use super::retry_policy::{Failure, RetryPolicy};
use super::{
    BrokerError, Checkpoint, Delivered, Outcome, Recovered, Sink, Start, Target, Unfinished,
};
use crate::batch::{Batch, Digest, Position};
use crate::message::Layout;
use crate::progress::Progress;
use crate::retry::Retries;

/// AMQP delivery mode of messages that survive a restart of the broker.
const PERSISTENT: u8 = 2;
/// Longest expiry that RabbitMQ accepts: 2^32 - 1 milliseconds, almost 50 days.
pub(crate) const MAX_RETAIN: Duration = Duration::from_millis(u32::MAX as u64);

/// Queue types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated.
    Quorum,
    /// On one node.
    Classic,
    /// A log that can be read repeatedly.
    Stream,
}

impl QueueType {
    /// Returns the broker's name for the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
            Self::Stream => "stream",
        }
    }
}

/// Settings of the RabbitMQ sink.
#[derive(Clone, Debug)]
pub struct RabbitSettings {
    /// The broker.
    pub endpoint: Endpoint,
    /// Exchange to publish to, with the queue's name as routing key; `None` to publish to the queue
    /// itself.
    pub exchange: Option<String>,
    /// Type that the queue is declared with.
    pub queue_type: QueueType,
    /// Whether to declare the queue. If not, it must exist.
    pub declare: bool,
    /// Number of messages in the queue at which publishing waits.
    pub max_pending: Option<u64>,
    /// Whether to put messages on the queue that mark the start and the end of a run.
    pub marker: bool,
    /// How long messages and the queues beside the target are kept.
    pub retain: Option<Duration>,
}

/// The sink for `amqp://` and `amqps://`.
pub struct RabbitMq {
    settings: RabbitSettings,
    target: Target,
    names: Names,
    layout: Layout,
    retry_policy: RetryPolicy,
    progress: Progress,
    owner: Uuid,
    control: Option<Control>,
    publisher: Option<Publisher>,
    alarm: Alarm,
    in_flight: InFlight,
    /// What the run's messages have in common; `None` until the run is known.
    form: Option<Form>,
    /// Progress of the run according to the confirms.
    at: Checkpoint,
    /// Position of the newest checkpoint that is known to be durable.
    durable: Position,
    list_changed: bool,
    /// How far messages of several chats may have been sent, as recorded in the checkpoint.
    ahead: Option<(Position, Digest)>,
    /// Batches behind the checkpoint, held until the list is verified.
    unverified: Unverified,
    /// Whether the run began with another number of chats per message.
    repacked: bool,
    last_complete: Option<u64>,
    /// Whether the checkpoint has been loaded, and the record that was found then.
    has_looked: bool,
    looked_at: Option<Record>,
    /// Whether the run is recorded in the broker.
    has_begun: bool,
    /// Whether this process has found or declared the queue, so that it must still exist after a
    /// reconnect.
    had_queue: bool,
    delivered: Delivered,
    /// Messages that may be sent before the queue's length is checked again.
    capacity: u64,
    /// Pauses since the last success.
    pauses: Option<Retries>,
    /// Pauses since the queue last accepted a message.
    refusals: Option<Retries>,
}

impl RabbitMq {
    /// Creates the sink without connecting.
    pub fn new(
        settings: RabbitSettings,
        target: Target,
        layout: Layout,
        retry_policy: RetryPolicy,
        progress: Progress,
    ) -> Self {
        Self {
            names: Names::new(&target),
            settings,
            target,
            layout,
            retry_policy,
            progress,
            owner: Uuid::now_v7(),
            control: None,
            publisher: None,
            alarm: Alarm::default(),
            in_flight: InFlight::default(),
            form: None,
            at: Checkpoint::start_of(Uuid::nil()),
            durable: 0,
            list_changed: false,
            ahead: None,
            unverified: Unverified::default(),
            repacked: false,
            last_complete: None,
            has_looked: false,
            looked_at: None,
            has_begun: false,
            had_queue: false,
            delivered: Delivered::default(),
            capacity: 0,
            pauses: None,
            refusals: None,
        }
    }

    /// Runs an idempotent operation until it succeeds, fails for good, or the retries are used up.
    /// A failure drops both connections.
    async fn with_retry<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, BrokerError> {
        loop {
            self.retry_policy.ended()?;
            let alarm = self.alarm.clone();
            let failure = match alarm.within(work(self)).await {
                Ok(value) => {
                    self.pauses = None;
                    return Ok(value);
                }
                Err(failure) => failure,
            };
            self.control = None;
            self.publisher = None;
            self.in_flight.lose();
            self.retry_policy.pause(&mut self.pauses, failure).await?;
        }
    }

    /// Publishes a batch that contains the same chats as anything that may have been sent at its
    /// position.
    async fn publish_verified(&mut self, batch: &Batch) -> Result<(), BrokerError> {
        self.begin().await?;
        let messages = self.form.as_ref().map_or(0, |form| form.messages(batch));
        self.wait_for_capacity(messages as u64).await?;
        while self.in_flight.is_full() {
            self.confirm_oldest().await?;
        }
        if self.layout.ids_per_message > 1 {
            // Keeps an earlier, higher limit: messages up to there may have been sent before a
            // restart.
            if self
                .ahead
                .is_none_or(|(position, _)| position < batch.end())
            {
                self.ahead = Some((batch.end(), batch.digest()));
            }
            self.with_retry(async |this| this.announce().await).await?;
        }
        self.in_flight.push(batch, messages);
        self.with_retry(async |this| this.send_pending().await)
            .await
    }
}

impl Sink for RabbitMq {
    async fn open(&mut self) -> Result<Recovered, BrokerError> {
        names::check(&self.names.queue)?;
        self.with_retry(async |this| this.load_checkpoint().await)
            .await
    }

    async fn start(&mut self, start: Start<'_>) -> Result<Unfinished, BrokerError> {
        self.begin_at(start).await
    }

    async fn publish(&mut self, batch: &Batch) -> Result<(), BrokerError> {
        if self.unverified.holds(batch) {
            return Ok(());
        }
        for held in self.unverified.take() {
            self.publish_verified(&held).await?;
        }
        self.publish_verified(batch).await
    }

    async fn flush(&mut self) -> Result<(), BrokerError> {
        while !self.in_flight.is_empty() {
            self.confirm_oldest().await?;
        }
        if self.has_begun {
            self.with_retry(async |this| this.confirm_checkpoint().await)
                .await?;
        }
        Ok(())
    }

    fn delivered(&self) -> Delivered {
        self.delivered
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), BrokerError> {
        let ended = self.end(outcome).await;
        if let Some(publisher) = self.publisher.take() {
            publisher.close().await;
        }
        if let Some(control) = self.control.take() {
            control.close().await;
        }
        ended
    }
}

/// Converts a duration to milliseconds, limited to what RabbitMQ accepts.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.min(MAX_RETAIN).as_millis()).unwrap_or(u64::MAX)
}
