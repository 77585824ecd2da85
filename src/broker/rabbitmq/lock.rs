//! Lock for one run at a time: an exclusive queue, which the broker deletes with its owner's
//! connection.
//!
//! A dead process may hold the lock until the broker has missed its heartbeats. A run that finds
//! the lock taken therefore asks the holder, with a message to that queue. A live holder answers at
//! once. If there is no answer, the run waits until the broker closes the holder's connection.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, Consumer};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::info;

use super::failure::{code, is_refused_with};
use crate::broker::BrokerError;
use crate::broker::error::Failure;
use crate::shutdown::Shutdown;

/// RabbitMQ's pseudo-queue for replies to a request on the same channel.
/// <https://www.rabbitmq.com/docs/direct-reply-to>
const REPLY_TO: &str = "amq.rabbitmq.reply-to";
/// Time limit for the holder's answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// Heartbeat intervals to wait for a dead holder: as many as the broker keeps its connection, and
/// one more.
const BEATS: u32 = 4;
/// Limit of questions that wait in the queue of a holder that does not answer.
const MAX_QUESTIONS: i32 = 16;

/// The lock, held as long as this value and its connection exist.
pub(super) struct Lock {
    keeper: JoinHandle<()>,
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Takes the lock at once if it is free, else when the broker closes the holder's connection.
///
/// # Errors
///
/// [`BrokerError::Locked`] if the holder answers. [`BrokerError::Unavailable`] if it does not and the
/// broker keeps its connection, as a broker that is blocked by an alarm does.
pub(super) async fn take(
    connection: &Connection,
    name: &str,
    shutdown: &Shutdown,
) -> Result<Lock, Failure> {
    let heartbeat = Duration::from_secs(connection.configuration().heartbeat().into());
    let until = Instant::now() + heartbeat * BEATS;
    let locked = || Failure::from(BrokerError::Locked(name.to_owned()));
    let mute = || {
        let text =
            "the lock is held over a connection that does not answer, and that the broker keeps";
        Failure::from(BrokerError::Unavailable(text.to_owned()))
    };
    let mut has_asked = false;
    loop {
        let taken = if has_asked {
            // A broker short of memory stops reading from a connection that a question was
            // published on.
            let taking = tokio::time::timeout_at(until, declare(connection, name));
            taking.await.map_err(|_| mute())?
        } else {
            declare(connection, name).await
        };
        match taken {
            Ok(channel) => return keep(channel, name).await,
            Err(error) if is_refused_with(&error, code::RESOURCE_LOCKED) => {}
            Err(error) => return Err(Failure::from(error)),
        }
        if !has_asked {
            info!("lock held by another run; asking whether it is alive");
            has_asked = true;
        }
        let asking = ask(connection, name);
        tokio::select! {
            cause = shutdown.stopped() => return Err(BrokerError::Interrupted(cause).into()),
            lives = tokio::time::timeout(ANSWER_WITHIN, asking) => match lives {
                Ok(Ok(())) => return Err(locked()),
                Ok(Err(failure)) => return Err(failure),
                Err(_) if Instant::now() > until => return Err(mute()),
                Err(_) => {}
            },
        }
    }
}

/// Declares the lock's queue on its own channel, because the broker closes the channel if it
/// refuses.
async fn declare(connection: &Connection, name: &str) -> Result<Channel, lapin::Error> {
    let channel = connection.create_channel().await?;
    // Not auto-delete: if the broker closes the channel, the lock must not be lost with the
    // consumer.
    let options = QueueDeclareOptions::exclusive();
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(MAX_QUESTIONS));
    channel
        .queue_declare(name.into(), options, arguments)
        .await?;
    Ok(channel)
}

/// Asks the holder. Returns when it has answered.
async fn ask(connection: &Connection, name: &str) -> Result<(), Failure> {
    let channel = connection.create_channel().await?;
    let mut answers = consume(&channel, REPLY_TO).await?;
    let question = BasicProperties::default().with_reply_to(REPLY_TO.into());
    send(&channel, name.into(), question).await?;
    match answers.next().await {
        Some(Ok(_)) => Ok(()),
        Some(Err(error)) => Err(Failure::from(error)),
        None => Err(Failure::Transient("the connection is gone".to_owned())),
    }
}

async fn consume(channel: &Channel, queue: &str) -> Result<Consumer, Failure> {
    let options = BasicConsumeOptions {
        no_ack: true,
        ..BasicConsumeOptions::default()
    };
    channel
        .basic_consume(queue.into(), "".into(), options, FieldTable::default())
        .await
        .map_err(Failure::from)
}

async fn send(
    channel: &Channel,
    queue: ShortString,
    properties: BasicProperties,
) -> Result<(), lapin::Error> {
    let options = BasicPublishOptions::default();
    channel
        .basic_publish("".into(), queue, options, b"", properties)
        .await
        .map(drop)
}

/// Starts the task that answers questions.
async fn keep(channel: Channel, name: &str) -> Result<Lock, Failure> {
    let mut questions = consume(&channel, name).await?;
    let keeper = tokio::spawn(async move {
        // An error here leaves the lock held; another run then waits, and is refused without an
        // answer.
        while let Some(Ok(question)) = questions.next().await {
            if let Some(asker) = question.properties.reply_to() {
                let _ = send(&channel, asker.clone(), BasicProperties::default()).await;
            }
        }
    });
    Ok(Lock { keeper })
}
