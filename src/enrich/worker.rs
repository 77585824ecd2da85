//! The worker: moves chats from the source through look-ups to the publisher.

mod failure;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::gate::{Closing, Epoch, Gate};
use super::in_hand::{Backlog, InHand, Job};
use super::lookup::Lookups;
use super::metrics::Metrics;
use super::publish::{Confirmed, Publisher};
use super::received::{self, Received, has_contact};
use super::source::Source;
use crate::api::ApiError;
use crate::broker::Delivery;
use crate::error::Error;
use crate::message::Lookup;
use crate::retry::RetryPolicy;
use crate::shutdown::{Cause, DRAIN, Shutdown};

/// The maximum number of chats that wait for another attempt. With more of them, no further message
/// is taken.
const MAX_WAITING: usize = 256;
/// The maximum number of messages on their way to the broker, beyond those of the look-ups under way.
const MAX_UNCONFIRMED: usize = 256;
/// The delivery of a message at which its chats are set aside, if none was acknowledged before. A
/// quorum queue of RabbitMQ 4 drops a message that comes back more often than that.
const LAST_DELIVERY: u64 = 20;
/// The number of chats that take turns in finding out whether the API is ready again. It could be one
/// of them alone that is refused.
const PROBES: usize = 3;
/// The time for the last acknowledgements at the end. With [`DRAIN`] this stays under the guaranteed
/// ten seconds.
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
    /// The number of look-ups that were answered.
    answered: u64,
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
            answered: 0,
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
        self.finish(shutdown).await;
        ended
    }

    async fn work(&mut self) -> Result<Ending, Error> {
        loop {
            self.source.maintain(&mut self.in_hand).await?;
            self.receive().await?;
            if self.in_hand.has_let_go() {
                self.backlog.drop_without(&self.in_hand);
            }
            self.start();
            self.metrics.show_in_hand(self.in_hand.len());
            self.metrics.show_closed(self.gate.closed());
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
        let enough = match self.gate.closed() {
            Some(Closing::Unready) => PROBES,
            Some(Closing::Throttled) | None => 1,
        };
        self.backlog.ready() < enough && self.backlog.waiting() < MAX_WAITING && self.may_start(now)
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
        for delivery in deliveries {
            self.take(delivery);
        }
        Ok(())
    }

    /// Takes a delivery apart.
    fn take(&mut self, delivery: Delivery) {
        self.metrics.count_message();
        let is_last = delivery.deliveries >= LAST_DELIVERY;
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
                Err(unusable) => self.publisher.set_aside_unusable(key, &unusable),
                Ok(chat) if is_last => {
                    let reason = format!("delivered {LAST_DELIVERY} times, and never acknowledged");
                    warn!("chat set aside: {reason}");
                    self.publisher.set_aside(key, &chat, &reason, 0);
                }
                Ok(chat) if !has_contact(&chat.chat_id) => {
                    self.publisher.record(key, &chat, &Lookup::NotAsked);
                }
                Ok(chat) => self.backlog.push(Job {
                    key,
                    chat,
                    attempts: 0,
                    retries: None,
                    pauses: None,
                    refused_after: None,
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
            if self.lookups.limiter().try_take(now).is_err() {
                self.backlog.push_front(job);
                return;
            }
            let epoch = self.gate.start();
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
                    self.publisher.record(job.key, &job.chat, &lookup);
                }
                Ok(())
            }
            Err(error) => self.failed(job, epoch, error),
        }
    }

    /// Notes that the API has answered about a contact.
    fn answered(&mut self, epoch: Epoch) {
        self.answered += 1;
        if self.gate.succeeded(epoch) {
            info!("the API answers again");
        }
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
    async fn finish(mut self, shutdown: &Shutdown) {
        let time_is_up = async {
            tokio::select! {
                _ = shutdown.drained() => {}
                () = tokio::time::sleep(DRAIN) => {}
            }
        };
        tokio::select! {
            () = time_is_up => {}
            () = self.end_look_ups() => {}
        }
        self.running.abort_all();
        match tokio::time::timeout(LEAVE, self.source.leave()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => warn!("other workers get what is left later: {error}"),
            Err(_) => warn!("other workers get what is left later: the broker does not answer"),
        }
    }

    async fn end_look_ups(&mut self) {
        while !self.running.is_empty() || self.publisher.unconfirmed() > 0 {
            let ended = tokio::select! {
                confirmed = self.publisher.confirmed(), if self.publisher.unconfirmed() > 0 => {
                    match confirmed {
                        Ok(confirmed) => self.confirmed(&confirmed),
                        Err(error) => {
                            warn!("what is left was not published: {error}");
                            return;
                        }
                    }
                    Ok(())
                }
                Some(finished) = self.running.join_next() => self.finished(finished),
            };
            if let Err(error) = ended {
                debug!("the end of a look-up: {error}");
            }
        }
    }
}
