//! The connection that holds the lock and the checkpoint.

use std::collections::VecDeque;

use lapin::options::ConfirmSelectOptions;
use lapin::{Channel, Connection, PublisherConfirm};
use uuid::Uuid;

use super::RabbitSettings;
use super::alarm::{Alarm, Watch};
use super::checkpoint::{CheckpointQueue, Record, payload, taken};
use super::connect::close;
use super::lock::{self, Lock};
use super::names::Names;
use crate::report::Progress;
use crate::shutdown::Shutdown;
use crate::sink::patience::Failure;

/// Checkpoints whose confirm is still to come, at the most.
const UNCONFIRMED: usize = 16;

/// The lock, held, and the checkpoint's queue.
pub(super) struct Control {
    connection: Connection,
    channel: Channel,
    checkpoint: CheckpointQueue,
    _lock: Lock,
    _watch: Watch,
    /// What the checkpoint was when the lock was taken.
    pub(super) found: Option<Record>,
    /// Checkpoints that were sent, with the positions that they stand for.
    unconfirmed: VecDeque<(u64, PublisherConfirm)>,
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
        let mut channel = confirming(&connection).await?;
        match checkpoint.declare(&channel).await {
            Err(error) if CheckpointQueue::is_of_another_form(&error) => {
                // The broker has closed the channel over it.
                channel = confirming(&connection).await?;
                checkpoint.replace(&channel).await?;
            }
            declared => declared?,
        }
        let found = checkpoint.read(&channel).await?;
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

    /// Writes the checkpoint down, durably.
    pub(super) async fn write(&mut self, record: &Record) -> Result<(), Failure> {
        self.confirm_all().await?;
        self.checkpoint.write(&self.channel, record).await
    }

    /// Sends the checkpoint.
    pub(super) async fn send(&mut self, record: &Record) -> Result<(), Failure> {
        if self.unconfirmed.len() >= UNCONFIRMED {
            self.confirm_oldest().await?;
        }
        let sent = self.checkpoint.send(&self.channel, &payload(record)).await;
        let position = record.checkpoint.position;
        self.unconfirmed.push_back((position, sent?));
        Ok(())
    }

    /// Waits until all checkpoints that were sent are durable. Gives the newest one's position.
    pub(super) async fn confirm_all(&mut self) -> Result<Option<u64>, Failure> {
        let mut newest = None;
        while !self.unconfirmed.is_empty() {
            newest = self.confirm_oldest().await?;
        }
        Ok(newest)
    }

    async fn confirm_oldest(&mut self) -> Result<Option<u64>, Failure> {
        let Some((position, confirm)) = self.unconfirmed.pop_front() else {
            return Ok(None);
        };
        taken(confirm.await)?;
        Ok(Some(position))
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
