//! Deletion of what is older than the time that it is kept.

use std::time::Duration;

use super::database::Work;
use super::members::{drop_members, oldest};

/// Deletes members of lists that were not used, and times of publication, of all queues and labels.
/// The notes, which have no ids of chats, stay.
pub(super) fn sweep(work: &Work<'_>, retain: Duration) -> rusqlite::Result<()> {
    let oldest = oldest(retain);
    let expired: Vec<i64> = work
        .prepare("SELECT list FROM lists WHERE used_at < ?")?
        .query_map([oldest], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for list in expired {
        drop_members(work, list)?;
    }
    work.execute("DELETE FROM publications WHERE published_at < ?", [oldest])?;
    let oldest_ms = oldest.saturating_mul(1000);
    work.execute("DELETE FROM labels WHERE counted_at < ?", [oldest_ms])?;
    Ok(())
}
