//! The queue that chat ids are taken from: opened again after each failure.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::in_hand::InHand;
use crate::broker::factory::Broker;
use crate::broker::{BrokerError, Consumer, Delivery, WorkerOptions};
use crate::retry::{Retries, RetryPolicy, Retryable as _};

/// The pause after a queue had no message.
const IDLE: Duration = Duration::from_millis(100);

/// The queue that chat ids are taken from.
pub struct Source {
    broker: Broker,
    options: WorkerOptions,
    consumer: Option<Box<dyn Consumer>>,
    retries: Retries,
    /// When to ask for messages again, or to open the queue again.
    next_at: Instant,
    /// How often the broker is told what is still in hand.
    keep_every: Duration,
    keep_at: Instant,
    /// Deliveries that are to be acknowledged.
    done: Vec<Delivery>,
    /// Whether the queue had no message when it was last asked.
    is_quiet: bool,
}

impl Source {
    /// Takes messages of a queue, which is opened when it is first used.
    pub fn new(broker: Broker, options: WorkerOptions, policy: &RetryPolicy) -> Self {
        let now = Instant::now();
        // In time for other workers, also if one call is slow.
        let keep_every = options.takeover_after / 3;
        Self {
            broker,
            options,
            consumer: None,
            retries: policy.retries(),
            next_at: now,
            keep_every,
            keep_at: now + keep_every,
            done: Vec::new(),
            is_quiet: false,
        }
    }

    /// Returns when messages can be asked for.
    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Returns when [`Source::maintain`] has something to do.
    pub fn maintain_at(&self) -> Instant {
        match self.done.is_empty() {
            true => self.keep_at,
            false => self.next_at.min(self.keep_at),
        }
    }

    /// Returns the next messages, at most `most`. What is in hand and cannot be acknowledged any
    /// more is removed from there.
    ///
    /// # Errors
    ///
    /// If the queue cannot be used, or the broker cannot be reached after all retries.
    pub async fn receive(
        &mut self,
        most: usize,
        in_hand: &mut InHand,
    ) -> Result<Vec<Delivery>, BrokerError> {
        let Some(consumer) = self.open(in_hand).await? else {
            return Ok(Vec::new());
        };
        let received = consumer.receive(most as u64).await;
        let Some(received) = self.check(received)? else {
            return Ok(Vec::new());
        };
        self.retries.reset();
        self.is_quiet = received.is_empty();
        if self.is_quiet {
            self.next_at = Instant::now() + IDLE;
        }
        Ok(received)
    }

    /// Returns the consumer, which is opened if there is none and the pause is over.
    async fn open(
        &mut self,
        in_hand: &mut InHand,
    ) -> Result<Option<&mut Box<dyn Consumer>>, BrokerError> {
        if self.consumer.is_none() && self.next_at <= Instant::now() {
            let opened = self.broker.worker(self.options.clone()).await;
            if let Some(mut consumer) = self.check(opened)? {
                in_hand.retain(|delivery| consumer.holds(delivery));
                // At once: the broker may have been away for longer than the time of a takeover.
                let kept = consumer.keep(&in_hand.deliveries()).await;
                self.consumer = self.check(kept)?.map(|()| consumer);
            }
        }
        Ok(self.consumer.as_mut())
    }

    /// Acknowledges a delivery soon.
    pub fn acknowledge(&mut self, delivery: Delivery) {
        self.done.push(delivery);
    }

    /// Sends acknowledgements, and from time to time tells the broker what is still in hand.
    ///
    /// # Errors
    ///
    /// As for [`Source::receive`].
    pub async fn maintain(&mut self, in_hand: &mut InHand) -> Result<(), BrokerError> {
        if !self.done.is_empty() {
            self.open(in_hand).await?;
            if let Some(consumer) = &mut self.consumer {
                // They are kept until then: a stop may interrupt this.
                let acknowledged = consumer.acknowledge(&self.done).await;
                if self.check(acknowledged)?.is_some() {
                    self.retries.reset();
                    self.done.clear();
                }
            }
        }
        let now = Instant::now();
        if now >= self.keep_at {
            self.keep_at = now + self.keep_every;
            if let Some(consumer) = &mut self.consumer {
                let kept = consumer.keep(&in_hand.deliveries()).await;
                self.check(kept)?;
            }
        }
        Ok(())
    }

    /// Whether the queue is empty, and all that came from it is acknowledged.
    ///
    /// # Errors
    ///
    /// As for [`Source::receive`].
    pub async fn is_drained(&mut self) -> Result<bool, BrokerError> {
        if !self.is_quiet || !self.done.is_empty() {
            return Ok(false);
        }
        let Some(consumer) = &mut self.consumer else {
            return Ok(false);
        };
        let drained = consumer.is_drained().await;
        Ok(self.check(drained)?.unwrap_or(false))
    }

    /// Acknowledges what is done, gives back what is not, and leaves the queue.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached: it then gives it to another worker after some time.
    pub async fn leave(mut self) -> Result<(), BrokerError> {
        let Some(mut consumer) = self.consumer.take() else {
            return Ok(());
        };
        consumer.acknowledge(&self.done).await?;
        consumer.leave().await
    }

    /// Returns the value of a success. After a failure that may pass, the queue is opened again
    /// later.
    fn check<T>(&mut self, result: Result<T, BrokerError>) -> Result<Option<T>, BrokerError> {
        let error = match result {
            Ok(value) => return Ok(Some(value)),
            Err(error) if !error.is_transient() => return Err(error),
            Err(error) => error,
        };
        self.consumer = None;
        self.is_quiet = false;
        match self.retries.next_pause(None) {
            None => Err(error),
            Some(pause) => {
                warn!(
                    pause_ms = pause.as_millis(),
                    "{error}; opening the queue again"
                );
                self.next_at = Instant::now() + pause;
                Ok(None)
            }
        }
    }
}
