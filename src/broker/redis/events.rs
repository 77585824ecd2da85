//! Single events, each appended once: the script that appends an event also remembers its id, and
//! where the membership is kept, changes it. Events that are published together share a round trip.

use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use redis::{Cmd, Pipeline, Value};
use uuid::Uuid;

use super::appender::{APPEND_ONCE, Appender};
use super::connect::Endpoint;
use super::link::reply_text;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{
    BrokerError, BrokerOptions, EventOutcome, EventSink, SessionContext, partition_of,
};
use crate::message::{Change, EventEncoder, LabelEvent};
use crate::retry::RetryPolicy;
use crate::state::Membership;

/// A sink for events of one label.
struct StreamEvents {
    streams: Vec<EventStream>,
    encoder: EventEncoder,
    retry: RetryPolicy,
}

/// One of the streams that events are spread over.
struct EventStream {
    appender: Appender,
    /// How the membership is kept; `None` to append every event.
    membership: Option<Membership>,
    /// Time since the last publication in which a chat is not published again, in seconds; `0` for
    /// none.
    window: u64,
    /// Number of streams of the queue.
    partitions: usize,
}

/// Returns the sink for events of a label, without connecting.
pub(in crate::broker) fn event_sink(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    context: &SessionContext,
) -> Box<dyn EventSink> {
    let selection = &context.selection;
    let script = match selection.membership {
        None => APPEND_ONCE,
        Some(_) => include_str!("event_member.lua"),
    };
    let stream = |partition: Option<u32>| EventStream {
        appender: Appender::new(endpoint, options, context, partition, script),
        membership: selection.membership,
        window: selection.suppress_for.map_or(0, |window| window.as_secs()),
        partitions: options.partitions.map_or(1, |count| count as usize),
    };
    let streams = match options.partitions {
        None => vec![stream(None)],
        Some(count) => (0..count).map(|index| stream(Some(index))).collect(),
    };
    let target = &context.target;
    Box::new(StreamEvents {
        streams,
        retry: context.retry.clone(),
        encoder: EventEncoder::new(context.layout.format, &target.instance_id, &target.label_id),
    })
}

impl Retrying for EventStream {
    fn retries(&mut self) -> &mut SessionRetries {
        self.appender.retries()
    }

    fn disconnect(&mut self, failure: &Failure) {
        self.appender.disconnect(failure);
    }
}

impl EventStream {
    /// Appends events with their fields, in order.
    async fn append(
        &mut self,
        events: &[(&LabelEvent, Vec<String>)],
    ) -> Result<Vec<EventOutcome>, Failure> {
        let mut appends = Pipeline::with_capacity(events.len());
        for (event, fields) in events {
            appends.add_command(match self.membership {
                None => self.appender.append_once(&event.id, fields),
                Some(membership) => self.append_change(event, fields, membership),
            });
        }
        let replies = self.appender.append(&appends).await?;
        replies.iter().map(outcome).collect()
    }

    /// Returns the command that appends an event if it changes the membership.
    fn append_change(&self, event: &LabelEvent, fields: &[String], membership: Membership) -> Cmd {
        let since = event.occurred_at.duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default();
        let keys = &self.appender.keys;
        let mut command = self.appender.call(&[
            &keys.stream,
            &keys.event(&event.id),
            &keys.members,
            &keys.note,
            &keys.removed,
            &keys.published,
            &keys.checkpoint,
        ]);
        command
            .arg(&event.chat_id)
            .arg(match event.change {
                Change::Added => "added",
                Change::Deleted => "deleted",
            })
            .arg(format!("{}.{:03}", since.as_secs(), since.subsec_millis()))
            .arg(u8::from(membership.removed))
            .arg(Uuid::now_v7().to_string())
            .arg(self.window)
            .arg(self.partitions)
            .arg(fields);
        command
    }

    /// Sets the field that an event sets too.
    async fn mark_tracked(&mut self) -> Result<(), Failure> {
        let Appender { keys, keep_ms, .. } = &self.appender;
        let mut pipeline = Pipeline::new();
        pipeline.hset(&keys.checkpoint, "tracked", "1").ignore();
        match i64::try_from(*keep_ms) {
            Ok(keep_ms) if keep_ms > 0 => pipeline.pexpire(&keys.checkpoint, keep_ms),
            _ => pipeline.persist(&keys.checkpoint),
        };
        let connection = self.appender.link.connection().await?;
        pipeline.exec_async(connection).await?;
        Ok(())
    }
}

fn outcome(reply: &Value) -> Result<EventOutcome, Failure> {
    Ok(match reply_text(reply).as_str() {
        "published" => EventOutcome::Published,
        "duplicate" => EventOutcome::Duplicate,
        "recorded" => EventOutcome::Recorded,
        "suppressed" => EventOutcome::Suppressed,
        "unchanged" => EventOutcome::Unchanged,
        "stale" => EventOutcome::Stale,
        other => {
            let text = format!("the script of events has answered “{other}”");
            return Err(BrokerError::Bug(text).into());
        }
    })
}

#[async_trait]
impl EventSink for StreamEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        let count = self.streams.len();
        let index_of = |event: &LabelEvent| partition_of(event.chat_id.as_bytes(), count);
        let mut outcomes = vec![EventOutcome::Published; events.len()];
        for (index, stream) in self.streams.iter_mut().enumerate() {
            let numbered = events.iter().enumerate();
            let (numbers, ours): (Vec<usize>, Vec<_>) = numbered
                .filter(|(_, event)| index_of(event) == index)
                .map(|(number, event)| (number, (event, self.encoder.fields(event))))
                .unzip();
            if ours.is_empty() {
                continue;
            }
            // After a call that has given up, the next one begins anew.
            stream.appender.retries = SessionRetries::new(&self.retry);
            let appended = with_retry!(stream, stream.append(&ours));
            let appended = appended.map_err(SessionError::into_failure)?;
            for (number, outcome) in numbers.into_iter().zip(appended) {
                outcomes[number] = outcome;
            }
        }
        Ok(outcomes)
    }

    async fn mark_tracked(&mut self) -> Result<(), BrokerError> {
        for stream in &mut self.streams {
            let marked = with_retry!(stream, stream.mark_tracked());
            marked.map_err(SessionError::into_failure)?;
        }
        Ok(())
    }
}
