//! Entries of a stream: which of them are old or acknowledged, and their deletion.
//!
//! Entries are deleted, never the stream: a run takes a missing stream for lost data, and consumer
//! groups are part of it.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use redis::{FromRedisValue, Value};

use super::remote::script;
use super::{Worker, millis};
use crate::broker::BrokerError;
use crate::broker::redis::link::reply_text;

/// Limits of a page: entries, and bytes after which no further entry is added. A page takes the
/// server one to two milliseconds.
const PAGE: [usize; 2] = [250, 64 * 1024];
/// Maximum number of entries that one command trims. They are removed in whole blocks, without
/// looking at each.
const TRIMMED_AT_ONCE: usize = 10_000;

/// The script that deletes or counts the entries of a page.
const DELETE: &str = concat!(include_str!("label_of.lua"), include_str!("entries.lua"));

/// Id of an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct EntryId {
    ms: u64,
    sequence: u64,
}

impl EntryId {
    fn next(self) -> Self {
        match self.sequence.checked_add(1) {
            Some(sequence) => Self { sequence, ..self },
            None => Self {
                ms: self.ms.saturating_add(1),
                sequence: 0,
            },
        }
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.sequence)
    }
}

impl FromStr for EntryId {
    type Err = BrokerError;

    fn from_str(text: &str) -> Result<Self, BrokerError> {
        let parts = text.split_once('-');
        let parsed = parts.and_then(|(ms, sequence)| {
            Some(Self {
                ms: ms.parse().ok()?,
                sequence: sequence.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| BrokerError::Unavailable(format!("“{text}” is no id of an entry")))
    }
}

impl Worker<'_> {
    /// Deletes or counts the entries of a stream, and adds their number.
    pub(super) async fn entries(
        &mut self,
        stream: &str,
        now_ms: u64,
        deleted: &mut u64,
    ) -> Result<(), BrokerError> {
        let Some(end) = self.end(stream, now_ms).await? else {
            return Ok(());
        };
        if self.label.is_none() && !self.purge.dry_run {
            return self.trim(stream, end, deleted).await;
        }
        let mut from = "-".to_owned();
        while !from.is_empty() {
            self.lock.renew().await?;
            let mut page = script(DELETE, &[stream]);
            page.arg(&from).arg(format!("({end}")).arg(&PAGE);
            page.arg(u8::from(!self.purge.dry_run)).arg(self.label);
            let (next, found): (String, u64) = self.remote.query(&page).await?;
            *deleted += found;
            from = next;
        }
        Ok(())
    }

    /// Deletes all entries before this id: whole blocks first, which the server can limit.
    async fn trim(
        &mut self,
        stream: &str,
        end: EntryId,
        deleted: &mut u64,
    ) -> Result<(), BrokerError> {
        let trim = |is_exact: bool| {
            let mut trim = redis::cmd("XTRIM");
            trim.arg(stream).arg("MINID");
            trim.arg(if is_exact { "=" } else { "~" });
            trim.arg(end.to_string());
            if !is_exact {
                trim.arg("LIMIT").arg(TRIMMED_AT_ONCE);
            }
            trim
        };
        loop {
            self.lock.renew().await?;
            let trimmed: u64 = self.remote.query(&trim(false)).await?;
            *deleted += trimmed;
            if trimmed == 0 {
                break;
            }
        }
        let trimmed: u64 = self.remote.query(&trim(true)).await?;
        *deleted += trimmed;
        Ok(())
    }

    /// Returns the id before which entries are deleted; `None` to delete none.
    async fn end(&mut self, stream: &str, now_ms: u64) -> Result<Option<EntryId>, BrokerError> {
        let exists: bool = self.remote.query(redis::cmd("EXISTS").arg(stream)).await?;
        if !exists {
            return Ok(None);
        }
        let selection = self.purge.selection;
        let by_age = match selection.older_than {
            // Entries that are added from now on stay.
            None | Some(Duration::ZERO) => {
                let info: HashMap<String, Value> = self.info("STREAM", stream).await?;
                id_in(&info, "last-generated-id")?.next()
            }
            Some(age) => EntryId {
                ms: now_ms.saturating_sub(millis(age)),
                sequence: 0,
            },
        };
        let end = match selection.acknowledged {
            true => self.acknowledged(stream).await?.min(by_age),
            false => by_age,
        };
        // No entry has this id, and it cannot be the end of a range.
        Ok(Some(end).filter(|end| *end > EntryId::default()))
    }

    /// Returns the id before which every consumer group has acknowledged all entries: the lowest of
    /// all if there is no group.
    async fn acknowledged(&mut self, stream: &str) -> Result<EntryId, BrokerError> {
        let groups: Vec<HashMap<String, Value>> = self.info("GROUPS", stream).await?;
        let mut end: Option<EntryId> = None;
        for group in groups {
            let mut of_group = id_in(&group, "last-delivered-id")?.next();
            if !matches!(group.get("pending"), Some(Value::Int(0))) {
                let name = group.get("name").map(reply_text).unwrap_or_default();
                let mut oldest = redis::cmd("XPENDING");
                oldest.arg(stream).arg(name).arg(&["-", "+", "1"]);
                let oldest: Vec<(String, String, u64, u64)> = self.remote.query(&oldest).await?;
                if let Some((id, ..)) = oldest.first() {
                    of_group = of_group.min(id.parse()?);
                }
            }
            end = Some(end.map_or(of_group, |end| end.min(of_group)));
        }
        Ok(end.unwrap_or_default())
    }

    async fn info<T: FromRedisValue>(
        &mut self,
        what: &str,
        stream: &str,
    ) -> Result<T, BrokerError> {
        let mut info = redis::cmd("XINFO");
        self.remote.query(info.arg(what).arg(stream)).await
    }
}

fn id_in(info: &HashMap<String, Value>, name: &str) -> Result<EntryId, BrokerError> {
    info.get(name).map(reply_text).unwrap_or_default().parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_by_time_and_sequence() {
        let id = |text: &str| text.parse::<EntryId>().unwrap_or_default();
        assert!(id("9-5") < id("10-0") && id("10-0") < id("10-1"));
        assert_eq!(id("10-1").next(), id("10-2"));
        assert_eq!(id("10-18446744073709551615").next(), id("11-0"));
        assert_eq!(id("10-1").to_string(), "10-1");
        assert!("10".parse::<EntryId>().is_err());
    }
}
