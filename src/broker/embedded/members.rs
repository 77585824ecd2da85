//! Members and times of publication.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{OptionalExtension as _, Row, params};

use super::database::Work;
use super::schema::members_table;
use crate::broker::Target;
use crate::broker::store::{Changes, Cursor, Known, Note, Page, Stored};
use crate::state::record::{Record, Source, State};

/// Records that a page of a scan has at most.
const PAGE: usize = 1000;
/// `state` of the row with the set's token, which is no chat.
pub(super) const TOKEN: i64 = 3;

/// One queue, label and account in the file.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    pub(super) list: i64,
    pub(super) queue_id: i64,
    /// How long what is written is kept; `None` for ever.
    pub(super) retain: Option<Duration>,
}

impl Scope {
    fn table(&self) -> String {
        format!("members_{}", self.list)
    }
}

/// Finds the rows of a queue, label and account, or creates them. Deletes its members if they have
/// expired.
pub(super) fn open(
    work: &Work<'_>,
    target: &Target,
    retain: Option<Duration>,
) -> rusqlite::Result<(Scope, Stored)> {
    let Target {
        queue,
        label_id,
        instance_id,
    } = target;
    work.execute(
        "INSERT INTO lists (queue, label_id, instance_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        params![queue, label_id, instance_id],
    )?;
    let list = work.query_row(
        "SELECT list FROM lists WHERE queue = ? AND label_id = ? AND instance_id = ?",
        params![queue, label_id, instance_id],
        |row| row.get(0),
    )?;
    work.execute(
        "INSERT INTO queues (queue) VALUES (?) ON CONFLICT DO NOTHING",
        [queue],
    )?;
    let of_queue = "SELECT queue_id FROM queues WHERE queue = ?";
    let queue_id = work.query_row(of_queue, [queue], |row| row.get(0))?;
    let scope = Scope {
        list,
        queue_id,
        retain,
    };
    expire(work, &scope)?;
    let stored = load(work, &scope)?;
    Ok((scope, stored))
}

/// Deletes the members if they have expired.
pub(super) fn expire(work: &Work<'_>, scope: &Scope) -> rusqlite::Result<()> {
    let select = "SELECT expires_at FROM lists WHERE list = ?";
    let expires_at: Option<i64> = work
        .prepare_cached(select)?
        .query_row([scope.list], |row| row.get(0))?;
    match expires_at {
        Some(at) if at < now() => drop_members(work, scope.list),
        _ => Ok(()),
    }
}

/// Returns what is known besides the chats.
pub(super) fn load(work: &Work<'_>, scope: &Scope) -> rusqlite::Result<Stored> {
    let select = "SELECT note, members, events FROM lists WHERE list = ?";
    let mut select = work.prepare_cached(select)?;
    let (note, members, events): (String, i64, i64) = select.query_row([scope.list], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    let mut note = Note::parse(&note);
    let set = note.adopt(find_set(work, scope)?);
    Ok(Stored {
        note,
        set,
        members: unsigned(members),
        events: unsigned(events),
    })
}

/// Returns the token of the set that exists.
fn find_set(work: &Work<'_>, scope: &Scope) -> rusqlite::Result<Option<String>> {
    let table = scope.table();
    if !table_exists(work, &table)? {
        return Ok(None);
    }
    // It is the first row.
    let find = format!("SELECT chat_id, state FROM {table} ORDER BY member LIMIT 1");
    let first = work
        .query_row(&find, [], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?)))
        .optional()?;
    Ok(first
        .filter(|(_, state)| *state == TOKEN)
        .map(|(token, _)| token))
}

/// Begins a new set, and deletes the one before.
pub(super) fn begin_set(work: &Work<'_>, scope: &Scope, token: &str) -> rusqlite::Result<()> {
    drop_members(work, scope.list)?;
    work.execute_batch(&members_table(scope.list))?;
    let insert = format!(
        "INSERT INTO {} VALUES (NULL, ?, {TOKEN}, 0, 0, 0, 0, 0)",
        scope.table()
    );
    work.execute(&insert, [token])?;
    work.execute("UPDATE lists SET members = 0 WHERE list = ?", [scope.list])?;
    Ok(())
}

/// Whether a list has a table of members.
pub(super) fn table_exists(work: &Work<'_>, table: &str) -> rusqlite::Result<bool> {
    let exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?";
    let found = work.query_row(exists, [table], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

/// Deletes the members of a list.
pub(super) fn drop_members(work: &Work<'_>, list: i64) -> rusqlite::Result<()> {
    work.execute_batch(&format!("DROP TABLE IF EXISTS members_{list}"))
}

/// Returns what is known of chats.
pub(super) fn read(
    work: &Work<'_>,
    scope: &Scope,
    chats: Vec<String>,
    has_members: bool,
) -> rusqlite::Result<Vec<Known>> {
    let mut publication = work.prepare_cached(
        "SELECT published_at FROM publications WHERE queue_id = ? AND chat_id = ?",
    )?;
    let mut member = match has_members {
        true => Some(work.prepare_cached(&format!(
            "SELECT state, source, as_of, since, seen, published FROM {} WHERE chat_id = ?",
            scope.table()
        ))?),
        false => None,
    };
    let known = |chat_id: String| {
        let record = match &mut member {
            Some(member) => member.query_row([&chat_id], record_of).optional()?,
            None => None,
        };
        let published_at = publication
            .query_row(params![scope.queue_id, chat_id], |row| row.get(0))
            .optional()?;
        Ok(Known {
            chat_id,
            record,
            published_at: published_at.map(unsigned),
        })
    };
    chats.into_iter().map(known).collect()
}

/// Reads a record from the first columns of a row.
fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    let number = |column: usize| row.get(column).map(unsigned);
    Ok(Record {
        state: match number(0)? {
            0 => State::Member,
            1 => State::New,
            _ => State::Removed,
        },
        source: match number(1)? {
            0 => Source::List,
            _ => Source::Event,
        },
        as_of: number(2)?,
        since: number(3)?,
        seen: number(4)?,
        published: number(5)?,
    })
}

/// Writes changes.
pub(super) fn write(work: &Work<'_>, scope: &Scope, changes: &Changes) -> rusqlite::Result<()> {
    if let Some(token) = &changes.new_set {
        begin_set(work, scope, token)?;
    }
    // Members do not expire as long as their list is used.
    work.prepare_cached(
        "UPDATE lists SET note = ?1, expires_at = ?2,
         members = CASE WHEN events = ?4 THEN ?5 ELSE max(0, members + ?6) END
         WHERE list = ?3",
    )?
    .execute(params![
        changes.note.to_json(),
        expiry(now(), scope.retain),
        scope.list,
        changes.counted.map(|counted| signed(counted.events)),
        changes.counted.map_or(0, |counted| signed(counted.members)),
        changes.joined,
    ])?;
    write_records(work, scope, &changes.records)?;
    write_times(work, scope, &changes.published, changes.published_at)?;
    if !changes.forgotten.is_empty() {
        let delete = format!("DELETE FROM {} WHERE chat_id = ?", scope.table());
        let mut delete = work.prepare_cached(&delete)?;
        for chat_id in &changes.forgotten {
            delete.execute([chat_id])?;
        }
    }
    Ok(())
}

/// Writes when chats were published.
pub(super) fn write_times(
    work: &Work<'_>,
    scope: &Scope,
    chats: &[String],
    at: u64,
) -> rusqlite::Result<()> {
    let mut published = work.prepare_cached(
        "INSERT INTO publications (queue_id, chat_id, published_at, expires_at)
         VALUES (?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET published_at = excluded.published_at,
           expires_at = excluded.expires_at",
    )?;
    let published_at = signed(at);
    let expires_at = expiry(published_at, scope.retain);
    for chat_id in chats {
        published.execute(params![scope.queue_id, chat_id, published_at, expires_at])?;
    }
    Ok(())
}

pub(super) fn write_records(
    work: &Work<'_>,
    scope: &Scope,
    records: &[(String, Record)],
) -> rusqlite::Result<()> {
    if records.is_empty() {
        return Ok(());
    }
    let mut write = work.prepare_cached(&format!(
        "INSERT INTO {} (chat_id, state, source, as_of, since, seen, published)
         VALUES (?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT (chat_id) DO UPDATE SET state = excluded.state, source = excluded.source,
           as_of = excluded.as_of, since = excluded.since, seen = excluded.seen,
           published = excluded.published",
        scope.table()
    ))?;
    for (chat_id, record) in records {
        let state = match record.state {
            State::Member => 0,
            State::New => 1,
            State::Removed => 2,
        };
        let source = match record.source {
            Source::List => 0,
            Source::Event => 1,
        };
        write.execute(params![
            chat_id,
            state,
            source,
            signed(record.as_of),
            signed(record.since),
            signed(record.seen),
            signed(record.published),
        ])?;
    }
    Ok(())
}

/// Scans members in the order of the table.
pub(super) fn unseen(
    work: &Work<'_>,
    scope: &Scope,
    pass: u64,
    from: Cursor,
) -> rusqlite::Result<Page> {
    let mut scan = work.prepare_cached(&format!(
        "SELECT state, source, as_of, since, seen, published, member, chat_id FROM {}
         WHERE member > ? AND state <> {TOKEN} ORDER BY member",
        scope.table()
    ))?;
    let mut rows = scan.query([signed(from)])?;
    let mut page = Page::default();
    while let Some(row) = rows.next()? {
        let record = record_of(row)?;
        page.members += u64::from(record.state != State::Removed);
        if record.seen != pass {
            page.unseen.push((row.get(7)?, record));
        }
        if page.unseen.len() >= PAGE {
            page.next = Some(row.get(6).map(unsigned)?);
            break;
        }
    }
    Ok(page)
}

/// The time before which is too old, in seconds since 1970.
pub(super) fn oldest(retain: Duration) -> i64 {
    now().saturating_sub_unsigned(retain.as_secs())
}

/// When something of this time expires, in seconds since 1970; `None` for never.
pub(super) fn expiry(at: i64, retain: Option<Duration>) -> Option<i64> {
    retain.map(|retain| at.saturating_add_unsigned(retain.as_secs()))
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    signed(since.unwrap_or_default().as_secs())
}

/// `SQLite` has signed numbers only. Neither times nor passes get that large.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
