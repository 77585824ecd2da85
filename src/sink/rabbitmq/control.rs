//! The connection that holds the lock and the checkpoint.

use std::collections::VecDeque;

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection, PublisherConfirm};
use uuid::Uuid;

use super::RabbitSettings;
use super::alarm::{Alarm, Watch};
use super::checkpoint::{CheckpointQueue, Record, payload, taken};
use super::connect::close;
use super::ledger::WINDOW;
use super::lock::{self, Lock};
use super::names::Names;
use super::publisher::exists;
use crate::batch::Position;
use crate::report::Progress;
use crate::shutdown::Shutdown;
use crate::sink::patience::Failure;

/// Batches whose checkpoint is still to be confirmed, at the most: with those that are unconfirmed
/// themselves, they are all that can come twice after a crash.
const UNCONFIRMED: usize = WINDOW;

/// A checkpoint whose confirm is still to come.
struct Sent {
    position: Position,
    /// How many batches it covers that the one before it did not.
    batches: usize,
    confirm: PublisherConfirm,
}

/// The lock, held, and the checkpoint's queue.
pub(super) struct Control {
    connection: Connection,
    channel: Channel,
    checkpoint: CheckpointQueue,
    _lock: Lock,
    _watch: Watch,
    /// What the checkpoint was when the lock was taken.
    pub(super) found: Option<Record>,
    /// Checkpoints that were sent.
    unconfirmed: VecDeque<Sent>,
}

impl Control {
    /// Takes the lock, and reads the checkpoint.
    pub(super) async fn open(
        settings: &RabbitSettings,
        names: &Names,
        owner: Uuid,
        shutdown: &Shutdown,
        alarm: &Alarm,
        progress: Progress,
    ) -> Result<Self, Failure> {
        let connection = settings
            .endpoint
            .connect(&format!("labelcast/{owner}"))
            .await?;
        let watch = alarm.watch(&connection, progress);
        let checkpoint =
            CheckpointQueue::new(&names.checkpoint, settings.queue_type, settings.retain);
        let lock = lock::take(&connection, &names.lock, checkpoint.clone(), shutdown).await?;
        let is_new = !exists(&connection, &names.checkpoint).await?;
        let mut channel = confirming(&connection).await?;
        match checkpoint.declare(&channel).await {
            Err(error) if CheckpointQueue::is_of_another_form(&error) => {
                // The broker has closed the channel over it.
                channel = confirming(&connection).await?;
                checkpoint.replace(&channel).await?;
            }
            declared => declared?,
        }
        let found = if is_new {
            // A quorum queue that has no leader yet would rather fail than say that it is empty.
            None
        } else {
            checkpoint.read(&channel).await?
        };
        Ok(Self {
            connection,
            channel,
            checkpoint,
            _lock: lock,
            _watch: watch,
            found,
            unconfirmed: VecDeque::new(),
        })
    }

    /// Whether there is such a queue.
    pub(super) async fn has(&self, queue: &str) -> Result<bool, Failure> {
        exists(&self.connection, queue).await
    }

    /// Writes the checkpoint down, durably.
    pub(super) async fn write(&mut self, record: &Record) -> Result<(), Failure> {
        self.confirm_all().await?;
        self.checkpoint.write(&self.channel, record).await
    }

    /// Sends the checkpoint, which covers so many batches more than the one before. Gives the position
    /// of the newest that was found to be durable meanwhile.
    pub(super) async fn send(
        &mut self,
        record: &Record,
        batches: usize,
    ) -> Result<Option<Position>, Failure> {
        let covered = |sent: &Sent| sent.batches;
        let mut newest = None;
        while !self.unconfirmed.is_empty()
            && self.unconfirmed.iter().map(covered).sum::<usize>() + batches > UNCONFIRMED
        {
            newest = self.confirm_oldest().await?;
        }
        let confirm = self.checkpoint.send(&self.channel, &payload(record)).await;
        self.unconfirmed.push_back(Sent {
            position: record.checkpoint.position,
            batches,
            confirm: confirm?,
        });
        Ok(newest)
    }

    /// Waits until all checkpoints that were sent are durable. Gives the newest one's position.
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

async fn confirming(connection: &Connection) -> Result<Channel, Failure> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}
