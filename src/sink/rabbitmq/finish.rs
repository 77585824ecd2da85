//! How a run ends, or stops; and the markers of its start and end.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};

use super::RabbitMq;
use super::checkpoint::Record;
use super::lifecycle::REFUSES;
use crate::message::Marker;
use crate::sink::record::State;
use crate::sink::retry_policy::Failure;
use crate::sink::{Outcome, SinkError};

/// How long a run that stops tries to say so: a broker that is blocked says nothing.
const NOTED_WITHIN: Duration = Duration::from_secs(1);

impl RabbitMq {
    /// The resume window counts from here; where this cannot be said, from the last checkpoint.
    async fn note_stop(&mut self) {
        let record = self.record(State::Running);
        if self.has_begun
            && let Some(control) = &mut self.control
        {
            let _ = tokio::time::timeout(NOTED_WITHIN, control.write(&record)).await;
        }
    }

    /// Writes down how the run ended.
    pub(super) async fn end(&mut self, outcome: Outcome) -> Result<(), SinkError> {
        let state = match outcome {
            Outcome::Complete { .. } => State::Complete,
            Outcome::Rejected => State::Rejected,
            Outcome::Unfinished => {
                self.note_stop().await;
                return Ok(());
            }
        };
        // An empty list is a whole one too.
        self.begin().await?;
        if let Outcome::Complete { chats } = outcome {
            self.last_complete = Some(chats);
            if self.settings.marker {
                self.with_retry(async |this| {
                    this.connect().await?;
                    this.mark(Marker::Completed, chats).await
                })
                .await?;
            }
        }
        let record = self.record(state);
        self.with_retry(async |this| {
            this.connect().await?;
            match &mut this.control {
                Some(control) => control.write(&record).await,
                None => Ok(()),
            }
        })
        .await?;
        self.note_settled(record).await;
        Ok(())
    }

    /// That the run has ended is known here too; where this cannot be said, the next one finds out that
    /// nothing is left to publish.
    async fn note_settled(&mut self, ended: Record) {
        let record = Record {
            settled: true,
            ..ended
        };
        if let Some(control) = &mut self.control {
            let _ = tokio::time::timeout(NOTED_WITHIN, control.write(&record)).await;
        }
    }

    /// Puts a message about the run on the queue.
    pub(super) async fn mark(&mut self, marker: Marker, chats: u64) -> Result<(), Failure> {
        let (Some(publisher), Some(form)) = (&self.publisher, &self.form) else {
            return Ok(());
        };
        let event = marker.event();
        let mut headers = FieldTable::default();
        headers.insert("event".into(), AMQPValue::LongString(event.into()));
        let properties = form
            .properties
            .clone()
            .with_type("labelcast.run".into())
            .with_message_id(format!("{}:{event}", self.at.run_id).into())
            .with_headers(headers);
        let payload = form.encoder.marker_json(marker, chats).into_bytes();
        let confirm = publisher.send(form, properties, payload).await?;
        match confirm.await? {
            lapin::Confirmation::Ack(Some(returned)) => {
                let text = form.unroutable(returned.reply_text.as_str());
                Err(SinkError::WrongQueue(text).into())
            }
            lapin::Confirmation::Nack(_) => Err(Failure::Transient(REFUSES.to_owned())),
            _ => Ok(()),
        }
    }
}
