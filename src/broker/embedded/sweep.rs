//! Deletion of what is older than the time that it is kept.

use super::database::Work;
use super::members::{drop_members, now};

/// Deletes what has expired, of all queues and labels: each row by the retention of the run that
/// wrote it. The notes, which have no ids of chats, stay.
pub(super) fn sweep(work: &Work<'_>) -> rusqlite::Result<()> {
    let now = now();
    let expired: Vec<i64> = work
        .prepare("SELECT list FROM lists WHERE expires_at < ?")?
        .query_map([now], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for list in expired {
        drop_members(work, list)?;
    }
    work.execute("DELETE FROM publications WHERE expires_at < ?", [now])?;
    work.execute("DELETE FROM labels WHERE expires_at < ?", [now])?;
    work.execute("DELETE FROM runs WHERE expires_at < ?", [now])?;
    work.execute("DELETE FROM events WHERE expires_at < ?", [now])?;
    Ok(())
}
