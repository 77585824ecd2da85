//! One stream: batches in flight on one ordered connection, and their recovery after a failure.
//!
//! A batch whose reply was lost may have been applied or not. The checkpoint decides, since only
//! the append script moves it forward: batches that it covers are dropped from the queue of batches
//! in flight, the others are sent again. A delayed duplicate in a socket buffer does no harm,
//! because the script rejects a batch that does not start at the checkpoint.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use redis::{Cmd, ErrorKind, RedisError, Value};
use tracing::{info, warn};
use uuid::Uuid;

use super::RedisSettings;
use super::dedup::{self, Token};
use super::keys::Keys;
use super::link::{Acquired, Link, StoredState, acquire, load, reply_text};
use super::members::members_lost;
use super::reconcile::{Ownership, ownership};
use super::selection::{Filter, Skipped};
use crate::batch::{Chat, Digest, Position};
use crate::broker::error::{Failure, SessionError};
use crate::broker::reconcile::{Extent, Next, reconcile};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{BrokerError, Delivered, ResumePoint};

/// Chats per batch, for each stream. The server serves no other client while it appends a batch,
/// which takes about a millisecond; larger batches are no faster (benches/SIZES.md).
pub(super) const BATCH_CHATS: u32 = 1024;
/// Batches in flight. Two keep the server busy; the others absorb scheduling delays on either side.
const WINDOW: usize = 4;

/// Identity of a stream's writer.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    /// This process; the value of the lock.
    pub(super) owner: String,
    /// The fencing token of this process.
    pub(super) fencing_token: String,
    /// How long the keys beside the stream are kept, in milliseconds; `0` for no expiry.
    pub(super) keep_ms: String,
}

pub(super) type Reply = Pin<Box<dyn Future<Output = Result<Value, RedisError>> + Send>>;

/// A batch that was sent and is not yet known to be durable.
struct InFlight {
    reply: Reply,
    command: Arc<Cmd>,
    extent: Extent,
    delivers: Delivered,
}

/// A batch to append.
pub(super) struct Append {
    pub(super) end: Position,
    pub(super) digest: Digest,
    pub(super) delivers: Delivered,
}

/// A stream that is written to.
pub(super) struct Stream {
    pub(super) keys: Keys,
    pub(super) link: Link,
    pub(super) lease: Lease,
    pub(super) run_id: Uuid,
    /// Set if chats are left out or recorded.
    pub(super) filter: Option<Filter>,
    /// Token of the read-back that filled the dedup set, if there is one.
    dedup: Option<Token>,
    in_flight: VecDeque<InFlight>,
    /// Position after the last batch that was sent.
    pub(super) next_position: Position,
    /// What is durable according to the replies.
    pub(super) delivered: Delivered,
    min_replicas: u32,
    /// Messages that may be sent before the pending count is checked again.
    pub(super) capacity: u64,
    pub(super) retries: SessionRetries,
}

impl Retrying for Stream {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, failure: &Failure) {
        self.link.disconnect_after(failure);
    }
}

impl Stream {
    pub(super) fn new(
        settings: &RedisSettings,
        keys: Keys,
        lease: Lease,
        retries: SessionRetries,
    ) -> Self {
        Self {
            link: Link::new(settings.endpoint.clone(), keys.checkpoint.clone()),
            keys,
            lease,
            run_id: Uuid::nil(),
            filter: None,
            dedup: None,
            in_flight: VecDeque::new(),
            next_position: 0,
            delivered: Delivered::default(),
            min_replicas: settings.min_replicas,
            capacity: 0,
            retries,
        }
    }

    /// Loads the checkpoint.
    async fn load(&mut self) -> Result<StoredState, SessionError> {
        with_retry!(self, load(&mut self.link, &self.keys))
    }

    /// Sends a batch. Waits only if the maximum number of batches is in flight.
    pub(super) async fn send(&mut self, batch: Append, command: Cmd) -> Result<(), SessionError> {
        while self.in_flight.len() >= WINDOW {
            self.confirm_one().await?;
        }
        let command = Arc::new(command);
        let extent = Extent {
            first: self.next_position,
            end: batch.end,
            digest: batch.digest,
        };
        self.next_position = batch.end;
        self.capacity = self.capacity.saturating_sub(batch.delivers.messages);
        let reply = match self.link.is_connected() {
            true => self.link.dispatch(&command, self.min_replicas).await,
            // Without a connection, `reconcile` sends it once the outcome of the earlier batches is
            // known.
            false => not_sent(),
        };
        self.in_flight.push_back(InFlight {
            reply,
            command,
            extent,
            delivers: batch.delivers,
        });
        Ok(())
    }

    /// Waits until all batches are durable.
    pub(super) async fn confirm_all(&mut self) -> Result<(), SessionError> {
        while !self.in_flight.is_empty() {
            self.confirm_one().await?;
        }
        Ok(())
    }

    /// Waits for the oldest batch in flight.
    async fn confirm_one(&mut self) -> Result<(), SessionError> {
        let Some(oldest) = self.in_flight.front_mut() else {
            return Ok(());
        };
        self.retries.check()?;
        let reply = (&mut oldest.reply).await;
        // The future has completed and must not be polled again. The code below handles its result.
        oldest.reply = not_sent();
        let failure = match reply {
            Ok(Value::Array(skipped)) => {
                self.retries.reset();
                self.count_oldest(1);
                self.count_skipped(Skipped::of_reply(&skipped));
                return Ok(());
            }
            Ok(refusal) if reply_text(&refusal) == "members" => {
                return Err(members_lost(&self.keys).into());
            }
            // The script rejected the batch; the stored checkpoint shows how to continue.
            Ok(refusal) => {
                info!(
                    reason = reply_text(&refusal),
                    "append rejected; reloading the checkpoint"
                );
                match self.reconcile_once().await {
                    Ok(()) => return Ok(()),
                    Err(failure) => failure,
                }
            }
            Err(error) => Failure::from(error),
        };
        self.reconcile(failure).await
    }

    /// Counts the oldest batches as durable.
    fn count_oldest(&mut self, batches: usize) {
        for batch in self.in_flight.drain(..batches) {
            self.delivered.add(batch.delivers);
        }
    }

    /// Finds out which batches were applied, and sends the others again.
    ///
    /// Retries are counted from the last confirm: a server that only answers reads of the
    /// checkpoint must not be retried forever.
    async fn reconcile(&mut self, mut failure: Failure) -> Result<(), SessionError> {
        loop {
            self.disconnect(&failure);
            self.retries.pause(failure).await?;
            failure = match self.reconcile_once().await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
        }
    }

    async fn reconcile_once(&mut self) -> Result<(), Failure> {
        let stored = load(&mut self.link, &self.keys).await?;
        let token = self.lease.fencing_token.clone();
        self.ensure_owned(&stored).await?;
        let found = stored.checkpoint_of(self.run_id);
        if found.is_some() && self.min_replicas > 0 {
            // `WAIT` covers only writes on this connection, and it has none yet.
            self.link.touch(&self.keys).await?;
            self.link.wait(self.min_replicas).await?;
        }
        let extents: Vec<Extent> = self.in_flight.iter().map(|batch| batch.extent).collect();
        let same_token = self.lease.fencing_token == token;
        let reconciled = reconcile(self.run_id, found, &extents, self.next_position, same_token);
        self.count_oldest(reconciled.applied);
        self.take_counts(&stored);
        if let Next::Rewind(to) = reconciled.next {
            return Err(Failure::Rewound(self.rewind(to)));
        }
        info!(
            batches = self.in_flight.len(),
            "resending batches that were not applied"
        );
        for batch in &mut self.in_flight {
            batch.reply = self.link.dispatch(&batch.command, self.min_replicas).await;
        }
        Ok(())
    }

    /// Discards batches in flight, because publishing goes back to this point.
    fn rewind(&mut self, to: ResumePoint) -> Box<ResumePoint> {
        warn!(
            position = to.at.position,
            "checkpoint is behind the published position"
        );
        self.in_flight.clear();
        Box::new(to)
    }

    /// Makes sure that this process still owns the stream. If the server has lost the fencing token
    /// with its data, and no other run has taken over since, the stream is still ours.
    async fn ensure_owned(&mut self, stored: &StoredState) -> Result<(), Failure> {
        match ownership(&self.lease, stored) {
            Ownership::Kept => return Ok(()),
            Ownership::Renewed(token) => {
                self.lease.fencing_token = token;
                return Ok(());
            }
            Ownership::TakenOver => return Err(taken_over(&self.keys).into()),
            Ownership::Unknown => {}
        }
        match acquire(&mut self.link, &self.keys, &self.lease).await? {
            Acquired::Owned(token) => {
                self.lease.fencing_token = token;
                Ok(())
            }
            Acquired::Held { .. } => Err(taken_over(&self.keys).into()),
        }
    }

    /// Returns those of the chats that the run does not have on the stream.
    pub(super) async fn unseen<'b>(
        &mut self,
        chats: &[Chat<'b>],
    ) -> Result<Vec<Chat<'b>>, SessionError> {
        loop {
            if let Some(token) = self.dedup.take() {
                let unseen = with_retry!(
                    self,
                    dedup::unseen(&mut self.link, &self.keys, &token, chats)
                )?;
                if let Some(unseen) = unseen {
                    self.dedup = Some(token);
                    return Ok(unseen);
                }
            }
            // Batches in flight may not be on the stream yet, but must be in the set.
            self.confirm_all().await?;
            self.read_back().await?;
        }
    }

    /// Fills the dedup set with the run's chats that are on the stream.
    pub(super) async fn read_back(&mut self) -> Result<(), SessionError> {
        let token = with_retry!(self, self.try_read_back())?;
        self.dedup = Some(token);
        Ok(())
    }

    async fn try_read_back(&mut self) -> Result<Token, Failure> {
        let from = load(&mut self.link, &self.keys).await?.read_from;
        dedup::read_back(&mut self.link, &self.keys, self.run_id, from.as_deref()).await
    }

    /// Loads the checkpoint, and makes sure that this process still owns the stream.
    pub(super) async fn load_owned(&mut self) -> Result<StoredState, SessionError> {
        with_retry!(self, self.try_load_owned())
    }

    async fn try_load_owned(&mut self) -> Result<StoredState, Failure> {
        let stored = load(&mut self.link, &self.keys).await?;
        self.ensure_owned(&stored).await?;
        Ok(stored)
    }

    /// Verifies that everything confirmed is still there.
    pub(super) async fn verify(&mut self) -> Result<(), SessionError> {
        let stored = self.load_owned().await?;
        let found = stored.checkpoint_of(self.run_id);
        // Nothing is in flight, so the fencing token of this process may have changed.
        match reconcile(self.run_id, found, &[], self.next_position, true).next {
            Next::Resend => {
                self.take_counts(&stored);
                Ok(())
            }
            Next::Rewind(to) => Err(SessionError::Rewound(self.rewind(to))),
        }
    }

    /// Discards batches in flight, because the list is published from another position.
    pub(super) fn restart(&mut self, run_id: Uuid, next_position: Position) {
        self.in_flight.clear();
        self.run_id = run_id;
        self.next_position = next_position;
    }
}

/// Loads the checkpoint of each stream.
pub(super) async fn load_all(streams: &mut [Stream]) -> Result<Vec<StoredState>, SessionError> {
    let mut stored = Vec::with_capacity(streams.len());
    for stream in streams {
        stored.push(stream.load().await?);
    }
    Ok(stored)
}

fn not_sent() -> Reply {
    let error = (ErrorKind::Io, "there was no connection to send it on");
    Box::pin(std::future::ready(Err(error.into())))
}

fn taken_over(keys: &Keys) -> BrokerError {
    BrokerError::Locked(format!("{}: it took over from this one", keys.stream))
}
