//! RabbitMQ, at the strongest that AMQP 0-9-1 has: nothing lost, nothing unroutable in silence,
//! repeats few and recognisable.
//!
//! Messages are persistent and mandatory, and each one's confirm is awaited. Two connections are
//! used: one holds the lock and the checkpoint (see `lock` and `checkpoint`), the other publishes
//! (`publisher`). When either breaks, both are made anew, and what the `ledger` has unconfirmed is
//! sent again under the same ids.

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
    Checkpoint, Delivered, Outcome, Recovered, Sink, SinkError, Start, Target, Unfinished,
};
use crate::batch::{Batch, Digest, Position};
use crate::message::Layout;
use crate::progress::Progress;
use crate::retry::Retries;

/// AMQP's delivery mode of messages that outlive a restart of the broker.
const PERSISTENT: u8 = 2;
/// The longest that RabbitMQ can keep something for: 2^32 - 1 milliseconds, almost 50 days.
pub(crate) const MAX_RETAIN: Duration = Duration::from_millis(u32::MAX as u64);

/// The kinds of queues there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueType {
    /// Replicated.
    Quorum,
    /// On one node.
    Classic,
    /// A log that can be read again.
    Stream,
}

impl QueueType {
    /// What the broker calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quorum => "quorum",
            Self::Classic => "classic",
            Self::Stream => "stream",
        }
    }
}

/// How a queue is written to.
#[derive(Clone, Debug)]
pub struct RabbitSettings {
    /// The broker.
    pub endpoint: Endpoint,
    /// Where messages are published to, with the queue's name as routing key; `None` for the queue
    /// itself.
    pub exchange: Option<String>,
    /// How the queue is declared.
    pub queue_type: QueueType,
    /// Whether it is declared, or has to be there.
    pub declare: bool,
    /// Publishing waits while so many messages are in the queue.
    pub max_pending: Option<u64>,
    /// Whether the start and the end of a run are put on the queue.
    pub marker: bool,
    /// How long messages, and what is beside the queue, are kept.
    pub retain: Option<Duration>,
}

/// The sink `amqp://` and `amqps://`.
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
    /// What the run's messages have in common; none before it is known which run it is.
    form: Option<Form>,
    /// How far the run has come, by the confirms.
    at: Checkpoint,
    /// The position of the newest checkpoint that is known to be durable.
    durable: Position,
    list_changed: bool,
    /// How far messages of several chats may have been sent, as the checkpoint says.
    ahead: Option<(Position, Digest)>,
    /// What follows the checkpoint, until it is proven.
    unverified: Unverified,
    /// Whether the run began with another number of chats in a message.
    repacked: bool,
    last_complete: Option<u64>,
    /// Whether it was looked what earlier runs left, and the checkpoint that was there.
    has_looked: bool,
    looked_at: Option<Record>,
    /// Whether the broker knows of the run.
    has_begun: bool,
    /// Whether this process has found the queue there, or declared it, and it has to be there still.
    had_queue: bool,
    delivered: Delivered,
    /// Messages that may be sent before it has to be looked whether the queue is full.
    capacity: u64,
    /// The pauses since something last went well.
    pauses: Option<Retries>,
    /// The pauses since the queue last took a message.
    refusals: Option<Retries>,
}

impl RabbitMq {
    /// Nothing is connected yet.
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

    /// Does something that may be done twice, until it succeeds or there is no point in it.
    async fn with_retry<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, SinkError> {
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

    /// Publishes a batch that holds the same chats as whatever may have been sent in its place.
    async fn publish_verified(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.begin().await?;
        let messages = self.form.as_ref().map_or(0, |form| form.messages(batch));
        self.wait_for_capacity(messages as u64).await?;
        while self.in_flight.is_full() {
            self.confirm_oldest().await?;
        }
        if self.layout.ids_per_message > 1 {
            // What was announced before may have been sent, be it not yet again.
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
    async fn open(&mut self) -> Result<Recovered, SinkError> {
        names::check(&self.names.queue)?;
        self.with_retry(async |this| this.load_checkpoint().await)
            .await
    }

    async fn start(&mut self, start: Start<'_>) -> Result<Unfinished, SinkError> {
        self.begin_at(start).await
    }

    async fn publish(&mut self, batch: &Batch) -> Result<(), SinkError> {
        if self.unverified.holds(batch) {
            return Ok(());
        }
        for held in self.unverified.take() {
            self.publish_verified(&held).await?;
        }
        self.publish_verified(batch).await
    }

    async fn flush(&mut self) -> Result<(), SinkError> {
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

    async fn finish(&mut self, outcome: Outcome) -> Result<(), SinkError> {
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

/// A duration in milliseconds, as RabbitMQ takes it.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.min(MAX_RETAIN).as_millis()).unwrap_or(u64::MAX)
}
