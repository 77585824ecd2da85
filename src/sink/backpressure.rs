//! Back-pressure: publishing waits while consumers have too much before them.

use std::time::Duration;

use tracing::info;

use super::SinkError;
use crate::progress::Progress;
use crate::shutdown::Shutdown;

/// How often a full queue is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Waits while `pending`, which makes all durable and counts, gives `max` or more. Returns how many
/// messages there is room for.
pub(super) async fn wait(
    queue: &str,
    max: u64,
    shutdown: &Shutdown,
    progress: &Progress,
    mut pending: impl AsyncFnMut() -> Result<u64, SinkError>,
) -> Result<u64, SinkError> {
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
            cause = shutdown.stopped() => return Err(SinkError::Interrupted(cause)),
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}
