//! One run's hold on the streams of a queue.

use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tracing::info;
use uuid::Uuid;

use super::RedisSettings;
use super::link::StoredState;
use super::lock::Heartbeat;
use super::stream::{Stream, load_all};
use crate::batch::Batch;
use crate::broker::error::SessionError;
use crate::broker::{
    BrokerError, Delivered, Outcome, ResumePoint, SessionContext, SnapshotSession, Start, Written,
};
use crate::message::Encoder;
use crate::state::Removal;

/// How long releasing the locks may take after a stop signal. The limit leaves time to write the
/// report after the release.
const RELEASE_TIME_LIMIT: Duration = Duration::from_secs(2);

/// A run's hold on the streams of a queue.
pub(super) struct RedisSession {
    pub(super) settings: RedisSettings,
    pub(super) context: SessionContext,
    pub(super) streams: Vec<Stream>,
    heartbeats: Vec<Heartbeat>,
    pub(super) phase: Phase,
    /// Name of the selection of chats.
    pub(super) mode: &'static str,
    /// `None` before the start.
    pub(super) encoder: Option<Encoder>,
    /// The run, and where its next batch must begin.
    pub(super) resume_point: ResumePoint,
    /// Chats that earlier processes of the run put on the streams.
    pub(super) resumed_chats: u64,
    /// Chats that were confirmed, but are no longer on the streams.
    pub(super) lost_chats: u64,
    /// Whether chats that are already on the streams are skipped.
    pub(super) suppress: bool,
}

/// How far the session is.
pub(super) enum Phase {
    /// The session holds the locks, but its run is not known yet. Contains what was found on the
    /// streams.
    Opened(Vec<StoredState>),
    /// A new run, which is recorded on the streams with its first batch.
    New,
    /// The run is recorded on the streams.
    Recorded,
}

impl RedisSession {
    pub(super) fn new(
        settings: RedisSettings,
        context: SessionContext,
        mode: &'static str,
        streams: Vec<Stream>,
        heartbeats: Vec<Heartbeat>,
        stored: Vec<StoredState>,
    ) -> Self {
        Self {
            settings,
            context,
            streams,
            heartbeats,
            phase: Phase::Opened(stored),
            mode,
            encoder: None,
            resume_point: ResumePoint::start_of(Uuid::nil()),
            resumed_chats: 0,
            lost_chats: 0,
            suppress: false,
        }
    }

    pub(super) fn run_id(&self) -> Uuid {
        self.resume_point.at.run_id
    }

    /// Sends a batch to all streams.
    async fn append_to_all(&mut self, batch: &Batch) -> Result<(), SessionError> {
        self.begin_all().await?;
        for index in 0..self.streams.len() {
            self.append_to(index, batch).await?;
        }
        self.resume_point.advance(batch);
        Ok(())
    }

    /// Makes all streams durable at the same position.
    async fn flush_all(&mut self) -> Result<(), SessionError> {
        if !matches!(self.phase, Phase::Recorded) {
            return Ok(());
        }
        self.sync_partitions().await?;
        for stream in &mut self.streams {
            stream.confirm_all().await?;
            stream.verify().await?;
        }
        Ok(())
    }

    /// Goes back to what is on the streams, if they have lost entries.
    async fn recover(&mut self, result: Result<(), SessionError>) -> Result<Written, BrokerError> {
        match result {
            Ok(()) => Ok(Written::Done),
            Err(SessionError::Failed(error)) => Err(error),
            Err(SessionError::Rewound(_)) => {
                let resumed = self.go_back().await;
                resumed.map_err(SessionError::into_failure)?;
                Ok(Written::Rewound)
            }
        }
    }

    async fn go_back(&mut self) -> Result<(), SessionError> {
        for stream in &mut self.streams {
            // Batches in flight must have their outcome first. Errors are ignored: the reload
            // below shows the result.
            let _ = stream.confirm_all().await;
        }
        let stored = load_all(&mut self.streams).await?;
        self.resume(stored).await
    }

    /// Publishes again from position 0, without chats that are already on the streams.
    async fn start_again(&mut self) -> Result<(), SessionError> {
        self.suppress = true;
        self.phase = Phase::Recorded;
        self.resume_point = ResumePoint::start_of(self.run_id());
        for index in 0..self.streams.len() {
            self.begin(index, true, false).await?;
        }
        self.read_back().await
    }

    /// Records the end on each stream.
    async fn finish_all(&mut self, outcome: Outcome) -> Result<(), SessionError> {
        let mut result = Ok(());
        if outcome != Outcome::Unfinished {
            // An empty list is complete too, so its run must be recorded.
            result = self.begin_all().await;
        }
        if matches!(self.phase, Phase::Recorded) {
            for index in 0..self.streams.len() {
                // After one stream fails to finish, the run is resumed there: do not mark the
                // others complete.
                if result.is_ok() || outcome == Outcome::Unfinished {
                    result = result.and(self.finish_one(index, outcome).await);
                }
            }
        }
        result
    }

    /// Removes times of publication that are too old to be kept, from time to time.
    async fn sweep(&mut self) {
        let (Some(_), Some(keep)) = (self.context.selection.suppress_for, self.settings.retain)
        else {
            return;
        };
        let shutdown = self.context.retry.shutdown().clone();
        let sweeping = async {
            for stream in &mut self.streams {
                stream.sweep(keep).await?;
            }
            Ok::<(), SessionError>(())
        };
        let is_swept = tokio::select! {
            swept = sweeping => swept.is_ok(),
            _ = shutdown.stopped() => false,
        };
        if !is_swept {
            info!("old times of publication not removed; a later run removes them");
        }
    }

    /// Releases the locks, and with `mark_settled` records that this process knows the end of the
    /// run. Gives up after a time limit, since locks expire by themselves.
    async fn release(&mut self, mark_settled: bool) {
        let shutdown = self.context.retry.shutdown().clone();
        let releasing = async {
            for stream in &mut self.streams {
                stream.unlock(mark_settled).await?;
            }
            Ok::<(), SessionError>(())
        };
        let stopped = async {
            shutdown.stopped().await;
            tokio::time::sleep(RELEASE_TIME_LIMIT).await;
        };
        let is_released = tokio::select! {
            released = releasing => released.is_ok(),
            () = stopped => false,
            () = tokio::time::sleep(3 * RELEASE_TIME_LIMIT) => false,
        };
        if !is_released {
            info!("lock not released; it expires by itself");
        }
    }
}

#[async_trait]
impl SnapshotSession for RedisSession {
    async fn start(&mut self, start: Start) -> Result<(), BrokerError> {
        self.resume_point = start.resume_point();
        self.encoder = Some(Encoder::new(
            &self.context.layout,
            &self.context.target.instance_id,
            &self.context.target.label_id,
            self.run_id(),
        ));
        let before = std::mem::replace(&mut self.phase, Phase::New);
        if let (Start::Resumed(_), Phase::Opened(stored)) = (start, before) {
            self.phase = Phase::Recorded;
            self.resumed_chats = self.resume_point.at.chats;
            let resumed = self.resume(stored).await;
            resumed.map_err(SessionError::into_failure)?;
        }
        Ok(())
    }

    async fn begin_list(&mut self, as_of: SystemTime) -> Result<Written, BrokerError> {
        self.begin_pass(as_of);
        Ok(Written::Done)
    }

    fn resume_point(&self) -> &ResumePoint {
        &self.resume_point
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, BrokerError> {
        let appended = self.append_to_all(batch).await;
        self.recover(appended).await
    }

    async fn flush(&mut self) -> Result<Written, BrokerError> {
        let flushed = self.flush_all().await;
        self.recover(flushed).await
    }

    async fn restart(&mut self) -> Result<(), BrokerError> {
        match self.flush_all().await {
            // The list is published from its start anyway.
            Ok(()) | Err(SessionError::Rewound(_)) => {}
            Err(SessionError::Failed(error)) => return Err(error),
        }
        let started = self.start_again().await;
        started.map_err(SessionError::into_failure)
    }

    async fn remove_absent(&mut self) -> Result<Removal, BrokerError> {
        let removed = self.remove_absent_all().await;
        removed.map_err(SessionError::into_failure)
    }

    fn delivered(&self) -> Delivered {
        let mut sum = Delivered::default();
        for stream in &self.streams {
            sum.add(stream.delivered);
        }
        for filter in self
            .streams
            .iter()
            .filter_map(|stream| stream.filter.as_ref())
        {
            sum.suppressed += filter.skipped.suppressed;
            sum.known += filter.skipped.known;
        }
        sum.take_back(self.lost_chats, self.context.layout.ids_per_message);
        sum
    }

    async fn finish(mut self: Box<Self>, outcome: Outcome) -> Result<(), BrokerError> {
        let result = self.finish_all(outcome).await;
        if result.is_ok() && matches!(outcome, Outcome::Complete { .. }) {
            self.sweep().await;
        }
        self.heartbeats.clear();
        let mark_settled = result.is_ok() && outcome != Outcome::Unfinished;
        self.release(mark_settled).await;
        result.map_err(SessionError::into_failure)
    }
}
