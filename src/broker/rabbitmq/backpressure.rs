//! Backpressure by the number of messages in the queue.

use super::session::{RabbitMqSession, with_broker};
use crate::broker::backpressure::Backpressure;
use crate::broker::error::SessionError;
use crate::broker::retries::Retrying as _;

impl RabbitMqSession {
    /// Waits while the queue holds `max_pending` messages or more, then reserves capacity for
    /// `messages`.
    pub(super) async fn wait_for_capacity(&mut self, messages: u64) -> Result<(), SessionError> {
        let Some(max) = self.settings.max_pending else {
            return Ok(());
        };
        if self.capacity == 0 {
            let (queue, context) = (self.names.queue.clone(), self.context.clone());
            let mut backpressure = Backpressure::new(&queue, max, &context);
            self.capacity = loop {
                while !self.outbox.is_empty() {
                    self.confirm_oldest().await?;
                }
                let depth = with_broker!(self, self.depth())?;
                if let Some(capacity) = backpressure.capacity(depth).await? {
                    break capacity;
                }
            };
        }
        self.capacity = self.capacity.saturating_sub(messages);
        Ok(())
    }
}
