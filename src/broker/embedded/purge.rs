//! Deletion of what is stored in the file.

use std::collections::BTreeSet;
use std::time::Duration;

use rusqlite::{OptionalExtension as _, params};

use super::database::Work;
use super::events::REMEMBERED_FOR;
use super::members::{TOKEN, oldest, table_exists, unsigned};
use super::{Embedded, blocking};
use crate::broker::factory::fill_in;
use crate::broker::{BrokerError, Purge, Purged};

/// One list of the file.
struct List {
    list: i64,
    queue: String,
    label_id: String,
}

impl Embedded {
    /// Deletes or counts members and times of publication that are old enough. Does nothing if
    /// there is no file.
    pub(in crate::broker) async fn purge(&self, purge: &Purge) -> Result<Purged, BrokerError> {
        let Some(age) = purge.selection.age_of_records() else {
            return Ok(Purged::default());
        };
        if !self.path().exists() {
            return Ok(Purged::default());
        }
        let (embedded, purge) = (self.clone(), purge.clone());
        blocking(move || embedded.open()?.run(|work| purge_lists(work, &purge, age))).await
    }
}

fn purge_lists(work: &Work<'_>, purge: &Purge, age: Duration) -> rusqlite::Result<Purged> {
    let (mut purged, mut queues) = (Purged::default(), BTreeSet::new());
    let shares_queue = purge.labels.is_some() && !purge.is_queue_per_label();
    for list in lists(work, purge)? {
        purged.members += members(work, &list, age, purge.dry_run)?;
        purged.events += events(work, &list, age, purge.dry_run)?;
        // Times of publication belong to all labels of a queue.
        if !shares_queue && queues.insert(list.queue.clone()) {
            purged.publication_times += publications(work, &list.queue, age, purge.dry_run)?;
        }
    }
    Ok(purged)
}

/// Returns the lists that the request is about, each queue and label once.
fn lists(work: &Work<'_>, purge: &Purge) -> rusqlite::Result<Vec<List>> {
    let mut select =
        work.prepare("SELECT list, queue, label_id FROM lists WHERE instance_id = ?")?;
    let list = |row: &rusqlite::Row<'_>| {
        Ok(List {
            list: row.get(0)?,
            queue: row.get(1)?,
            label_id: row.get(2)?,
        })
    };
    let mut lists: Vec<List> = select
        .query_map([&purge.instance_id], list)?
        .collect::<rusqlite::Result<_>>()?;
    lists.retain(|list| {
        let is_asked_for =
            (purge.labels.as_ref()).is_none_or(|labels| labels.contains(&list.label_id));
        let queue = fill_in(&purge.queue, &list.label_id, &purge.instance_id);
        is_asked_for && queue == list.queue
    });
    Ok(lists)
}

fn members(work: &Work<'_>, list: &List, age: Duration, dry_run: bool) -> rusqlite::Result<u64> {
    let table = format!("members_{}", list.list);
    if !table_exists(work, &table)? {
        return Ok(0);
    }
    let limit_ms = limit(age).saturating_mul(1000);
    let old = format!("state <> {TOKEN} AND as_of < {limit_ms}");
    let count = format!("SELECT count(*), coalesce(sum(state < 2), 0) FROM {table} WHERE {old}");
    let (found, members): (i64, i64) =
        work.query_row(&count, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if !dry_run && found > 0 {
        work.execute(&format!("DELETE FROM {table} WHERE {old}"), [])?;
        if members > 0 {
            // The set is not whole any more: who is new cannot be told by it.
            work.execute(&format!("DELETE FROM {table} WHERE state = {TOKEN}"), [])?;
            let fewer = "UPDATE lists SET members = max(0, members - ?) WHERE list = ?";
            work.execute(fewer, [members, list.list])?;
        }
    }
    Ok(unsigned(found))
}

fn events(work: &Work<'_>, list: &List, age: Duration, dry_run: bool) -> rusqlite::Result<u64> {
    // They say until when they are remembered, and not since when.
    let applied_before = limit(age).saturating_add(REMEMBERED_FOR);
    let old = "FROM events WHERE list = ? AND expires_at < ?";
    let parameters = params![list.list, applied_before];
    if dry_run {
        let count = format!("SELECT count(*) {old}");
        let found = work.query_row(&count, parameters, |row| row.get(0))?;
        return Ok(unsigned(found));
    }
    Ok(work.execute(&format!("DELETE {old}"), parameters)? as u64)
}

fn publications(
    work: &Work<'_>,
    queue: &str,
    age: Duration,
    dry_run: bool,
) -> rusqlite::Result<u64> {
    let find = "SELECT queue_id FROM queues WHERE queue = ?";
    let queue_id: Option<i64> = work.query_row(find, [queue], |row| row.get(0)).optional()?;
    let old = "FROM publications WHERE queue_id = ? AND published_at < ?";
    let parameters = params![queue_id, limit(age)];
    if dry_run {
        let count = format!("SELECT count(*) {old}");
        let found = work.query_row(&count, parameters, |row| row.get(0))?;
        return Ok(unsigned(found));
    }
    Ok(work.execute(&format!("DELETE {old}"), parameters)? as u64)
}

/// The time before which something is old, in seconds since 1970. For an age of zero, everything is.
fn limit(age: Duration) -> i64 {
    match age.is_zero() {
        true => i64::MAX / 1000,
        false => oldest(age),
    }
}
