//! Consumer of a stream through a consumer group, pending entries first.

use async_trait::async_trait;
use redis::{ErrorKind, RedisError, Value};

use super::connect::Endpoint;
use super::entries::{Entry, entries, entry_id};
use super::link::Link;
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
    // The stream may be created later.
    create_group(&mut link, &options.queue, &options.group, options.follow).await?;
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

/// Creates a group at the start of a stream, if it does not exist. `make_stream` allows the stream to
/// be missing.
pub(super) async fn create_group(
    link: &mut Link,
    stream: &str,
    group: &str,
    make_stream: bool,
) -> Result<(), Failure> {
    let connection = link.connection().await?;
    let mut command = redis::cmd("XGROUP");
    command.arg("CREATE").arg(stream).arg(group).arg("0");
    if make_stream {
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
            Err(BrokerError::WrongQueue(format!("there is no stream {stream}")).into())
        }
        created => Ok(created?),
    }
}
