//! One run at a time: taking the lock, and keeping it alive.
//!
//! The lock tells a live run from a dead one: a heart that beats keeps it from running out. What
//! keeps a dead one's late writes out is the fence, which the append script compares.

use std::time::Duration;

use redis::{Script, Value};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::connect::Endpoint;
use super::dedup::SET_LASTS;
use super::keys::Keys;
use super::lifecycle::now;
use super::link::{Acquired, LOCK_LASTS, Link, acquire, load, lock_millis};
use super::stream::Lease;
use crate::shutdown::Shutdown;
use crate::sink::SinkError;
use crate::sink::retry_policy::Failure;

/// How often the heart beats: some beats may be lost before the lock runs out.
const BEAT: Duration = Duration::from_millis(2500);
/// How often a lock that another run holds is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Takes the lock at once where it is free, else when it runs out.
///
/// `Ok(None)` while somebody holds it and it is not known yet whether the heart beats: call again.
///
/// # Errors
///
/// [`SinkError::Locked`], when the other's heart beats, or it has ended its run meanwhile.
pub(super) async fn take(
    link: &mut Link,
    keys: &Keys,
    lease: &Lease,
    watch: &mut Option<Watch>,
    shutdown: &Shutdown,
) -> Result<Option<String>, Failure> {
    let (holder, left, settled) = match (acquire(link, keys, lease).await?, &watch) {
        (Acquired::Fence(fence), None) => return Ok(Some(fence)),
        (Acquired::Fence(fence), Some(watch)) => {
            let settled = load(link, keys).await?.settled;
            if settled.is_none() || settled == watch.settled {
                return Ok(Some(fence));
            }
            // It was alive all the time, and has come to its end meanwhile.
            release(link, keys, lease, false).await?;
            return Err(SinkError::Locked(keys.stream.clone()).into());
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
        // Not one of ours: those run out.
        return Err(SinkError::Locked(keys.stream.clone()).into());
    }
    match watch {
        // It can only have become longer by a beat.
        Some(watch) if watch.holder != holder || left > watch.left => {
            return Err(SinkError::Locked(keys.stream.clone()).into());
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
        cause = shutdown.stopped() => Err(SinkError::Interrupted(cause).into()),
        () = tokio::time::sleep(LOOK) => Ok(None),
    }
}

/// What was last seen of another's lock.
pub(super) struct Watch {
    holder: String,
    left: i64,
    settled: Option<String>,
}

/// Renews the lock, and keeps what is beside the stream, as long as it lives; from a connection of
/// its own.
pub(super) struct Heart {
    task: JoinHandle<()>,
}

impl Drop for Heart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Heart {
    pub(super) fn start(endpoint: Endpoint, keys: Keys, lease: Lease) -> Self {
        let task = tokio::spawn(async move {
            let mut link = Link::new(endpoint, keys.lock.clone());
            let mut beats = tokio::time::interval(BEAT);
            let (mut was_ours, mut was_heard) = (true, true);
            loop {
                beats.tick().await;
                // Within the time that a lock lasts: a server that hangs is asked anew.
                let beat = tokio::time::timeout(LOCK_LASTS / 2, beat(&mut link, &keys, &lease));
                match beat.await {
                    Ok(Ok(is_ours)) => {
                        if was_ours && !is_ours {
                            warn!("lock lost");
                        }
                        // It may be taken again, where the server has lost its memory.
                        (was_ours, was_heard) = (is_ours, true);
                    }
                    Ok(Err(_)) | Err(_) => {
                        if was_heard {
                            let (stream, lasts_s) = (&keys.stream, LOCK_LASTS.as_secs());
                            warn!(stream, lasts_s, "lock renewal failed; retrying");
                        }
                        was_heard = false;
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
    script.key(&keys.lock).key(&keys.checkpoint).key(&keys.seen);
    script
        .arg(&lease.owner)
        .arg(lock_millis())
        .arg(&lease.keep)
        .arg(SET_LASTS)
        .arg(now());
    Ok(link.run(&script).await? == Value::Int(1))
}

/// Gives the lock back. `settles` is for a run that has come to its end, and whose process knows it.
pub(super) async fn release(
    link: &mut Link,
    keys: &Keys,
    lease: &Lease,
    settles: bool,
) -> Result<(), Failure> {
    let script = Script::new(include_str!("release.lua"));
    let mut script = script.prepare_invoke();
    script.key(&keys.lock).key(&keys.checkpoint);
    script.arg(&lease.owner).arg(u8::from(settles));
    link.run(&script).await?;
    Ok(())
}
