//! One run's hold on a queue.

use async_trait::async_trait;
use uuid::Uuid;

use super::RabbitSettings;
use super::checkpoint::Record;
use super::connections::Connections;
use super::in_flight::InFlight;
use super::names::Names;
use super::outbox::Outbox;
use super::publisher::MessageTemplate;
use super::publishing_id::Base;
use super::stream_flight::{STAGED_ENTRIES, StreamFlight};
use super::unverified::Unverified;
use crate::batch::{Batch, Digest, Position};
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries};
use crate::broker::{
    BrokerError, Checkpoint, Delivered, Outcome, ResumePoint, SessionContext, SnapshotSession,
    Start, Written,
};

/// A run's hold on a queue.
pub(super) struct RabbitMqSession {
    pub(super) settings: RabbitSettings,
    pub(super) context: SessionContext,
    pub(super) names: Names,
    pub(super) connections: Connections,
    pub(super) phase: Phase,
    pub(super) run: RunProgress,
    /// Where the next batch must begin.
    pub(super) resume_point: ResumePoint,
    pub(super) outbox: Outbox,
    /// Batches that are put together to one, over the stream protocol.
    pub(super) staged: Batch,
    /// Batches behind the checkpoint, held until the list is verified.
    pub(super) unverified: Unverified,
    /// Messages that may be sent before the queue's length is checked again.
    pub(super) capacity: u64,
    pub(super) retries: SessionRetries,
    /// Retries since the queue last accepted a message.
    pub(super) refusals: SessionRetries,
}

/// How far the session is, which decides the checkpoint that it expects after a reconnect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The checkpoint was not loaded yet.
    Opening,
    /// The run is not recorded in the broker, or not at its new resume point.
    Unrecorded,
    /// The run is recorded in the broker.
    Recorded,
}

/// Progress of the run, as the checkpoint records it.
pub(super) struct RunProgress {
    /// The common parts of the run's messages; `None` until the run is known.
    pub(super) template: Option<MessageTemplate>,
    /// Progress according to the confirms.
    pub(super) confirmed: Checkpoint,
    /// Position of the newest checkpoint that is known to be durable.
    pub(super) durable: Position,
    pub(super) list_changed: bool,
    /// How far messages of several chats may have been sent, as recorded in the checkpoint.
    pub(super) ahead: Option<(Position, Digest)>,
    /// The base of publishing ids, over the stream protocol.
    pub(super) id_base: Base,
    /// Whether the run began with another number of chats per message.
    pub(super) repacked: bool,
    pub(super) last_complete: Option<u64>,
    /// The checkpoint that was found when the session was opened.
    pub(super) found: Option<Record>,
    pub(super) delivered: Delivered,
}

/// Runs an idempotent operation on the broker with retries and a time limit that alarms extend.
macro_rules! with_broker {
    ($session:expr, $operation:expr) => {
        match $session.retries.check() {
            Ok(()) => {
                let alarm = $session.connections.alarm.clone();
                $crate::broker::retries::with_retry!($session, alarm.within($operation))
            }
            Err(error) => Err($crate::broker::error::SessionError::from(error)),
        }
    };
}
pub(super) use with_broker;

impl Retrying for RabbitMqSession {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, _: &Failure) {
        self.connections.drop_both();
        self.outbox.mark_unsent();
    }
}

impl RabbitMqSession {
    pub(super) fn new(settings: RabbitSettings, context: SessionContext) -> Self {
        let retries = SessionRetries::new(&context.retry);
        let outbox = match settings.endpoint.stream() {
            Some(_) => Outbox::Stream(StreamFlight::default()),
            None => Outbox::Amqp(InFlight::default()),
        };
        Self {
            outbox,
            staged: Batch::new(),
            names: Names::new(&context.target),
            settings,
            context,
            connections: Connections::new(),
            phase: Phase::Opening,
            run: RunProgress {
                template: None,
                confirmed: Checkpoint::start_of(Uuid::nil()),
                durable: 0,
                list_changed: false,
                ahead: None,
                id_base: Base::AtLeast(0),
                repacked: false,
                last_complete: None,
                found: None,
                delivered: Delivered::default(),
            },
            resume_point: ResumePoint::start_of(Uuid::nil()),
            unverified: Unverified::default(),
            capacity: 0,
            refusals: retries.sibling(),
            retries,
        }
    }

    /// Publishes a batch once the list is verified up to where messages may have been sent.
    async fn publish(&mut self, batch: &Batch) -> Result<(), SessionError> {
        if !self.unverified.hold_if_unverified(batch) {
            for held in self.unverified.take() {
                self.stage(&held).await?;
            }
            self.stage(batch).await?;
        }
        self.resume_point.advance(batch);
        Ok(())
    }

    /// Publishes a batch; over the stream protocol, together with those after it.
    async fn stage(&mut self, batch: &Batch) -> Result<(), SessionError> {
        if matches!(self.outbox, Outbox::Amqp(_)) {
            return self.publish_verified(batch).await;
        }
        if self.staged.is_cut() {
            // Its last message was ended because of its size.
            self.publish_staged().await?;
        }
        self.staged.append(batch);
        if self.staged.entries() >= STAGED_ENTRIES {
            self.publish_staged().await?;
        }
        Ok(())
    }

    async fn publish_staged(&mut self) -> Result<(), SessionError> {
        if self.staged.entries() > 0 {
            let mut staged = std::mem::take(&mut self.staged);
            self.publish_verified(&staged).await?;
            // Its memory is used again.
            staged.restart(staged.end());
            self.staged = staged;
        }
        Ok(())
    }

    /// Publishes a batch that contains the same chats as anything that may have been sent at its
    /// position.
    async fn publish_verified(&mut self, batch: &Batch) -> Result<(), SessionError> {
        self.record_new_run().await?;
        let messages = self
            .run
            .template
            .as_ref()
            .map_or(0, |template| template.messages(batch));
        self.wait_for_capacity(messages as u64).await?;
        while self.outbox.is_full() {
            self.confirm_oldest().await?;
        }
        let is_stream = matches!(self.outbox, Outbox::Stream(_));
        if is_stream || self.context.layout.ids_per_message > 1 {
            // Keeps an earlier, higher limit: messages up to there may have been sent before a
            // restart.
            let ahead = &mut self.run.ahead;
            if ahead.is_none_or(|(position, _)| position < batch.end()) {
                *ahead = Some((batch.end(), batch.digest()));
            }
            with_broker!(self, self.record_ahead())?;
        }
        self.outbox.push(batch, messages);
        with_broker!(self, self.send_pending())
    }

    /// Confirms all batches, and waits for a checkpoint that covers them.
    async fn confirm_all(&mut self) -> Result<(), SessionError> {
        self.publish_staged().await?;
        while !self.outbox.is_empty() {
            self.confirm_oldest().await?;
        }
        if self.phase == Phase::Recorded {
            with_broker!(self, self.confirm_checkpoint())?;
        }
        Ok(())
    }

    /// Goes back to the checkpoint, if the broker has lost it or entries before it.
    async fn recover(&mut self, result: Result<(), SessionError>) -> Result<Written, BrokerError> {
        match result {
            Ok(()) => Ok(Written::Done),
            Err(SessionError::Failed(error)) => Err(error),
            Err(SessionError::Rewound(to)) => {
                let lost = self.run.confirmed.chats.saturating_sub(to.at.chats);
                let per_message = self.context.layout.ids_per_message;
                self.run.delivered.take_back(lost, per_message);
                self.go_back_to(*to)
                    .await
                    .map_err(SessionError::into_failure)?;
                Ok(Written::Rewound)
            }
        }
    }
}

#[async_trait]
impl SnapshotSession for RabbitMqSession {
    async fn start(&mut self, start: Start) -> Result<(), BrokerError> {
        let resume_point = start.resume_point();
        match start {
            Start::New(_) => {
                self.run.repacked = false;
                self.set_resume_point(resume_point);
                Ok(())
            }
            Start::Resumed(unfinished) => {
                self.run.list_changed = unfinished.list_changed;
                let resumed = match self.go_back_to(resume_point).await {
                    // What an earlier process had published is gone.
                    Err(SessionError::Rewound(to)) => self.go_back_to(*to).await,
                    resumed => resumed,
                };
                resumed.map_err(SessionError::into_failure)
            }
        }
    }

    fn resume_point(&self) -> &ResumePoint {
        &self.resume_point
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, BrokerError> {
        let published = self.publish(batch).await;
        self.recover(published).await
    }

    async fn idle(&mut self) -> Result<Written, BrokerError> {
        if self.staged.entries() == 0 {
            return Ok(Written::Done);
        }
        // There is time to note in the checkpoint what is there.
        let confirmed = self.confirm_all().await;
        self.recover(confirmed).await
    }

    async fn flush(&mut self) -> Result<Written, BrokerError> {
        let confirmed = self.confirm_all().await;
        self.recover(confirmed).await
    }

    async fn restart(&mut self) -> Result<(), BrokerError> {
        match self.confirm_all().await {
            // The list is published from its start anyway.
            Ok(()) | Err(SessionError::Rewound(_)) => {}
            Err(SessionError::Failed(error)) => return Err(error),
        }
        let (run_id, had_queue) = (self.resume_point.at.run_id, self.connections.had_queue);
        self.run.list_changed = true;
        self.set_resume_point(ResumePoint::start_of(run_id));
        // Messages of the run are on the queue, so it must still be there.
        self.connections.had_queue = had_queue;
        self.record_run().await.map_err(SessionError::into_failure)
    }

    fn delivered(&self) -> Delivered {
        self.run.delivered
    }

    async fn finish(mut self: Box<Self>, outcome: Outcome) -> Result<(), BrokerError> {
        let ended = self.record_end(outcome).await;
        self.connections.close().await;
        ended.map_err(SessionError::into_failure)
    }
}
