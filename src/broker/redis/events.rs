//! Single events, each appended once: the script that appends an event also remembers its id.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Script, Value};

use super::connect::Endpoint;
use super::keys::Keys;
use super::link::Link;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{
    BrokerError, BrokerOptions, EventOutcome, EventSink, SessionContext, partition_of,
};
use crate::message::{EventEncoder, LabelEvent};

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
    script: Script,
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
            script: Script::new(include_str!("event.lua")),
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
    async fn append(&mut self, id: &str, fields: &[String]) -> Result<EventOutcome, Failure> {
        let mut script = self.script.prepare_invoke();
        script.key(&self.keys.stream).key(self.keys.event(id));
        script
            .arg(REMEMBERED_FOR.as_millis().to_string())
            .arg(self.keep_ms.to_string())
            .arg(fields);
        let reply = self.link.run(&script).await?;
        if self.min_replicas > 0 {
            self.link.wait(self.min_replicas).await?;
        }
        Ok(match reply {
            Value::Int(0) => EventOutcome::Duplicate,
            _ => EventOutcome::Published,
        })
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
            let appended = with_retry!(stream, stream.append(&event.id, &fields));
            outcomes.push(appended.map_err(SessionError::into_failure)?);
        }
        Ok(outcomes)
    }
}
