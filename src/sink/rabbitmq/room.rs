//! Back-pressure by how many messages are in the queue.

use super::RabbitMq;
use crate::sink::{SinkError, room};

impl RabbitMq {
    /// Waits while the queue holds too much, and counts on so many messages more.
    pub(super) async fn wait_for_room(&mut self, messages: u64) -> Result<(), SinkError> {
        let Some(max) = self.settings.max_pending else {
            return Ok(());
        };
        if self.room == 0 {
            let (queue, progress) = (self.names.queue.clone(), self.progress.clone());
            let shutdown = self.patience.shutdown.clone();
            self.room = room::wait(&queue, max, &shutdown, &progress, async || {
                while !self.ledger.is_empty() {
                    self.retire().await?;
                }
                self.insist(async |this| this.depth().await).await
            })
            .await?;
        }
        self.room = self.room.saturating_sub(messages);
        Ok(())
    }
}
