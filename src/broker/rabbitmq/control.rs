//! Control connection, which holds the lock and the checkpoint.

use std::collections::VecDeque;
use std::sync::Arc;

use lapin::{Channel, Connection, PublisherConfirm};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::RabbitSettings;
use super::alarm::Watch;
use super::checkpoint::{CheckpointQueue, Record, payload, taken};
use super::connect::close;
use super::connections::Connections;
use super::in_flight::WINDOW;
use super::lock::{self, Lock};
use super::names::Names;
use super::publisher::exists;
use crate::batch::Position;
use crate::broker::SessionContext;
use crate::broker::error::Failure;

/// Maximum number of batches whose checkpoint is unconfirmed. After a crash, only these and the
/// batches that are unconfirmed themselves can be repeated.
const MAX_UNCONFIRMED_BATCHES: usize = WINDOW;

/// A checkpoint that was sent and is not confirmed yet.
struct Sent {
    position: Position,
    /// Number of batches that it covers in addition to the checkpoint before it.
    batches: usize,
    confirm: PublisherConfirm,
}

/// The lock that this run holds, and the checkpoint's queue.
pub(super) struct Control {
    connection: Connection,
    channel: Channel,
    checkpoint: CheckpointQueue,
    /// Held while the checkpoint is written, or its queue is renewed.
    writing: Arc<Mutex<()>>,
    renewer: JoinHandle<()>,
    _lock: Lock,
    _watch: Watch,
    /// The checkpoint as found when the lock was taken.
    pub(super) found: Option<Record>,
    /// Checkpoints that were sent and are not confirmed yet, oldest first.
    unconfirmed: VecDeque<Sent>,
}

impl Control {
    /// Takes the lock and reads the checkpoint.
    pub(super) async fn open(
        settings: &RabbitSettings,
        names: &Names,
        connections: &Connections,
        context: &SessionContext,
    ) -> Result<Self, Failure> {
        let name = format!("labelcast/{}", connections.owner);
        let connection = settings.endpoint.connect(&name).await?;
        let pauses = Arc::clone(&context.pauses);
        let watch = connections.alarm.watch(&connection, pauses);
        let lock = lock::take(&connection, &names.lock, context.retry.shutdown()).await?;
        let (checkpoint, channel, found) =
            CheckpointQueue::open(&connection, names, settings.retain).await?;
        let writing = Arc::new(Mutex::new(()));
        let renewer = renew_regularly(checkpoint.clone(), channel.clone(), Arc::clone(&writing));
        Ok(Self {
            connection,
            channel,
            checkpoint,
            writing,
            renewer,
            _lock: lock,
            _watch: watch,
            found,
            unconfirmed: VecDeque::new(),
        })
    }

    /// The connection, for what else is to be declared.
    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Returns whether a queue exists.
    pub(super) async fn queue_exists(&self, queue: &str) -> Result<bool, Failure> {
        exists(&self.connection, queue).await
    }

    /// Writes the checkpoint durably.
    pub(super) async fn write(&mut self, record: &Record) -> Result<(), Failure> {
        self.confirm_all().await?;
        let _turn = self.writing.lock().await;
        self.checkpoint.write(&self.channel, record).await
    }

    /// Sends a checkpoint that covers `batches` batches more than the one before. Returns the
    /// position of the newest checkpoint that was confirmed meanwhile, if any.
    pub(super) async fn send(
        &mut self,
        record: &Record,
        batches: usize,
    ) -> Result<Option<Position>, Failure> {
        let covered = |sent: &Sent| sent.batches;
        let mut newest = None;
        while !self.unconfirmed.is_empty()
            && self.unconfirmed.iter().map(covered).sum::<usize>() + batches
                > MAX_UNCONFIRMED_BATCHES
        {
            newest = self.confirm_oldest().await?;
        }
        let turn = self.writing.lock().await;
        let confirm = self.checkpoint.send(&self.channel, &payload(record)).await;
        drop(turn);
        self.unconfirmed.push_back(Sent {
            position: record.checkpoint.position,
            batches,
            confirm: confirm?,
        });
        Ok(newest)
    }

    /// Waits until all checkpoints that were sent are durable. Returns the position of the newest.
    pub(super) async fn confirm_all(&mut self) -> Result<Option<Position>, Failure> {
        let mut newest = None;
        while !self.unconfirmed.is_empty() {
            newest = self.confirm_oldest().await?;
        }
        Ok(newest)
    }

    async fn confirm_oldest(&mut self) -> Result<Option<Position>, Failure> {
        let Some(sent) = self.unconfirmed.pop_front() else {
            return Ok(None);
        };
        taken(sent.confirm.await)?;
        Ok(Some(sent.position))
    }

    pub(super) async fn close(&self) {
        close(&self.connection).await;
    }
}

/// Uses the checkpoint's queue regularly, so that it does not expire while a run holds it.
fn renew_regularly(
    checkpoint: CheckpointQueue,
    channel: Channel,
    writing: Arc<Mutex<()>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let every = checkpoint.use_every();
        let mut uses = tokio::time::interval_at(Instant::now() + every, every);
        loop {
            uses.tick().await;
            let _turn = writing.lock().await;
            if checkpoint.renew(&channel).await.is_err() {
                // The connection or the queue is gone: the next write reports it.
                return;
            }
        }
    })
}

impl Drop for Control {
    fn drop(&mut self) {
        self.renewer.abort();
    }
}
