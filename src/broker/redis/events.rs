//! Single events, each appended once: the script that appends an event also remembers its id, and
//! where the membership is kept, changes it.

use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use redis::{RedisError, Script, Value};
use uuid::Uuid;

use super::connect::Endpoint;
use super::keys::Keys;
use super::link::{Link, reply_text};
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{
    BrokerError, BrokerOptions, EventOutcome, EventSink, SessionContext, partition_of,
};
use crate::message::{Change, EventEncoder, LabelEvent};
use crate::state::Membership;

/// How long an event is remembered. Senders of webhooks stop retrying long before.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);

/// A sink for events of one label.
struct StreamEvents {
    streams: Vec<EventStream>,
    encoder: EventEncoder,
}

/// One of the streams that events are spread over.
struct EventStream {
    keys: Keys,
    link: Link,
    /// How the membership is kept; `None` to append every event.
    membership: Option<Membership>,
    /// How long entries are kept, in milliseconds; `0` for no expiry.
    keep_ms: u128,
    min_replicas: u32,
    retries: SessionRetries,
}

/// Returns the sink for events of a label, without connecting.
pub(in crate::broker) fn event_sink(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    context: &SessionContext,
) -> Box<dyn EventSink> {
    let retries = SessionRetries::new(&context.retry);
    let stream = |partition: Option<u32>| {
        let keys = Keys::new(&context.target, partition);
        EventStream {
            link: Link::new(endpoint.clone(), keys.stream.clone()),
            keys,
            membership: context.selection.membership,
            keep_ms: options.retain.map_or(0, |retain| retain.as_millis()),
            min_replicas: options.min_replicas,
            retries: retries.sibling(),
        }
    };
    let streams = match options.partitions {
        None => vec![stream(None)],
        Some(count) => (0..count).map(|index| stream(Some(index))).collect(),
    };
    let target = &context.target;
    Box::new(StreamEvents {
        streams,
        encoder: EventEncoder::new(context.layout.format, &target.instance_id, &target.label_id),
    })
}

impl Retrying for EventStream {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, failure: &Failure) {
        self.link.disconnect_after(failure);
    }
}

impl EventStream {
    async fn append(
        &mut self,
        event: &LabelEvent,
        fields: &[String],
    ) -> Result<EventOutcome, Failure> {
        let reply = match self.membership {
            None => self.append_any(event, fields).await?,
            Some(membership) => self.append_change(event, fields, membership).await?,
        };
        if self.min_replicas > 0 {
            self.link.wait(self.min_replicas).await?;
        }
        Ok(match reply_text(&reply).as_str() {
            "duplicate" => EventOutcome::Duplicate,
            "recorded" => EventOutcome::Recorded,
            "unchanged" => EventOutcome::Unchanged,
            "stale" => EventOutcome::Stale,
            _ => EventOutcome::Published,
        })
    }

    /// Appends an event unless its id is known.
    async fn append_any(
        &mut self,
        event: &LabelEvent,
        fields: &[String],
    ) -> Result<Value, RedisError> {
        let script = Script::new(include_str!("event.lua"));
        let mut script = script.prepare_invoke();
        script
            .key(&self.keys.stream)
            .key(self.keys.event(&event.id));
        script
            .arg(REMEMBERED_FOR.as_millis().to_string())
            .arg(self.keep_ms.to_string())
            .arg(fields);
        self.link.run(&script).await
    }

    /// Appends an event if it changes the membership.
    async fn append_change(
        &mut self,
        event: &LabelEvent,
        fields: &[String],
        membership: Membership,
    ) -> Result<Value, RedisError> {
        let since = event.occurred_at.duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default();
        let script = Script::new(include_str!("event_member.lua"));
        let mut script = script.prepare_invoke();
        script
            .key(&self.keys.stream)
            .key(self.keys.event(&event.id))
            .key(&self.keys.members)
            .key(&self.keys.note)
            .key(&self.keys.removed)
            .key(&self.keys.published)
            .key(&self.keys.checkpoint);
        script
            .arg(REMEMBERED_FOR.as_millis().to_string())
            .arg(self.keep_ms.to_string())
            .arg(&event.chat_id)
            .arg(match event.change {
                Change::Added => "added",
                Change::Deleted => "deleted",
            })
            .arg(format!("{}.{:03}", since.as_secs(), since.subsec_millis()))
            .arg(u8::from(membership.removed))
            .arg(Uuid::now_v7().to_string())
            .arg(fields);
        self.link.run(&script).await
    }
}

#[async_trait]
impl EventSink for StreamEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            let fields = self.encoder.fields(event);
            let index = partition_of(event.chat_id.as_bytes(), self.streams.len());
            let stream = &mut self.streams[index];
            let appended = with_retry!(stream, stream.append(event, &fields));
            outcomes.push(appended.map_err(SessionError::into_failure)?);
        }
        Ok(outcomes)
    }
}
