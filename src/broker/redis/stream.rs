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
use std::time::Duration;

use redis::{Cmd, ErrorKind, RedisError, Value};
use tracing::{info, warn};
use uuid::Uuid;

use super::RedisSettings;
use super::dedup::{self, Token};
use super::keys::Keys;
use super::lifecycle::now;
use super::link::{Acquired, Link, StoredState, acquire, load, reply_text};
use super::lock::{self, Heartbeat};
use super::published;
use super::reconcile::{Ownership, ownership};
use crate::batch::{Chat, Digest, Position};
use crate::broker::error::{Failure, SessionError};
use crate::broker::reconcile::{Extent, Next, reconcile};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{BrokerError, Delivered, ResumePoint};
use crate::shutdown::Shutdown;

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

/// The filter for chats that were published recently, and its counts. The append script decides, so
/// the counts come from its replies, or from the checkpoint if replies were lost.
#[derive(Clone, Copy)]
pub(super) struct Filter {
    /// Time since the last publication in which a chat is left out, in seconds.
    window: u64,
    /// Chats that earlier processes of the run appended; `None` until the run is known.
    chats_before: Option<u64>,
    /// Chats of the run that were left out, by this process or earlier ones.
    pub(super) suppressed: u64,
}

/// A stream that is written to.
pub(super) struct Stream {
    pub(super) keys: Keys,
    pub(super) link: Link,
    pub(super) lease: Lease,
    run_id: Uuid,
    /// Set if chats that were published recently are left out.
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
    retries: SessionRetries,
}

impl Retrying for Stream {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, failure: &Failure) {
        if matches!(failure, Failure::Transient(_)) {
            self.link.drop_connection();
        }
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

    /// Takes the lock, and keeps it until the heartbeat is dropped.
    pub(super) async fn lock(&mut self, shutdown: &Shutdown) -> Result<Heartbeat, SessionError> {
        let mut watch = None;
        self.lease.fencing_token = with_retry!(
            self,
            lock::take(
                &mut self.link,
                &self.keys,
                &self.lease,
                &mut watch,
                shutdown
            )
        )?;
        let endpoint = self.link.endpoint().clone();
        Ok(Heartbeat::start(
            endpoint,
            self.keys.clone(),
            self.lease.clone(),
        ))
    }

    /// Releases the lock. `mark_settled` records that the run has ended and its process knows it.
    pub(super) async fn unlock(&mut self, mark_settled: bool) -> Result<(), SessionError> {
        with_retry!(
            self,
            lock::release(&mut self.link, &self.keys, &self.lease, mark_settled)
        )
    }

    /// Loads the checkpoint.
    async fn load(&mut self) -> Result<StoredState, SessionError> {
        with_retry!(self, load(&mut self.link, &self.keys))
    }

    /// Builds the start of an append command; the caller adds the values.
    pub(super) fn command(&self, batch: &Append, layout: &[&str; 4], bytes: usize) -> Cmd {
        let values = 2 * usize::try_from(batch.delivers.messages).unwrap_or(0);
        let mut command = Cmd::with_capacity(values + 16, bytes + 512);
        command
            .arg("EVALSHA")
            .arg(self.link.append_hash())
            .arg(2 + usize::from(self.filter.is_some()))
            .arg(&self.keys.stream)
            .arg(&self.keys.checkpoint);
        if self.filter.is_some() {
            command.arg(&self.keys.published);
        }
        command
            .arg(&self.lease.fencing_token)
            .arg(self.run_id.to_string())
            .arg(self.next_position)
            .arg(batch.end)
            .arg(batch.digest.to_string())
            .arg(batch.delivers.chats)
            .arg(layout[0])
            .arg(now())
            .arg(&layout[1..]);
        if let Some(filter) = &self.filter {
            command.arg(filter.window);
        }
        command
    }

    /// Leaves out chats that were published within this time.
    pub(super) fn suppress_for(&mut self, window: Duration) {
        self.link.append_unpublished_only();
        self.filter = Some(Filter {
            window: window.as_secs(),
            chats_before: None,
            suppressed: 0,
        });
    }

    /// Takes the counts of a checkpoint that covers all batches that were counted.
    pub(super) fn take_counts(&mut self, stored: &StoredState) {
        let (Some(filter), Some(at)) = (&mut self.filter, stored.checkpoint_of(self.run_id)) else {
            return;
        };
        let before = filter.chats_before.unwrap_or(at.chats).min(at.chats);
        filter.chats_before = Some(before);
        filter.suppressed = stored.suppressed;
        self.delivered.chats = at.chats - before;
        self.delivered.messages = self.delivered.chats;
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
            Ok(Value::Int(suppressed)) => {
                self.retries.reset();
                self.count_oldest(1);
                self.count_suppressed(u64::try_from(suppressed).unwrap_or(0));
                return Ok(());
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

    /// Counts chats of the batch before as left out.
    fn count_suppressed(&mut self, suppressed: u64) {
        if let Some(filter) = &mut self.filter {
            filter.suppressed += suppressed;
            self.delivered.take_back(suppressed, 1);
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
            return Err(self.rewind(to));
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

    fn rewind(&mut self, to: ResumePoint) -> Failure {
        warn!(
            position = to.at.position,
            "checkpoint is behind the published position"
        );
        self.in_flight.clear();
        Failure::Rewound(Box::new(to))
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
            Next::Rewind(to) => {
                let _ = self.rewind(to.clone());
                Err(SessionError::Rewound(Box::new(to)))
            }
        }
    }

    /// Discards batches in flight, because the list is published from another position.
    pub(super) fn restart(&mut self, run_id: Uuid, next_position: Position) {
        self.in_flight.clear();
        self.run_id = run_id;
        self.next_position = next_position;
    }

    /// Counts anew what is left out, from the start of a list.
    pub(super) fn restart_counts(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.chats_before.get_or_insert(0);
            filter.suppressed = 0;
        }
    }

    /// Removes times of publication that are older than `keep`.
    pub(super) async fn sweep(&mut self, keep: Duration) -> Result<(), SessionError> {
        let mut cursor = "0".to_owned();
        loop {
            cursor = with_retry!(
                self,
                published::sweep_page(&mut self.link, &self.keys, &cursor, keep)
            )?;
            if cursor == "0" {
                return Ok(());
            }
        }
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
