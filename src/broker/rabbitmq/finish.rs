//! End of a run, complete or not, and the markers of its start and end.

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};

use super::checkpoint::Record;
use super::publishing_id::{COMPLETED, id};
use super::session::{Phase, RabbitMqSession, with_broker};
use crate::broker::Outcome;
use crate::broker::error::{Failure, SessionError};
use crate::broker::record::State;
use crate::broker::retries::Retrying as _;
use crate::broker::stream_protocol::MessageParts;
use crate::message::Marker;

/// The kind of markers.
const MARKER_KIND: &str = "labelcast.run";
/// Time limit for recording that a run stops or has ended. A blocked broker does not answer.
const RECORD_TIME_LIMIT: Duration = Duration::from_secs(1);

impl RabbitMqSession {
    /// Records how the run ended.
    pub(super) async fn record_end(&mut self, outcome: Outcome) -> Result<(), SessionError> {
        let state = match outcome {
            Outcome::Complete { .. } => State::Complete,
            Outcome::Rejected => State::Rejected,
            Outcome::Unfinished => {
                if self.phase == Phase::Recorded {
                    // Updates the time that the resume window counts from.
                    let record = self.record(State::Running);
                    self.write_if_possible(&record).await;
                }
                return Ok(());
            }
        };
        // An empty list is complete too, so its run must be recorded.
        self.record_new_run().await?;
        if let Outcome::Complete { chats } = outcome {
            self.run.last_complete = Some(chats);
            if self.settings.marker {
                with_broker!(self, self.publish_completed_marker(chats))?;
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
        self.write_if_possible(&settled).await;
        Ok(())
    }

    async fn connect_and_write(&mut self, record: &Record) -> Result<(), Failure> {
        self.connect().await?;
        self.write(record).await
    }

    async fn publish_completed_marker(&mut self, chats: u64) -> Result<(), Failure> {
        self.connect().await?;
        self.publish_marker(Marker::Completed, chats).await
    }

    /// Writes a record that the run can do without: only over an existing connection, and within a
    /// time limit.
    async fn write_if_possible(&mut self, record: &Record) {
        let _ = tokio::time::timeout(RECORD_TIME_LIMIT, self.write(record)).await;
    }

    /// Publishes a marker of the run and awaits its confirm.
    pub(super) async fn publish_marker(
        &mut self,
        marker: Marker,
        chats: u64,
    ) -> Result<(), Failure> {
        if self.connections.producer.is_some() {
            return self.publish_stream_marker(marker, chats).await;
        }
        let (Some(publisher), Some(template)) = (&self.connections.publisher, &self.run.template)
        else {
            return Ok(());
        };
        let event = marker.event();
        let mut headers = FieldTable::default();
        headers.insert("event".into(), AMQPValue::LongString(event.into()));
        let properties = template
            .properties
            .clone()
            .with_type(MARKER_KIND.into())
            .with_message_id(format!("{}:{event}", self.run.confirmed.run_id).into())
            .with_headers(headers);
        let payload = template.encoder.marker_json(marker, chats).into_bytes();
        let confirm = publisher.send(template, properties, payload).await?;
        template.require_accepted(&confirm.await?)
    }

    /// The same over the stream protocol, where its place in the list makes it one of the list's
    /// messages.
    async fn publish_stream_marker(&mut self, marker: Marker, chats: u64) -> Result<(), Failure> {
        let (Some(producer), Some(template), Some(base)) = (
            &mut self.connections.producer,
            &self.run.template,
            self.run.id_base.recorded(),
        ) else {
            return Ok(());
        };
        let entries = match marker {
            Marker::Started => 0,
            Marker::Completed => COMPLETED,
        };
        let event = marker.event();
        let parts = MessageParts::new(MARKER_KIND, template.content_type, Some(event));
        let message_id = format!("{}:{event}", self.run.confirmed.run_id);
        let body = template.encoder.marker_json(marker, chats);
        let message_id = [message_id.as_bytes(), b""];
        producer.push(id(base, entries), &parts, message_id, body.as_bytes())?;
        producer.send().await?;
        producer.confirmed(producer.sent()).await
    }
}
