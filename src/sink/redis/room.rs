//! Back-pressure: publishing waits while consumers have too much before them.

use std::time::Duration;

use tracing::info;

use super::Redis;
use super::keys::Keys;
use super::link::Link;
use crate::sink::SinkError;
use crate::sink::patience::Failure;

/// How often a full stream is looked at.
const LOOK: Duration = Duration::from_millis(200);

impl Redis {
    /// Waits while a stream holds too much.
    pub(super) async fn wait_for_room(&mut self, index: usize) -> Result<(), SinkError> {
        let Some(max) = self.settings.max_pending else {
            return Ok(());
        };
        let mut waits = false;
        while self.room[index] == 0 {
            let stream = &mut self.streams[index];
            stream.confirm_all().await?;
            let pending = stream
                .insist(async |link, keys, _| pending(link, keys).await)
                .await?;
            self.room[index] = max.saturating_sub(pending);
            if self.room[index] > 0 {
                break;
            }
            if !waits {
                let queue = &stream.keys.stream;
                info!(queue, pending, "waiting for consumers to catch up");
                self.progress.say("waiting for consumers");
                waits = true;
            }
            tokio::select! {
                cause = self.shutdown.stopped() => return Err(SinkError::Interrupted(cause)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        if waits {
            info!("going on");
            self.progress.say("");
        }
        Ok(())
    }
}

/// How many entries wait for consumers: the largest lag of a group, where there are groups and the
/// server knows their lags (Redis 7), else all that are in the stream.
async fn pending(link: &mut Link, keys: &Keys) -> Result<u64, Failure> {
    let connection = link.connection().await?;
    let length: u64 = redis::cmd("XLEN")
        .arg(&keys.stream)
        .query_async(&mut *connection)
        .await?;
    if length == 0 {
        return Ok(0);
    }
    let groups: Vec<std::collections::HashMap<String, redis::Value>> = redis::cmd("XINFO")
        .arg("GROUPS")
        .arg(&keys.stream)
        .query_async(connection)
        .await?;
    let lags: Option<Vec<u64>> = groups
        .iter()
        .map(|group| match group.get("lag") {
            Some(redis::Value::Int(lag)) => u64::try_from(*lag).ok(),
            _ => None,
        })
        .collect();
    Ok(lags
        .and_then(|lags| lags.into_iter().max())
        .unwrap_or(length))
}
