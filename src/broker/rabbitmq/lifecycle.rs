//! Lifecycle of a run: start, resume and recovery after a broken connection. For its end see
//! `finish`.

use std::time::SystemTime;

use tracing::info;
use uuid::Uuid;

use super::RabbitMq;
use super::checkpoint::Record;
use super::control::Control;
use super::in_flight::Oldest;
use super::publisher::{Form, Publisher};
use super::unverified::Unverified;
use crate::broker::record::State;
use crate::broker::retry_policy::Failure;
use crate::broker::{BrokerError, Checkpoint, Recovered, Start, Target, Unfinished};
use crate::message::{Encoder, Marker};

/// Text for a nack.
pub(super) const REFUSES: &str = "the queue refuses messages, as one does that is full";

/// Outcome of an attempt to confirm the oldest batches.
enum OldestOutcome {
    /// All of their messages are confirmed, and the batches are removed.
    Confirmed,
    /// The queue has refused some of their messages.
    Refused {
        /// Whether it has accepted any message since it last refused one.
        took_some: bool,
    },
}

impl RabbitMq {
    /// Opens the connections that are missing.
    pub(super) async fn connect(&mut self) -> Result<(), Failure> {
        if self.control.is_none() {
            let shutdown = self.retry_policy.shutdown.clone();
            let (owner, progress) = (self.owner, self.progress.clone());
            let (settings, names, alarm) = (&self.settings, &self.names, &self.alarm);
            let control = Control::open(settings, names, owner, &shutdown, alarm, progress).await?;
            let found = control.found.clone();
            self.control = Some(control);
            if self.has_begun {
                self.compare(found.as_ref())?;
            } else {
                self.check_not_taken_over(found.as_ref())?;
            }
        }
        if self.has_begun && self.publisher.is_none() {
            let progress = self.progress.clone();
            let (queue, run_id, is_first) = (&self.names.queue, self.at.run_id, !self.had_queue);
            let publisher = Publisher::open(
                &self.settings,
                queue,
                run_id,
                is_first,
                &self.alarm,
                progress,
            )
            .await?;
            self.had_queue = true;
            self.publisher = Some(publisher);
        }
        Ok(())
    }

    /// Loads the checkpoint, and returns what earlier runs left.
    pub(super) async fn load_checkpoint(&mut self) -> Result<Recovered, Failure> {
        self.connect().await?;
        let Some((control, record)) = self
            .control
            .as_ref()
            .and_then(|control| Some((control, control.found.clone()?)))
        else {
            self.has_looked = true;
            return Ok(Recovered::default());
        };
        self.has_looked = true;
        self.looked_at = Some(record.clone());
        self.last_complete = record.last_complete;
        let mut recovered = Recovered {
            unfinished: None,
            last_complete: record.last_complete,
        };
        if record.state == State::Running || !record.settled {
            let (mut from, mut expected_digests) = (record.checkpoint, record.expected_digests());
            let is_ours_to_declare = self.settings.declare && self.settings.exchange.is_none();
            if from.position > 0 && is_ours_to_declare && !control.has(&self.names.queue).await? {
                info!(run_id = %from.run_id, "queue is gone, with the messages of the unfinished run");
                (from, expected_digests) = (Checkpoint::start_of(from.run_id), Vec::new());
            }
            let packed_before = record.ids_per_message.max(1);
            self.repacked = record.repacked || packed_before != self.layout.ids_per_message;
            recovered.unfinished = Some(Unfinished {
                from,
                expected_digests,
                at: record.at,
                list_changed: record.list_changed,
            });
        }
        Ok(recovered)
    }

    /// Fails if another run has come and gone while this one was disconnected before it began.
    fn check_not_taken_over(&self, found: Option<&Record>) -> Result<(), Failure> {
        let Some(found) = found.filter(|found| self.has_looked && found.owner != self.owner) else {
            return Ok(());
        };
        let is_same = |before: &Record| {
            before.checkpoint == found.checkpoint
                && before.owner == found.owner
                && before.state == found.state
        };
        if self.looked_at.as_ref().is_some_and(is_same) {
            return Ok(());
        }
        info!(run_id = %found.checkpoint.run_id, "checkpoint belongs to another run");
        Err(BrokerError::Locked(self.names.queue.clone()).into())
    }

    /// Checks that the checkpoint is still the one that this process wrote. Reports a takeover as
    /// [`BrokerError::Locked`], and a lost or older checkpoint as [`BrokerError::Rewound`].
    fn compare(&mut self, found: Option<&Record>) -> Result<(), Failure> {
        let run_id = self.at.run_id;
        let Some(found) = found.filter(|found| found.checkpoint.run_id == run_id) else {
            if let Some(other) = found.filter(|found| found.owner != self.owner) {
                info!(run_id = %other.checkpoint.run_id, "taken over by another run");
                return Err(BrokerError::Locked(self.names.queue.clone()).into());
            }
            return Err(self.rewinds(Unfinished::from_the_start(run_id, SystemTime::now())));
        };
        if found.owner != self.owner {
            return Err(BrokerError::Locked(self.names.queue.clone()).into());
        }
        if found.checkpoint.position < self.durable {
            return Err(self.rewinds(Unfinished {
                from: found.checkpoint,
                expected_digests: found.expected_digests(),
                at: SystemTime::now(),
                list_changed: self.list_changed,
            }));
        }
        Ok(())
    }

    fn rewinds(&mut self, to: Unfinished) -> Failure {
        self.in_flight.clear();
        BrokerError::Rewound(Box::new(to)).into()
    }

    /// Assigns the following batches to this run.
    pub(super) async fn begin_at(&mut self, start: Start<'_>) -> Result<Unfinished, BrokerError> {
        let unfinished = start.resume_point();
        let is_first = self.at.run_id != unfinished.from.run_id;
        self.list_changed |= unfinished.list_changed || matches!(start, Start::Again(_));
        if !is_first {
            // Chats that were confirmed but are published again count once.
            let lost = self.at.chats.saturating_sub(unfinished.from.chats);
            if matches!(start, Start::Resumed(_)) {
                self.delivered.chats = self.delivered.chats.saturating_sub(lost);
                let per_message = u64::from(self.layout.ids_per_message);
                let lost = lost.div_ceil(per_message);
                self.delivered.messages = self.delivered.messages.saturating_sub(lost);
            }
        }
        self.unverified = Unverified::of(&unfinished);
        // What may have been sent behind the checkpoint is sent again, unchanged.
        self.ahead = unfinished.expected_digests.last().copied();
        self.at = unfinished.from;
        self.durable = 0;
        // If nothing is known to be on the queue, the queue may have been lost too and must not be
        // required.
        self.had_queue &= unfinished.from.position > 0 || matches!(start, Start::Again(_));
        self.form = Some(self.form_of(unfinished.from.run_id));
        self.has_begun = false;
        if matches!(start, Start::New(_)) {
            self.repacked = false;
        } else {
            // A run that did not get to its first chat may not have got to its marker either.
            let marker = self.settings.marker && unfinished.from.position == 0;
            self.with_retry(async |this| this.write_first(marker).await)
                .await?;
        }
        Ok(Unfinished {
            list_changed: self.list_changed,
            ..unfinished
        })
    }

    fn form_of(&self, run_id: Uuid) -> Form {
        let Target {
            instance_id,
            label_id,
            queue,
        } = &self.target;
        let encoder = Encoder::new(&self.layout, instance_id, label_id, run_id);
        let changed = self.list_changed || self.repacked;
        Form::new(
            &self.settings,
            queue,
            &self.layout,
            encoder,
            run_id,
            changed,
        )
    }

    /// Starts a new run at its first chat. Until then the checkpoint is that of another run.
    pub(super) async fn begin(&mut self) -> Result<(), BrokerError> {
        if self.has_begun {
            return Ok(());
        }
        let marker = self.settings.marker;
        self.with_retry(async |this| this.write_first(marker).await)
            .await
    }

    /// Records the run in the broker before its first message can be there.
    async fn write_first(&mut self, marker: bool) -> Result<(), Failure> {
        self.has_begun = false;
        self.connect().await?;
        let record = self.record(State::Running);
        if let Some(control) = &mut self.control {
            control.write(&record).await?;
        }
        self.has_begun = true;
        self.durable = record.checkpoint.position;
        self.connect().await?;
        if marker {
            self.mark(Marker::Started, 0).await?;
        }
        Ok(())
    }

    pub(super) fn record(&self, state: State) -> Record {
        Record {
            state,
            owner: self.owner,
            checkpoint: self.at,
            list_changed: self.list_changed,
            ahead: self.ahead,
            ids_per_message: self.layout.ids_per_message,
            repacked: self.repacked,
            settled: false,
            last_complete: self.last_complete,
            at: SystemTime::now(),
        }
    }

    /// Records in the checkpoint how far messages may be sent from now on.
    pub(super) async fn announce(&mut self) -> Result<(), Failure> {
        self.connect().await?;
        let record = self.record(State::Running);
        match &mut self.control {
            Some(control) => control.write(&record).await,
            None => Ok(()),
        }
    }

    /// Sends unsent messages. The newest batch may not be written yet when this returns.
    pub(super) async fn send_pending(&mut self) -> Result<(), Failure> {
        self.connect().await?;
        if let (Some(publisher), Some(form)) = (&self.publisher, &self.form) {
            self.in_flight
                .send(|batch, wants| publisher.send_batch(form, batch, wants));
        }
        self.in_flight.wait_until_written().await
    }

    /// Waits for the oldest batches, and moves the checkpoint past them. If the queue refuses
    /// messages, pauses before the next attempt.
    pub(super) async fn confirm_oldest(&mut self) -> Result<(), BrokerError> {
        match self
            .with_retry(async |this| this.try_confirm_oldest().await)
            .await?
        {
            OldestOutcome::Confirmed => Ok(()),
            OldestOutcome::Refused { took_some } => self.wait_after_refusal(took_some).await,
        }
    }

    async fn try_confirm_oldest(&mut self) -> Result<OldestOutcome, Failure> {
        self.send_pending().await?;
        let count = match self.in_flight.wait_for_oldest().await? {
            Oldest::Confirmed(0) => return Ok(OldestOutcome::Confirmed),
            Oldest::Confirmed(count) => count,
            Oldest::Refused { took_some } => return Ok(OldestOutcome::Refused { took_some }),
            Oldest::Returned(returned) => {
                let reason = returned.reply_text.as_str();
                let form = self.form.as_ref();
                let text = form.map_or_else(String::new, |form| form.unroutable(reason));
                return Err(BrokerError::WrongQueue(text).into());
            }
        };
        if self.refusals.take().is_some() {
            self.progress.say("");
        }
        let mut at = self.at;
        for batch in self.in_flight.oldest(count) {
            at = Checkpoint {
                position: batch.end(),
                digest: batch.digest(),
                chats: at.chats + u64::from(batch.chats()),
                ..at
            };
        }
        let record = Record {
            checkpoint: at,
            ..self.record(State::Running)
        };
        if let Some(control) = &mut self.control
            && let Some(position) = control.send(&record, count).await?
        {
            self.durable = position;
        }
        self.delivered.chats += at.chats - self.at.chats;
        self.delivered.messages += self.in_flight.drop_oldest(count);
        self.at = at;
        Ok(OldestOutcome::Confirmed)
    }

    /// Pauses after a refusal, since a full queue may soon have room again. The connection remains
    /// usable.
    async fn wait_after_refusal(&mut self, took_some: bool) -> Result<(), BrokerError> {
        if took_some {
            self.refusals = None;
        }
        self.progress.say("the queue refuses messages");
        let failure = Failure::Transient(REFUSES.to_owned());
        self.retry_policy.pause(&mut self.refusals, failure).await
    }

    /// Waits until the checkpoint is durable.
    pub(super) async fn confirm_checkpoint(&mut self) -> Result<(), Failure> {
        self.connect().await?;
        let record = self.record(State::Running);
        if let Some(control) = &mut self.control {
            match control.confirm_all().await? {
                Some(position) => self.durable = position,
                // After a broken connection, the outcome of the checkpoints sent before is unknown.
                None if self.durable < self.at.position => {
                    control.write(&record).await?;
                    self.durable = self.at.position;
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Returns how many messages wait in the queue.
    pub(super) async fn depth(&mut self) -> Result<u64, Failure> {
        self.connect().await?;
        match &self.publisher {
            Some(publisher) => publisher.depth(&self.names.queue).await,
            None => Ok(0),
        }
    }
}
