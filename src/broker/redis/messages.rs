//! Messages that were written before, each appended once.

use async_trait::async_trait;
use redis::Pipeline;

use super::appender::{APPEND_ONCE, Appender};
use super::connect::Endpoint;
use crate::broker::error::SessionError;
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{BrokerError, BrokerOptions, MessageSink, SessionContext};
use crate::message::ReadyMessage;
use crate::retry::RetryPolicy;

/// A sink for messages to one stream.
struct StreamMessages {
    appender: Appender,
    retry: RetryPolicy,
}

/// Returns the sink for messages to a stream, without connecting.
pub(in crate::broker) fn message_sink(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    context: &SessionContext,
) -> Box<dyn MessageSink> {
    Box::new(StreamMessages {
        appender: Appender::new(endpoint, options, context, None, APPEND_ONCE),
        retry: context.retry.clone(),
    })
}

#[async_trait]
impl MessageSink for StreamMessages {
    async fn publish(&mut self, messages: &[ReadyMessage]) -> Result<(), BrokerError> {
        if messages.is_empty() {
            return Ok(());
        }
        let appender = &mut self.appender;
        let mut appends = Pipeline::with_capacity(messages.len());
        for message in messages {
            appends.add_command(appender.append_once(&message.id, &message.body.fields()));
        }
        // After a call that has given up, the next one begins anew.
        appender.retries = SessionRetries::new(&self.retry);
        let appended = with_retry!(appender, appender.append(&appends));
        appended.map_err(SessionError::into_failure)?;
        Ok(())
    }
}
