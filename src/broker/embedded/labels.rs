//! How many chats the labels of an account have, as last counted.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::params;

use super::members::{signed, unsigned};
use super::{Embedded, blocking};
use crate::broker::BrokerError;

/// The count of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct LabelCount {
    pub(in crate::broker) label_id: String,
    pub(in crate::broker) name: Option<String>,
    pub(in crate::broker) color: Option<u32>,
    /// `None` before the first whole list.
    pub(in crate::broker) chats: Option<u64>,
    /// When the chats were counted, in whole seconds.
    pub(in crate::broker) counted_at: Option<SystemTime>,
}

impl Embedded {
    /// Records counts of labels of an account, in place of those that these labels had.
    pub(in crate::broker) async fn record_counts(
        &self,
        instance_id: &str,
        counts: &[LabelCount],
    ) -> Result<(), BrokerError> {
        let (embedded, instance_id) = (self.clone(), instance_id.to_owned());
        let counts = counts.to_vec();
        blocking(move || {
            embedded.open()?.run(|work| {
                let mut insert =
                    work.prepare_cached("INSERT OR REPLACE INTO labels VALUES (?, ?, ?, ?, ?, ?)")?;
                for count in &counts {
                    let counted_at = count.counted_at.map(|at| signed(seconds(at)));
                    let chats = count.chats.map(signed);
                    let LabelCount {
                        label_id,
                        name,
                        color,
                        ..
                    } = count;
                    insert.execute(params![
                        instance_id,
                        label_id,
                        name,
                        color,
                        chats,
                        counted_at
                    ])?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Returns the counts of the labels of an account, by label id. None if there is no file.
    pub(in crate::broker) async fn load_counts(
        &self,
        instance_id: &str,
    ) -> Result<Vec<LabelCount>, BrokerError> {
        let (embedded, instance_id) = (self.clone(), instance_id.to_owned());
        blocking(move || {
            if !embedded.path().exists() {
                return Ok(Vec::new());
            }
            embedded.open()?.run(|work| {
                let mut select = work.prepare_cached(
                    "SELECT label_id, name, color, chats, counted_at FROM labels
                     WHERE instance_id = ? ORDER BY label_id",
                )?;
                let count = |row: &rusqlite::Row<'_>| {
                    let counted_at: Option<i64> = row.get(4)?;
                    Ok(LabelCount {
                        label_id: row.get(0)?,
                        name: row.get(1)?,
                        color: row.get(2)?,
                        chats: row.get::<_, Option<i64>>(3)?.map(unsigned),
                        counted_at: counted_at
                            .map(|at| UNIX_EPOCH + Duration::from_secs(unsigned(at))),
                    })
                };
                select.query_map([&instance_id], count)?.collect()
            })
        })
        .await
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
