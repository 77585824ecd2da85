//! Publishing of single messages, each confirmed by the broker.

use uuid::Uuid;

use super::RabbitSettings;
use super::connect::Endpoint;
use super::connections::Connections;
use super::names;
use super::publisher::{MessageTemplate, Publisher};
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{BrokerError, BrokerOptions, SessionContext};
use crate::message::Encoder;

/// A queue that single messages are published to.
pub(super) struct Appender {
    settings: RabbitSettings,
    context: SessionContext,
    connections: Connections,
    template: MessageTemplate,
    retries: SessionRetries,
}

/// A message to publish.
pub(super) struct Outgoing {
    /// The identity of the message, of any length.
    pub(super) id: String,
    pub(super) kind: &'static str,
    pub(super) payload: Vec<u8>,
}

impl Retrying for Appender {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, _: &Failure) {
        self.connections.drop_both();
    }
}

impl Appender {
    /// Creates the appender without connecting.
    pub(super) fn new(
        endpoint: &Endpoint,
        options: &BrokerOptions,
        context: &SessionContext,
    ) -> Self {
        let settings = RabbitSettings::new(endpoint, options);
        let (target, layout) = (&context.target, &context.layout);
        // Only the route and the common properties are used: single messages have no run.
        let run = Encoder::new(layout, &target.instance_id, &target.label_id, Uuid::nil());
        Self {
            template: MessageTemplate::new(
                &settings,
                &target.queue,
                layout,
                run,
                Uuid::nil(),
                false,
            ),
            retries: SessionRetries::new(&context.retry),
            connections: Connections::new(),
            context: context.clone(),
            settings,
        }
    }

    /// Publishes messages, in order. All of them are confirmed when this returns.
    pub(super) async fn publish(&mut self, messages: &[Outgoing]) -> Result<(), BrokerError> {
        // A sink outlives many failures: each call has retries of its own.
        self.retries = SessionRetries::new(&self.context.retry);
        let alarm = self.connections.alarm.clone();
        let published = with_retry!(self, alarm.within(self.try_publish(messages)));
        published.map_err(SessionError::into_failure)
    }

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

    /// Sends all messages before it awaits the first confirm.
    async fn try_publish(&mut self, messages: &[Outgoing]) -> Result<(), Failure> {
        self.connect().await?;
        let Some(publisher) = &self.connections.publisher else {
            return Ok(());
        };
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            let properties = self.template.properties.clone();
            let properties = properties
                .with_type(message.kind.into())
                .with_message_id(names::fitting(message.id.clone()).into());
            let payload = message.payload.clone();
            confirms.push(publisher.send(&self.template, properties, payload).await?);
        }
        for confirm in confirms {
            self.template.require_accepted(&confirm.await?)?;
        }
        Ok(())
    }
}
