//! Lifecycle of a run: start, resume and recovery after a broken connection. For its end see
//! `finish`.

use std::time::SystemTime;

use tracing::{info, warn};

use super::checkpoint::Record;
use super::control::Control;
use super::in_flight::Oldest;
use super::publisher::{MessageTemplate, Publisher, QUEUE_REFUSES, find_target};
use super::publishing_id::Base;
use super::reconcile::{Decision, Expected, reconcile, recovered};
use super::session::{Phase, RabbitMqSession, with_broker};
use super::unverified::Unverified;
use crate::batch::Batch;
use crate::broker::error::{Failure, SessionError};
use crate::broker::record::State;
use crate::broker::retries::Retrying as _;
use crate::broker::stream_protocol::Producer;
use crate::broker::{BrokerError, Recovered, ResumePoint};
use crate::message::{Encoder, Marker, snapshot_time};

/// Outcome of an attempt to confirm the oldest batches.
enum OldestOutcome {
    /// All of their messages are confirmed, and the batches are removed.
    Confirmed,
    /// The queue has refused some of their messages.
    Refused {
        /// Whether it has accepted any message since it last refused one.
        accepted_some: bool,
    },
}

impl RabbitMqSession {
    /// Opens the connections that are missing, and checks that the run still owns the checkpoint.
    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        if self.connections.control.is_none() {
            let control = Control::open(
                &self.settings,
                &self.names,
                &self.connections,
                &self.context,
            )
            .await?;
            let found = control.found.clone();
            self.connections.control = Some(control);
            self.check_ownership(found.as_ref())?;
        }
        if self.settings.endpoint.stream().is_some() {
            return self.connect_producer().await;
        }
        if self.phase == Phase::Recorded && self.connections.publisher.is_none() {
            let publisher = Publisher::open(
                &self.settings,
                &self.names.queue,
                self.run.confirmed.run_id,
                &self.connections,
                &self.context.pauses,
            )
            .await?;
            self.connections.had_queue = true;
            self.connections.publisher = Some(publisher);
        }
        Ok(())
    }

    /// Opens the connection over the stream protocol. The base of a run depends on what the broker has,
    /// so that is known before the run is recorded.
    async fn connect_producer(&mut self) -> Result<(), Failure> {
        let (Some(stream), Some(control)) =
            (self.settings.endpoint.stream(), &self.connections.control)
        else {
            return Ok(());
        };
        if self.phase == Phase::Opening || self.connections.producer.is_some() {
            return Ok(());
        }
        let (queue, had_queue) = (&self.names.queue, self.connections.had_queue);
        find_target(control.connection(), &self.settings, queue, had_queue).await?;
        let producer = Producer::open(&stream.hosts, &stream.login, queue, &self.names.producer);
        let producer = producer.await?;
        self.connections.had_queue = true;
        let last_id = producer.last_id();
        if self.outbox.is_lost(last_id) {
            warn!("the stream has lost messages that it had confirmed");
            self.outbox.clear();
            let start = ResumePoint::start_of(self.run.confirmed.run_id);
            return Err(Failure::Rewound(Box::new(start)));
        }
        if self.outbox.see(last_id) {
            // Part of a batch has arrived, however often the connection breaks.
            self.retries.reset();
        }
        self.connections.producer = Some(producer);
        Ok(())
    }

    /// Chooses the base of publishing ids.
    fn choose_base(&mut self) {
        let Some(producer) = &self.connections.producer else {
            return;
        };
        let announced = self.run.ahead.map_or(0, |(position, _)| position);
        let proven = announced.max(self.run.confirmed.position);
        let started = snapshot_time(self.run.confirmed.run_id)
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let last_id = producer.last_id();
        let base = self.run.id_base.choose(last_id, proven, started.as_secs());
        self.run.id_base = Base::Recorded(base);
    }

    fn check_ownership(&mut self, found: Option<&Record>) -> Result<(), Failure> {
        let expected = match self.phase {
            Phase::Opening => Expected::Any,
            Phase::Unrecorded => Expected::Unchanged(self.run.found.as_ref()),
            Phase::Recorded => Expected::Own {
                run_id: self.run.confirmed.run_id,
                durable: self.run.durable,
            },
        };
        match reconcile(found, expected, self.connections.owner) {
            Decision::Continue => Ok(()),
            Decision::TakenOver { by } => {
                info!(run_id = %by, "taken over by another run");
                Err(BrokerError::Locked(self.names.queue.clone()).into())
            }
            Decision::Rewind(to) => {
                warn!(
                    position = to.at.position,
                    "checkpoint is behind the published position"
                );
                self.outbox.clear();
                // What the checkpoint knows counts, and no longer what came after it.
                let known = found.map_or(0, |found| found.last_id);
                self.outbox.set_confirmed_id(known);
                Err(Failure::Rewound(Box::new(to)))
            }
        }
    }

    /// Loads the checkpoint, and returns what earlier runs left.
    pub(super) async fn load_checkpoint(&mut self) -> Result<Recovered, SessionError> {
        with_broker!(self, self.try_load_checkpoint())
    }

    async fn try_load_checkpoint(&mut self) -> Result<Recovered, Failure> {
        self.connect().await?;
        let control = self.connections.control.as_ref();
        let found = control.and_then(|control| control.found.clone());
        self.phase = Phase::Unrecorded;
        self.run.found.clone_from(&found);
        let Some(found) = found else {
            return Ok(Recovered::default());
        };
        let mut recovered = recovered(Some(&found), self.is_queue_gone(&found).await?);
        let mode = self.context.selection.mode();
        recovered.unfinished = recovered.unfinished.filter(|_| found.mode == mode);
        self.run.last_complete = found.last_complete;
        self.run.id_base = found.id_base.map_or(Base::AtLeast(0), Base::Recorded);
        self.outbox.set_confirmed_id(found.last_id);
        if recovered.unfinished.is_some() {
            let packed_before = found.ids_per_message.max(1);
            self.run.repacked =
                found.repacked || packed_before != self.context.layout.ids_per_message;
        }
        Ok(recovered)
    }

    /// Returns whether the queue was deleted with the messages of an unfinished run.
    async fn is_queue_gone(&mut self, found: &Record) -> Result<bool, Failure> {
        let is_ours_to_declare = self.settings.declare && self.settings.exchange.is_none();
        let is_over = found.state != State::Running && found.settled;
        let Some(control) = &self.connections.control else {
            return Ok(false);
        };
        if is_over || found.checkpoint.position == 0 || !is_ours_to_declare {
            return Ok(false);
        }
        let is_gone = !control.queue_exists(&self.names.queue).await?;
        if is_gone {
            let run_id = found.checkpoint.run_id;
            info!(%run_id, "queue is gone, with the messages of the unfinished run");
        }
        Ok(is_gone)
    }

    /// Sets where the following batches begin, in a run that is not recorded there yet.
    pub(super) fn set_resume_point(&mut self, resume_point: ResumePoint) {
        let at = resume_point.at;
        self.unverified = Unverified::of(&resume_point);
        // Messages that may have been sent behind the checkpoint are sent again, unchanged.
        self.run.ahead = resume_point.expected_digests.last().copied();
        if at.position == 0 && self.run.ahead.is_none() {
            // Nothing of the list is proven, so it gets ids of its own.
            self.run.id_base = self.run.id_base.forget();
            self.outbox.set_confirmed_id(0);
        }
        self.staged = Batch::new();
        self.run.confirmed = at;
        self.run.durable = 0;
        // If nothing is known to be on the queue, the queue may have been lost too and must not be
        // required.
        self.connections.had_queue &= at.position > 0;
        self.run.template = Some(self.template_of(at.run_id));
        self.phase = Phase::Unrecorded;
        self.resume_point = resume_point;
    }

    /// Goes back to a resume point of a run that was recorded before.
    pub(super) async fn go_back_to(
        &mut self,
        resume_point: ResumePoint,
    ) -> Result<(), SessionError> {
        self.set_resume_point(resume_point);
        self.record_run().await
    }

    /// Records the run at its resume point.
    pub(super) async fn record_run(&mut self) -> Result<(), SessionError> {
        // If the run has no confirmed chat, its start marker may be missing too.
        let marker = self.settings.marker && self.resume_point.at.position == 0;
        with_broker!(self, self.record_start(marker))
    }

    /// Records a new run before its first chat is published. Until then the checkpoint is that of
    /// an earlier run.
    pub(super) async fn record_new_run(&mut self) -> Result<(), SessionError> {
        if self.phase == Phase::Recorded {
            return Ok(());
        }
        let marker = self.settings.marker;
        with_broker!(self, self.record_start(marker))
    }

    /// Records the run in the broker before its first message can be there.
    async fn record_start(&mut self, marker: bool) -> Result<(), Failure> {
        self.phase = Phase::Unrecorded;
        self.connect().await?;
        self.choose_base();
        let record = self.record(State::Running);
        self.write(&record).await?;
        self.phase = Phase::Recorded;
        self.run.durable = record.checkpoint.position;
        self.connect().await?;
        if marker {
            self.publish_marker(Marker::Started, 0).await?;
        }
        Ok(())
    }

    /// Writes a record durably.
    pub(super) async fn write(&mut self, record: &Record) -> Result<(), Failure> {
        match &mut self.connections.control {
            Some(control) => control.write(record).await,
            None => Ok(()),
        }
    }

    fn template_of(&self, run_id: uuid::Uuid) -> MessageTemplate {
        let (target, layout) = (&self.context.target, &self.context.layout);
        let encoder = Encoder::new(layout, &target.instance_id, &target.label_id, run_id);
        let changed = self.run.list_changed || self.run.repacked;
        MessageTemplate::new(
            &self.settings,
            &target.queue,
            layout,
            encoder,
            run_id,
            changed,
        )
    }

    pub(super) fn record(&self, state: State) -> Record {
        Record {
            state,
            owner: self.connections.owner,
            mode: self.context.selection.mode().to_owned(),
            checkpoint: self.run.confirmed,
            list_changed: self.run.list_changed,
            ahead: self.run.ahead,
            id_base: self.run.id_base.recorded(),
            last_id: self.outbox.last_id(0),
            ids_per_message: self.context.layout.ids_per_message,
            repacked: self.run.repacked,
            settled: false,
            last_complete: self.run.last_complete,
            at: SystemTime::now(),
        }
    }

    /// Records in the checkpoint how far messages may be sent from now on.
    pub(super) async fn record_ahead(&mut self) -> Result<(), Failure> {
        self.connect().await?;
        let record = self.record(State::Running);
        self.write(&record).await
    }

    /// Sends unsent messages. The newest batch may not be written yet when this returns.
    pub(super) async fn send_pending(&mut self) -> Result<(), Failure> {
        self.connect().await?;
        let (template, base) = (self.run.template.as_ref(), self.run.id_base.recorded());
        let base = base.unwrap_or(0);
        self.outbox
            .send(&mut self.connections, template, base)
            .await
    }

    /// Waits for the oldest batches, and moves the checkpoint past them. If the queue refuses
    /// messages, pauses before the next attempt.
    pub(super) async fn confirm_oldest(&mut self) -> Result<(), SessionError> {
        match with_broker!(self, self.try_confirm_oldest())? {
            OldestOutcome::Confirmed => Ok(()),
            OldestOutcome::Refused { accepted_some } => {
                self.wait_after_refusal(accepted_some).await
            }
        }
    }

    async fn try_confirm_oldest(&mut self) -> Result<OldestOutcome, Failure> {
        self.send_pending().await?;
        let count = match self.outbox.wait_for_oldest(&self.connections).await? {
            Oldest::Confirmed(0) => return Ok(OldestOutcome::Confirmed),
            Oldest::Confirmed(count) => count,
            Oldest::Refused { accepted_some } => {
                return Ok(OldestOutcome::Refused { accepted_some });
            }
            Oldest::Returned(returned) => {
                let reason = returned.reply_text.as_str();
                let template = self.run.template.as_ref();
                let text =
                    template.map_or_else(String::new, |template| template.unroutable(reason));
                return Err(BrokerError::WrongQueue(text).into());
            }
        };
        if self.refusals.has_failed() {
            self.refusals.reset();
            self.context.pauses.resumed();
        }
        let mut at = self.run.confirmed;
        for batch in self.outbox.oldest(count) {
            at.advance(batch, u64::from(batch.chats()));
        }
        let record = Record {
            checkpoint: at,
            last_id: self.outbox.last_id(count),
            ..self.record(State::Running)
        };
        if let Some(control) = &mut self.connections.control
            && let Some(position) = control.send(&record, count).await?
        {
            self.run.durable = position;
        }
        self.run.delivered.chats += at.chats - self.run.confirmed.chats;
        self.run.delivered.messages += self.outbox.drop_oldest(count);
        self.run.confirmed = at;
        Ok(OldestOutcome::Confirmed)
    }

    /// Pauses after a refusal, since a full queue may soon accept messages again. The connection
    /// remains usable.
    async fn wait_after_refusal(&mut self, accepted_some: bool) -> Result<(), SessionError> {
        if accepted_some {
            self.refusals.reset();
        }
        self.context.pauses.paused("the queue refuses messages");
        let failure = Failure::Transient(QUEUE_REFUSES.to_owned());
        self.refusals.pause(failure).await
    }

    /// Waits until the checkpoint is durable.
    pub(super) async fn confirm_checkpoint(&mut self) -> Result<(), Failure> {
        self.connect().await?;
        let record = self.record(State::Running);
        if let Some(control) = &mut self.connections.control {
            match control.confirm_all().await? {
                Some(position) => self.run.durable = position,
                // After a broken connection, the outcome of the checkpoints sent before is unknown.
                None if self.run.durable < self.run.confirmed.position => {
                    control.write(&record).await?;
                    self.run.durable = self.run.confirmed.position;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Returns how many messages wait in the queue.
    pub(super) async fn depth(&mut self) -> Result<u64, Failure> {
        self.connect().await?;
        match &self.connections.publisher {
            Some(publisher) => publisher.depth(&self.names.queue).await,
            None => Ok(0),
        }
    }
}
