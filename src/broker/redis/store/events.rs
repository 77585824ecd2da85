//! What events read and write in the state of a label.

use std::time::Duration;

use async_trait::async_trait;
use redis::Script;
use uuid::Uuid;

use super::RELEASE_TIME_LIMIT;
use super::exchange::{Uses, load, read_chats, release_turn, turn};
use crate::broker::error::{Failure, SessionError};
use crate::broker::redis::appender::REMEMBERED_FOR;
use crate::broker::redis::connect::Endpoint;
use crate::broker::redis::keys::Keys;
use crate::broker::redis::link::{Link, reply_text};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::store::{EventChanges, EventStore, Found, Saved, token_of_events};
use crate::broker::{BrokerError, BrokerOptions, SessionContext};
use crate::retry::RetryPolicy;

/// The state of one queue and label, for events.
struct RedisEvents {
    keys: Keys,
    link: Link,
    /// The owner of this sink's turns.
    owner: String,
    retain: Option<Duration>,
    policy: RetryPolicy,
    /// Those of this batch of events.
    retries: SessionRetries,
    /// What was read in this turn.
    read: Read,
}

/// What was read in a turn.
#[derive(Debug, Default)]
struct Read {
    /// Token of the set of members.
    set: Option<String>,
    /// Number of members by a note of an earlier version.
    noted_members: u64,
}

/// Returns the store of a queue and label for events, without connecting.
pub(in crate::broker) fn event_store(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    context: &SessionContext,
) -> Box<dyn EventStore> {
    let keys = Keys::of_state(&context.target);
    Box::new(RedisEvents {
        link: Link::new(endpoint.clone(), keys.checkpoint.clone()),
        keys,
        owner: Uuid::now_v7().to_string(),
        retain: options.retain,
        policy: context.retry.clone(),
        retries: SessionRetries::new(&context.retry),
        read: Read::default(),
    })
}

impl Retrying for RedisEvents {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, failure: &Failure) {
        self.link.disconnect_after(failure);
    }
}

impl RedisEvents {
    async fn try_take(&mut self, chats: &[String], ids: &[&str]) -> Result<Option<Found>, Failure> {
        let took = turn(&mut self.link, &self.keys, &self.owner, Some(chats)).await?;
        if !took {
            return Ok(None);
        }
        let stored = load(&mut self.link, &self.keys).await?;
        let uses = Uses {
            turn_of: None,
            members: stored.set.is_some(),
            times: true,
        };
        let chats = read_chats(&mut self.link, &self.keys, chats, uses).await?;
        let mut pipe = redis::pipe();
        pipe.exists(&self.keys.published);
        for id in ids {
            pipe.exists(self.keys.event(id));
        }
        let exists: Vec<bool> = pipe.query_async(self.link.connection().await?).await?;
        let mut exists = exists.into_iter();
        let has_times = exists.next().unwrap_or(false);
        self.read = Read {
            noted_members: stored.note.members,
            set: stored.set,
        };
        Ok(Some(Found {
            chats: chats.known,
            has_times,
            is_known: exists.collect(),
            listed_at: stored.note.listed_at,
            turn: None,
        }))
    }

    async fn try_write(&mut self, changes: &EventChanges) -> Result<Saved, Failure> {
        let script = Script::new(include_str!("events.lua"));
        let mut script = script.prepare_invoke();
        let keys = &self.keys;
        script.key(&keys.turn).key(&keys.checkpoint);
        script.key(&keys.members).key(&keys.published);
        for id in &changes.ids {
            script.key(keys.event(id));
        }
        script
            .arg(&self.owner)
            .arg(self.retain.map_or(0, |it| it.as_millis()).to_string())
            .arg(REMEMBERED_FOR.as_millis().to_string())
            .arg(self.read.set.as_deref().unwrap_or_default())
            .arg(token_of_events())
            .arg(self.read.noted_members)
            .arg(changes.joined)
            .arg(changes.changes)
            .arg(changes.records.len())
            .arg(changes.published.len());
        for (chat_id, record) in &changes.records {
            script.arg(chat_id).arg(record.to_string());
        }
        for chat_id in &changes.published {
            script.arg(chat_id).arg(changes.published_at);
        }
        let reply = self.link.run(&script).await?;
        Ok(match reply_text(&reply).as_str() {
            "OK" => Saved::Done,
            _ => Saved::Outdated,
        })
    }

    async fn try_is_tracked(&mut self) -> Result<bool, Failure> {
        let tracked: Option<String> = redis::cmd("HGET")
            .arg(&self.keys.checkpoint)
            .arg("tracked")
            .query_async(self.link.connection().await?)
            .await?;
        Ok(tracked.is_some())
    }
}

#[async_trait]
impl EventStore for RedisEvents {
    async fn take_turn(
        &mut self,
        chats: &[String],
        ids: &[&str],
    ) -> Result<Option<Found>, BrokerError> {
        self.retries = SessionRetries::new(&self.policy);
        let taken = with_retry!(self, self.try_take(chats, ids));
        taken.map_err(SessionError::into_failure)
    }

    async fn write(&mut self, _: Found, changes: EventChanges) -> Result<Saved, BrokerError> {
        // If the reply to a write was lost, the turn has ended: it is done again, and then finds its
        // own events.
        let written = with_retry!(self, self.try_write(&changes));
        written.map_err(SessionError::into_failure)
    }

    async fn release_turn(&mut self, _: Found) {
        let giving = release_turn(&mut self.link, &self.keys, &self.owner);
        // If it fails, the turn expires.
        let _ = tokio::time::timeout(RELEASE_TIME_LIMIT, giving).await;
    }

    async fn is_tracked(&mut self) -> Result<bool, BrokerError> {
        let tracked = with_retry!(self, self.try_is_tracked());
        tracked.map_err(SessionError::into_failure)
    }
}
