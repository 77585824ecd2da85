//! End of a run, complete or not, and the markers of its start and end.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};

use super::RabbitMq;
use super::checkpoint::Record;
use super::lifecycle::REFUSES;
use crate::broker::record::State;
use crate::broker::retry_policy::Failure;
use crate::broker::{BrokerError, Outcome};
use crate::message::Marker;

/// Time limit for recording that a run stops or has ended. A blocked broker does not answer.
const NOTED_WITHIN: Duration = Duration::from_secs(1);

impl RabbitMq {
    /// Updates the time that the resume window counts from. If that fails, it counts from the last
    /// checkpoint.
    async fn note_stop(&mut self) {
        let record = self.record(State::Running);
        if self.has_begun
            && let Some(control) = &mut self.control
        {
            let _ = tokio::time::timeout(NOTED_WITHIN, control.write(&record)).await;
        }
    }

    /// Records how the run ended.
    pub(super) async fn end(&mut self, outcome: Outcome) -> Result<(), BrokerError> {
        let state = match outcome {
            Outcome::Complete { .. } => State::Complete,
            Outcome::Rejected => State::Rejected,
            Outcome::Unfinished => {
                self.note_stop().await;
                return Ok(());
            }
        };
        // An empty list is complete too, so its run must be started.
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

    /// Records that this process knows the end of the run. If that fails, the next process resumes
    /// the run and finds that nothing is left to publish.
    async fn note_settled(&mut self, ended: Record) {
        let record = Record {
            settled: true,
            ..ended
        };
        if let Some(control) = &mut self.control {
            let _ = tokio::time::timeout(NOTED_WITHIN, control.write(&record)).await;
        }
    }

    /// Publishes a marker of the run and awaits its confirm.
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
                Err(BrokerError::WrongQueue(text).into())
            }
            lapin::Confirmation::Nack(_) => Err(Failure::Transient(REFUSES.to_owned())),
            _ => Ok(()),
        }
    }
}
