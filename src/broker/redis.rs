//! Redis Streams sink, which publishes each chat of a run exactly once.
//!
//! One script appends a batch and moves the checkpoint, or does neither. It accepts a batch only
//! with the newest fencing token, for the current run, and at the checkpoint's position. The other
//! guarantees follow from that: see `stream` for batches in flight, `lock` for who may write, and
//! `dedup` for a list that has changed.

mod appender;
mod backpressure;
mod check;
mod connect;
mod consumer;
mod counts;
mod dedup;
mod encode;
mod entries;
mod events;
mod failure;
mod keys;
mod layout;
mod lifecycle;
mod link;
mod lock;
mod members;
mod messages;
mod monitor;
mod purge;
mod reconcile;
mod selection;
mod session;
mod store;
mod stream;
mod url;
mod worker;

use std::time::Duration;

use async_trait::async_trait;
use tracing::info;
use uuid::Uuid;

pub(super) use self::check::check;
pub(super) use self::connect::Endpoint;
pub(super) use self::consumer::open as consumer;
pub(super) use self::counts::RedisCounts;
pub(super) use self::events::event_sink;
pub(super) use self::keys::removed_stream;
use self::keys::{Keys, is_taggable};
use self::layout::prepare_selection;
use self::link::StoredState;
pub(super) use self::messages::message_sink;
pub(super) use self::monitor::RedisMonitor;
pub(super) use self::purge::{check_purge, purge, purge_state};
use self::reconcile::recovered;
use self::session::RedisSession;
pub(super) use self::store::{event_store, state_monitor, store};
use self::stream::{BATCH_CHATS, Lease, Stream, load_all};
pub(super) use self::worker::open as worker;
use super::error::SessionError;
use super::factory::problem_with_braces;
use super::retries::SessionRetries;
use super::{BrokerError, BrokerOptions, Recovered, SessionContext, SnapshotSession, SnapshotSink};
use crate::state::{Membership, Publish};

/// Keys of the settings that only some brokers use, and this one does.
pub(super) const SETTINGS: [&str; 4] = [
    "sink.partitions",
    "sink.min_replicas",
    "sink.max_pending",
    "sink.marker",
];

/// Settings of the Redis sink.
#[derive(Clone, Debug)]
struct RedisSettings {
    /// The server.
    endpoint: Endpoint,
    /// Number of streams that chats are spread over; `None` for one stream with the queue's own
    /// name.
    partitions: Option<u32>,
    /// Number of pending entries at which publishing waits.
    max_pending: Option<u64>,
    /// Number of replicas that must confirm a batch before it counts as durable.
    min_replicas: u32,
    /// Whether to put entries on the stream that mark the start and the end of a run.
    marker: bool,
    /// How long entries and the keys beside the stream are kept.
    retain: Option<Duration>,
}

/// The sink for `redis://` and the related URL schemes.
pub(super) struct Redis {
    settings: RedisSettings,
    context: SessionContext,
    /// Name of the selection of chats, here or in a store beside the sink.
    mode: &'static str,
}

impl Redis {
    /// Creates the sink without connecting.
    pub(super) fn new(
        endpoint: &Endpoint,
        options: &BrokerOptions,
        context: SessionContext,
        mode: &'static str,
    ) -> Self {
        let settings = RedisSettings {
            endpoint: endpoint.clone(),
            partitions: options.partitions,
            max_pending: options.max_pending,
            min_replicas: options.min_replicas,
            marker: options.marker,
            retain: options.retain,
        };
        Self {
            settings,
            context,
            mode,
        }
    }

    /// Selects the chats that are appended, here or in a store beside the sink.
    async fn select(
        &mut self,
        streams: &mut [Stream],
        stored: &[StoredState],
    ) -> Result<(), SessionError> {
        let is_selected_outside = !self.mode.is_empty() && !self.context.selection.is_active();
        match is_selected_outside {
            true => Ok(()),
            false => prepare_selection(&self.settings, &mut self.context, streams, stored).await,
        }
    }

    /// Whether an unfinished run can go on with the members that it has recorded. A run that
    /// publishes only new ones finds out by itself, and ends.
    async fn has_usable_sets(&self, streams: &mut [Stream]) -> Result<bool, SessionError> {
        let publishes_new = |it: Membership| it.publish == Publish::New;
        if self.context.selection.membership.is_none_or(publishes_new) {
            return Ok(true);
        }
        for stream in streams {
            if !stream.has_usable_set().await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The streams of the queue, none of them connected.
    fn streams(&self) -> Vec<Stream> {
        let owner = Uuid::now_v7().to_string();
        let retries = SessionRetries::new(&self.context.retry);
        let stream = |partition: Option<u32>| {
            let mut keys = Keys::new(&self.context.target, partition);
            if partition.is_some_and(|partition| partition > 0) {
                // The first partition's lock guards all partitions; the others rely on their
                // fencing tokens.
                keys.lock = format!("{}:{owner}", keys.lock);
            }
            let retain = self.settings.retain.map_or(0, |retain| retain.as_millis());
            let lease = Lease {
                owner: owner.clone(),
                fencing_token: String::new(),
                keep_ms: retain.to_string(),
            };
            Stream::new(&self.settings, keys, lease, retries.sibling())
        };
        match self.settings.partitions {
            None => vec![stream(None)],
            Some(count) => (0..count)
                .map(|partition| stream(Some(partition)))
                .collect(),
        }
    }
}

#[async_trait]
impl SnapshotSink for Redis {
    async fn open(
        mut self: Box<Self>,
    ) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
        let mut streams = self.streams();
        let mut heartbeats = Vec::new();
        for stream in &mut streams {
            let locked = stream.lock(self.context.retry.shutdown()).await;
            heartbeats.push(locked.map_err(SessionError::into_failure)?);
        }
        let stored = load_all(&mut streams).await;
        let stored = stored.map_err(SessionError::into_failure)?;
        if let Err(error) = self.select(&mut streams, &stored).await {
            // A run with other settings need not wait until the locks expire.
            for stream in &mut streams {
                let _ = stream.unlock(false).await;
            }
            return Err(error.into_failure());
        }
        // A queue may be tracked although the settings do not say so.
        let mode = match self.context.selection.is_active() {
            true => self.context.selection.mode(),
            false => self.mode,
        };
        let mut recovered = recovered(&stored, mode);
        if recovered.unfinished.is_some() {
            let is_usable = self.has_usable_sets(&mut streams).await;
            if !is_usable.map_err(SessionError::into_failure)? {
                info!("members of the unfinished run are lost; starting a new run");
                recovered.unfinished = None;
            }
        }
        let Self {
            settings, context, ..
        } = *self;
        let session = RedisSession::new(settings, context, mode, streams, heartbeats, stored);
        Ok((recovered, Box::new(session)))
    }
}

/// Number of chats in a batch: each stream gets about as many as it takes at once.
pub(super) fn batch_messages(options: &BrokerOptions) -> u32 {
    BATCH_CHATS.saturating_mul(options.partitions.unwrap_or(1))
}

/// Returns what is wrong with the options or the name of a queue, by setting.
pub(super) fn problems(options: &BrokerOptions, queue: &str) -> Option<(&'static str, String)> {
    // Braces that remain are a hash tag, or a mistake.
    problem_with_braces(queue)?;
    let problem = if !is_taggable(queue) {
        "{label_id} and {instance_id} are filled in, and one {hash tag} may stand beside them"
    } else if options.partitions.is_some() {
        "has a {hash tag}, which would keep all partitions in one slot"
    } else {
        return None;
    };
    Some(("sink.queue", problem.to_owned()))
}
