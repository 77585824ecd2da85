//! The locks of the labels that are purged.
//!
//! They are those that runs take, but a purge takes no fencing token: it writes no checkpoint, and
//! must not make one look younger. A dry run takes no lock, because it changes nothing. It waits
//! until no run is alive, as a purge does.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::remote::{Remote, script};
use crate::broker::BrokerError;
use crate::broker::redis::link::lock_millis;

/// Time after which the locks are renewed: well before they expire.
const RENEW_AFTER: Duration = Duration::from_millis(2500);
/// Interval of checks while a run holds a lock.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Time limit for releasing the locks.
const RELEASE_WITHIN: Duration = Duration::from_secs(3);
/// Renews the locks that are still ours, and returns how many there are.
const RENEW: &str = "local held = 0
for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    held = held + redis.call('PEXPIRE', key, ARGV[2])
  end
end
return held";
/// Deletes the locks that are still ours.
const RELEASE: &str = "for _, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[1] then
    redis.call('DEL', key)
  end
end
return 1";

/// Locks of labels, all on one server.
pub(super) struct Lock {
    remote: Remote,
    owner: String,
    /// The locks that are held; none in a dry run.
    held: Vec<String>,
    renewed_at: Instant,
}

impl Lock {
    /// Takes the locks, or in a dry run waits until all are free.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Locked`] if the heartbeat of a run renews one of them.
    pub(super) async fn take(
        remote: Remote,
        keys: Vec<String>,
        dry_run: bool,
    ) -> Result<Self, BrokerError> {
        let mut lock = Self {
            remote,
            owner: format!("purge:{}", Uuid::now_v7()),
            held: Vec::new(),
            renewed_at: Instant::now(),
        };
        for key in keys {
            if let Err(error) = lock.wait_for(&key, dry_run).await {
                // This cannot fail in a way that matters more than why the lock was not taken.
                let _ = lock.release().await;
                return Err(error);
            }
            if !dry_run {
                lock.held.push(key);
            }
        }
        Ok(lock)
    }

    /// Takes a lock when it is free or expires.
    async fn wait_for(&mut self, key: &str, dry_run: bool) -> Result<(), BrokerError> {
        let mut before: Option<(String, i64)> = None;
        loop {
            if !dry_run && self.try_take(key).await? {
                return Ok(());
            }
            let holder: Option<String> = self.remote.query(redis::cmd("GET").arg(key)).await?;
            let left: i64 = self.remote.query(redis::cmd("PTTL").arg(key)).await?;
            let holder = match holder {
                None if dry_run => return Ok(()),
                None => continue,
                // The reply of an earlier attempt was lost.
                Some(holder) if holder == self.owner => return Ok(()),
                Some(holder) => holder,
            };
            let is_alive = match &before {
                // Only a heartbeat can have extended it.
                Some((watched, was_left)) => *watched != holder || left > *was_left,
                // A lock without expiry is not one of labelcast's.
                None => left == -1,
            };
            if is_alive {
                return Err(BrokerError::Locked(key.to_owned()));
            }
            before = Some((holder, left));
            tokio::select! {
                cause = self.remote.shutdown.stopped() => return Err(BrokerError::Interrupted(cause)),
                () = tokio::time::sleep(CHECK_INTERVAL) => {}
            }
            self.renew().await?;
        }
    }

    async fn try_take(&mut self, key: &str) -> Result<bool, BrokerError> {
        let mut set = redis::cmd("SET");
        set.arg(key).arg(&self.owner).arg("NX");
        set.arg("PX").arg(lock_millis());
        let set: Option<String> = self.remote.query(&set).await?;
        Ok(set.is_some())
    }

    /// Renews the locks, if they have not been renewed recently.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Locked`] if they have expired, and another run may have taken them.
    pub(super) async fn renew(&mut self) -> Result<(), BrokerError> {
        if self.held.is_empty() || self.renewed_at.elapsed() < RENEW_AFTER {
            return Ok(());
        }
        let mut renew = script(RENEW, &self.keys());
        renew.arg(&self.owner).arg(lock_millis());
        let held: usize = self.remote.query(&renew).await?;
        if held < self.held.len() {
            return Err(BrokerError::Locked(self.held.join(", ")));
        }
        self.renewed_at = Instant::now();
        Ok(())
    }

    /// Releases the locks.
    pub(super) async fn release(&mut self) -> Result<(), BrokerError> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut release = script(RELEASE, &self.keys());
        release.arg(&self.owner);
        self.held.clear();
        let released = self.remote.query_anyway::<()>(&release);
        // After this time they expire.
        tokio::time::timeout(RELEASE_WITHIN, released)
            .await
            .unwrap_or(Ok(()))
    }

    fn keys(&self) -> Vec<&str> {
        self.held.iter().map(String::as_str).collect()
    }
}
