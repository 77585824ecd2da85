//! How many chats the labels of an account have, as last counted, and their last runs.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use rusqlite::params;

use super::database::Work;
use super::members::{expiry, signed, unsigned};
use super::{Embedded, blocking};
use crate::broker::{BrokerError, CountStore};
use crate::state::counts::LabelCount;
use crate::state::runs::LastRun;

/// The counts of an account, in the file.
pub(in crate::broker) struct EmbeddedCounts {
    embedded: Embedded,
    instance_id: String,
    retain: Option<Duration>,
}

impl Embedded {
    /// Returns the store of an account's counts, without opening the file.
    pub(in crate::broker) fn counts(
        &self,
        instance_id: &str,
        retain: Option<Duration>,
    ) -> EmbeddedCounts {
        EmbeddedCounts {
            embedded: self.clone(),
            instance_id: instance_id.to_owned(),
            retain,
        }
    }
}

impl EmbeddedCounts {
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Work<'_>, &str) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let (embedded, instance_id) = (self.embedded.clone(), self.instance_id.clone());
        blocking(move || {
            embedded
                .open()?
                .run(|database| work(database, &instance_id))
        })
        .await
    }

    /// Stores counts, and with `labels` removes those of all other labels.
    async fn store(
        &self,
        counts: &[LabelCount],
        labels: Option<&[&str]>,
    ) -> Result<(), BrokerError> {
        let (counts, retain) = (counts.to_vec(), self.retain);
        let kept = labels.map(|labels| serde_json::json!(labels).to_string());
        self.run(move |work, instance_id| {
            let mut insert = work.prepare_cached(
                "INSERT INTO labels VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                 ON CONFLICT DO UPDATE SET name = coalesce(?3, name), color = coalesce(?4, color),
                 counted_at = iif(?5 IS NULL, counted_at, ?6), chats = coalesce(?5, chats),
                 expires_at = ?7, deleted_at = coalesce(?8, deleted_at)",
            )?;
            for count in &counts {
                let (name, color) = (&count.label_name, &count.color_hex);
                let (chats, at) = (count.chats.map(signed), millis(count.counted_at));
                let id = &count.label_id;
                let expires_at = expiry(at / 1000, retain);
                let deleted_at = count.deleted_at.map(millis);
                insert.execute(params![
                    instance_id,
                    id,
                    name,
                    color,
                    chats,
                    at,
                    expires_at,
                    deleted_at
                ])?;
            }
            for table in ["labels", "runs"] {
                if let Some(kept) = &kept {
                    work.prepare_cached(&format!(
                        "DELETE FROM {table} WHERE instance_id = ?
                         AND label_id NOT IN (SELECT value FROM json_each(?))",
                    ))?
                    .execute(params![instance_id, kept])?;
                }
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl CountStore for EmbeddedCounts {
    async fn record(&mut self, counts: &[LabelCount]) -> Result<(), BrokerError> {
        self.store(counts, None).await
    }

    async fn replace(&mut self, counts: &[LabelCount], labels: &[&str]) -> Result<(), BrokerError> {
        self.store(counts, Some(labels)).await
    }

    async fn load(&mut self) -> Result<Vec<LabelCount>, BrokerError> {
        if !self.embedded.path().exists() {
            return Ok(Vec::new());
        }
        let oldest = self
            .retain
            .and_then(|retain| SystemTime::now().checked_sub(retain));
        let oldest = oldest.map_or(0, millis);
        let select = move |work: &Work<'_>, instance_id: &str| {
            let mut select = work.prepare_cached(
                "SELECT label_id, name, color, chats, counted_at, deleted_at FROM labels
                 WHERE instance_id = ? AND counted_at >= ?",
            )?;
            let count = |row: &rusqlite::Row<'_>| {
                Ok(LabelCount {
                    label_id: row.get(0)?,
                    label_name: row.get(1)?,
                    color_hex: row.get(2)?,
                    chats: row.get::<_, Option<i64>>(3)?.map(unsigned),
                    counted_at: time(row.get(4)?),
                    deleted_at: row.get::<_, Option<i64>>(5)?.map(time),
                })
            };
            select
                .query_map(params![instance_id, oldest], count)?
                .collect()
        };
        let mut counts: Vec<LabelCount> = self.run(select).await?;
        LabelCount::sort(&mut counts);
        Ok(counts)
    }

    async fn record_run(&mut self, run: &LastRun) -> Result<(), BrokerError> {
        let (label_id, json) = (run.label_id.clone(), run.to_json());
        let expires_at = expiry(millis(run.finished_at) / 1000, self.retain);
        self.run(move |work, instance_id| {
            work.prepare_cached("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)")?
                .execute(params![instance_id, label_id, json, expires_at])?;
            Ok(())
        })
        .await
    }

    async fn load_runs(&mut self) -> Result<Vec<LastRun>, BrokerError> {
        if !self.embedded.path().exists() {
            return Ok(Vec::new());
        }
        self.run(|work, instance_id| {
            let mut select =
                work.prepare_cached("SELECT label_id, run FROM runs WHERE instance_id = ?")?;
            let texts = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
            let stored: Vec<(String, String)> = select
                .query_map([instance_id], texts)?
                .collect::<Result<_, _>>()?;
            let runs = stored.iter();
            Ok(runs
                .filter_map(|(label_id, run)| LastRun::from_json(label_id, run))
                .collect())
        })
        .await
    }
}

fn time(millis: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(unsigned(millis))
}

fn millis(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
