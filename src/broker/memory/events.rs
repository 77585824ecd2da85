//! Single events in memory.

use async_trait::async_trait;

use super::{Memory, Queue};
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{BrokerError, EventOutcome, EventSink, SessionContext};
use crate::message::LabelEvent;

pub(super) struct MemoryEvents {
    memory: Memory,
    retries: SessionRetries,
}

impl MemoryEvents {
    pub(super) fn new(memory: Memory, context: &SessionContext) -> Self {
        Self {
            memory,
            retries: SessionRetries::new(&context.retry),
        }
    }
}

impl Retrying for MemoryEvents {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, _: &Failure) {}
}

#[async_trait]
impl EventSink for MemoryEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        let mut outcomes = Vec::with_capacity(events.len());
        for event in events {
            let memory = self.memory.clone();
            let append = |queue: &mut Queue| queue.append_event(event);
            let appended = with_retry!(self, memory.append(append));
            outcomes.push(appended.map_err(SessionError::into_failure)?);
        }
        Ok(outcomes)
    }
}
