//! Back-pressure: publishing waits while consumers have too much before them.

use std::time::Duration;

use tracing::info;

use super::RabbitMq;
use crate::sink::SinkError;

/// How often a full queue is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl RabbitMq {
    /// Waits while the queue holds too much, and counts on so many messages more.
    pub(super) async fn wait_for_room(&mut self, messages: u64) -> Result<(), SinkError> {
        let Some(max) = self.settings.max_pending else {
            return Ok(());
        };
        let mut waits = false;
        while self.room == 0 {
            while !self.ledger.is_empty() {
                self.retire().await?;
            }
            let depth = self.insist(async |this| this.depth().await).await?;
            self.room = max.saturating_sub(depth);
            if self.room > 0 {
                break;
            }
            if !waits {
                let queue = &self.names.queue;
                info!(queue, depth, "waiting for consumers to catch up");
                self.progress.say("waiting for consumers");
                waits = true;
            }
            tokio::select! {
                cause = self.patience.shutdown.stopped() => {
                    return Err(SinkError::Interrupted(cause));
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        if waits {
            info!("going on");
            self.progress.say("");
        }
        self.room = self.room.saturating_sub(messages);
        Ok(())
    }
}
