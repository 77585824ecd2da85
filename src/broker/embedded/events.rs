//! What events read and write in the file.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{OptionalExtension as _, params};
use tokio::sync::OwnedMutexGuard;
use xxhash_rust::xxh3::xxh3_128;

use super::database::Work;
use super::members::{self, Scope, expiry, now, signed};
use super::turns::Turns;
use super::{Embedded, Handle, blocking};
use crate::broker::store::{EventChanges, EventStore, Found, Saved, token_of_events};
use crate::broker::{BrokerError, SessionContext, Target};

/// How long an event is remembered, in seconds. Senders of webhooks stop retrying long before.
pub(super) const REMEMBERED_FOR: i64 = 24 * 3600;

/// The state of one queue and label in the file, for events. The file stays open from the first
/// event on.
struct EmbeddedEvents {
    embedded: Embedded,
    target: Target,
    retain: Option<Duration>,
    opened: Option<(Handle, Scope)>,
    turns: Arc<Turns>,
}

impl Embedded {
    /// Returns the store of a queue and label for events, without opening it.
    pub(in crate::broker) fn event_store(
        &self,
        context: &SessionContext,
        retain: Option<Duration>,
    ) -> Box<dyn EventStore> {
        Box::new(EmbeddedEvents {
            embedded: self.clone(),
            target: context.target.clone(),
            retain,
            opened: None,
            turns: self.turns.of(&context.target),
        })
    }
}

impl EmbeddedEvents {
    /// Does some work for this queue and label on a blocking thread, and then ends the turn.
    async fn run<T: Send + 'static>(
        &mut self,
        turn: Option<OwnedMutexGuard<()>>,
        work: impl FnOnce(&Work<'_>, &Scope) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let (database, scope) = match self.opened.clone() {
            Some(opened) => opened,
            None => {
                let (embedded, target) = (self.embedded.clone(), self.target.clone());
                let retain = self.retain;
                let opening = move || {
                    let database = embedded.open()?;
                    let (scope, _) = database.run(|work| members::open(work, &target, retain))?;
                    Ok((database, scope))
                };
                self.opened.insert(blocking(opening).await?).clone()
            }
        };
        blocking(move || {
            let done = database.run(|transaction| work(transaction, &scope));
            // Only now, also if nobody waits for the result any more.
            drop(turn);
            done
        })
        .await
    }
}

#[async_trait]
impl EventStore for EmbeddedEvents {
    async fn take_turn(
        &mut self,
        chats: &[String],
        ids: &[&str],
    ) -> Result<Option<Found>, BrokerError> {
        let turn = self.turns.take().await;
        if self.turns.has_in_flight(chats) {
            return Ok(None);
        }
        let chats = chats.to_vec();
        let ids: Vec<[u8; 16]> = ids.iter().copied().map(hash).collect();
        let found = self.run(None, move |work, scope| find(work, scope, chats, &ids));
        let found = found.await?;
        Ok(Some(Found {
            turn: Some(turn),
            ..found
        }))
    }

    async fn write(&mut self, found: Found, changes: EventChanges) -> Result<Saved, BrokerError> {
        let writing = move |work: &Work<'_>, scope: &Scope| write(work, scope, &changes);
        self.run(found.turn, writing).await?;
        Ok(Saved::Done)
    }

    async fn release_turn(&mut self, found: Found) {
        drop(found.turn);
    }

    async fn is_tracked(&mut self) -> Result<bool, BrokerError> {
        let (embedded, target) = (self.embedded.clone(), self.target.clone());
        if !embedded.path().exists() {
            return Ok(false);
        }
        blocking(move || embedded.open()?.run(|work| is_tracked(work, &target))).await
    }
}

fn find(
    work: &Work<'_>,
    scope: &Scope,
    chats: Vec<String>,
    ids: &[[u8; 16]],
) -> rusqlite::Result<Found> {
    members::expire(work, scope)?;
    let stored = members::load(work, scope)?;
    let find = "SELECT 1 FROM events WHERE list = ? AND event = ? AND expires_at >= ?";
    let mut find = work.prepare_cached(find)?;
    let mut is_known = |id: &[u8; 16]| {
        let found = find.query_row(params![scope.list, id, now()], |_| Ok(()));
        Ok(found.optional()?.is_some())
    };
    let is_known = ids
        .iter()
        .map(&mut is_known)
        .collect::<rusqlite::Result<_>>()?;
    let times = "SELECT EXISTS (SELECT 1 FROM publications WHERE queue_id = ?)";
    let has_times = work
        .prepare_cached(times)?
        .query_row([scope.queue_id], |row| row.get(0))?;
    Ok(Found {
        chats: members::read(work, scope, chats, stored.set.is_some())?,
        is_known,
        listed_at: stored.note.listed_at,
        has_times,
        turn: None,
    })
}

fn write(work: &Work<'_>, scope: &Scope, changes: &EventChanges) -> rusqlite::Result<()> {
    if members::load(work, scope)?.set.is_none() {
        members::begin_set(work, scope, &token_of_events())?;
    }
    members::write_records(work, scope, &changes.records)?;
    members::write_times(work, scope, &changes.published, changes.published_at)?;
    work.prepare_cached(
        "UPDATE lists SET tracked = 1, expires_at = ?, members = max(0, members + ?),
         events = events + ? WHERE list = ?",
    )?
    .execute(params![
        expiry(now(), scope.retain),
        changes.joined,
        signed(changes.changes),
        scope.list,
    ])?;
    let mut remember = work.prepare_cached("INSERT OR REPLACE INTO events VALUES (?, ?, ?)")?;
    for id in &changes.ids {
        remember.execute(params![scope.list, hash(id), now() + REMEMBERED_FOR])?;
    }
    work.prepare_cached("DELETE FROM events WHERE list = ? AND expires_at < ?")?
        .execute([scope.list, now()])?;
    Ok(())
}

fn is_tracked(work: &Work<'_>, target: &Target) -> rusqlite::Result<bool> {
    let select = "SELECT tracked FROM lists WHERE queue = ? AND label_id = ? AND instance_id = ?";
    let Target {
        queue,
        label_id,
        instance_id,
    } = target;
    let tracked = work.query_row(select, [queue, label_id, instance_id], |row| row.get(0));
    Ok(tracked.optional()?.unwrap_or(false))
}

fn hash(id: &str) -> [u8; 16] {
    xxh3_128(id.as_bytes()).to_be_bytes()
}
