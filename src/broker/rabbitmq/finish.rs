//! End of a run, complete or not, and the markers of its start and end.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};

use super::checkpoint::Record;
use super::lifecycle::REFUSES;
use super::session::{Phase, RabbitMqSession, with_broker};
use crate::broker::error::{Failure, SessionError};
use crate::broker::record::State;
use crate::broker::retries::Retrying as _;
use crate::broker::{BrokerError, Outcome};
use crate::message::Marker;

/// Time limit for recording that a run stops or has ended. A blocked broker does not answer.
const NOTED_WITHIN: Duration = Duration::from_secs(1);

impl RabbitMqSession {
    /// Records how the run ended.
    pub(super) async fn end(&mut self, outcome: Outcome) -> Result<(), SessionError> {
        let state = match outcome {
            Outcome::Complete { .. } => State::Complete,
            Outcome::Rejected => State::Rejected,
            Outcome::Unfinished => {
                if self.phase == Phase::Recorded {
                    // Updates the time that the resume window counts from.
                    let record = self.record(State::Running);
                    self.try_write(&record).await;
                }
                return Ok(());
            }
        };
        // An empty list is complete too, so its run must be recorded.
        self.record_new_run().await?;
        if let Outcome::Complete { chats } = outcome {
            self.run.last_complete = Some(chats);
            if self.settings.marker {
                with_broker!(self, self.mark_complete(chats))?;
            }
        }
        let record = self.record(state);
        with_broker!(self, self.connect_and_write(&record))?;
        // Records that this process knows the end of the run. If that fails, the next process
        // resumes the run and finds that nothing is left to publish.
        let settled = Record {
            settled: true,
            ..record
        };
        self.try_write(&settled).await;
        Ok(())
    }

    async fn connect_and_write(&mut self, record: &Record) -> Result<(), Failure> {
        self.connect().await?;
        self.write(record).await
    }

    async fn mark_complete(&mut self, chats: u64) -> Result<(), Failure> {
        self.connect().await?;
        self.mark(Marker::Completed, chats).await
    }

    /// Writes a record that the run can do without: only over an existing connection, and within a
    /// time limit.
    async fn try_write(&mut self, record: &Record) {
        let _ = tokio::time::timeout(NOTED_WITHIN, self.write(record)).await;
    }

    /// Publishes a marker of the run and awaits its confirm.
    pub(super) async fn mark(&mut self, marker: Marker, chats: u64) -> Result<(), Failure> {
        let (Some(publisher), Some(form)) = (&self.connections.publisher, &self.run.form) else {
            return Ok(());
        };
        let event = marker.event();
        let mut headers = FieldTable::default();
        headers.insert("event".into(), AMQPValue::LongString(event.into()));
        let properties = form
            .properties
            .clone()
            .with_type("labelcast.run".into())
            .with_message_id(format!("{}:{event}", self.run.confirmed.run_id).into())
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
