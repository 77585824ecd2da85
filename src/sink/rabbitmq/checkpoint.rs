//! The checkpoint: one persistent message in a queue of length one, beside the target.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use lapin::options::{
    BasicAckOptions, BasicGetOptions, BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::failure::{code, is_refused_with};
use super::{PERSISTENT, QueueType, millis};
use crate::batch::{Digest, Position};
use crate::sink::Checkpoint;
use crate::sink::patience::Failure;
use crate::sink::record::{self, State};

/// How long the broker may take to give back what a dead process held.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(3);
/// How often it is looked whether it has.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

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
    pub(super) fn proofs(&self) -> Vec<(Position, Digest)> {
        let is_behind = |(position, _): &(Position, Digest)| *position > self.checkpoint.position;
        self.ahead.filter(is_behind).into_iter().collect()
    }
}

/// The queue that holds the checkpoint.
#[derive(Clone, Debug)]
pub(super) struct CheckpointQueue {
    name: ShortString,
    kind: &'static str,
    /// How long it outlives its last use.
    retain: Option<Duration>,
}

impl CheckpointQueue {
    pub(super) fn new(name: &str, beside: QueueType, retain: Option<Duration>) -> Self {
        Self {
            name: name.into(),
            // It is to survive what the messages survive. A stream cannot be of length one.
            kind: match beside {
                QueueType::Classic => "classic",
                QueueType::Quorum | QueueType::Stream => "quorum",
            },
            retain,
        }
    }

    /// How often it has to be used so as not to expire, and at the least.
    pub(super) fn use_every(&self, at_least: Duration) -> Duration {
        let third = self.retain.map_or(at_least, |retain| retain / 3);
        third.min(at_least).max(Duration::from_millis(100))
    }

    /// Declares it, which also counts as a use.
    pub(super) async fn declare(&self, channel: &Channel) -> Result<(), lapin::Error> {
        let mut arguments = FieldTable::default();
        let kind = AMQPValue::LongString(self.kind.into());
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

    /// Whether declaring failed since it exists in another form, as after a change of settings.
    pub(super) fn is_of_another_form(error: &lapin::Error) -> bool {
        is_refused_with(error, code::PRECONDITION_FAILED)
    }

    /// Takes what it holds out of one of another form, and drops that.
    pub(super) async fn replace(&self, channel: &Channel) -> Result<(), Failure> {
        let held = self.get(channel).await?;
        channel
            .queue_delete(self.name.clone(), QueueDeleteOptions::default())
            .await?;
        self.declare(channel).await?;
        match held {
            Some((payload, _)) => self.put(channel, &payload).await,
            None => Ok(()),
        }
    }

    /// Reads the record. What is read is put there anew, and not given back to the queue: of a
    /// message that is given back too often, quorum queues think that it does harm.
    ///
    /// A process that was killed while it read holds the record until the broker has noticed: so a
    /// queue that seems empty is looked at for a while.
    pub(super) async fn read(&self, channel: &Channel) -> Result<Option<Record>, Failure> {
        let until = Instant::now() + GIVEN_BACK_WITHIN;
        let (payload, tag) = loop {
            match self.get(channel).await? {
                Some(found) => break found,
                None if Instant::now() > until => return Ok(None),
                None => tokio::time::sleep(LOOK_AGAIN_AFTER).await,
            }
        };
        self.put(channel, &payload).await?;
        channel.basic_ack(tag, BasicAckOptions::default()).await?;
        Ok(serde_json::from_slice(&payload).ok())
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

pub(super) fn payload(record: &Record) -> Vec<u8> {
    // Numbers and texts: that does not fail.
    serde_json::to_vec(record).unwrap_or_default()
}

/// Whether a record was taken.
pub(super) fn taken(confirmation: Result<Confirmation, lapin::Error>) -> Result<(), Failure> {
    match confirmation? {
        Confirmation::Ack(None) | Confirmation::NotRequested => Ok(()),
        Confirmation::Ack(Some(_)) => Err(Failure::Passing(
            "the checkpoint's queue is gone".to_owned(),
        )),
        Confirmation::Nack(_) => Err(Failure::Passing("the checkpoint was not taken".to_owned())),
    }
}
