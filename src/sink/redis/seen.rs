//! When a list has changed: which of its chats are on the stream already.
//!
//! What the run has put there is read back, page by page, into a set beside the stream; so the
//! worker's memory stays as it is. A batch is compared with the set before it is appended.

use redis::Value;
use uuid::Uuid;

use super::failure::Failure;
use super::keys::Keys;
use super::link::{Link, word};
use crate::batch::Chat;

/// Entries that are read back at once.
const PAGE: usize = 1000;
/// How long the set lasts after it was last used, in seconds.
const SET_LASTS: u64 = 3600;

/// Fills the set with what the run has on the stream.
pub(super) async fn read_back(
    link: &mut Link,
    keys: &Keys,
    run_id: Uuid,
    first_id: Option<&str>,
) -> Result<(), Failure> {
    let connection = link.connection().await?;
    redis::cmd("DEL")
        .arg(&keys.seen)
        .exec_async(&mut *connection)
        .await?;
    let run_id = run_id.to_string();
    let mut from = first_id.unwrap_or("-").to_owned();
    loop {
        let page: Value = redis::cmd("XRANGE")
            .arg(&keys.stream)
            .arg(&from)
            .arg("+")
            .arg("COUNT")
            .arg(PAGE)
            .query_async(&mut *connection)
            .await?;
        let Value::Array(entries) = page else {
            return Ok(());
        };
        let Some(last) = entries.last().and_then(entry_id) else {
            return Ok(());
        };
        let mut ids = Vec::new();
        for entry in &entries {
            chat_ids(entry, &run_id, &mut ids);
        }
        if !ids.is_empty() {
            redis::pipe()
                .cmd("SADD")
                .arg(&keys.seen)
                .arg(&ids)
                .cmd("EXPIRE")
                .arg(&keys.seen)
                .arg(SET_LASTS)
                .exec_async(&mut *connection)
                .await?;
        }
        if entries.len() < PAGE {
            return Ok(());
        }
        from = format!("({last}");
    }
}

/// Which of these chats are not on the stream.
pub(super) async fn unseen<'a>(
    link: &mut Link,
    keys: &Keys,
    chats: Vec<Chat<'a>>,
) -> Result<Vec<Chat<'a>>, Failure> {
    if chats.is_empty() {
        return Ok(chats);
    }
    let connection = link.connection().await?;
    let ids: Vec<&[u8]> = chats.iter().map(|chat| chat.id).collect();
    let (seen, ()): (Vec<bool>, ()) = redis::pipe()
        .cmd("SMISMEMBER")
        .arg(&keys.seen)
        .arg(&ids)
        .cmd("EXPIRE")
        .arg(&keys.seen)
        .arg(SET_LASTS)
        .ignore()
        .query_async(connection)
        .await
        .map(|(seen,): (Vec<bool>,)| (seen, ()))?;
    let chats = chats.into_iter().zip(seen);
    Ok(chats
        .filter(|(_, seen)| !seen)
        .map(|(chat, _)| chat)
        .collect())
}

fn entry_id(entry: &Value) -> Option<String> {
    match entry {
        Value::Array(parts) => parts.first().map(word),
        _ => None,
    }
}

/// The ids of an entry that is the run's, in whatever format it is.
fn chat_ids(entry: &Value, run_id: &str, ids: &mut Vec<String>) {
    let Value::Array(parts) = entry else { return };
    let Some(Value::Array(fields)) = parts.get(1) else {
        return;
    };
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs
            .find(|pair| word(&pair[0]) == name)
            .map(|pair| word(&pair[1]))
    };
    if let Some(data) = field("data") {
        let Ok(mut message) = serde_json::from_str::<serde_json::Value>(&data) else {
            return;
        };
        if let Some(data) = message.get_mut("data") {
            message = data.take();
        }
        if message["run_id"] == run_id {
            push_ids(&message["chat_id"], ids);
            push_ids(&message["chat_ids"], ids);
        }
    } else if field("run_id").as_deref() == Some(run_id) {
        ids.extend(field("chat_id"));
        let packed = field("chat_ids").and_then(|packed| serde_json::from_str(&packed).ok());
        push_ids(&packed.unwrap_or_default(), ids);
    }
}

fn push_ids(value: &serde_json::Value, ids: &mut Vec<String>) {
    match value {
        serde_json::Value::String(id) => ids.push(id.clone()),
        serde_json::Value::Array(values) => values.iter().for_each(|value| push_ids(value, ids)),
        _ => {}
    }
}
