//! The worker: moves chats from the source through look-ups to the publisher.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::gate::{Closing, Epoch, Gate};
use super::in_hand::{Backlog, DeliveryKey, InHand, Job};
use super::lookup::Lookups;
use super::metrics::{ChatResult, Metrics};
use super::publish::{Confirmed, Outgoing, Publisher};
use super::received::{self, Received, has_contact};
use super::source::Source;
use crate::api::{ApiError, FailureKind};
use crate::broker::Delivery;
use crate::error::Error;
use crate::exit::Exit;
use crate::message::{ContactEncoder, Lookup, QueuedChat, ReadyMessage, Unusable};
use crate::retry::{RetryPolicy, Retryable as _};
use crate::shutdown::{Cause, DRAIN, Shutdown};

/// The maximum number of chats that wait for another attempt. With more of them, no further message
/// is taken.
const MAX_WAITING: usize = 256;
/// The maximum number of messages on their way to the broker, beyond those of the look-ups under way.
const MAX_UNCONFIRMED: usize = 256;
/// How often a message is delivered without being acknowledged before its chats are set aside. A
/// quorum queue of RabbitMQ 4 drops messages after as many.
const MAX_DELIVERIES: u64 = 20;
/// The time for the last acknowledgements at the end.
const LEAVE: Duration = Duration::from_secs(1);

/// The limits of a worker.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of look-ups at once.
    pub concurrency: usize,
    /// The number of failures after which an id is set aside.
    pub attempts: u32,
    /// Whether to end when the queue is empty, or when the API stays unready.
    pub drain: bool,
    /// The number of pauses in a row after which a worker that drains gives up.
    pub retries: usize,
}

/// How a worker has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The queue is empty.
    Drained,
    /// A stop was requested.
    Stopped(Cause),
}

/// A look-up that has ended.
struct Finished {
    job: Job,
    epoch: Epoch,
    result: Result<Lookup, ApiError>,
    elapsed: Duration,
}

/// The worker.
pub struct Worker {
    limits: Limits,
    source: Source,
    lookups: Arc<Lookups>,
    gate: Gate,
    in_hand: InHand,
    backlog: Backlog,
    running: JoinSet<Finished>,
    publisher: Publisher,
    encoder: ContactEncoder,
    metrics: Arc<Metrics>,
    policy: RetryPolicy,
}

impl Worker {
    /// Builds a worker of its parts.
    pub fn new(
        limits: Limits,
        source: Source,
        lookups: Lookups,
        publisher: Publisher,
        encoder: ContactEncoder,
        metrics: Arc<Metrics>,
        policy: &RetryPolicy,
    ) -> Self {
        Self {
            limits,
            source,
            lookups: Arc::new(lookups),
            gate: Gate::new(policy),
            in_hand: InHand::default(),
            backlog: Backlog::default(),
            running: JoinSet::new(),
            publisher,
            encoder,
            metrics,
            // The first of the attempts is none of the retries.
            policy: policy.with_retries(limits.attempts.saturating_sub(1) as usize),
        }
    }

    /// Works until the queue is empty, if it drains, or until a stop. Look-ups under way are ended
    /// and published, and what is left is given back.
    ///
    /// # Errors
    ///
    /// If the worker cannot go on: after an error that a retry cannot fix, or after all retries.
    pub async fn run(mut self, shutdown: &Shutdown) -> Result<Ending, Error> {
        let ended = tokio::select! {
            biased;
            cause = shutdown.stopped() => Ok(Ending::Stopped(cause)),
            ended = self.work() => ended,
        };
        let left = self.finish(shutdown).await;
        ended.and_then(|ending| left.map(|()| ending))
    }

    async fn work(&mut self) -> Result<Ending, Error> {
        loop {
            self.source.maintain(&mut self.in_hand).await?;
            self.receive().await?;
            self.start();
            self.metrics.show_in_hand(self.in_hand.len());
            if self.limits.drain && self.is_drained().await? {
                return Ok(Ending::Drained);
            }
            let wake_at = self.wake_at();
            tokio::select! {
                confirmed = self.publisher.confirmed() => self.confirmed(&confirmed?),
                Some(finished) = self.running.join_next() => self.finished(finished)?,
                () = tokio::time::sleep_until(wake_at) => {}
            }
            while let Some(finished) = self.running.try_join_next() {
                self.finished(finished)?;
            }
        }
    }

    /// Whether more chats are needed now. More than can be looked up at once would only be kept from
    /// other workers.
    fn wants_more(&self, now: Instant) -> bool {
        self.backlog.has_none_ready() && self.backlog.waiting() < MAX_WAITING && self.may_start(now)
    }

    /// Whether a look-up may start now.
    fn may_start(&self, now: Instant) -> bool {
        self.has_room()
            && self.lookups.limiter().next_at() <= now
            && self.gate.opens_at(now).is_some_and(|at| at <= now)
    }

    /// Whether another look-up can be under way.
    fn has_room(&self) -> bool {
        self.running.len() < self.limits.concurrency
            && self.publisher.unconfirmed() < self.limits.concurrency + MAX_UNCONFIRMED
    }

    /// Takes messages, if more are needed.
    async fn receive(&mut self) -> Result<(), Error> {
        let now = Instant::now();
        if !self.wants_more(now) || self.source.next_at() > now {
            return Ok(());
        }
        let room = self.limits.concurrency - self.running.len();
        let most = match self.gate.closed() {
            None | Some(Closing::Throttled) => room.min(self.lookups.limiter().available()).max(1),
            Some(Closing::Unready) => 1,
        };
        let deliveries = self.source.receive(most, &mut self.in_hand).await?;
        self.backlog.drop_without(&self.in_hand);
        for delivery in deliveries {
            self.take(delivery);
        }
        Ok(())
    }

    /// Takes a delivery apart.
    fn take(&mut self, delivery: Delivery) {
        self.metrics.count_message();
        let was_given_up = delivery.deliveries > MAX_DELIVERIES;
        let parts = match received::read(&delivery.message) {
            Received::PassedOver => {
                self.metrics.count_passed_over();
                Vec::new()
            }
            Received::Unusable(unusable) => vec![Err(unusable)],
            Received::Chats(chats) => chats,
        };
        if parts.is_empty() {
            self.source.acknowledge(delivery);
            return;
        }
        let key = self.in_hand.take(delivery, parts.len());
        for part in parts {
            match part {
                Err(unusable) => self.set_aside_unusable(key, &unusable),
                Ok(chat) if was_given_up => {
                    let reason =
                        format!("delivered over {MAX_DELIVERIES} times, and never acknowledged");
                    self.set_aside(key, &chat, &reason, 0);
                }
                Ok(chat) if !has_contact(&chat.chat_id) => {
                    self.publish_record(key, &chat, &Lookup::NotAsked);
                }
                Ok(chat) => self.backlog.push(Job {
                    key,
                    chat,
                    attempts: 0,
                    retries: None,
                }),
            }
        }
    }

    /// Starts as many look-ups as may be under way.
    fn start(&mut self) {
        loop {
            let now = Instant::now();
            if !self.may_start(now) {
                return;
            }
            let Some(job) = self.backlog.next(now) else {
                return;
            };
            let epoch = self.gate.start();
            self.lookups.limiter().take();
            let lookups = Arc::clone(&self.lookups);
            self.running.spawn(async move {
                let result = lookups.look_up(&job.chat.chat_id).await;
                let elapsed = now.elapsed();
                Finished {
                    job,
                    epoch,
                    result,
                    elapsed,
                }
            });
        }
    }

    /// Takes the outcome of a look-up.
    fn finished(&mut self, finished: Result<Finished, JoinError>) -> Result<(), Error> {
        let bug = |error: JoinError| Error::Bug(format!("a look-up ended unexpectedly: {error}"));
        let Finished {
            job,
            epoch,
            result,
            elapsed,
        } = finished.map_err(bug)?;
        match result {
            Ok(lookup) => {
                self.metrics.observe_lookup(elapsed);
                self.answered(epoch);
                if self.in_hand.contains(job.key) {
                    self.publish_record(job.key, &job.chat, &lookup);
                }
                Ok(())
            }
            Err(error) => self.failed(job, epoch, error),
        }
    }

    /// Notes that the API has answered about a contact.
    fn answered(&mut self, epoch: Epoch) {
        if self.gate.succeeded(epoch) {
            info!("the API answers again");
            self.metrics.show_closed(None);
        }
    }

    /// Decides what follows from a failure.
    fn failed(&mut self, mut job: Job, epoch: Epoch, error: ApiError) -> Result<(), Error> {
        let kind = error.failure_kind();
        self.metrics.count_failure(kind);
        let now = Instant::now();
        let error = Error::from(error);
        match kind {
            FailureKind::Throttled => {
                self.close(epoch, Closing::Throttled, &error, now);
                self.backlog.push_front(job);
                return Ok(());
            }
            FailureKind::Unready => {
                self.close(epoch, Closing::Unready, &error, now);
                self.backlog.push_front(job);
                return self.give_up_if_draining(error);
            }
            FailureKind::Unimplemented | FailureKind::Final => self.answered(epoch),
            FailureKind::NotFound | FailureKind::Transient => self.gate.failed(epoch, now),
        }
        job.attempts += 1;
        let pause = match kind {
            FailureKind::NotFound | FailureKind::Transient => {
                let retries = job.retries.get_or_insert_with(|| self.policy.retries());
                retries.next_pause(error.retry_after())
            }
            _ => None,
        };
        match pause {
            _ if !self.in_hand.contains(job.key) => {}
            Some(pause) => {
                debug!(
                    pause_ms = pause.as_millis(),
                    "look-up failed, trying again: {error}"
                );
                self.backlog.push_for(now + pause, job);
            }
            None => self.set_aside(job.key, &job.chat, &error.to_string(), job.attempts),
        }
        Ok(())
    }

    fn close(&mut self, epoch: Epoch, why: Closing, error: &Error, now: Instant) {
        if let Some(pause) = self.gate.close(epoch, why, error.retry_after(), now) {
            warn!(pause_ms = pause.as_millis(), "look-ups pause: {error}");
            self.metrics.show_closed(Some(why));
        }
    }

    /// Returns the error of an API that is not ready, if somebody waits for the end of the worker.
    fn give_up_if_draining(&self, error: Error) -> Result<(), Error> {
        let is_refused = error.exit() == Exit::Credentials;
        let is_over = is_refused || self.gate.closings() > self.limits.retries;
        match self.limits.drain && is_over {
            true => Err(error),
            false => Ok(()),
        }
    }

    fn publish_record(&mut self, key: DeliveryKey, chat: &QueuedChat, lookup: &Lookup) {
        let result = match lookup {
            Lookup::Found(_) => ChatResult::Found,
            Lookup::Missing => ChatResult::Missing,
            Lookup::NotAsked => ChatResult::NotAsked,
        };
        let message = self.encoder.record(chat, lookup, SystemTime::now());
        self.publish(key, result, message);
    }

    fn set_aside(&mut self, key: DeliveryKey, chat: &QueuedChat, reason: &str, attempts: u32) {
        warn!(attempts, "chat set aside: {reason}");
        let message = self
            .encoder
            .failed(chat, reason, attempts, SystemTime::now());
        self.publish(key, ChatResult::Failed, message);
    }

    fn set_aside_unusable(&mut self, key: DeliveryKey, unusable: &Unusable) {
        warn!("message set aside: {}", unusable.reason);
        let message = self.encoder.unusable(unusable, SystemTime::now());
        self.publish(key, ChatResult::Unusable, message);
    }

    fn publish(&mut self, key: DeliveryKey, result: ChatResult, message: ReadyMessage) {
        self.publisher.send(Outgoing {
            key,
            result,
            message,
        });
    }

    /// Takes messages that are durable now.
    fn confirmed(&mut self, confirmed: &[Confirmed]) {
        for Confirmed { key, result } in confirmed {
            self.metrics.count_chat(*result);
            if let Some(delivery) = self.in_hand.finish_part(*key) {
                self.source.acknowledge(delivery);
            }
        }
    }

    async fn is_drained(&mut self) -> Result<bool, Error> {
        let has_work = !self.in_hand.is_empty()
            || !self.running.is_empty()
            || self.publisher.unconfirmed() > 0;
        Ok(!has_work && self.source.is_drained().await?)
    }

    /// Returns when there is something to do, unless something happens before.
    fn wake_at(&self) -> Instant {
        let now = Instant::now();
        let mut wake_at = self.source.maintain_at();
        // Without room, the end of a look-up or a confirmation comes first.
        if self.has_room()
            && let Some(opens_at) = self.gate.opens_at(now)
        {
            let can_receive = self.backlog.waiting() < MAX_WAITING;
            let more_at = can_receive.then(|| self.source.next_at());
            let due_at = self.backlog.due_at(now);
            if let Some(at) = due_at.into_iter().chain(more_at).min() {
                wake_at = wake_at.min(at.max(opens_at).max(self.lookups.limiter().next_at()));
            }
        }
        wake_at
    }

    /// Lets look-ups under way end and be published, and gives back what is left.
    async fn finish(mut self, shutdown: &Shutdown) -> Result<(), Error> {
        let time_is_up = async {
            tokio::select! {
                _ = shutdown.drained() => {}
                () = tokio::time::sleep(DRAIN) => {}
            }
        };
        let ended = tokio::select! {
            () = time_is_up => Ok(()),
            ended = self.end_look_ups() => ended,
        };
        self.running.abort_all();
        let left = tokio::time::timeout(LEAVE, self.source.leave(&self.in_hand)).await;
        match left {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("what is left will be taken over later: {error}"),
            Err(_) => warn!("what is left will be taken over later: the broker does not answer"),
        }
        ended
    }

    async fn end_look_ups(&mut self) -> Result<(), Error> {
        while !self.running.is_empty() || self.publisher.unconfirmed() > 0 {
            tokio::select! {
                confirmed = self.publisher.confirmed(), if self.publisher.unconfirmed() > 0 => {
                    self.confirmed(&confirmed?);
                }
                Some(finished) = self.running.join_next() => self.finished(finished)?,
            }
        }
        Ok(())
    }
}
