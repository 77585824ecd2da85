//! Consumer of a stream through a consumer group, pending entries first.

use async_trait::async_trait;
use redis::{ErrorKind, RedisError, Value};
use serde_json::Map;

use super::connect::Endpoint;
use super::link::{Link, reply_text};
use crate::broker::consumer::DeliveryTag;
use crate::broker::error::Failure;
use crate::broker::{BrokerError, Consumer, ConsumerOptions, Delivery};

/// Maximum number of entries per read.
const PAGE: u64 = 100;
/// How long a read waits for new entries, in milliseconds; well below the reply timeout.
const BLOCK_MS: u64 = 1000;

/// A consumer of a stream.
struct StreamConsumer {
    options: ConsumerOptions,
    link: Link,
    /// Id of the last of its own pending entries that was read; `None` once all of these were read.
    pending: Option<String>,
}

/// Creates the group at the start of the stream, if it does not exist, and reads from there.
///
/// # Errors
///
/// If the server cannot be reached, or the queue is not a stream.
pub(in crate::broker) async fn open(
    endpoint: &Endpoint,
    options: ConsumerOptions,
) -> Result<Box<dyn Consumer>, BrokerError> {
    let mut link = Link::new(endpoint.clone(), options.queue.clone());
    create_group(&mut link, &options).await?;
    Ok(Box::new(StreamConsumer {
        options,
        link,
        pending: Some("0".to_owned()),
    }))
}

#[async_trait]
impl Consumer for StreamConsumer {
    async fn receive(&mut self, most: u64) -> Result<Vec<Delivery>, BrokerError> {
        loop {
            let entries = self.read(most.min(PAGE)).await?;
            match (&mut self.pending, entries.last()) {
                (Some(after), Some(last)) => after.clone_from(&last.id),
                (Some(_), None) => {
                    self.pending = None;
                    continue;
                }
                (None, _) => {}
            }
            return Ok(entries.into_iter().map(Delivery::from).collect());
        }
    }

    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        let ids: Vec<&str> = deliveries.iter().filter_map(entry_id).collect();
        let ConsumerOptions { ack, delete, .. } = self.options;
        if ids.is_empty() || !(ack || delete) {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        pipe.cmd("XACK")
            .arg(&self.options.queue)
            .arg(&self.options.group)
            .arg(&ids);
        if delete {
            pipe.cmd("XDEL").arg(&self.options.queue).arg(&ids);
        }
        let connection = self.link.connection().await.map_err(Failure::from)?;
        Ok(pipe.exec_async(connection).await.map_err(Failure::from)?)
    }
}

fn entry_id(delivery: &Delivery) -> Option<&str> {
    match &delivery.tag {
        DeliveryTag::Entry(id) => Some(id),
        DeliveryTag::Number { .. } => None,
    }
}

/// An entry of a stream.
struct Entry {
    id: String,
    fields: Vec<(String, String)>,
}

/// Fields that are JSON are shown as JSON.
impl From<Entry> for Delivery {
    fn from(entry: Entry) -> Self {
        let mut message = Map::new();
        message.insert("entry_id".to_owned(), entry.id.clone().into());
        for (name, text) in entry.fields {
            let json = match name.as_str() {
                "data" | "chat_ids" | "names" => serde_json::from_str(&text).ok(),
                _ => None,
            };
            message.insert(name, json.unwrap_or_else(|| text.into()));
        }
        Self {
            tag: DeliveryTag::Entry(entry.id),
            deliveries: 1,
            message,
        }
    }
}

impl StreamConsumer {
    async fn read(&mut self, most: u64) -> Result<Vec<Entry>, Failure> {
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&self.options.group)
            .arg(&self.options.consumer);
        command.arg("COUNT").arg(most);
        if self.options.follow && self.pending.is_none() {
            command.arg("BLOCK").arg(BLOCK_MS);
        }
        let after = self.pending.as_deref().unwrap_or(">");
        command.arg("STREAMS").arg(&self.options.queue).arg(after);
        let reply: Value = command.query_async(self.link.connection().await?).await?;
        Ok(entries(&reply))
    }
}

async fn create_group(link: &mut Link, options: &ConsumerOptions) -> Result<(), Failure> {
    let connection = link.connection().await?;
    let mut command = redis::cmd("XGROUP");
    command
        .arg("CREATE")
        .arg(&options.queue)
        .arg(&options.group)
        .arg("0");
    if options.follow {
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
            Err(BrokerError::WrongQueue(format!("there is no stream {}", options.queue)).into())
        }
        created => Ok(created?),
    }
}

/// Extracts the entries from a reply: a list of streams in RESP2, a map of them in RESP3.
fn entries(reply: &Value) -> Vec<Entry> {
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
        .filter_map(entry)
        .collect()
}

fn entry(entry: &Value) -> Option<Entry> {
    let Value::Array(parts) = entry else {
        return None;
    };
    // An entry that was deleted while it was pending has no fields.
    let fields = match parts.get(1) {
        Some(Value::Array(fields)) => fields.as_slice(),
        _ => &[],
    };
    let pairs = fields.chunks_exact(2);
    Some(Entry {
        id: reply_text(parts.first()?),
        fields: pairs
            .map(|pair| (reply_text(&pair[0]), reply_text(&pair[1])))
            .collect(),
    })
}
