//! Appends of single entries, each at most once: the script that appends an entry also remembers its
//! id. Entries that are appended together share a round trip.

use std::time::Duration;

use redis::{Cmd, Pipeline, Script, Value};

use super::connect::Endpoint;
use super::keys::Keys;
use super::link::Link;
use crate::broker::error::Failure;
use crate::broker::retries::{Retrying, SessionRetries};
use crate::broker::{BrokerOptions, SessionContext};

/// How long an id is remembered. Senders of webhooks stop retrying long before.
pub(super) const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3600);
/// The script that appends an entry unless its id is known.
pub(super) const APPEND_ONCE: &str = include_str!("event.lua");

/// A stream that single entries are appended to.
pub(super) struct Appender {
    pub(super) keys: Keys,
    pub(super) link: Link,
    /// How long entries are kept, in milliseconds; `0` for no expiry.
    pub(super) keep_ms: u128,
    min_replicas: u32,
    pub(super) retries: SessionRetries,
}

impl Retrying for Appender {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, failure: &Failure) {
        self.link.disconnect_after(failure);
    }
}

impl Appender {
    /// Creates the appender of a queue, or of one `partition` of it, by this script.
    pub(super) fn new(
        endpoint: &Endpoint,
        options: &BrokerOptions,
        context: &SessionContext,
        partition: Option<u32>,
        script: &str,
    ) -> Self {
        let keys = Keys::new(&context.target, partition);
        let mut link = Link::new(endpoint.clone(), keys.stream.clone());
        link.append_by(Script::new(script));
        Self {
            link,
            keys,
            keep_ms: options.retain.map_or(0, |retain| retain.as_millis()),
            min_replicas: options.min_replicas,
            retries: SessionRetries::new(&context.retry),
        }
    }

    /// Runs calls of the script, in order, and waits until replicas have what they wrote.
    pub(super) async fn append(&mut self, appends: &Pipeline) -> Result<Vec<Value>, Failure> {
        let replies = self.link.append_each(appends).await?;
        if self.min_replicas > 0 {
            self.link.wait(self.min_replicas).await?;
        }
        Ok(replies)
    }

    /// Returns a call of the script with keys, and with the arguments that all scripts have.
    pub(super) fn call(&self, keys: &[&String]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.link.append_hash()).arg(keys.len());
        command
            .arg(keys)
            .arg(REMEMBERED_FOR.as_millis().to_string())
            .arg(self.keep_ms.to_string());
        command
    }

    /// Returns the call of [`APPEND_ONCE`] for an entry.
    pub(super) fn append_once(&self, id: &str, fields: &[String]) -> Cmd {
        let mut command = self.call(&[&self.keys.stream, &self.keys.event(id)]);
        command.arg(fields);
        command
    }
}
