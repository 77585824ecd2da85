//! Single events, each confirmed by the broker.

use async_trait::async_trait;

use super::appender::{Appender, Outgoing};
use super::connect::Endpoint;
use crate::broker::{BrokerError, BrokerOptions, EventOutcome, EventSink, SessionContext};
use crate::message::{EventEncoder, LabelEvent};

/// A sink for events of one label.
struct QueueEvents {
    appender: Appender,
    encoder: EventEncoder,
}

/// Returns the sink for events of a label, without connecting.
pub(in crate::broker) fn event_sink(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    context: &SessionContext,
) -> Box<dyn EventSink> {
    let target = &context.target;
    Box::new(QueueEvents {
        appender: Appender::new(endpoint, options, context),
        encoder: EventEncoder::new(context.layout.format, &target.instance_id, &target.label_id),
    })
}

#[async_trait]
impl EventSink for QueueEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        let outgoing = |event: &LabelEvent| Outgoing {
            id: event.id.clone(),
            kind: "labelcast.event",
            payload: self.encoder.json(event).into_bytes(),
        };
        let messages: Vec<Outgoing> = events.iter().map(outgoing).collect();
        self.appender.publish(&messages).await?;
        Ok(vec![EventOutcome::Published; events.len()])
    }
}
