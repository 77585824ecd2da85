//! The state of a label on a server of its own, beside a sink of any kind.
//!
//! It has a lock with a heartbeat, as a stream has, whatever the sink: two runs with different sinks
//! may share a state, and `-` has no lock. One script writes changes, and checks the fencing token.

mod events;
mod exchange;
mod monitor;

use std::time::Duration;

use async_trait::async_trait;
use redis::{Script, Value};
use uuid::Uuid;

pub(in crate::broker) use self::events::event_store;
use self::exchange::{Uses, load, read_chats, release_turn, turn};
pub(in crate::broker) use self::monitor::state_monitor;
use super::connect::Endpoint;
use super::dedup::DEDUP_TTL_SECONDS;
use super::keys::Keys;
use super::link::reply_text;
use super::lock::Heartbeat;
use super::members::members_lost;
use super::stream::{Lease, Stream};
use super::{RedisSettings, SessionError};
use crate::broker::error::Failure;
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::store::{Changes, Cursor, Known, Page, Saved, StateStore, Stored, parse_record};
use crate::broker::{BrokerError, BrokerOptions, SessionContext};
use crate::shutdown::Shutdown;
use crate::state::record::State;

/// Fields that one call of a scan examines, about.
const PAGE: usize = 1000;
/// How long a turn lasts, if it is not ended. Its batch of events must be published by then, or is
/// decided again. After a crash, others wait for as long; senders of webhooks give up after half a
/// minute.
const TURN_LASTS: Duration = Duration::from_secs(5);
/// Shortest pause between two looks whether a batch of events has ended its turn.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);
/// Fields of the hash of members about all of them: the token of the set, the number of members, and
/// how often events have changed it.
const NO_CHATS: [&str; 3] = ["", ":", "::"];
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
    /// Whether the turn was taken. It may have expired since.
    has_turn: bool,
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
        has_turn: false,
        heartbeat: None,
        shutdown: context.retry.shutdown().clone(),
    })
}

impl RedisStore {
    /// Takes the turn, as soon as no batch of events has it.
    async fn enter(&mut self) -> Result<(), BrokerError> {
        if self.has_turn {
            return Ok(());
        }
        let mut pause = SHORTEST_PAUSE;
        loop {
            let base = &mut self.base;
            let owner = base.lease.owner.clone();
            let took = with_retry!(base, turn(&mut base.link, &base.keys, &owner, None));
            if took.map_err(SessionError::into_failure)? {
                self.has_turn = true;
                return Ok(());
            }
            tokio::select! {
                cause = self.shutdown.drained() => return Err(BrokerError::Interrupted(cause)),
                () = tokio::time::sleep(pause) => pause = LONGEST_PAUSE.min(pause * 2),
            }
        }
    }

    async fn load(&mut self) -> Result<Stored, BrokerError> {
        let loaded = with_retry!(self, load(&mut self.base.link, &self.base.keys));
        loaded.map_err(SessionError::into_failure)
    }

    /// Takes the turn if it is free, and returns what is known of chats, if the set of members is still
    /// there. `None` if somebody else has the turn.
    async fn try_read(&mut self, chats: &[String]) -> Result<Option<Vec<Known>>, Failure> {
        let base = &mut self.base;
        let uses = Uses {
            turn_of: (!self.has_turn).then_some(base.lease.owner.as_str()),
            members: self.has_members,
            times: self.has_times,
        };
        let read = read_chats(&mut base.link, &base.keys, chats, uses).await?;
        self.has_turn |= read.took_turn;
        if !self.has_turn {
            return Ok(None);
        }
        if self.has_members && !chats.is_empty() && read.set != self.set {
            return Err(members_lost(&self.base.keys).into());
        }
        Ok(Some(read.known))
    }

    async fn try_write(&mut self, changes: &Changes) -> Result<Value, Failure> {
        let script = Script::new(include_str!("store/write.lua"));
        let mut script = script.prepare_invoke();
        let keys = &self.base.keys;
        script.key(&keys.checkpoint).key(&keys.note);
        script.key(&keys.members).key(&keys.published);
        script.key(&keys.turn).key(&keys.dedup);
        let owner = self.base.lease.owner.as_str();
        let counted = changes.counted;
        script
            .arg(&self.base.lease.fencing_token)
            .arg(self.writes)
            .arg(&self.base.lease.keep_ms)
            .arg(changes.note.to_json())
            .arg(changes.new_set.as_deref().unwrap_or_default())
            .arg(self.set.as_deref().unwrap_or_default())
            .arg(if self.has_turn { owner } else { "" })
            .arg(counted.map_or_else(String::new, |it| it.members.to_string()))
            .arg(counted.map_or(0, |it| it.events))
            .arg(changes.note.members)
            .arg(changes.joined)
            .arg(u8::from(changes.clears_in_flight))
            .arg(changes.records.len())
            .arg(changes.published.len())
            .arg(changes.forgotten.len())
            .arg(changes.in_flight.len())
            .arg(DEDUP_TTL_SECONDS);
        for (chat_id, record) in &changes.records {
            script.arg(chat_id).arg(record.to_string());
        }
        for chat_id in &changes.published {
            script.arg(chat_id).arg(changes.published_at);
        }
        script.arg(&changes.forgotten).arg(&changes.in_flight);
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
        let stored = self.load().await?;
        self.set.clone_from(&stored.set);
        Ok(stored)
    }

    async fn take_turn(&mut self) -> Result<Stored, BrokerError> {
        self.enter().await?;
        let stored = self.load().await?;
        if self.has_members {
            self.set.clone_from(&stored.set);
        }
        Ok(stored)
    }

    async fn read(&mut self, chats: Vec<String>) -> Result<Vec<Known>, BrokerError> {
        loop {
            let read = with_retry!(self, self.try_read(&chats));
            if let Some(known) = read.map_err(SessionError::into_failure)? {
                return Ok(known);
            }
            self.enter().await?;
        }
    }

    async fn write(&mut self, changes: Changes) -> Result<Saved, BrokerError> {
        self.writes += 1;
        let reply = with_retry!(self, self.try_write(&changes));
        self.has_turn = false;
        match reply_text(&reply.map_err(SessionError::into_failure)?).as_str() {
            "OK" => {
                if changes.new_set.is_some() {
                    self.set = changes.new_set;
                }
                Ok(Saved::Done)
            }
            "outdated" => Ok(Saved::Outdated),
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
            if NO_CHATS.contains(&chat_id.as_str()) {
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
        if self.has_turn {
            let base = &mut self.base;
            let giving = release_turn(&mut base.link, &base.keys, &base.lease.owner);
            // If it fails, the turn expires.
            let _ = tokio::time::timeout(RELEASE_TIME_LIMIT, giving).await;
        }
        let releasing = self.base.unlock(false);
        // If it fails, the lock expires.
        let _ = tokio::time::timeout(RELEASE_TIME_LIMIT, releasing).await;
    }
}
