//! The checkpoint: one persistent message in a queue of length one, beside the target.
//!
//! The form of that queue depends on `--retain` alone, never on the target: a run that only changes
//! the target's type finds the checkpoint where it was. AMQP cannot change a queue's form, nor tell
//! what it is. So a run declares the queue as it would be today; where the broker refuses, since
//! `--retain` has changed or an earlier version has declared the queue in another form, the record
//! moves to a second queue, and the first one is deleted after the broker has confirmed the copy. The
//! next change moves it back. A name is never deleted and declared again within a move: a channel that
//! remembers the deleted queue confirms messages to the new one, and drops them.
//!
//! Wherever a move is cut off, one of the two queues holds the record. Both exist only until the next
//! run, which keeps the newer record.

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
use crate::sink::Checkpoint;
use crate::sink::record::{self, State};
use crate::sink::retry_policy::Failure;

/// How long the broker may take to give back what a dead process held.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked whether it has.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// How often a queue is used at the least, so that it does not expire under a run.
const USE_EVERY: Duration = Duration::from_secs(20);
/// Replicated like a target of the default type, and of use for all others: a classic queue lives on
/// one node, and a stream cannot be of length one.
const KIND: &str = "quorum";

/// What the message holds, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) state: State,
    /// The process that wrote it.
    pub(super) owner: Uuid,
    #[serde(flatten)]
    pub(super) checkpoint: Checkpoint,
    /// Whether the list has changed since the run began.
    #[serde(default)]
    pub(super) list_changed: bool,
    /// How far messages of several chats may have been sent, and the digest there: one that is sent
    /// again has to hold the same chats.
    #[serde(default)]
    pub(super) ahead: Option<(Position, Digest)>,
    /// How many chats go into a message.
    #[serde(default)]
    pub(super) ids_per_message: u32,
    /// Whether that has changed since the run began.
    #[serde(default)]
    pub(super) repacked: bool,
    /// Whether the process that ended the run came to know of it. One that did not will be run again, and
    /// has nothing more to publish then.
    #[serde(default)]
    pub(super) settled: bool,
    /// How many chats the last complete run had.
    pub(super) last_complete: Option<u64>,
    #[serde(with = "record::rfc3339")]
    pub(super) at: SystemTime,
}

impl Record {
    /// What has to be proven before that part is sent again: what lies between is no more than can be
    /// on its way at once.
    pub(super) fn expected_digests(&self) -> Vec<(Position, Digest)> {
        let is_behind = |(position, _): &(Position, Digest)| *position > self.checkpoint.position;
        self.ahead.filter(is_behind).into_iter().collect()
    }
}

/// The queue that holds the checkpoint.
#[derive(Clone, Debug)]
pub(super) struct CheckpointQueue {
    name: ShortString,
    /// How long it outlives its last use.
    retain: Option<Duration>,
}

impl CheckpointQueue {
    fn new(name: &str, retain: Option<Duration>) -> Self {
        Self {
            name: name.into(),
            retain,
        }
    }

    /// Finds the queue that holds the checkpoint, or declares one, in today's form. The lock has to be
    /// held. Gives the channel to write on, and the record.
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
                // A quorum queue that has no leader yet would rather fail than say that it is empty.
                Ok((queue, channel, None))
            }
            Ok(()) => {
                let found = queue.read(&channel).await?;
                Ok((queue, channel, found))
            }
            Err(error) if is_refused_with(&error, code::PRECONDITION_FAILED) => {
                // The broker has closed the channel over it.
                let channel = confirming(connection).await?;
                let found = queue.move_to(&other, &channel).await?;
                Ok((other, channel, found))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Ends a move that was cut off: keeps the queue with the newer record, deletes the other, and tells
    /// whether it is the second that was kept.
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

    /// How often it has to be used so as not to expire.
    pub(super) fn use_every(&self) -> Duration {
        let third = self.retain.map_or(USE_EVERY, |retain| retain / 3);
        third.clamp(Duration::from_millis(100), USE_EVERY)
    }

    async fn declare(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(KIND.into());
        arguments.insert("x-queue-type".into(), kind);
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
        // Said, so that no policy that is meant for other queues makes this one refuse the newest.
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

    /// Reads the record, which stays there.
    ///
    /// A process that was killed while it read holds the record until the broker has noticed: so a
    /// queue that seems empty is looked at for a while.
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

    /// Takes the record, and puts it there anew. Nobody may write meanwhile.
    ///
    /// Getting a message is the only use that keeps a quorum queue from expiring: neither messages that
    /// come nor another declaration count. It is not given back to the queue: of a message that is given
    /// back too often, quorum queues think that it does harm.
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

    /// Puts a record there, in place of the one before it.
    pub(super) async fn write(&self, channel: &Channel, record: &Record) -> Result<(), Failure> {
        self.put(channel, &payload(record)).await
    }

    /// Sends a record; its confirm is still to come.
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
    // Numbers and texts: that does not fail.
    serde_json::to_vec(record).unwrap_or_default()
}

/// Whether a record was taken.
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
