//! Lock for one run at a time, and the heartbeat that keeps it alive.
//!
//! The lock distinguishes a live run from a dead one: the heartbeat keeps it from expiring. The
//! fencing token, which the append script compares, rejects late writes of a dead run.

use std::time::Duration;

use redis::{Script, Value};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::connect::Endpoint;
use super::dedup::DEDUP_TTL_SECONDS;
use super::keys::Keys;
use super::lifecycle::now;
use super::link::{Acquired, LOCK_TTL, Link, acquire, load, lock_millis};
use super::stream::{Lease, Stream};
use crate::broker::BrokerError;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying as _, with_retry};
use crate::shutdown::Shutdown;

/// Heartbeat interval. Several heartbeats may be lost before the lock expires.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(2500);
/// Interval of checks while another run holds the lock.
const LOCK_CHECK_INTERVAL: Duration = Duration::from_millis(500);

impl Stream {
    /// Takes the lock, and keeps it until the heartbeat is dropped.
    pub(super) async fn lock(&mut self, shutdown: &Shutdown) -> Result<Heartbeat, SessionError> {
        let mut watch = None;
        self.lease.fencing_token = with_retry!(
            self,
            take(
                &mut self.link,
                &self.keys,
                &self.lease,
                &mut watch,
                shutdown
            )
        )?;
        let endpoint = self.link.endpoint().clone();
        Ok(Heartbeat::start(
            endpoint,
            self.keys.clone(),
            self.lease.clone(),
        ))
    }

    /// Releases the lock. `mark_settled` records that the run has ended and its process knows it.
    pub(super) async fn unlock(&mut self, mark_settled: bool) -> Result<(), SessionError> {
        with_retry!(
            self,
            release(&mut self.link, &self.keys, &self.lease, mark_settled)
        )
    }
}

/// Takes the lock at once if it is free, else when it expires. Returns the fencing token.
///
/// # Errors
///
/// [`BrokerError::Locked`] if the other run's heartbeat renews the lock, or if that run has ended
/// since the first call with this `watch`.
async fn take(
    link: &mut Link,
    keys: &Keys,
    lease: &Lease,
    watch: &mut Option<Watch>,
    shutdown: &Shutdown,
) -> Result<String, Failure> {
    loop {
        if let Some(token) = try_take(link, keys, lease, watch, shutdown).await? {
            return Ok(token);
        }
    }
}

/// Returns `None` after a pause, while another run holds the lock and it is not yet known whether
/// that run is alive.
async fn try_take(
    link: &mut Link,
    keys: &Keys,
    lease: &Lease,
    watch: &mut Option<Watch>,
    shutdown: &Shutdown,
) -> Result<Option<String>, Failure> {
    let (holder, left, settled) = match (acquire(link, keys, lease).await?, &watch) {
        (Acquired::Owned(token), None) => return Ok(Some(token)),
        (Acquired::Owned(token), Some(watch)) => {
            let settled = load(link, keys).await?.settled;
            if settled.is_none() || settled == watch.settled {
                return Ok(Some(token));
            }
            // The other run was alive, and has ended since the first check.
            release(link, keys, lease, false).await?;
            return Err(BrokerError::Locked(keys.stream.clone()).into());
        }
        (
            Acquired::Held {
                owner,
                left,
                settled,
            },
            _,
        ) => (owner, left, settled),
    };
    if left < 0 {
        // A lock without expiry is not one of labelcast's.
        return Err(BrokerError::Locked(keys.stream.clone()).into());
    }
    match watch {
        // Only a heartbeat can have extended it.
        Some(watch) if watch.holder != holder || left > watch.left => {
            return Err(BrokerError::Locked(keys.stream.clone()).into());
        }
        Some(watch) => watch.left = left,
        None => {
            info!(
                left_ms = left,
                "lock held by another run; waiting for its heartbeat"
            );
            *watch = Some(Watch {
                holder,
                left,
                settled,
            });
        }
    }
    tokio::select! {
        cause = shutdown.stopped() => Err(BrokerError::Interrupted(cause).into()),
        () = tokio::time::sleep(LOCK_CHECK_INTERVAL) => Ok(None),
    }
}

/// Last observed state of another run's lock.
pub(super) struct Watch {
    holder: String,
    left: i64,
    settled: Option<String>,
}

/// Heartbeat task, which renews the lock and the keys beside the stream until it is dropped. It has
/// its own connection.
pub(super) struct Heartbeat {
    task: JoinHandle<()>,
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Heartbeat {
    pub(super) fn start(endpoint: Endpoint, keys: Keys, lease: Lease) -> Self {
        let task = tokio::spawn(async move {
            let mut link = Link::new(endpoint, keys.lock.clone());
            let mut beats = tokio::time::interval(HEARTBEAT_INTERVAL);
            let (mut was_ours, mut was_renewed) = (true, true);
            loop {
                beats.tick().await;
                // The limit is below the lock's lifetime, so that a server that hangs is tried
                // again in time.
                let beat = tokio::time::timeout(LOCK_TTL / 2, beat(&mut link, &keys, &lease));
                match beat.await {
                    Ok(Ok(is_ours)) => {
                        if was_ours && !is_ours {
                            warn!("lock lost");
                        }
                        // A lost lock may be taken again, if the server has lost its data.
                        (was_ours, was_renewed) = (is_ours, true);
                    }
                    Ok(Err(_)) | Err(_) => {
                        if was_renewed {
                            let (stream, lasts_s) = (&keys.stream, LOCK_TTL.as_secs());
                            warn!(stream, lasts_s, "lock renewal failed; retrying");
                        }
                        was_renewed = false;
                        link.drop_connection();
                    }
                }
            }
        });
        Self { task }
    }
}

async fn beat(link: &mut Link, keys: &Keys, lease: &Lease) -> Result<bool, Failure> {
    let script = Script::new(include_str!("renew.lua"));
    let mut script = script.prepare_invoke();
    script
        .key(&keys.lock)
        .key(&keys.checkpoint)
        .key(&keys.dedup);
    script
        .arg(&lease.owner)
        .arg(lock_millis())
        .arg(&lease.keep_ms)
        .arg(DEDUP_TTL_SECONDS)
        .arg(now());
    Ok(link.run(&script).await? == Value::Int(1))
}

/// Releases the lock. `mark_settled` records that the run has ended and its process knows it.
async fn release(
    link: &mut Link,
    keys: &Keys,
    lease: &Lease,
    mark_settled: bool,
) -> Result<(), Failure> {
    let script = Script::new(include_str!("release.lua"));
    let mut script = script.prepare_invoke();
    script.key(&keys.lock).key(&keys.checkpoint);
    script.arg(&lease.owner).arg(u8::from(mark_settled));
    link.run(&script).await?;
    Ok(())
}
