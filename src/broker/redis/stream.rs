//! One stream: batches in flight on one ordered connection, and their recovery after a failure.
//!
//! A batch whose reply was lost may have been applied or not. The checkpoint decides, since only
//! the append script moves it forward: batches that it covers are dropped from the queue of batches
//! in flight, the others are sent again. A delayed duplicate in a socket buffer does no harm,
//! because the script rejects a batch that does not start at the checkpoint.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::SystemTime;

use redis::{Cmd, ErrorKind, RedisError, Script, Value};
use tracing::{info, warn};
use uuid::Uuid;

use super::connect::Endpoint;
use super::dedup::{self, Token};
use super::keys::Keys;
use super::lifecycle::now;
use super::link::{Acquired, Link, Stored, acquire, load, word};
use crate::batch::{Chat, Digest, Position};
use crate::broker::retry_policy::{Failure, RetryPolicy};
use crate::broker::{BrokerError, Delivered, Unfinished};
use crate::retry::Retries;

/// Chats per batch, for each stream. The server serves no other client while it appends a batch,
/// which takes about a millisecond; larger batches are no faster (benches/SIZES.md).
pub(crate) const BATCH_CHATS: u32 = 1024;
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
    pub(super) keep: String,
}

pub(super) type Reply = Pin<Box<dyn Future<Output = Result<Value, RedisError>>>>;

/// A batch that was sent and is not yet known to be durable.
struct InFlight {
    reply: Reply,
    command: Rc<Cmd>,
    first: Position,
    end: Position,
    digest: Digest,
    delivers: Delivered,
}

/// A batch to append.
pub(super) struct Append {
    pub(super) end: Position,
    pub(super) digest: Digest,
    pub(super) chats: u64,
    pub(super) messages: u64,
    pub(super) suppressed: u64,
}

/// A stream that is written to.
pub(super) struct Stream {
    pub(super) keys: Keys,
    link: Link,
    pub(super) lease: Lease,
    run_id: Uuid,
    append: Script,
    /// Token of the read-back that filled the dedup set, if there is one.
    dedup: Option<Token>,
    in_flight: VecDeque<InFlight>,
    /// Position after the last batch that was sent.
    pub(super) next: Position,
    /// What is durable according to the replies.
    pub(super) delivered: Delivered,
    min_replicas: u32,
    retry_policy: Rc<RetryPolicy>,
    /// Pauses since the last success.
    pauses: Option<Retries>,
}

impl Stream {
    pub(super) fn new(
        endpoint: Endpoint,
        keys: Keys,
        owner: String,
        keep: String,
        min_replicas: u32,
        retry_policy: Rc<RetryPolicy>,
    ) -> Self {
        Self {
            link: Link::new(endpoint, keys.checkpoint.clone()),
            keys,
            lease: Lease {
                owner,
                fencing_token: String::new(),
                keep,
            },
            run_id: Uuid::nil(),
            append: Script::new(include_str!("append.lua")),
            dedup: None,
            in_flight: VecDeque::new(),
            next: 0,
            delivered: Delivered::default(),
            min_replicas,
            retry_policy,
            pauses: None,
        }
    }

    /// Runs an idempotent operation until it succeeds, fails for good, or the retries are used up.
    pub(super) async fn with_retry<T>(
        &mut self,
        mut work: impl AsyncFnMut(&mut Link, &Keys, &Lease) -> Result<T, Failure>,
    ) -> Result<T, BrokerError> {
        loop {
            match work(&mut self.link, &self.keys, &self.lease).await {
                Ok(value) => {
                    self.pauses = None;
                    return Ok(value);
                }
                Err(failure) => self.pause(failure).await?,
            }
        }
    }

    /// Drops the connection after a transient error, and waits until the next attempt is due.
    async fn pause(&mut self, failure: Failure) -> Result<(), BrokerError> {
        if matches!(failure, Failure::Transient(_)) {
            self.link.drop_connection();
        }
        self.retry_policy.pause(&mut self.pauses, failure).await
    }

    /// Builds the start of an append command; the caller adds the values.
    pub(super) fn command(&self, batch: &Append, layout: &[&str; 4], bytes: usize) -> Cmd {
        let values = 2 * usize::try_from(batch.messages).unwrap_or(0);
        let mut command = Cmd::with_capacity(values + 16, bytes + 512);
        command
            .arg("EVALSHA")
            .arg(self.append.get_hash())
            .arg(2)
            .arg(&self.keys.stream)
            .arg(&self.keys.checkpoint)
            .arg(&self.lease.fencing_token)
            .arg(self.run_id.to_string())
            .arg(self.next)
            .arg(batch.end)
            .arg(batch.digest.to_string())
            .arg(batch.chats)
            .arg(layout[0])
            .arg(now())
            .arg(&layout[1..]);
        command
    }

    /// Sends a batch. Waits only if the maximum number of batches is in flight.
    pub(super) async fn send(&mut self, batch: &Append, command: Cmd) -> Result<(), BrokerError> {
        while self.in_flight.len() >= WINDOW {
            self.confirm_one().await?;
        }
        let command = Rc::new(command);
        let first = self.next;
        self.next = batch.end;
        let delivers = Delivered {
            chats: batch.chats,
            messages: batch.messages,
            suppressed: batch.suppressed,
        };
        let reply = match self.link.is_connected() {
            true => self.link.dispatch(&command, self.min_replicas).await,
            // Without a connection, `reconcile` sends it once the outcome of the earlier batches is
            // known.
            false => lost(),
        };
        self.in_flight.push_back(InFlight {
            reply,
            command,
            first,
            end: batch.end,
            digest: batch.digest,
            delivers,
        });
        Ok(())
    }

    /// Waits until all batches are durable.
    pub(super) async fn confirm_all(&mut self) -> Result<(), BrokerError> {
        while !self.in_flight.is_empty() {
            self.confirm_one().await?;
        }
        Ok(())
    }

    /// Waits for the oldest batch in flight.
    async fn confirm_one(&mut self) -> Result<(), BrokerError> {
        let Some(oldest) = self.in_flight.front_mut() else {
            return Ok(());
        };
        self.retry_policy.ended()?;
        let reply = (&mut oldest.reply).await;
        // The future has completed and must not be polled again. The code below handles its result.
        oldest.reply = lost();
        let failure = match reply {
            Ok(Value::Int(_)) => {
                self.pauses = None;
                self.drop_oldest();
                return Ok(());
            }
            // The script rejected the batch; the stored checkpoint shows how to continue.
            Ok(refusal) => {
                info!(
                    reason = word(&refusal),
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

    /// Counts the oldest batch as durable.
    fn drop_oldest(&mut self) {
        if let Some(batch) = self.in_flight.pop_front() {
            self.delivered.chats += batch.delivers.chats;
            self.delivered.messages += batch.delivers.messages;
            self.delivered.suppressed += batch.delivers.suppressed;
        }
    }

    /// Finds out which batches were applied, and sends the others again.
    async fn reconcile(&mut self, mut failure: Failure) -> Result<(), BrokerError> {
        loop {
            self.pause(failure).await?;
            failure = match self.reconcile_once().await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
        }
    }

    async fn reconcile_once(&mut self) -> Result<(), Failure> {
        let stored = load(&mut self.link, &self.keys).await?;
        let fence = self.lease.fencing_token.clone();
        self.keep_lease(&stored).await?;
        let Some(at) = stored.of(self.run_id) else {
            let start = Unfinished::from_the_start(self.run_id, SystemTime::now());
            return Err(self.rewinds(start).into());
        };
        if self.min_replicas > 0 {
            // `WAIT` covers only writes on this connection, and it has none yet.
            self.link.touch(&self.keys).await?;
            self.link.wait(self.min_replicas).await?;
        }
        while let Some(batch) = self.in_flight.front()
            && batch.end <= at.position
            // The batch applied there must be this one, and not one of an earlier list.
            && (batch.end < at.position || batch.digest == at.digest)
        {
            self.drop_oldest();
        }
        let expected = self
            .in_flight
            .front()
            .map_or(self.next, |batch| batch.first);
        // Commands in flight contain the fencing token that they were built with; another makes
        // them invalid.
        if at.position != expected || self.lease.fencing_token != fence {
            let unfinished = Unfinished {
                from: at,
                expected_digests: Vec::new(),
                at: SystemTime::now(),
                list_changed: false,
            };
            return Err(self.rewinds(unfinished).into());
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

    fn rewinds(&mut self, to: Unfinished) -> BrokerError {
        warn!(
            position = to.from.position,
            "checkpoint is behind the published position"
        );
        self.in_flight.clear();
        BrokerError::Rewound(Box::new(to))
    }

    /// Makes sure that this process still owns the stream. A server that has lost its data has lost
    /// the fencing token too; if no other run has taken over since, the stream is still ours.
    async fn keep_lease(&mut self, stored: &Stored) -> Result<(), Failure> {
        if stored.fencing_token.as_ref() == Some(&self.lease.fencing_token) {
            return Ok(());
        }
        if let (Some(fence), Some(owner)) = (&stored.fencing_token, &stored.fence_owner)
            && *owner == self.lease.owner
        {
            self.lease.fencing_token.clone_from(fence);
            return Ok(());
        }
        let number = |fence: &str| fence.parse::<u64>().unwrap_or(0);
        let theirs = stored.fencing_token.as_deref().map_or(0, number);
        if theirs > number(&self.lease.fencing_token) {
            return Err(lost_lock(&self.keys).into());
        }
        match acquire(&mut self.link, &self.keys, &self.lease).await? {
            Acquired::Fence(fence) => {
                self.lease.fencing_token = fence;
                Ok(())
            }
            Acquired::Held { .. } => Err(lost_lock(&self.keys).into()),
        }
    }

    /// Returns those of the chats that the run does not have on the stream.
    pub(super) async fn unseen<'b>(
        &mut self,
        chats: &[Chat<'b>],
    ) -> Result<Vec<Chat<'b>>, BrokerError> {
        loop {
            if let Some(token) = self.dedup.take() {
                let unseen = self
                    .with_retry(async |link, keys, _| {
                        dedup::unseen(link, keys, &token, chats).await
                    })
                    .await?;
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
    pub(super) async fn read_back(&mut self) -> Result<(), BrokerError> {
        let run_id = self.run_id;
        let token = self
            .with_retry(async |link, keys, _| {
                let first = load(link, keys).await?.first_id;
                dedup::read_back(link, keys, run_id, first.as_deref()).await
            })
            .await?;
        self.dedup = Some(token);
        Ok(())
    }

    /// Loads the checkpoint, and makes sure that this process still owns the stream.
    pub(super) async fn load_checkpoint(&mut self) -> Result<Stored, BrokerError> {
        loop {
            let looked = match load(&mut self.link, &self.keys).await {
                Ok(stored) => self.keep_lease(&stored).await.map(|()| stored),
                Err(failure) => Err(failure),
            };
            match looked {
                Ok(stored) => {
                    self.pauses = None;
                    return Ok(stored);
                }
                Err(failure) => self.pause(failure).await?,
            }
        }
    }

    /// Verifies that everything confirmed is still there.
    pub(super) async fn verify(&mut self) -> Result<(), BrokerError> {
        let stored = self.load_checkpoint().await?;
        match stored.of(self.run_id) {
            Some(at) if at.position == self.next => Ok(()),
            Some(at) => Err(self.rewinds(Unfinished {
                from: at,
                expected_digests: Vec::new(),
                at: SystemTime::now(),
                list_changed: false,
            })),
            None => {
                let start = Unfinished::from_the_start(self.run_id, SystemTime::now());
                Err(self.rewinds(start))
            }
        }
    }

    /// Discards batches in flight, because the list is published from another position.
    pub(super) fn restart(&mut self, run_id: Uuid, next: Position) {
        self.in_flight.clear();
        self.run_id = run_id;
        self.next = next;
    }
}

fn lost() -> Reply {
    let error = (ErrorKind::Io, "there was no connection to send it on");
    Box::pin(std::future::ready(Err(error.into())))
}

pub(super) fn lost_lock(keys: &Keys) -> BrokerError {
    BrokerError::Locked(format!("{}: it took over from this one", keys.stream))
}
