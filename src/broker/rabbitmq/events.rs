//! Single events, each confirmed by the broker.

use async_trait::async_trait;
use uuid::Uuid;

use super::RabbitSettings;
use super::connect::Endpoint;
use super::connections::Connections;
use super::names;
use super::publisher::{MessageTemplate, Publisher};
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{BrokerError, BrokerOptions, EventOutcome, EventSink, SessionContext};
use crate::message::{Encoder, EventEncoder, LabelEvent};

/// A sink for events of one label.
struct QueueEvents {
    settings: RabbitSettings,
    context: SessionContext,
    connections: Connections,
    template: MessageTemplate,
    encoder: EventEncoder,
    retries: SessionRetries,
}

/// Returns the sink for events of a label, without connecting.
pub(in crate::broker) fn event_sink(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    context: &SessionContext,
) -> Box<dyn EventSink> {
    let settings = RabbitSettings::new(endpoint, options);
    let (target, layout) = (&context.target, &context.layout);
    let (instance_id, label_id) = (&target.instance_id, &target.label_id);
    // Only the route and the common properties are used: events have no run.
    let run = Encoder::new(layout, instance_id, label_id, Uuid::nil());
    Box::new(QueueEvents {
        template: MessageTemplate::new(&settings, &target.queue, layout, run, Uuid::nil(), false),
        encoder: EventEncoder::new(layout.format, instance_id, label_id),
        retries: SessionRetries::new(&context.retry),
        connections: Connections::new(),
        context: context.clone(),
        settings,
    })
}

impl Retrying for QueueEvents {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, _: &Failure) {
        self.connections.drop_both();
    }
}

impl QueueEvents {
    async fn connect(&mut self) -> Result<(), Failure> {
        if self.connections.publisher.is_none() {
            let queue = &self.context.target.queue;
            names::check(queue)?;
            let publisher = Publisher::open(
                &self.settings,
                queue,
                self.connections.owner,
                &self.connections,
                &self.context.pauses,
            );
            self.connections.publisher = Some(publisher.await?);
        }
        Ok(())
    }

    /// Sends all events before it awaits the first confirm.
    async fn try_publish(&mut self, events: &[LabelEvent]) -> Result<(), Failure> {
        self.connect().await?;
        let Some(publisher) = &self.connections.publisher else {
            return Ok(());
        };
        let mut confirms = Vec::with_capacity(events.len());
        for event in events {
            let properties = self.template.properties.clone();
            let properties = properties
                .with_type("labelcast.event".into())
                .with_message_id(names::fitting(event.id.clone()).into());
            let payload = self.encoder.json(event).into_bytes();
            confirms.push(publisher.send(&self.template, properties, payload).await?);
        }
        for confirm in confirms {
            self.template.require_accepted(&confirm.await?)?;
        }
        Ok(())
    }
}

#[async_trait]
impl EventSink for QueueEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        // A sink outlives many failures: each call has retries of its own.
        self.retries = SessionRetries::new(&self.context.retry);
        let alarm = self.connections.alarm.clone();
        let published = with_retry!(self, alarm.within(self.try_publish(events)));
        published.map_err(SessionError::into_failure)?;
        Ok(vec![EventOutcome::Published; events.len()])
    }
}
