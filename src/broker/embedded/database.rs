//! The open file, and what its errors mean.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction};

use super::schema::{APPLICATION_ID, FROM_VERSION_1, SINCE_VERSION_2, TABLES, VERSION};
use crate::broker::BrokerError;

/// How long another process, such as a backup, may keep the file from being opened.
const PATIENCE: Duration = Duration::from_secs(1);
/// Memory for pages of the file, in KiB.
const CACHE_KIB: i64 = 8 * 1024;
/// Pages in the log at which they are moved to the file.
const LOG_PAGES: i64 = 4096;
/// Statements that are kept compiled: some for each label that is published at once.
const STATEMENTS: usize = 256;

/// The open file. It is locked until this is dropped.
#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
    connection: Mutex<Connection>,
}

/// One transaction.
pub(super) type Work<'a> = Transaction<'a>;

impl Database {
    /// Opens the file, and creates it if it does not exist.
    pub(super) fn open(path: &Path) -> Result<Self, BrokerError> {
        create(path)?;
        // Resolved, so that the log beside the file has one name.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let connection = connect(&path).map_err(|error| explain(&path, error))?;
        let database = Self {
            path,
            connection: Mutex::new(connection),
        };
        database.check_version()?;
        Ok(database)
    }

    /// Does some work in one transaction.
    pub(super) fn run<T>(
        &self,
        work: impl FnOnce(&Work<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, BrokerError> {
        let mut connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let done = || {
            let transaction = connection.transaction()?;
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        done().map_err(|error| explain(&self.path, error))
    }

    /// Creates the tables in a new file, updates those of an earlier version, and refuses a file of
    /// something else.
    fn check_version(&self) -> Result<(), BrokerError> {
        let found = self.run(|work| {
            let pragma = |name: &str| work.pragma_query_value(None, name, |row| row.get(0));
            let found: (i32, i32) = (pragma("application_id")?, pragma("user_version")?);
            let tables: i64 =
                work.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
            let changes = match found {
                (0, 0) if tables == 0 => TABLES,
                (APPLICATION_ID, 1) => FROM_VERSION_1,
                _ => return Ok(found),
            };
            work.execute_batch(changes)?;
            work.execute_batch(SINCE_VERSION_2)?;
            work.pragma_update(None, "application_id", APPLICATION_ID)?;
            work.pragma_update(None, "user_version", VERSION)?;
            Ok((APPLICATION_ID, VERSION))
        })?;
        let path = self.path.display();
        let problem = match found {
            (APPLICATION_ID, VERSION) => return Ok(()),
            (APPLICATION_ID, _) => format!("{path} was written by another version of labelcast"),
            _ => format!("{path} is a database of another program"),
        };
        Err(BrokerError::Misconfigured {
            problem,
            fix: "use another file in --state",
        })
    }
}

/// Creates the file if it does not exist, readable by its owner only.
fn create(path: &Path) -> Result<(), BrokerError> {
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(BrokerError::NotAFile(path.to_owned()));
    }
    // An existing file is left alone: closing it would release a lock that this process has on it.
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("could not open", path, error)),
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(PATIENCE)?;
    // The lock is held from the first access on, and the log needs no shared memory.
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // What is committed outlives the process; after a power cut the last transactions may be gone,
    // and the chats in them are published again.
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    // What is deleted contains chat ids.
    connection.pragma_update(None, "secure_delete", "ON")?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Converts an error of the database. Its text contains no data.
fn explain(path: &Path, error: rusqlite::Error) -> BrokerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            BrokerError::Locked(path.display().to_string())
        }
        _ => failed("could not use the state in", path, io::Error::other(error)),
    }
}

fn failed(what: &'static str, path: &Path, error: io::Error) -> BrokerError {
    BrokerError::File {
        what,
        path: path.to_owned(),
        error,
    }
}
