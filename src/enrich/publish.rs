//! The publisher: makes messages durable in the background, while further contacts are looked up.

use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{error, warn};

use super::in_hand::DeliveryKey;
use super::metrics::ChatResult;
use crate::broker::{BrokerError, MessageSink};
use crate::message::{ContactEncoder, Lookup, QueuedChat, ReadyMessage, Unusable};
use crate::retry::Retryable as _;

/// The maximum number of messages that are published at once.
const BATCH: usize = 256;
/// The pause after all retries of a batch have failed.
const PAUSE: Duration = Duration::from_secs(1);

/// A message on its way.
struct Outgoing {
    /// The delivery that it belongs to.
    key: DeliveryKey,
    /// What it is about, which decides about its queue.
    result: ChatResult,
    message: ReadyMessage,
}

/// A message that is confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The delivery that it belongs to.
    pub key: DeliveryKey,
    /// What it is about.
    pub result: ChatResult,
}

/// The two queues.
pub struct Sinks {
    /// The queue of records.
    pub records: Box<dyn MessageSink>,
    /// The queue of ids that could not be looked up.
    pub failed: Box<dyn MessageSink>,
}

/// The messages on their way.
pub struct Publisher {
    encoder: ContactEncoder,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    confirmed: mpsc::UnboundedReceiver<Result<Vec<Confirmed>, BrokerError>>,
    /// The number of messages that are not confirmed yet. The worker keeps it small.
    unconfirmed: usize,
    task: JoinHandle<()>,
}

impl Publisher {
    /// Starts to publish. After all retries, `goes_on` tells whether to begin anew while the broker
    /// is away, or to give up.
    pub fn start(encoder: ContactEncoder, sinks: Sinks, goes_on: bool) -> Self {
        let (outgoing, received) = mpsc::unbounded_channel();
        let (done, confirmed) = mpsc::unbounded_channel();
        let task = tokio::spawn(publish(sinks, goes_on, received, done));
        Self {
            encoder,
            outgoing,
            confirmed,
            unconfirmed: 0,
            task,
        }
    }

    /// Publishes the record of a chat.
    pub fn record(&mut self, key: DeliveryKey, chat: &QueuedChat, lookup: &Lookup) {
        let result = match lookup {
            Lookup::Found(_) => ChatResult::Found,
            Lookup::Missing => ChatResult::Missing,
            Lookup::NotAsked => ChatResult::NotAsked,
        };
        let message = self.encoder.record(chat, lookup, SystemTime::now());
        self.send(key, result, message);
    }

    /// Publishes a chat that could not be looked up to the queue of failures.
    pub fn set_aside(&mut self, key: DeliveryKey, chat: &QueuedChat, reason: &str, attempts: u32) {
        let now = SystemTime::now();
        let message = self.encoder.failed(chat, reason, attempts, now);
        self.send(key, ChatResult::Failed, message);
    }

    /// Publishes what is no chat to the queue of failures.
    pub fn set_aside_unusable(&mut self, key: DeliveryKey, unusable: &Unusable) {
        warn!("message set aside: {}", unusable.reason);
        let message = self.encoder.unusable(unusable, SystemTime::now());
        self.send(key, ChatResult::Unusable, message);
    }

    fn send(&mut self, key: DeliveryKey, result: ChatResult, message: ReadyMessage) {
        self.unconfirmed += 1;
        // If the task has ended, it has said why.
        let _ = self.outgoing.send(Outgoing {
            key,
            result,
            message,
        });
    }

    /// Returns the number of messages that are not confirmed yet.
    pub fn unconfirmed(&self) -> usize {
        self.unconfirmed
    }

    /// Waits for messages to be confirmed. None is lost if the wait is given up.
    ///
    /// # Errors
    ///
    /// The error that publishing has ended with.
    pub async fn confirmed(&mut self) -> Result<Vec<Confirmed>, BrokerError> {
        match self.confirmed.recv().await {
            Some(Ok(confirmed)) => {
                self.unconfirmed = self.unconfirmed.saturating_sub(confirmed.len());
                Ok(confirmed)
            }
            Some(Err(error)) => {
                // None of them will be.
                self.unconfirmed = 0;
                Err(error)
            }
            None => Err(BrokerError::Bug("the publisher has ended".to_owned())),
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Publishes what arrives, until there is an error.
async fn publish(
    mut sinks: Sinks,
    goes_on: bool,
    mut received: mpsc::UnboundedReceiver<Outgoing>,
    done: mpsc::UnboundedSender<Result<Vec<Confirmed>, BrokerError>>,
) {
    let mut batch = Vec::new();
    while received.recv_many(&mut batch, BATCH).await > 0 {
        let confirmed = batch.iter().map(|outgoing| Confirmed {
            key: outgoing.key,
            result: outgoing.result,
        });
        let confirmed = confirmed.collect();
        let published = sinks.publish(&mut batch, goes_on).await;
        let has_failed = published.is_err();
        if done.send(published.map(|()| confirmed)).is_err() || has_failed {
            return;
        }
    }
}

impl Sinks {
    /// Publishes all messages of a batch, and empties it.
    async fn publish(
        &mut self,
        batch: &mut Vec<Outgoing>,
        goes_on: bool,
    ) -> Result<(), BrokerError> {
        let (mut records, mut failed) = (Vec::new(), Vec::new());
        for outgoing in batch.drain(..) {
            match outgoing.result {
                ChatResult::Failed | ChatResult::Unusable => failed.push(outgoing.message),
                ChatResult::Found | ChatResult::Missing | ChatResult::NotAsked => {
                    records.push(outgoing.message);
                }
            }
        }
        for (sink, messages) in [(&mut self.records, records), (&mut self.failed, failed)] {
            if !messages.is_empty() {
                publish_all(&mut **sink, &messages, goes_on).await?;
            }
        }
        Ok(())
    }
}

async fn publish_all(
    sink: &mut dyn MessageSink,
    messages: &[ReadyMessage],
    goes_on: bool,
) -> Result<(), BrokerError> {
    loop {
        match sink.publish(messages).await {
            Err(error) if goes_on && error.is_transient() => {
                error!("cannot publish, trying again: {error}");
                tokio::time::sleep(PAUSE).await;
            }
            published => return published,
        }
    }
}
