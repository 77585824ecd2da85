//! The state of a label on a server of its own, beside a sink of any kind.
//!
//! It has a lock with a heartbeat, as a stream has, whatever the sink: two runs with different sinks
//! may share a state, and `-` has no lock. One script writes changes, and checks the fencing token.

use std::time::Duration;

use async_trait::async_trait;
use redis::{Script, Value};
use uuid::Uuid;

use super::connect::Endpoint;
use super::keys::Keys;
use super::link::reply_text;
use super::lock::Heartbeat;
use super::members::members_lost;
use super::stream::{Lease, Stream};
use super::{RedisSettings, SessionError};
use crate::broker::error::Failure;
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::store::{Changes, Cursor, Known, Note, Page, StateStore, Stored, parse_record};
use crate::broker::{BrokerError, BrokerOptions, SessionContext};
use crate::shutdown::Shutdown;
use crate::state::record::State;

/// Fields that one call of a scan examines, about.
const PAGE: usize = 1000;
/// How long the release of the lock may take; it expires by itself.
const RELEASE_TIME_LIMIT: Duration = Duration::from_secs(2);

/// The state of one queue and label.
struct RedisStore {
    /// The lock, the connection and the keys. The note is a string with JSON; the members have the
    /// token of their set at the empty field. There is no stream.
    base: Stream,
    has_members: bool,
    has_times: bool,
    /// Token of the set of members that the run works on.
    set: Option<String>,
    retain: Option<Duration>,
    /// Writes so far.
    writes: u64,
    heartbeat: Option<Heartbeat>,
    shutdown: Shutdown,
}

/// Returns the store of a queue and label, without connecting.
pub(in crate::broker) fn store(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    context: &SessionContext,
) -> Box<dyn StateStore> {
    let keys = Keys::of_state(&context.target);
    let settings = RedisSettings {
        endpoint: endpoint.clone(),
        partitions: None,
        max_pending: None,
        min_replicas: options.min_replicas,
        marker: false,
        retain: options.retain,
    };
    let lease = Lease {
        owner: Uuid::now_v7().to_string(),
        fencing_token: String::new(),
        keep_ms: options.retain.map_or(0, |it| it.as_millis()).to_string(),
    };
    let retries = SessionRetries::new(&context.retry);
    Box::new(RedisStore {
        base: Stream::new(&settings, keys, lease, retries),
        has_members: context.selection.membership.is_some(),
        has_times: context.selection.suppress_for.is_some(),
        set: None,
        retain: options.retain,
        writes: 0,
        heartbeat: None,
        shutdown: context.retry.shutdown().clone(),
    })
}

impl RedisStore {
    async fn try_load(&mut self) -> Result<Stored, Failure> {
        let connection = self.base.link.connection().await?;
        let note: Option<String> = redis::cmd("GET")
            .arg(&self.base.keys.note)
            .query_async(connection)
            .await?;
        let set: Option<String> = redis::cmd("HGET")
            .arg(&self.base.keys.members)
            .arg("")
            .query_async(connection)
            .await?;
        let mut note = note.map(|note| Note::parse(&note)).unwrap_or_default();
        if note == Note::default() && set.is_some() {
            // The note was lost, and not the members: this is no first use.
            note.trusted = Some(String::new());
        }
        let is_ours =
            |token: &String| [&note.trusted, &note.building].contains(&&Some(token.clone()));
        let set = set.filter(is_ours);
        Ok(Stored { note, set })
    }

    /// Returns the values of some fields of a hash, if it is used at all.
    async fn try_read(
        &mut self,
        chats: &[String],
    ) -> Result<(Vec<Option<String>>, Vec<Option<u64>>), Failure> {
        let connection = self.base.link.connection().await?;
        let (mut records, mut times) = (vec![None; chats.len()], vec![None; chats.len()]);
        if self.has_members && !chats.is_empty() {
            let mut command = redis::cmd("HMGET");
            command.arg(&self.base.keys.members).arg(chats).arg("");
            records = command.query_async(&mut *connection).await?;
            if records.pop().flatten() != self.set {
                return Err(members_lost(&self.base.keys).into());
            }
        }
        if self.has_times && !chats.is_empty() {
            let mut command = redis::cmd("HMGET");
            command.arg(&self.base.keys.published).arg(chats);
            times = command.query_async(connection).await?;
        }
        Ok((records, times))
    }

    async fn try_write(&mut self, changes: &Changes) -> Result<Value, Failure> {
        let script = Script::new(include_str!("store.lua"));
        let mut script = script.prepare_invoke();
        let keys = &self.base.keys;
        script.key(&keys.checkpoint).key(&keys.note);
        script.key(&keys.members).key(&keys.published);
        script
            .arg(&self.base.lease.fencing_token)
            .arg(self.writes)
            .arg(&self.base.lease.keep_ms)
            .arg(changes.note.to_json())
            .arg(changes.new_set.as_deref().unwrap_or_default())
            .arg(self.set.as_deref().unwrap_or_default())
            .arg(changes.records.len())
            .arg(changes.published.len())
            .arg(changes.forgotten.len());
        for (chat_id, record) in &changes.records {
            script.arg(chat_id).arg(record.to_string());
        }
        for chat_id in &changes.published {
            script.arg(chat_id).arg(changes.published_at);
        }
        script.arg(&changes.forgotten);
        Ok(self.base.link.run(&script).await?)
    }

    async fn try_scan(&mut self, from: Cursor) -> Result<(u64, Vec<(String, String)>), Failure> {
        let mut command = redis::cmd("HSCAN");
        command
            .arg(&self.base.keys.members)
            .arg(from)
            .arg("COUNT")
            .arg(PAGE);
        Ok(command
            .query_async(self.base.link.connection().await?)
            .await?)
    }
}

impl Retrying for RedisStore {
    fn retries(&mut self) -> &mut SessionRetries {
        self.base.retries()
    }

    fn disconnect(&mut self, failure: &Failure) {
        self.base.disconnect(failure);
    }
}

#[async_trait]
impl StateStore for RedisStore {
    async fn open(&mut self) -> Result<Stored, BrokerError> {
        let locked = self.base.lock(&self.shutdown).await;
        self.heartbeat = Some(locked.map_err(SessionError::into_failure)?);
        let stored = with_retry!(self, self.try_load()).map_err(SessionError::into_failure)?;
        self.set.clone_from(&stored.set);
        Ok(stored)
    }

    async fn read(&mut self, chats: Vec<String>) -> Result<Vec<Known>, BrokerError> {
        let read = with_retry!(self, self.try_read(&chats));
        let (records, times) = read.map_err(SessionError::into_failure)?;
        let known =
            |((chat_id, record), published_at): ((String, Option<String>), Option<u64>)| Known {
                chat_id,
                record: record.map(|record| parse_record(&record)),
                published_at,
            };
        let chats = chats.into_iter().zip(records).zip(times);
        Ok(chats.map(known).collect())
    }

    async fn write(&mut self, changes: Changes) -> Result<(), BrokerError> {
        self.writes += 1;
        let reply = with_retry!(self, self.try_write(&changes));
        match reply_text(&reply.map_err(SessionError::into_failure)?).as_str() {
            "OK" => {
                if changes.new_set.is_some() {
                    self.set = changes.new_set;
                }
                Ok(())
            }
            "members" => Err(members_lost(&self.base.keys)),
            "lost" => {
                let text = "the server of the state has lost its data; run again".to_owned();
                Err(BrokerError::Unavailable(text))
            }
            _ => Err(BrokerError::Locked(self.base.keys.members.clone())),
        }
    }

    async fn unseen(&mut self, pass: u64, from: Cursor) -> Result<Page, BrokerError> {
        let scanned = with_retry!(self, self.try_scan(from));
        let (next, fields) = scanned.map_err(SessionError::into_failure)?;
        let mut page = Page {
            next: (next != 0).then_some(next),
            ..Page::default()
        };
        for (chat_id, record) in fields {
            // The field of the set's token.
            if chat_id.is_empty() {
                continue;
            }
            let record = parse_record(&record);
            page.members += u64::from(record.state != State::Removed);
            if record.seen != pass {
                page.unseen.push((chat_id, record));
            }
        }
        Ok(page)
    }

    async fn sweep(&mut self) -> Result<(), BrokerError> {
        match self.retain.filter(|_| self.has_times) {
            Some(keep) => self
                .base
                .sweep(keep)
                .await
                .map_err(SessionError::into_failure),
            None => Ok(()),
        }
    }

    async fn close(&mut self) {
        self.heartbeat = None;
        let releasing = self.base.unlock(false);
        // If it fails, the lock expires.
        let _ = tokio::time::timeout(RELEASE_TIME_LIMIT, releasing).await;
    }
}
