//! Dedup set: the chats that are already on the stream when a list has changed.
//!
//! The run's entries are read back, page by page, into a set beside the stream, so the worker's
//! memory use does not grow. Each batch is compared with the set before it is appended. The set has
//! no fencing token; instead it contains the token of the read-back that filled it, and a set with
//! another token is not used.

use redis::aio::MultiplexedConnection;
use redis::{Script, Value};
use uuid::Uuid;

use super::keys::Keys;
use super::link::{Link, reply_text};
use crate::batch::Chat;
use crate::broker::error::Failure;

/// Limits of a page that is read back: entries, and bytes after which no further entry is added.
const PAGE: [usize; 2] = [1000, 64 * 1024];
/// Members added in one call.
const ADDED_AT_ONCE: usize = 1000;
/// Seconds that the set is kept after its last use.
pub(super) const DEDUP_TTL_SECONDS: u64 = 3600;

/// Identity of a read-back of the stream. It is a member of the set that the read-back fills, and a
/// second member derived from it is added at the end, so a reader can tell that the set is complete
/// and its own. No chat id has this form.
pub(super) struct Token(String);

impl Token {
    fn new() -> Self {
        Self(format!(":{}", Uuid::now_v7()))
    }

    fn of_whole(&self) -> String {
        format!("{}:whole", self.0)
    }
}

/// Fills the set with the run's chats that are on the stream.
pub(super) async fn read_back(
    link: &mut Link,
    keys: &Keys,
    run_id: Uuid,
    read_from: Option<&str>,
) -> Result<Token, Failure> {
    let (token, script) = (Token::new(), Script::new(include_str!("page.lua")));
    let connection = link.connection().await?;
    redis::pipe()
        .atomic()
        .cmd("DEL")
        .arg(&keys.dedup)
        .cmd("SADD")
        .arg(&keys.dedup)
        .arg(&token.0)
        .exec_async(&mut *connection)
        .await?;
    let run_id = run_id.to_string();
    let mut from = read_from.unwrap_or("-").to_owned();
    loop {
        let mut page = script.key(&keys.stream);
        let page: Value = page
            .arg(&from)
            .arg(&PAGE)
            .invoke_async(&mut *connection)
            .await?;
        let entries = match page {
            Value::Array(entries) => entries,
            _ => Vec::new(),
        };
        let Some(last) = entries.last().and_then(entry_id) else {
            add(connection, keys, &token, &[token.of_whole()]).await?;
            return Ok(token);
        };
        let mut ids = Vec::new();
        for entry in &entries {
            chat_ids(entry, &run_id, &mut ids);
        }
        for ids in ids.chunks(ADDED_AT_ONCE) {
            add(&mut *connection, keys, &token, ids).await?;
        }
        from = format!("({last}");
    }
}

async fn add(
    connection: &mut MultiplexedConnection,
    keys: &Keys,
    token: &Token,
    members: &[String],
) -> Result<(), Failure> {
    let script = Script::new(include_str!("see.lua"));
    let mut script = script.key(&keys.dedup);
    script.arg(&token.0).arg(DEDUP_TTL_SECONDS).arg(members);
    let is_ours: bool = script.invoke_async(connection).await?;
    if is_ours {
        return Ok(());
    }
    let text = format!("{}: it was removed while it was filled", keys.dedup);
    Err(Failure::Transient(text))
}

/// Returns those of the chats that are not on the stream. Returns `None` if the set is missing,
/// incomplete or from another read-back, and must be filled again.
pub(super) async fn unseen<'a>(
    link: &mut Link,
    keys: &Keys,
    token: &Token,
    chats: &[Chat<'a>],
) -> Result<Option<Vec<Chat<'a>>>, Failure> {
    let connection = link.connection().await?;
    let whole = token.of_whole();
    let mut members: Vec<&[u8]> = chats.iter().map(|chat| chat.id).collect();
    members.push(whole.as_bytes());
    let (mut seen,): (Vec<bool>,) = redis::pipe()
        .cmd("SMISMEMBER")
        .arg(&keys.dedup)
        .arg(&members)
        .cmd("EXPIRE")
        .arg(&keys.dedup)
        .arg(DEDUP_TTL_SECONDS)
        .ignore()
        .query_async(connection)
        .await?;
    if seen.pop() != Some(true) {
        return Ok(None);
    }
    let chats = chats.iter().zip(seen).filter(|(_, seen)| !seen);
    Ok(Some(chats.map(|(chat, _)| *chat).collect()))
}

fn entry_id(entry: &Value) -> Option<String> {
    match entry {
        Value::Array(parts) => parts.first().map(reply_text),
        _ => None,
    }
}

/// Collects the chat ids of an entry in any format, if the entry belongs to the run.
fn chat_ids(entry: &Value, run_id: &str, ids: &mut Vec<String>) {
    let Value::Array(parts) = entry else { return };
    let Some(Value::Array(fields)) = parts.get(1) else {
        return;
    };
    let field = |name: &str| {
        let mut pairs = fields.chunks_exact(2);
        pairs
            .find(|pair| reply_text(&pair[0]) == name)
            .map(|pair| reply_text(&pair[1]))
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
