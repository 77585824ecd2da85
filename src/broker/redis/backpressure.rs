//! Backpressure by the length of a stream, or by the lag of its consumer groups.

use std::collections::HashMap;

use redis::Value;

use super::keys::Keys;
use super::link::{Link, reply_text};
use super::session::RedisSession;
use crate::broker::TAIL_GROUP;
use crate::broker::backpressure::Backpressure;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying as _, with_retry};

impl RedisSession {
    /// Waits while a stream has `max_pending` entries or more pending.
    pub(super) async fn wait_for_capacity(&mut self, index: usize) -> Result<(), SessionError> {
        let stream = &mut self.streams[index];
        let Some(max) = self.settings.max_pending.filter(|_| stream.capacity == 0) else {
            return Ok(());
        };
        let queue = stream.keys.stream.clone();
        let mut backpressure = Backpressure::new(&queue, max, &self.context);
        loop {
            stream.confirm_all().await?;
            let pending = with_retry!(stream, pending(&mut stream.link, &stream.keys))?;
            if let Some(capacity) = backpressure.capacity(pending).await? {
                stream.capacity = capacity;
                return Ok(());
            }
        }
    }
}

/// Counts the entries that wait for consumers: the largest lag of a consumer group, if there are
/// groups and the server reports all their lags (Redis 7), else the length of the stream. The group
/// of `labelcast tail` is ignored if there are others: it remains after somebody has looked at the
/// stream.
async fn pending(link: &mut Link, keys: &Keys) -> Result<u64, Failure> {
    let connection = link.connection().await?;
    let length: u64 = redis::cmd("XLEN")
        .arg(&keys.stream)
        .query_async(&mut *connection)
        .await?;
    if length == 0 {
        return Ok(0);
    }
    let groups: Vec<Group> = redis::cmd("XINFO")
        .arg("GROUPS")
        .arg(&keys.stream)
        .query_async(connection)
        .await?;
    Ok(largest_lag(groups, length))
}

/// What `XINFO GROUPS` tells about a consumer group.
pub(super) type Group = HashMap<String, Value>;

/// Returns the largest lag of the groups of a stream of this length, as [`pending`] defines it.
pub(super) fn largest_lag(mut groups: Vec<Group>, length: u64) -> u64 {
    let is_look = |group: &Group| group.get("name").map(reply_text).as_deref() == Some(TAIL_GROUP);
    if !groups.iter().all(is_look) {
        groups.retain(|group| !is_look(group));
    }
    let lags: Option<Vec<u64>> = groups
        .iter()
        .map(|group| match group.get("lag") {
            Some(Value::Int(lag)) => u64::try_from(*lag).ok(),
            _ => None,
        })
        .collect();
    lags.and_then(|lags| lags.into_iter().max())
        .unwrap_or(length)
}
