//! Sinks for single events.

use super::{Broker, Kind};
use crate::broker::tracked::TrackedEvents;
use crate::broker::{BrokerOptions, EventSink, SessionContext, lines, rabbitmq, redis};
use crate::state::Selection;

impl Broker {
    /// Returns the sink for single events of a label, without connecting.
    pub fn event_sink(&self, context: &SessionContext) -> Box<dyn EventSink> {
        let state = (self.state.as_ref()).filter(|_| context.selection.membership.is_some());
        let Some(state) = state else {
            return self.plain_event_sink(context);
        };
        let plain = SessionContext {
            // The store decides about the members.
            selection: Selection::default(),
            ..context.clone()
        };
        Box::new(TrackedEvents {
            queue: self.plain_event_sink(&plain),
            removals: self.removals(context),
            store: state.event_store(&self.options, context),
            selection: context.selection.clone(),
            shutdown: context.retry.shutdown().clone(),
        })
    }

    /// Returns the sink for single events without a store beside it.
    fn plain_event_sink(&self, context: &SessionContext) -> Box<dyn EventSink> {
        let options = &self.options;
        match &self.address.0 {
            Kind::Stdout => lines::stdout_events(context),
            Kind::File(path) => lines::file_events(path, context),
            Kind::Redis(endpoint) => redis::event_sink(endpoint, options, context),
            Kind::RabbitMq(endpoint) => rabbitmq::event_sink(endpoint, options, context),
        }
    }

    /// Returns the queue for chats that have left a label, if they are published.
    pub(super) fn removals(&self, context: &SessionContext) -> Option<Box<dyn EventSink>> {
        context
            .selection
            .membership
            .filter(|membership| membership.removed)?;
        let options = BrokerOptions {
            partitions: None,
            ..self.options.clone()
        };
        let beside = |queue: String| {
            let mut context = context.clone();
            context.target.queue = queue;
            // The store has decided about the members.
            context.selection = Selection::default();
            context
        };
        let queue = &context.target.queue;
        match &self.address.0 {
            Kind::Stdout => None,
            Kind::File(path) => Some(lines::removed_sink(path, context)),
            Kind::Redis(endpoint) => {
                let context = beside(redis::removed_stream(queue));
                Some(redis::event_sink(endpoint, &options, &context))
            }
            Kind::RabbitMq(endpoint) => {
                let context = beside(rabbitmq::removed_queue(queue));
                Some(rabbitmq::event_sink(endpoint, &options, &context))
            }
        }
    }
}
