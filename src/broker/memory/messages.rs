//! Messages that were written before, in memory.

use async_trait::async_trait;

use super::{Memory, Queue};
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{BrokerError, MessageSink, SessionContext};
use crate::message::ReadyMessage;
use crate::retry::RetryPolicy;

pub(super) struct MemoryMessages {
    memory: Memory,
    retries: SessionRetries,
    retry: RetryPolicy,
}

impl MemoryMessages {
    pub(super) fn new(memory: Memory, context: &SessionContext) -> Self {
        Self {
            memory,
            retries: SessionRetries::new(&context.retry),
            retry: context.retry.clone(),
        }
    }
}

impl Retrying for MemoryMessages {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, _: &Failure) {}
}

#[async_trait]
impl MessageSink for MemoryMessages {
    async fn publish(&mut self, messages: &[ReadyMessage]) -> Result<(), BrokerError> {
        self.retries = SessionRetries::new(&self.retry);
        for message in messages {
            let memory = self.memory.clone();
            let append = |queue: &mut Queue| queue.append_ready(message);
            let appended = with_retry!(self, memory.append(append));
            appended.map_err(SessionError::into_failure)?;
        }
        Ok(())
    }
}
