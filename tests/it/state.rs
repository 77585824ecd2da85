//! `--state`: who is in a label and what was published, kept beside a sink of any kind.

mod crashes;
mod events;
mod file;
mod lists;
mod losses;
mod rabbitmq;
mod redis;
mod selection;
mod sinks;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use ::redis::Commands as _;
use bytes::Bytes;
use labelcast::mock::Chats;
use labelcast::state::record::Record;

use crate::support::redis::Server;
use crate::support::{Ended, Running, Stage, map_of};

/// Runs each test with both stores.
macro_rules! with_both_stores {
    ($($test:ident)*) => {
        mod in_a_file {
            $(#[test]
            fn $test() {
                super::$test(&crate::state::Store::file());
            })*
        }

        mod in_redis {
            $(#[test]
            fn $test() {
                super::$test(&crate::state::Store::redis());
            })*
        }
    };
}
use with_both_stores;

const MEMBERS: &str = "labelcast:state-members:{labelcast:1}:labelcast:1:inst-1:1";
const NOTE: &str = "labelcast:state-note:{labelcast:1}:labelcast:1:inst-1:1";
const PUBLISHED: &str = "labelcast:state-published:{labelcast:1}:labelcast:1";

/// A store of its own.
enum Store {
    File(tempfile::TempDir),
    Redis(Server),
}

impl Store {
    fn file() -> Self {
        Self::File(tempfile::tempdir().unwrap())
    }

    fn redis() -> Self {
        Self::Redis(Server::start(&[]))
    }

    fn url(&self) -> String {
        match self {
            Self::File(_) => format!("file:{}", self.path().display()),
            Self::Redis(server) => server.url(),
        }
    }

    /// The path of the file.
    fn path(&self) -> PathBuf {
        match self {
            Self::File(folder) => folder.path().join("state.db"),
            Self::Redis(_) => panic!("there is no file"),
        }
    }

    /// Another client of the file. No run may have it open.
    fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// The records of the label "1".
    fn records(&self) -> BTreeMap<String, Record> {
        let texts: Vec<(String, String)> = match self {
            Self::File(_) => {
                let database = self.database();
                let select =
                    "SELECT chat_id, substr('mnr', state + 1, 1) || substr('le', source + 1, 1)
                    || (as_of / 1000) || ':' || since || ':' || seen || ':' || published
                    FROM members_1 WHERE state < 3";
                let mut select = database.prepare(select).unwrap();
                let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
                rows.unwrap().map(Result::unwrap).collect()
            }
            Self::Redis(server) => {
                let fields: Vec<(String, String)> = server.connection().hgetall(MEMBERS).unwrap();
                fields
                    .into_iter()
                    .filter(|(id, _)| !["", ":", "::"].contains(&id.as_str()))
                    .collect()
            }
        };
        let record = |(id, text): (String, String)| (id, text.parse().unwrap());
        texts.into_iter().map(record).collect()
    }

    /// Chats that are members.
    fn members(&self) -> BTreeSet<String> {
        let records = self.records().into_iter();
        records
            .filter(|(_, record)| record.state != labelcast::state::record::State::Removed)
            .map(|(id, _)| id)
            .collect()
    }

    /// Deletes what is known of the members, as an eviction or an operator does.
    fn lose_members(&self) {
        match self {
            Self::File(_) => {
                let deleted = self
                    .database()
                    .execute("DELETE FROM members_1", [])
                    .unwrap();
                assert!(deleted > 0);
            }
            Self::Redis(server) => {
                assert!(server.connection().del::<_, bool>(MEMBERS).unwrap());
            }
        }
    }

    /// The note about the members.
    fn note(&self) -> String {
        match self {
            Self::File(_) => {
                let select = "SELECT note FROM lists";
                let note = self.database().query_row(select, [], |row| row.get(0));
                note.unwrap()
            }
            Self::Redis(server) => server.connection().get(NOTE).unwrap(),
        }
    }

    fn set_note(&self, note: &str) {
        match self {
            Self::File(_) => {
                let update = "UPDATE lists SET note = ?";
                assert_eq!(self.database().execute(update, [note]).unwrap(), 1);
            }
            Self::Redis(server) => server.connection().set(NOTE, note).unwrap(),
        }
    }

    /// Moves the membership and the publication of a chat this many seconds into the past.
    fn age(&self, chat: &str, seconds: u64) {
        match self {
            Self::File(_) => {
                let database = self.database();
                let seconds = seconds as i64;
                let member = "UPDATE members_1 SET since = since - ? WHERE chat_id = ?";
                let published =
                    "UPDATE publications SET published_at = published_at - ? WHERE chat_id = ?";
                let mut aged = 0;
                for update in [member, published] {
                    // There may be no table of members.
                    aged += database.execute(update, (seconds, chat)).unwrap_or(0);
                }
                assert!(aged > 0);
            }
            Self::Redis(server) => {
                let mut connection = server.connection();
                let record: Option<String> = connection.hget(MEMBERS, chat).unwrap();
                if let Some(record) = record {
                    let mut record: Record = record.parse().unwrap();
                    record.since -= seconds;
                    let _: () = connection.hset(MEMBERS, chat, record.to_string()).unwrap();
                }
                let at: Option<u64> = connection.hget(PUBLISHED, chat).unwrap();
                if let Some(at) = at {
                    let _: () = connection.hset(PUBLISHED, chat, at - seconds).unwrap();
                }
            }
        }
    }
}

/// Creates a run to the file of the stage.
fn run(stage: &Stage, store: &Store) -> Running {
    stage.run().args(["--state", &store.url()])
}

/// Checks what a label's report counts: published, suppressed, known, removed; and the sum that a
/// report promises.
#[track_caller]
fn counts(ended: &Ended, expected: [usize; 4]) {
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap_or(0);
    let found = ["published", "suppressed", "known", "removed"].map(count);
    assert_eq!(found, expected.map(|count| count as u64), "{label}");
    adds_up(ended);
}

#[track_caller]
fn adds_up(ended: &Ended) {
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap_or(0);
    let parts = ["published", "resumed", "suppressed", "known", "invalid"].map(count);
    assert_eq!(count("read"), parts.iter().sum::<u64>(), "{label}");
}

fn set_list(stage: &Stage, ids: &[String]) {
    let body = Chats::Body(Bytes::from(map_of(ids)));
    stage.mock.set_chats("1", &body);
}

fn set_of(ids: &[String]) -> BTreeSet<String> {
    ids.iter().cloned().collect()
}

/// Checks that the file of the stage has each chat once.
#[track_caller]
fn each_once(stage: &Stage, ids: &[String]) {
    let found = stage.ids();
    assert_eq!(set_of(&found), set_of(ids));
    assert_eq!(found.len(), ids.len(), "chats came twice");
}
