//! Backpressure: publishing waits while consumers have too many messages pending.

use std::time::Duration;

use tracing::info;

use super::BrokerError;
use crate::progress::Progress;
use crate::shutdown::Shutdown;

/// Interval of checks while the queue is full.
const LOOK: Duration = Duration::from_millis(200);

/// Waits while `pending` returns `max` or more. `pending` makes everything durable and then counts.
/// Returns how many messages may be sent before the next check.
///
/// # Errors
///
/// [`BrokerError::Interrupted`] after a stop request, and the errors of `pending`.
pub(super) async fn wait(
    queue: &str,
    max: u64,
    shutdown: &Shutdown,
    progress: &Progress,
    mut pending: impl AsyncFnMut() -> Result<u64, BrokerError>,
) -> Result<u64, BrokerError> {
    let mut waits = false;
    loop {
        let pending = pending().await?;
        let capacity = max.saturating_sub(pending);
        if capacity > 0 {
            if waits {
                info!("going on");
                progress.say("");
            }
            return Ok(capacity);
        }
        if !waits {
            info!(queue, pending, "waiting for consumers to catch up");
            progress.say("waiting for consumers");
            waits = true;
        }
        tokio::select! {
            cause = shutdown.stopped() => return Err(BrokerError::Interrupted(cause)),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
