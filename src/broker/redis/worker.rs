//! Worker on a stream, which shares a consumer group with other workers.
//!
//! The group remembers what each worker has. Entries of a worker that neither acknowledges them nor
//! keeps them in time are taken over by another one. A reply that is lost with its connection
//! leaves entries in the worker's own name, which come again in the same way.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use redis::{Pipeline, Script, ScriptInvocation, Value};
use tracing::debug;

use super::connect::Endpoint;
use super::consumer::create_group;
use super::entries::{Entry, entries, entry_id};
use super::link::{Link, reply_text};
use crate::broker::error::Failure;
use crate::broker::{BrokerError, Consumer, Delivery, WORKER_PREFIX, WorkerOptions};

/// Interval of searches for entries to take over, unless these are taken over sooner.
const SEARCH_EVERY: Duration = Duration::from_secs(5);
/// Where a search for entries to take over starts, and the server's reply when it is done.
const START: &str = "0-0";
/// Silence after which a worker without entries is removed from the group.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// A worker on a stream.
struct StreamWorker {
    options: WorkerOptions,
    link: Link,
    /// Whether the group has existed on this connection.
    has_group: bool,
    search: Search,
}

/// A search for entries to take over.
struct Search {
    /// Where it goes on.
    cursor: String,
    /// When the next one starts; in the past as long as this one goes on.
    next_at: Instant,
}

/// Creates the group at the start of the stream, and the stream, if they do not exist.
///
/// # Errors
///
/// If the server cannot be reached, or the queue is not a stream.
pub(in crate::broker) async fn open(
    endpoint: &Endpoint,
    options: WorkerOptions,
) -> Result<Box<dyn Consumer>, BrokerError> {
    let mut worker = StreamWorker {
        link: Link::new(endpoint.clone(), options.queue.clone()),
        options,
        has_group: false,
        search: Search {
            cursor: START.to_owned(),
            next_at: Instant::now(),
        },
    };
    worker.prepare().await?;
    worker.remove_silent_workers().await?;
    Ok(Box::new(worker))
}

#[async_trait]
impl Consumer for StreamWorker {
    async fn receive(&mut self, most: u64) -> Result<Vec<Delivery>, BrokerError> {
        let received = self.try_receive(most).await;
        received.map_err(|failure| self.failed(failure))
    }

    async fn acknowledge(&mut self, deliveries: &[Delivery]) -> Result<(), BrokerError> {
        let ids: Vec<&str> = deliveries.iter().filter_map(entry_id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let acknowledged = self.try_acknowledge(&ids).await;
        acknowledged.map_err(|failure| self.failed(failure))
    }

    async fn keep(&mut self, deliveries: &[&Delivery]) -> Result<(), BrokerError> {
        let ids: Vec<&str> = deliveries.iter().filter_map(|it| entry_id(it)).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let script = Script::new(include_str!("worker_keep.lua"));
        let mut call = self.call(&script);
        call.arg(&self.options.worker).arg(&ids);
        self.run(&call).await.map(drop)
    }

    async fn is_drained(&mut self) -> Result<bool, BrokerError> {
        let script = Script::new(include_str!("worker_drained.lua"));
        let call = self.call(&script);
        Ok(self.run(&call).await? == Value::Int(1))
    }

    /// Gives back all entries in the worker's name, those of lost replies too.
    async fn leave(&mut self) -> Result<(), BrokerError> {
        let script = Script::new(include_str!("worker_leave.lua"));
        let mut call = self.call(&script);
        call.arg(&self.options.worker)
            .arg(millis(self.options.takeover_after));
        self.run(&call).await.map(drop)
    }
}

impl StreamWorker {
    /// Drops the connection if its state is unknown after this failure. The group may be gone, too.
    fn failed(&mut self, failure: Failure) -> BrokerError {
        self.has_group = false;
        self.link.disconnect_after(&failure);
        failure.into()
    }

    /// Makes sure that the group exists. It disappears with a stream that is deleted.
    async fn prepare(&mut self) -> Result<(), Failure> {
        if !self.has_group {
            let WorkerOptions { queue, group, .. } = &self.options;
            create_group(&mut self.link, queue, group, true).await?;
            self.has_group = true;
        }
        Ok(())
    }

    async fn try_receive(&mut self, most: u64) -> Result<Vec<Delivery>, Failure> {
        if most == 0 {
            return Ok(Vec::new());
        }
        self.prepare().await?;
        if self.search.next_at <= Instant::now() {
            let taken = self.take_over(most).await?;
            if !taken.is_empty() {
                return self.count(taken).await;
            }
        }
        let mut command = redis::cmd("XREADGROUP");
        command
            .arg("GROUP")
            .arg(&self.options.group)
            .arg(&self.options.worker);
        command.arg("COUNT").arg(most);
        command.arg("STREAMS").arg(&self.options.queue).arg(">");
        let reply: Value = command.query_async(self.link.connection().await?).await?;
        Ok(entries(&reply).into_iter().map(Delivery::from).collect())
    }

    /// Takes over the next entries that no worker has kept.
    async fn take_over(&mut self, most: u64) -> Result<Vec<Entry>, Failure> {
        let WorkerOptions { takeover_after, .. } = self.options;
        let mut command = redis::cmd("XAUTOCLAIM");
        command
            .arg(&self.options.queue)
            .arg(&self.options.group)
            .arg(&self.options.worker)
            .arg(millis(takeover_after))
            .arg(&self.search.cursor);
        command.arg("COUNT").arg(most);
        let reply: Value = command.query_async(self.link.connection().await?).await?;
        let parts = match &reply {
            Value::Array(parts) => parts.as_slice(),
            _ => &[],
        };
        self.search.cursor = parts.first().map_or(START.to_owned(), reply_text);
        if self.search.cursor == START {
            self.search.next_at = Instant::now() + SEARCH_EVERY.min(takeover_after);
        }
        let found = match parts.get(1) {
            Some(Value::Array(found)) => found.as_slice(),
            _ => &[],
        };
        if found.contains(&Value::Nil) {
            self.sweep().await?;
        }
        Ok(found.iter().filter_map(Entry::read).collect())
    }

    /// Acknowledges the worker's entries that were deleted.
    async fn sweep(&mut self) -> Result<(), Failure> {
        let script = Script::new(include_str!("worker_sweep.lua"));
        let mut call = self.call(&script);
        call.arg(&self.options.worker);
        self.link.run(&call).await?;
        Ok(())
    }

    /// Looks up how often entries were delivered that were just taken over.
    async fn count(&mut self, taken: Vec<Entry>) -> Result<Vec<Delivery>, Failure> {
        let mut pipeline = Pipeline::with_capacity(taken.len());
        for Entry { id, .. } in &taken {
            let WorkerOptions { queue, group, .. } = &self.options;
            let lookup = pipeline.cmd("XPENDING").arg(queue).arg(group);
            lookup.arg(id).arg(id).arg(1);
        }
        let found: Vec<Vec<(String, String, u64, u64)>> =
            pipeline.query_async(self.link.connection().await?).await?;
        let counted = taken.into_iter().zip(found);
        Ok(counted
            .map(|(entry, found)| {
                let deliveries = found.first().map_or(1, |(_, _, _, count)| *count);
                entry.delivered(deliveries.max(1))
            })
            .collect())
    }

    async fn try_acknowledge(&mut self, ids: &[&str]) -> Result<(), Failure> {
        let mut command = redis::cmd("XACK");
        command
            .arg(&self.options.queue)
            .arg(&self.options.group)
            .arg(ids);
        command.exec_async(self.link.connection().await?).await?;
        Ok(())
    }

    async fn remove_silent_workers(&mut self) -> Result<(), BrokerError> {
        let script = Script::new(include_str!("worker_tidy.lua"));
        let mut call = self.call(&script);
        call.arg(WORKER_PREFIX).arg(millis(FORGET_AFTER));
        let removed = self.run(&call).await?;
        if removed != Value::Int(0) {
            debug!(count = reply_text(&removed), "silent workers removed");
        }
        Ok(())
    }

    /// Returns a call of a script with the stream and the group.
    fn call<'a>(&self, script: &'a Script) -> ScriptInvocation<'a> {
        let mut call = script.prepare_invoke();
        call.key(&self.options.queue).arg(&self.options.group);
        call
    }

    async fn run(&mut self, call: &ScriptInvocation<'_>) -> Result<Value, BrokerError> {
        let done = self.link.run(call).await;
        done.map_err(|error| self.failed(error.into()))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
