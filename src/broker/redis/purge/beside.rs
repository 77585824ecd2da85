//! What is kept beside a stream, and its deletion.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::remote::script;
use super::{Older, Worker, millis};
use crate::broker::redis::appender::REMEMBERED_FOR;
use crate::broker::redis::dedup::DEDUP_TTL_SECONDS;
use crate::broker::{BrokerError, Purged};

/// Fields in a page of a hash. A page takes the server under a millisecond.
const FIELDS: usize = 500;
/// Keys in a page of a scan. Most of them are passed over.
pub(super) const SCANNED_KEYS: usize = 1000;

impl Worker<'_> {
    /// Deletes or counts the old fields of a hash, page by page, and adds their number.
    pub(super) async fn hash(
        &mut self,
        key: &str,
        kind: &str,
        older: Older,
        deleted: &mut u64,
    ) -> Result<(), BrokerError> {
        let limit = match older.is_all() {
            true => String::new(),
            false => format!("{}.{:03}", older.limit_ms() / 1000, older.limit_ms() % 1000),
        };
        let mut cursor = "0".to_owned();
        loop {
            self.lock.renew().await?;
            let mut page = script(include_str!("hash.lua"), &[key]);
            page.arg(&cursor).arg(FIELDS).arg(kind).arg(&limit);
            page.arg(u8::from(!self.purge.dry_run));
            let (next, found): (String, u64) = self.remote.query(&page).await?;
            *deleted += found;
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// Deletes or counts a dedup set. Its expiry tells when it was last used.
    pub(super) async fn dedup_set(&mut self, key: &str, older: Older) -> Result<u64, BrokerError> {
        let used_for = Duration::from_secs(DEDUP_TTL_SECONDS);
        self.expiring(key, used_for, older).await
    }

    /// Deletes or counts a key that was last set when it began to expire after `ttl`.
    async fn expiring(
        &mut self,
        key: &str,
        ttl: Duration,
        older: Older,
    ) -> Result<u64, BrokerError> {
        let left: i64 = self.remote.query(redis::cmd("PTTL").arg(key)).await?;
        let age = u64::try_from(left).map(|left| millis(ttl).saturating_sub(left));
        let at_ms = age.ok().map(|age| older.now_ms.saturating_sub(age));
        // PTTL is -2 for a key that does not exist.
        if left == -2 || !older.is_old(at_ms) {
            return Ok(0);
        }
        self.unlink(&[key.to_owned()]).await
    }

    /// Deletes or counts a checkpoint: by the time of its run, or where there was none yet, of its
    /// fencing token.
    pub(super) async fn checkpoint(&mut self, key: &str, older: Older) -> Result<u64, BrokerError> {
        let mut command = redis::cmd("HMGET");
        command.arg(key).arg(&["at", "fence"]);
        let (at, fence): (Option<String>, Option<String>) = self.remote.query(&command).await?;
        let fence_ms = || Some(fence.as_ref()?.parse::<u64>().ok()? / 1000);
        let at_ms = at.as_deref().and_then(parse_ms).or_else(fence_ms);
        if !older.is_old(at_ms) {
            return Ok(0);
        }
        self.unlink(&[key.to_owned()]).await
    }

    /// Deletes or counts the manifests of runs of these labels on this stream, and the keys that
    /// remember their events.
    pub(super) async fn manifests_and_events(
        &mut self,
        older: Older,
        purged: &mut Purged,
    ) -> Result<(), BrokerError> {
        let mut cursor = "0".to_owned();
        loop {
            self.lock.renew().await?;
            let mut scan = redis::cmd("SCAN");
            // Manifests, or where there are none, events of a state.
            let pattern = match self.beside.is_state {
                true => "labelcast:state-event:*",
                false => "labelcast:[re]*",
            };
            scan.arg(&cursor).arg("MATCH").arg(pattern);
            scan.arg("COUNT").arg(SCANNED_KEYS);
            let (next, keys): (String, Vec<String>) = self.remote.query(&scan).await?;
            for key in keys {
                let is_event = || self.beside.events.iter().any(|it| key.starts_with(it));
                if key.starts_with(&self.beside.manifests) {
                    purged.manifests += self.manifest(&key, older).await?;
                } else if is_event() {
                    purged.events += self.expiring(&key, REMEMBERED_FOR, older).await?;
                }
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn manifest(&mut self, key: &str, older: Older) -> Result<u64, BrokerError> {
        const FIELDS: [&str; 4] = ["queue", "label_id", "finished_at", "started_at"];
        let mut command = redis::cmd("HMGET");
        command.arg(key).arg(&FIELDS);
        let [queue, label, finished, started]: [Option<String>; 4] =
            self.remote.query(&command).await?;
        let is_ours = queue.as_deref() == Some(&self.beside.stream)
            && self.label.is_none_or(|ours| label.as_deref() == Some(ours));
        let at_ms = finished.or(started).as_deref().and_then(parse_ms);
        if !is_ours || !older.is_old(at_ms) {
            return Ok(0);
        }
        self.unlink(&[key.to_owned()]).await
    }

    /// Deletes keys, or counts those that exist.
    async fn unlink(&mut self, keys: &[String]) -> Result<u64, BrokerError> {
        self.lock.renew().await?;
        let name = if self.purge.dry_run {
            "EXISTS"
        } else {
            "UNLINK"
        };
        self.remote.query(redis::cmd(name).arg(keys)).await
    }
}

/// Returns an RFC 3339 time in milliseconds since 1970.
fn parse_ms(text: &str) -> Option<u64> {
    let at: SystemTime = humantime::parse_rfc3339(text).ok()?;
    Some(millis(at.duration_since(UNIX_EPOCH).ok()?))
}
