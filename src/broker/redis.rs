//! Redis Streams sink, which publishes each chat of a run exactly once.
//!
//! One script appends a batch and moves the checkpoint, or does neither. It accepts a batch only
//! with the newest fencing token, for the current run, and at the checkpoint's position. The other
//! guarantees follow from that: see `stream` for batches in flight, `lock` for who may write, and
//! `dedup` for a list that has changed.

mod backpressure;
pub mod check;
pub mod connect;
mod dedup;
mod failure;
mod keys;
mod lifecycle;
mod link;
mod lock;
mod publish;
mod stream;
pub mod tail;
mod url;

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tracing::{info, warn};
use uuid::Uuid;

use self::connect::Endpoint;
use self::keys::Keys;
pub(crate) use self::keys::is_taggable;
use self::lifecycle::unfinished;
use self::link::{Link, Stored, load};
use self::lock::Heartbeat;
pub use self::publish::partition_of;
pub(crate) use self::stream::BATCH_CHATS;
use self::stream::Stream;
use super::retry_policy::RetryPolicy;
use super::{
    BrokerError, Checkpoint, Delivered, Outcome, Recovered, Sink, Start, Target, Unfinished,
};
use crate::batch::{Batch, Digest, Position};
use crate::message::{Encoder, Layout};
use crate::progress::Progress;
use crate::shutdown::Shutdown;

/// How long releasing the locks may take after a stop signal. The limit leaves time to write the
/// report after the release.
const RELEASED_WITHIN: Duration = Duration::from_secs(2);

/// Settings of the Redis sink.
#[derive(Clone, Debug)]
pub struct RedisSettings {
    /// The server.
    pub endpoint: Endpoint,
    /// Number of streams that chats are spread over; `None` for one stream with the queue's own
    /// name.
    pub partitions: Option<u32>,
    /// Number of pending entries at which publishing waits.
    pub max_pending: Option<u64>,
    /// Number of replicas that must confirm a batch before it counts as durable.
    pub min_replicas: u32,
    /// Whether to put entries on the stream that mark the start and the end of a run.
    pub marker: bool,
    /// How long entries and the keys beside the stream are kept.
    pub retain: Option<Duration>,
}

/// The sink for `redis://` and the related URL schemes.
pub struct Redis {
    settings: RedisSettings,
    target: Target,
    layout: Layout,
    shutdown: Shutdown,
    progress: Progress,
    streams: Vec<Stream>,
    heartbeats: Vec<Heartbeat>,
    encoder: Option<Encoder>,
    run_id: Uuid,
    /// Position and digest up to which batches were accepted.
    reached: (Position, Digest),
    /// Chats that earlier processes of the run put on the streams.
    base: u64,
    /// Chats that were confirmed, but are no longer on the streams.
    lost: u64,
    suppress: bool,
    /// Whether the run has been started on the streams.
    has_begun: bool,
    /// Messages that may be sent to each stream before its pending count is checked again.
    capacity: Vec<u64>,
}

impl Redis {
    /// Creates the sink without connecting.
    pub fn new(
        settings: RedisSettings,
        target: Target,
        layout: Layout,
        retry_policy: RetryPolicy,
        progress: Progress,
    ) -> Self {
        let owner = Uuid::now_v7().to_string();
        let keep = settings.retain.map_or(0, |retain| retain.as_millis());
        let shutdown = retry_policy.shutdown.clone();
        let retry_policy = Rc::new(retry_policy);
        let stream = |partition: Option<u32>| {
            let mut keys = Keys::new(&target, partition);
            if partition.is_some_and(|partition| partition > 0) {
                // The first partition's lock guards all partitions; the others rely on their
                // fencing tokens.
                keys.lock = format!("{}:{owner}", keys.lock);
            }
            Stream::new(
                settings.endpoint.clone(),
                keys,
                owner.clone(),
                keep.to_string(),
                settings.min_replicas,
                Rc::clone(&retry_policy),
            )
        };
        let streams: Vec<Stream> = match settings.partitions {
            None => vec![stream(None)],
            Some(count) => (0..count)
                .map(|partition| stream(Some(partition)))
                .collect(),
        };
        Self {
            capacity: vec![0; streams.len()],
            streams,
            settings,
            target,
            layout,
            shutdown,
            progress,
            heartbeats: Vec::new(),
            encoder: None,
            run_id: Uuid::nil(),
            reached: (0, Digest::of_nothing()),
            base: 0,
            lost: 0,
            suppress: false,
            has_begun: false,
        }
    }

    async fn take_locks(&mut self) -> Result<(), BrokerError> {
        let shutdown = self.shutdown.clone();
        for stream in &mut self.streams {
            let mut watch = None;
            let fence = stream
                .with_retry(async |link: &mut Link, keys: &Keys, lease| {
                    loop {
                        let fence = lock::take(link, keys, lease, &mut watch, &shutdown);
                        if let Some(fence) = fence.await? {
                            return Ok(fence);
                        }
                    }
                })
                .await?;
            stream.lease.fencing_token = fence;
            let endpoint = self.settings.endpoint.clone();
            let heartbeat = Heartbeat::start(endpoint, stream.keys.clone(), stream.lease.clone());
            self.heartbeats.push(heartbeat);
        }
        Ok(())
    }

    /// Releases the locks. Gives up after a time limit, since locks expire by themselves.
    async fn release(&mut self, settles: bool) {
        let shutdown = self.shutdown.clone();
        let releasing = async {
            for stream in &mut self.streams {
                stream
                    .with_retry(async |link, keys, lease| {
                        lock::release(link, keys, lease, settles).await
                    })
                    .await?;
            }
            Ok::<(), BrokerError>(())
        };
        let stopped = async {
            shutdown.stopped().await;
            tokio::time::sleep(RELEASED_WITHIN).await;
        };
        let is_released = tokio::select! {
            released = releasing => released.is_ok(),
            () = stopped => false,
            () = tokio::time::sleep(3 * RELEASED_WITHIN) => false,
        };
        if !is_released {
            info!("lock not released; it expires by itself");
        }
    }

    async fn stored(&mut self) -> Result<Vec<Stored>, BrokerError> {
        let mut all = Vec::new();
        for stream in &mut self.streams {
            all.push(
                stream
                    .with_retry(async |link, keys, _| load(link, keys).await)
                    .await?,
            );
        }
        Ok(all)
    }
}

impl Sink for Redis {
    async fn open(&mut self) -> Result<Recovered, BrokerError> {
        self.take_locks().await?;
        let stored = self.stored().await?;
        let last_complete = stored.first().and_then(|stored| stored.last_complete);
        let run = stored.first().and_then(|stored| stored.checkpoint);
        let is_over = stored.iter().all(|stored| stored.is_over);
        let same_streams = stored
            .first()
            .is_some_and(|s| s.partitions == Some(self.streams.len()));
        let unfinished = match run {
            Some(run) if !is_over && !same_streams => {
                warn!(run_id = %run.run_id, "unfinished run has another number of --partitions; starting a new run");
                None
            }
            Some(run) if !is_over => {
                let found: Vec<Checkpoint> = stored
                    .iter()
                    .map(|stored| {
                        let found = stored.of(run.run_id);
                        found.unwrap_or_else(|| Checkpoint::start_of(run.run_id))
                    })
                    .collect();
                let at = stored.iter().filter_map(|stored| stored.at).max();
                Some(unfinished(&found, at.unwrap_or(SystemTime::UNIX_EPOCH)))
            }
            _ => None,
        };
        Ok(Recovered {
            unfinished,
            last_complete,
        })
    }

    async fn start(&mut self, start: Start<'_>) -> Result<Unfinished, BrokerError> {
        let run_id = match start {
            Start::New(run_id) | Start::Again(run_id) => run_id,
            Start::Resumed(unfinished) => unfinished.from.run_id,
        };
        let is_first = self.run_id != run_id;
        self.run_id = run_id;
        self.reached = (0, Digest::of_nothing());
        let Target {
            instance_id,
            label_id,
            ..
        } = &self.target;
        self.encoder = Some(Encoder::new(&self.layout, instance_id, label_id, run_id));
        match start {
            Start::Resumed(unfinished) => {
                if is_first {
                    self.base = unfinished.from.chats;
                }
                self.has_begun = true;
                let mut unfinished = self.resume().await?;
                unfinished.list_changed = self.suppress;
                // Matters if nothing is left to publish: no batch would set it.
                self.reached = (unfinished.from.position, unfinished.from.digest);
                Ok(unfinished)
            }
            Start::New(_) => {
                self.has_begun = false;
                Ok(Unfinished::from_the_start(run_id, SystemTime::now()))
            }
            Start::Again(_) => {
                self.suppress = true;
                self.has_begun = true;
                for index in 0..self.streams.len() {
                    self.begin(index, true, false).await?;
                }
                self.read_back().await?;
                Ok(Unfinished::from_the_start(run_id, SystemTime::now()))
            }
        }
    }

    async fn publish(&mut self, batch: &Batch) -> Result<(), BrokerError> {
        self.begin_all().await?;
        for index in 0..self.streams.len() {
            self.publish_to(index, batch).await?;
        }
        self.reached = (batch.end(), batch.digest());
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BrokerError> {
        if !self.has_begun {
            return Ok(());
        }
        self.sync_partitions().await?;
        for stream in &mut self.streams {
            stream.confirm_all().await?;
            stream.verify().await?;
        }
        Ok(())
    }

    fn delivered(&self) -> Delivered {
        let mut sum = Delivered::default();
        for stream in &self.streams {
            sum.chats += stream.delivered.chats;
            sum.messages += stream.delivered.messages;
            sum.suppressed += stream.delivered.suppressed;
        }
        sum.chats = sum.chats.saturating_sub(self.lost);
        let lost = self.lost.div_ceil(u64::from(self.layout.ids_per_message));
        sum.messages = sum.messages.saturating_sub(lost);
        sum
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), BrokerError> {
        let mut result = Ok(());
        if outcome != Outcome::Unfinished {
            // An empty list is complete too, so its run must be started.
            result = self.begin_all().await;
        }
        if self.has_begun {
            for index in 0..self.streams.len() {
                // After one stream fails to finish, the run is resumed there: do not mark the
                // others complete.
                if result.is_ok() || outcome == Outcome::Unfinished {
                    result = result.and(self.finish_one(index, outcome).await);
                }
            }
        }
        self.heartbeats.clear();
        let settles = result.is_ok() && outcome != Outcome::Unfinished;
        self.release(settles).await;
        result
    }
}
