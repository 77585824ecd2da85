//! Messages that were written before, each confirmed by the broker.

use async_trait::async_trait;

use super::appender::{Appender, Outgoing};
use super::connect::Endpoint;
use crate::broker::{BrokerError, BrokerOptions, MessageSink, SessionContext};
use crate::message::ReadyMessage;

/// A sink for messages to one queue.
struct QueueMessages(Appender);

/// Returns the sink for messages to a queue, without connecting.
pub(in crate::broker) fn message_sink(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    context: &SessionContext,
) -> Box<dyn MessageSink> {
    Box::new(QueueMessages(Appender::new(endpoint, options, context)))
}

#[async_trait]
impl MessageSink for QueueMessages {
    async fn publish(&mut self, messages: &[ReadyMessage]) -> Result<(), BrokerError> {
        if messages.is_empty() {
            return Ok(());
        }
        let outgoing = |message: &ReadyMessage| Outgoing {
            id: message.id.clone(),
            kind: message.kind,
            payload: message.body.json().into_owned().into_bytes(),
        };
        let messages: Vec<Outgoing> = messages.iter().map(outgoing).collect();
        self.0.publish(&messages).await
    }
}
