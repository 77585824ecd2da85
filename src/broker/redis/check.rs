//! A check that a run could publish here.
//!
//! It inspects the existing keys, tries what a run does on separate keys in the same slot, and
//! leaves nothing behind.

use redis::{Cmd, FromRedisValue, Script, Value};
use tokio::time::timeout;
use uuid::Uuid;

use super::connect::{Endpoint, RESPONSE_TIMEOUT};
use super::keys::Keys;
use super::layout::check_selection;
use super::link::{Link, reply_text};
use crate::broker::error::Failure;
use crate::broker::{BrokerError, Finding, Target};
use crate::state::Selection;

/// Checks each stream of a queue.
///
/// # Errors
///
/// The error that a run would end with.
pub(in crate::broker) async fn check(
    endpoint: &Endpoint,
    partitions: Option<u32>,
    target: &Target,
    selection: &Selection,
) -> Result<Finding, BrokerError> {
    let checked = check_selection(endpoint, partitions, target, selection);
    in_time(checked).await?;
    let partitions: Vec<Option<u32>> = match partitions {
        None => vec![None],
        Some(count) => (0..count).map(Some).collect(),
    };
    let mut finding = Finding::default();
    for partition in partitions {
        let keys = Keys::new(target, partition);
        let mut link = Link::new(endpoint.clone(), keys.checkpoint.clone());
        let found = in_time(check_one(&mut link, &keys)).await?;
        finding.doubtful.extend(found);
        let separator = if finding.good.is_empty() { "" } else { ", " };
        finding.good.push_str(separator);
        finding.good.push_str(&keys.stream);
    }
    finding.good.push_str(" can be appended to");
    finding.doubtful.dedup();
    Ok(finding)
}

async fn in_time<T>(checked: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let no_answer = |_| Failure::Transient("no answer in time".to_owned());
    timeout(RESPONSE_TIMEOUT * 2, checked)
        .await
        .map_err(no_answer)?
}

async fn check_one(link: &mut Link, keys: &Keys) -> Result<Option<String>, Failure> {
    for (key, expected) in [(&keys.stream, "stream"), (&keys.checkpoint, "hash")] {
        let found: Option<String> = if_allowed(link, redis::cmd("TYPE").arg(key)).await?;
        if let Some(found) = found.filter(|found| found != "none" && found != expected) {
            let text = format!("the key {key} is a {found}, and no {expected}");
            return Err(BrokerError::WrongQueue(text).into());
        }
    }
    // On separate keys, in the slot of the stream.
    let script = Script::new(include_str!("check.lua"));
    let mut script = script.prepare_invoke();
    let (stream, hash) = (
        format!("{}:check", keys.lock),
        format!("{}:check", keys.dedup),
    );
    script.key(stream).key(hash).key(keys.manifest(Uuid::nil()));
    script.key(&keys.stream).key(&keys.checkpoint);
    if link.run(&script).await? != Value::Int(1) {
        let text = "scripts do not do what they should".to_owned();
        return Err(BrokerError::WrongQueue(text).into());
    }
    let role: Option<Vec<Value>> = if_allowed(link, &redis::cmd("ROLE")).await?;
    if role.unwrap_or_default().first().map(reply_text).as_deref() == Some("slave") {
        let text = "it is a replica, and takes nothing".to_owned();
        return Err(BrokerError::Unavailable(text).into());
    }
    eviction(link).await
}

/// Runs a command that only the check uses. Returns `None` if the user may not run it: a user that
/// may publish does not need that permission.
async fn if_allowed<T: FromRedisValue>(
    link: &mut Link,
    command: &Cmd,
) -> Result<Option<T>, Failure> {
    match command.query_async(link.connection().await?).await {
        Ok(answer) => Ok(Some(answer)),
        Err(error) if error.code() == Some("NOPERM") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns a warning if the server may evict the stream when its memory is full.
async fn eviction(link: &mut Link) -> Result<Option<String>, Failure> {
    let info: Option<String> = if_allowed(link, redis::cmd("INFO").arg("memory")).await?;
    let Some(info) = info else {
        let text =
            "this user may not ask (INFO) whether the server evicts keys when memory is full";
        return Ok(Some(text.to_owned()));
    };
    let value = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    let policy = value("maxmemory_policy:");
    let limit = value("maxmemory:");
    let evicts = !policy.is_empty() && policy != "noeviction" && limit != "0";
    Ok(evicts.then(|| {
        format!("maxmemory-policy is {policy}: when memory is full, entries that nobody has read may be evicted; noeviction keeps them")
    }))
}
