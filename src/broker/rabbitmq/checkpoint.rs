//! Checkpoint: one persistent message in a queue of length one, beside the target.
//!
//! The arguments of that queue depend on `--retain` alone, never on the target, so a run that only
//! changes the target's type finds the checkpoint where it was. AMQP can neither change nor report
//! the arguments of a queue. A run therefore declares the queue with the current arguments. The
//! broker refuses if `--retain` has changed, or if an earlier version declared the queue
//! differently. Then the record moves to a second queue, and the first one is deleted after the
//! broker has confirmed the copy. The next change moves it back. A move never deletes and
//! redeclares the same name: a channel that remembers the deleted queue confirms messages to the
//! new one, and drops them.
//!
//! Wherever a move is interrupted, one of the two queues holds the record. Both exist only until
//! the next run, which keeps the newer record.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, PublisherConfirm};
use serde::{Deserialize, Serialize};
use tracing::info;
use uuid::Uuid;

use super::failure::{code, is_refused_with};
use super::names::Names;
use super::publisher::exists;
use super::{PERSISTENT, millis};
use crate::batch::{Digest, Position};
use crate::broker::error::Failure;
use crate::broker::record::{self, State};
use crate::broker::{Checkpoint, ResumePoint};

/// How long the broker may take to requeue a message that a dead process held.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(3);
/// Interval between attempts to read that message.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// Longest interval between uses of the queue, which keep it from expiring under a run.
const USE_EVERY: Duration = Duration::from_secs(20);
/// Type of the checkpoint's queue, replicated like a target of the default type. It also suits
/// targets of the other types, which could not hold a checkpoint as well: a classic queue lives on
/// one node, and a stream cannot have length one.
const KIND: &str = "quorum";

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde demands")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Contents of the message, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) state: State,
    /// The process that wrote it.
    pub(super) owner: Uuid,
    /// What the run publishes. A run of another mode does not resume it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) mode: String,
    #[serde(flatten)]
    pub(super) checkpoint: Checkpoint,
    /// Whether the list has changed since the run began.
    #[serde(default)]
    pub(super) list_changed: bool,
    /// How far messages of several chats may have been sent, and the digest there. A message that
    /// is sent again must contain the same chats.
    #[serde(default)]
    pub(super) ahead: Option<(Position, Digest)>,
    /// The base of publishing ids, over the stream protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) id_base: Option<u64>,
    /// The last publishing id that is known to be on the stream; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) last_id: u64,
    /// Number of chats per message.
    #[serde(default)]
    pub(super) ids_per_message: u32,
    /// Whether that number has changed since the run began.
    #[serde(default)]
    pub(super) repacked: bool,
    /// Whether the process that ended the run knew it. A run whose process did not know is resumed,
    /// with nothing left to publish.
    #[serde(default)]
    pub(super) settled: bool,
    /// Number of chats in the last complete run.
    pub(super) last_complete: Option<u64>,
    #[serde(with = "record::rfc3339")]
    pub(super) at: SystemTime,
}

impl Record {
    /// Returns where the run resumes. The digest of what is ahead of the checkpoint is verified
    /// before the chats up to there are sent again. They are no more than can be in flight at once.
    pub(super) fn resume_point(&self) -> ResumePoint {
        let is_ahead = |(position, _): &(Position, Digest)| *position > self.checkpoint.position;
        ResumePoint {
            at: self.checkpoint,
            expected_digests: self.ahead.filter(is_ahead).into_iter().collect(),
        }
    }

    /// Whether another record is of the same process, progress and state.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.checkpoint == other.checkpoint
            && self.owner == other.owner
            && self.state == other.state
    }
}

/// The queue that holds the checkpoint.
#[derive(Clone, Debug)]
pub(super) struct CheckpointQueue {
    name: ShortString,
    /// How long the queue is kept after its last use.
    retain: Option<Duration>,
}

impl CheckpointQueue {
    fn new(name: &str, retain: Option<Duration>) -> Self {
        Self {
            name: name.into(),
            retain,
        }
    }

    /// Finds the queue that holds the checkpoint or declares one, with the current arguments. The
    /// caller must hold the lock. Returns the queue, the channel to write on, and the record.
    pub(super) async fn open(
        connection: &Connection,
        names: &Names,
        retain: Option<Duration>,
    ) -> Result<(Self, Channel, Option<Record>), Failure> {
        let mut queue = Self::new(&names.checkpoint, retain);
        let mut other = Self::new(&names.other_checkpoint, retain);
        let exist = (
            exists(connection, queue.name.as_str()).await?,
            exists(connection, other.name.as_str()).await?,
        );
        let keep_other = match exist {
            (true, true) => Self::keep_newer(connection, &queue, &other).await?,
            (_, other_exists) => other_exists,
        };
        if keep_other {
            std::mem::swap(&mut queue, &mut other);
        }
        let channel = confirming(connection).await?;
        match queue.declare(&channel).await {
            Ok(()) if exist == (false, false) => {
                // Do not read it: a quorum queue without a leader yet would fail instead of
                // reporting that it is empty.
                Ok((queue, channel, None))
            }
            Ok(()) => {
                let found = queue.read(&channel).await?;
                Ok((queue, channel, found))
            }
            Err(error) if is_refused_with(&error, code::PRECONDITION_FAILED) => {
                // The refusal has closed the other channel.
                let channel = confirming(connection).await?;
                let found = queue.move_to(&other, &channel).await?;
                Ok((other, channel, found))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Completes an interrupted move: keeps the queue with the newer record and deletes the other.
    /// Returns whether the second queue was kept.
    async fn keep_newer(
        connection: &Connection,
        first: &Self,
        second: &Self,
    ) -> Result<bool, Failure> {
        let channel = confirming(connection).await?;
        let at = |record: Option<Record>| record.map(|record| record.at);
        let in_first = at(first.read(&channel).await?);
        let in_second = at(second.read(&channel).await?);
        let keep_second = in_second > in_first;
        let superseded = if keep_second { first } else { second };
        superseded.delete(&channel).await?;
        Ok(keep_second)
    }

    /// Moves the record to a queue that does not exist yet.
    async fn move_to(&self, other: &Self, channel: &Channel) -> Result<Option<Record>, Failure> {
        info!(
            queue = self.name.as_str(),
            "moving the checkpoint to a queue for the new settings"
        );
        let found = self.read(channel).await?;
        other.declare(channel).await?;
        if let Some(record) = &found {
            other.write(channel, record).await?;
        }
        self.delete(channel).await?;
        Ok(found)
    }

    async fn delete(&self, channel: &Channel) -> Result<(), lapin::Error> {
        channel
            .queue_delete(self.name.clone(), QueueDeleteOptions::default())
            .await
            .map(drop)
    }

    /// Returns the interval of uses that keeps the queue from expiring.
    pub(super) fn use_every(&self) -> Duration {
        let third = self.retain.map_or(USE_EVERY, |retain| retain / 3);
        third.clamp(Duration::from_millis(100), USE_EVERY)
    }

    async fn declare(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(KIND.into());
        arguments.insert("x-queue-type".into(), kind);
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
        // Explicit, so that no policy meant for other queues makes this one reject the newest
        // message.
        let overflow = AMQPValue::LongString("drop-head".into());
        arguments.insert("x-overflow".into(), overflow);
        if let Some(retain) = self.retain {
            let expires = AMQPValue::LongLongInt(i64::try_from(millis(retain)).unwrap_or(i64::MAX));
            arguments.insert("x-expires".into(), expires);
        }
        channel
            .queue_declare(self.name.clone(), QueueDeclareOptions::durable(), arguments)
            .await
            .map(drop)
    }

    /// Reads the record, which stays in the queue.
    ///
    /// A process that was killed while reading holds the record until the broker has noticed, so an
    /// empty queue is checked repeatedly for a short time.
    async fn read(&self, channel: &Channel) -> Result<Option<Record>, Failure> {
        let until = Instant::now() + GIVEN_BACK_WITHIN;
        loop {
            match self.renew(channel).await? {
                Some(payload) => return Ok(serde_json::from_slice(&payload).ok()),
                None if Instant::now() > until => return Ok(None),
                None => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            }
        }
    }

    /// Takes the record and publishes it again. Nobody else may write meanwhile.
    ///
    /// Getting a message is the only use that keeps a quorum queue from expiring: neither a publish
    /// nor another declaration counts. The message is not requeued, because quorum queues treat a
    /// message that is returned too often as harmful (poison message).
    pub(super) async fn renew(&self, channel: &Channel) -> Result<Option<Vec<u8>>, Failure> {
        let Some((payload, tag)) = self.get(channel).await? else {
            return Ok(None);
        };
        self.put(channel, &payload).await?;
        channel.basic_ack(tag, BasicAckOptions::default()).await?;
        Ok(Some(payload))
    }

    async fn get(&self, channel: &Channel) -> Result<Option<(Vec<u8>, u64)>, Failure> {
        let got = channel
            .basic_get(self.name.clone(), BasicGetOptions::default())
            .await?;
        Ok(got.map(|got| (got.delivery.data.to_vec(), got.delivery.delivery_tag)))
    }

    async fn put(&self, channel: &Channel, payload: &[u8]) -> Result<(), Failure> {
        let confirm = self.send(channel, payload).await?;
        taken(confirm.await)
    }

    /// Publishes a record, which replaces the one before it, and awaits the confirm.
    pub(super) async fn write(&self, channel: &Channel, record: &Record) -> Result<(), Failure> {
        self.put(channel, &payload(record)).await
    }

    /// Publishes a record without awaiting the confirm.
    pub(super) async fn send(
        &self,
        channel: &Channel,
        payload: &[u8],
    ) -> Result<PublisherConfirm, lapin::Error> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_app_id("labelcast".into())
            .with_type("labelcast.checkpoint".into());
        channel
            .basic_publish("".into(), self.name.clone(), options, payload, properties)
            .await
    }
}

async fn confirming(connection: &Connection) -> Result<Channel, Failure> {
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    Ok(channel)
}

pub(super) fn payload(record: &Record) -> Vec<u8> {
    // Serialising numbers and texts does not fail.
    serde_json::to_vec(record).unwrap_or_default()
}

/// Converts the confirm of a record to a result.
pub(super) fn taken(confirmation: Result<Confirmation, lapin::Error>) -> Result<(), Failure> {
    match confirmation? {
        Confirmation::Ack(None) | Confirmation::NotRequested => Ok(()),
        Confirmation::Ack(Some(_)) => Err(Failure::Transient(
            "the checkpoint's queue is gone".to_owned(),
        )),
        Confirmation::Nack(_) => Err(Failure::Transient(
            "the checkpoint was not taken".to_owned(),
        )),
    }
}
