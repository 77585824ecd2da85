//! Backpressure: publishing waits while consumers have too many messages pending.

use std::time::Duration;

use tracing::info;

use super::{BrokerError, SessionContext};

/// Interval of checks while the queue is full.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// A wait for consumers to catch up. Dropping it ends the pause that it announced.
pub(super) struct Backpressure<'a> {
    queue: &'a str,
    max_pending: u64,
    context: &'a SessionContext,
    is_waiting: bool,
}

impl<'a> Backpressure<'a> {
    pub(super) fn new(queue: &'a str, max_pending: u64, context: &'a SessionContext) -> Self {
        Self {
            queue,
            max_pending,
            context,
            is_waiting: false,
        }
    }

    /// Returns how many messages may be sent before the next check; `None` after a pause, if the
    /// caller must count the pending messages again.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Interrupted`] after a stop request.
    pub(super) async fn capacity(&mut self, pending: u64) -> Result<Option<u64>, BrokerError> {
        let capacity = self.max_pending.saturating_sub(pending);
        if capacity > 0 {
            if self.is_waiting {
                info!(
                    queue = self.queue,
                    "consumers caught up; publishing resumes"
                );
            }
            return Ok(Some(capacity));
        }
        if !self.is_waiting {
            info!(
                queue = self.queue,
                pending, "waiting for consumers to catch up"
            );
            self.context.pauses.paused("waiting for consumers");
            self.is_waiting = true;
        }
        tokio::select! {
            cause = self.context.retry.shutdown().stopped() => Err(BrokerError::Interrupted(cause)),
            () = tokio::time::sleep(CHECK_INTERVAL) => Ok(None),
        }
    }
}

impl Drop for Backpressure<'_> {
    fn drop(&mut self) {
        if self.is_waiting {
            self.context.pauses.resumed();
        }
    }
}
