//! Reader of a stream as a consumer: through a consumer group, pending entries first.

use redis::{ErrorKind, RedisError, Value};

use super::connect::Endpoint;
use super::link::{Link, word};
use crate::broker::BrokerError;
use crate::broker::retry_policy::Failure;

/// Maximum number of entries per read.
const PAGE: u64 = 100;
/// How long a read waits for new entries, in milliseconds; well below the reply timeout.
const BLOCK_MS: u64 = 1000;

/// Default consumer group.
pub(crate) const TAIL_GROUP: &str = "labelcast-tail";

/// Settings of a reader.
#[derive(Clone, Debug)]
pub struct Tail {
    /// The server.
    pub endpoint: Endpoint,
    /// The stream.
    pub queue: String,
    /// The consumer group.
    pub group: String,
    /// The consumer's name in the group.
    pub consumer: String,
    /// Acknowledge what was read.
    pub ack: bool,
    /// Delete what was read.
    pub delete: bool,
    /// Wait for more entries.
    pub follow: bool,
}

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The entry's id.
    pub id: String,
    /// Fields and values.
    pub fields: Vec<(String, String)>,
}

/// A reader of a stream.
pub struct Reader {
    tail: Tail,
    link: Link,
    /// Id of the last of its own pending entries that was read; `None` once all of these were read.
    pending: Option<String>,
}

impl Reader {
    /// Creates the group at the start of the stream, if it does not exist.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, or the queue is not a stream.
    pub async fn open(tail: Tail) -> Result<Self, BrokerError> {
        let mut link = Link::new(tail.endpoint.clone(), tail.queue.clone());
        create_group(&mut link, &tail).await?;
        Ok(Self {
            tail,
            link,
            pending: Some("0".to_owned()),
        })
    }

    /// Returns the next messages, at most `most`; empty if there are none at the moment.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    pub async fn next(&mut self, most: u64) -> Result<Vec<Message>, BrokerError> {
        loop {
            let messages = self.read(most.min(PAGE)).await?;
            match (&mut self.pending, messages.last()) {
                (Some(after), Some(last)) => after.clone_from(&last.id),
                (Some(_), None) => {
                    self.pending = None;
                    continue;
                }
                (None, _) => {}
            }
            return Ok(messages);
        }
    }

    async fn read(&mut self, most: u64) -> Result<Vec<Message>, Failure> {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&self.tail.group)
            .arg(&self.tail.consumer);
        command.arg("COUNT").arg(most);
        if self.tail.follow && self.pending.is_none() {
            command.arg("BLOCK").arg(BLOCK_MS);
        }
        let after = self.pending.as_deref().unwrap_or(">");
        command.arg("STREAMS").arg(&self.tail.queue).arg(after);
        let reply: Value = command.query_async(self.link.connection().await?).await?;
        Ok(messages(&reply))
    }

    /// Acknowledges and deletes messages that were processed, as the settings demand. Deleting also
    /// acknowledges.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    pub async fn done(&mut self, messages: &[Message]) -> Result<(), BrokerError> {
        let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
        if ids.is_empty() || !(self.tail.ack || self.tail.delete) {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        pipe.cmd("XACK")
            .arg(&self.tail.queue)
            .arg(&self.tail.group)
            .arg(&ids);
        if self.tail.delete {
            pipe.cmd("XDEL").arg(&self.tail.queue).arg(&ids);
        }
        let connection = self.link.connection().await.map_err(Failure::from)?;
        Ok(pipe.exec_async(connection).await.map_err(Failure::from)?)
    }
}

async fn create_group(link: &mut Link, tail: &Tail) -> Result<(), Failure> {
    let connection = link.connection().await?;
    let mut command = redis::cmd("XGROUP");
    command
        .arg("CREATE")
        .arg(&tail.queue)
        .arg(&tail.group)
        .arg("0");
    if tail.follow {
        // The stream may be created later.
        command.arg("MKSTREAM");
    }
    let created: Result<(), RedisError> = command.exec_async(connection).await;
    match created {
        Err(error) if error.code() == Some("BUSYGROUP") => Ok(()),
        Err(error)
            if error.kind() == ErrorKind::Extension && error.to_string().contains("BUSYGROUP") =>
        {
            Ok(())
        }
        Err(error) if error.to_string().contains("requires the key to exist") => {
            Err(BrokerError::WrongQueue(format!("there is no stream {}", tail.queue)).into())
        }
        created => Ok(created?),
    }
}

/// Extracts the messages from a reply: a list of streams in RESP2, a map of them in RESP3.
fn messages(reply: &Value) -> Vec<Message> {
    let entries: Vec<&Value> = match reply {
        Value::Map(streams) => streams.iter().map(|(_, entries)| entries).collect(),
        Value::Array(streams) => streams
            .iter()
            .filter_map(|stream| match stream {
                Value::Array(parts) => parts.get(1),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    entries
        .into_iter()
        .filter_map(|entries| match entries {
            Value::Array(entries) => Some(entries),
            _ => None,
        })
        .flatten()
        .filter_map(message)
        .collect()
}

fn message(entry: &Value) -> Option<Message> {
    let Value::Array(parts) = entry else {
        return None;
    };
    // An entry that was deleted while it was pending has no fields.
    let fields = match parts.get(1) {
        Some(Value::Array(fields)) => fields.as_slice(),
        _ => &[],
    };
    let pairs = fields.chunks_exact(2);
    Some(Message {
        id: word(parts.first()?),
        fields: pairs.map(|pair| (word(&pair[0]), word(&pair[1]))).collect(),
    })
}
