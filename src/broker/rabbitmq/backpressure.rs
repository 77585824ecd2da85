//! Backpressure by the number of messages in the queue.

use super::RabbitMq;
use crate::broker::{BrokerError, backpressure};

impl RabbitMq {
    /// Waits while the queue holds `max_pending` messages or more, then reserves capacity for
    /// `messages`.
    pub(super) async fn wait_for_capacity(&mut self, messages: u64) -> Result<(), BrokerError> {
        let Some(max) = self.settings.max_pending else {
            return Ok(());
        };
        if self.capacity == 0 {
            let (queue, progress) = (self.names.queue.clone(), self.progress.clone());
            let shutdown = self.retry_policy.shutdown.clone();
            self.capacity = backpressure::wait(&queue, max, &shutdown, &progress, async || {
                while !self.in_flight.is_empty() {
                    self.confirm_oldest().await?;
                }
                self.with_retry(async |this| this.depth().await).await
            })
            .await?;
        }
        self.capacity = self.capacity.saturating_sub(messages);
        Ok(())
    }
}
