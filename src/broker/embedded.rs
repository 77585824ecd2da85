//! Embedded store: one `SQLite` file for all queues and labels of one process.
//!
//! The members of a label are a table of their own, in the order in which they were first listed: a
//! list mostly comes in that order again, so confirming it writes few pages at a time. In a table in
//! the order of ids (`WITHOUT ROWID`), confirming a million members in batches of 2,048 took three
//! times as long: 57 thousand chats a second in place of 176.
//!
//! The file is locked as long as it is open. All calls run on blocking threads.

mod database;
mod events;
mod labels;
mod members;
mod monitor;
mod purge;
mod schema;
mod sweep;
mod turns;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OwnedMutexGuard;

use self::database::{Database, Work};
use self::members::Scope;
use self::turns::Turns;
use super::store::{Changes, Cursor, Known, Page, Saved, StateStore, Stored};
use super::{BrokerError, SessionContext, Target};

/// A file that is opened when it is first used. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct Embedded {
    path: PathBuf,
    open: Arc<Mutex<Weak<Database>>>,
    turns: Arc<turns::All>,
}

/// A hold on the open file. The last one closes the file, and until it is closed, nobody in this
/// process opens it again: that would meet the lock of the file.
#[derive(Clone)]
struct Handle {
    embedded: Embedded,
    /// `None` only while this is dropped.
    database: Option<Arc<Database>>,
}

/// Keeps the file open.
pub(super) struct Hold {
    _handle: Handle,
}

/// The state of one queue and label in the file.
struct EmbeddedStore {
    embedded: Embedded,
    target: Target,
    retain: Option<Duration>,
    /// Whether records of members are kept.
    has_members: bool,
    /// `None` before it is opened, and after it is closed.
    opened: Option<(Handle, Scope)>,
    turns: Arc<Turns>,
    turn: Option<OwnedMutexGuard<()>>,
}

impl Handle {
    /// Does some work in one transaction.
    fn run<T>(
        &self,
        work: impl FnOnce(&Work<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BrokerError> {
        match &self.database {
            Some(database) => database.run(work),
            None => Err(BrokerError::Bug("the state is closed".to_owned())),
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _open = self.embedded.lock();
        self.database = None;
    }
}

impl Embedded {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: Arc::default(),
            turns: Arc::default(),
        }
    }

    /// Returns the store of a queue and label, without opening it.
    pub(super) fn store(
        &self,
        context: &SessionContext,
        retain: Option<Duration>,
    ) -> Box<dyn StateStore> {
        Box::new(EmbeddedStore {
            embedded: self.clone(),
            target: context.target.clone(),
            retain,
            has_members: context.selection.membership.is_some(),
            opened: None,
            turns: self.turns.of(&context.target),
            turn: None,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes hold of the file.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Locked`] if another process holds it.
    pub(super) fn hold(&self) -> Result<Hold, BrokerError> {
        let hold = self.open()?;
        Ok(Hold { _handle: hold })
    }

    /// Opens the file, or returns the database if another label of this process has opened it.
    fn open(&self) -> Result<Handle, BrokerError> {
        let mut open = self.lock();
        let database = match open.upgrade() {
            Some(database) => database,
            None => Arc::new(Database::open(&self.path)?),
        };
        *open = Arc::downgrade(&database);
        Ok(Handle {
            embedded: self.clone(),
            database: Some(database),
        })
    }

    /// Whether no run has a chat of the label "1" in flight.
    #[cfg(test)]
    pub(super) fn has_none_in_flight(&self, chat: &str) -> bool {
        let target = Target {
            queue: "q".to_owned(),
            label_id: "1".to_owned(),
            instance_id: "i".to_owned(),
        };
        !self.turns.of(&target).has_in_flight(&[chat.to_owned()])
    }

    fn lock(&self) -> MutexGuard<'_, Weak<Database>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EmbeddedStore {
    /// Takes the turn, unless this has it. Nobody else in this process has the file, so it cannot be
    /// lost.
    async fn enter(&mut self) {
        if self.turn.is_none() {
            self.turn = Some(self.turns.take().await);
        }
    }

    /// Does some work for this queue and label on a blocking thread.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Work<'_>, &Scope) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let Some((database, scope)) = self.opened.clone() else {
            return Err(BrokerError::Bug("the state is not open".to_owned()));
        };
        blocking(move || database.run(|connection| work(connection, &scope))).await
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // A run that was cut off has nothing in flight any more.
        if self.opened.is_some() {
            self.turns.clear_in_flight();
        }
    }
}

#[async_trait]
impl StateStore for EmbeddedStore {
    async fn open(&mut self) -> Result<Stored, BrokerError> {
        let (embedded, target, retain) = (self.embedded.clone(), self.target.clone(), self.retain);
        let opening = move || {
            let database = embedded.open()?;
            let (scope, stored) = database.run(|work| members::open(work, &target, retain))?;
            Ok((database, scope, stored))
        };
        let (database, scope, stored) = blocking(opening).await?;
        self.opened = Some((database, scope));
        Ok(stored)
    }

    async fn take_turn(&mut self) -> Result<Stored, BrokerError> {
        self.enter().await;
        self.run(members::load).await
    }

    async fn read(&mut self, chats: Vec<String>) -> Result<Vec<Known>, BrokerError> {
        self.enter().await;
        let has_members = self.has_members;
        self.run(move |work, scope| members::read(work, scope, chats, has_members))
            .await
    }

    async fn write(&mut self, mut changes: Changes) -> Result<Saved, BrokerError> {
        // Also for chats that have landed: events must not read in the middle.
        self.enter().await;
        let (in_flight, landed) = (
            std::mem::take(&mut changes.in_flight),
            changes.clears_in_flight,
        );
        self.run(move |work, scope| members::write(work, scope, &changes))
            .await?;
        if landed {
            self.turns.clear_in_flight();
        }
        self.turns.mark_in_flight(in_flight);
        self.turn = None;
        Ok(Saved::Done)
    }

    async fn unseen(&mut self, pass: u64, from: Cursor) -> Result<Page, BrokerError> {
        self.run(move |work, scope| members::unseen(work, scope, pass, from))
            .await
    }

    async fn sweep(&mut self) -> Result<(), BrokerError> {
        self.run(|work, _| sweep::sweep(work)).await
    }

    async fn close(&mut self) {
        self.turns.clear_in_flight();
        self.turn = None;
        if let Some((database, _)) = self.opened.take() {
            // Closing the file writes what is left in its log.
            let _ = tokio::task::spawn_blocking(move || drop(database)).await;
        }
    }
}

/// Runs work on a blocking thread. Its panic message may contain data, so it is dropped.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BrokerError> + Send + 'static,
) -> Result<T, BrokerError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|_| BrokerError::Bug("the thread of the state ended early".to_owned()))?
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests;
