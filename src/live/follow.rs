//! Keeps the followed labels exact: reads the account's list of labels, takes a baseline where there
//! is none, reconciles from time to time, and removes the members of deleted labels.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{self, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use uuid::Uuid;

use super::jobs::{Job, JobEnd, Jobs};
use super::labels::{Followed, FollowedLabels, Presence};
use super::overview::Overview;
use super::store::LabelStore;
use crate::api::{ApiError, Label};

/// Interval of the schedule.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The time between two readings of the list of labels, if events name labels that are not in it.
const LIST_AT_MOST_EVERY: Duration = Duration::from_secs(10);
/// How long it may take until the end of a job is seen in the state of its label.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// The first and the longest pause after a job that failed or met a lock.
const PAUSES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));

/// Follows the labels.
pub struct Follower {
    jobs: Arc<Jobs>,
    labels: Arc<FollowedLabels>,
    store: Arc<LabelStore>,
    /// Requests for the list of labels.
    requested: mpsc::Receiver<()>,
    reconcile: Option<Reconcile>,
    /// Jobs that wait for their turn.
    waiting: VecDeque<(String, Job)>,
    running: JoinSet<JobEnd>,
    /// Jobs under way, by their tasks.
    tasks: HashMap<task::Id, (String, Job)>,
    /// Schedules of the labels, by their ids.
    schedules: HashMap<String, Schedule>,
    list: ListSchedule,
    /// Notified when a job has ended.
    changed: Arc<Notify>,
    /// Tells when the state of the labels was read.
    overview: watch::Receiver<Arc<Overview>>,
}

/// The schedule of one label: the next job, and pauses after jobs that failed.
struct Schedule {
    is_busy: bool,
    /// When the next job may begin.
    not_before: Instant,
    /// Pauses after jobs that did not succeed.
    pauses: ExponentialBackoff,
    is_reconcile_due: bool,
    /// The deletion whose members were removed. Members that an event added later stay.
    removed_as_of: Option<SystemTime>,
}

/// When lists are compared with the state.
struct Reconcile {
    every: Duration,
    next: Instant,
}

/// When the list of labels is read.
struct ListSchedule {
    next: Option<Instant>,
    read_at: Option<Instant>,
    failures: ExponentialBackoff,
}

impl Reconcile {
    fn new(every: Duration) -> Self {
        Self {
            every,
            next: Instant::now() + with_jitter(every),
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.next;
        if is_due {
            self.next = now + with_jitter(self.every);
        }
        is_due
    }
}

/// A time that is up to a tenth longer, so that several processes do not begin together.
fn with_jitter(every: Duration) -> Duration {
    // The end of a UUIDv7 is random.
    let [.., first, second] = *Uuid::now_v7().as_bytes();
    every + every / 10 * u32::from(u16::from_be_bytes([first, second])) / u32::from(u16::MAX)
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            is_busy: false,
            not_before: Instant::now(),
            pauses: pauses(),
            is_reconcile_due: false,
            removed_as_of: None,
        }
    }
}

impl Schedule {
    /// The job that the label needs, if it needs one.
    fn job(&self, followed: &Followed) -> Option<Job> {
        let members = followed.members?;
        match followed.presence {
            Presence::Listed | Presence::Deleting(_) if members.listed_at.is_none() => {
                Some(Job::Baseline)
            }
            Presence::Listed | Presence::Deleting(_) if self.is_reconcile_due => {
                Some(Job::Reconcile)
            }
            Presence::Deleted(at) if members.members > 0 && self.removed_as_of != Some(at) => {
                Some(Job::RemoveMembers(at))
            }
            _ => None,
        }
    }

    fn begin(&mut self, job: Job) {
        self.is_busy = true;
        self.is_reconcile_due &= job != Job::Reconcile;
    }

    /// Returns the pause before the next attempt, if there is to be one.
    fn end(&mut self, job: Job, end: JobEnd) -> Option<Duration> {
        self.is_busy = false;
        let is_done = match (job, end) {
            (_, JobEnd::Done) | (Job::Reconcile, JobEnd::Locked) => true,
            (_, JobEnd::Locked | JobEnd::Failed) => false,
        };
        if let (Job::RemoveMembers(at), true) = (job, is_done) {
            self.removed_as_of = Some(at);
        }
        if is_done {
            self.pauses = pauses();
            self.not_before = Instant::now() + READ_WITHIN;
            return None;
        }
        let pause = self.pauses.next().unwrap_or(PAUSES.1);
        self.not_before = Instant::now() + pause;
        self.is_reconcile_due |= job == Job::Reconcile;
        Some(pause)
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(PAUSES.0)
        .with_max_delay(PAUSES.1)
        .without_max_times()
        .with_jitter()
        .build()
}

impl Follower {
    /// Follows labels by jobs.
    pub fn new(
        jobs: Jobs,
        labels: Arc<FollowedLabels>,
        store: Arc<LabelStore>,
        requested: mpsc::Receiver<()>,
        reconcile_every: Option<Duration>,
        changed: Arc<Notify>,
        overview: watch::Receiver<Arc<Overview>>,
    ) -> Self {
        Self {
            jobs: Arc::new(jobs),
            labels,
            store,
            requested,
            reconcile: reconcile_every.map(Reconcile::new),
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            tasks: HashMap::new(),
            schedules: HashMap::new(),
            list: ListSchedule {
                next: Some(Instant::now()),
                read_at: None,
                failures: pauses(),
            },
            changed,
            overview,
        }
    }

    /// Follows until it is stopped. Jobs that run then end by the same stop.
    pub async fn follow(mut self, stop: CancellationToken) {
        loop {
            if self.list.next.is_some_and(|at| at <= Instant::now()) {
                self.read_list().await;
            }
            self.plan();
            self.start();
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.running.join_next_with_id() => self.note_end(ended),
                Some(()) = self.requested.recv() => self.list.ask(),
                Ok(()) = self.overview.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        while self.running.join_next().await.is_some() {}
    }

    async fn read_list(&mut self) {
        let list = match self.jobs.labels().await {
            Ok(list) => list.whole().map_err(|error| ApiError::labels(error).into()),
            Err(error) => Err(error),
        };
        match list {
            Ok(listed) if listed.is_empty() => {
                // A session that is not connected may have no labels: nothing is taken for deleted.
                warn!("the account has no label at all");
                self.list.failed();
            }
            Ok(listed) => {
                self.list.succeeded();
                self.take_list(&listed).await;
            }
            Err(error) => {
                let error: crate::error::Error = error;
                let hint = error.hint().unwrap_or_default();
                warn!(hint, "cannot read the list of labels: {error}");
                self.list.failed();
            }
        }
    }

    /// Stores new names, and reads the list again soon if a label that was deleted is still in it.
    async fn take_list(&mut self, listed: &[Label]) {
        let changed = self.labels.take_list(listed);
        if let Err(error) = self.store.record_all(&changed).await {
            warn!("cannot store the names of labels: {error}");
        }
        let mut labels = self.labels.all().into_iter();
        if labels.any(|(_, followed)| followed.presence.is_unconfirmed()) {
            self.list.ask();
        }
    }

    /// Decides which labels need a job.
    fn plan(&mut self) {
        let now = Instant::now();
        let reconciles = self.reconcile.as_mut().is_some_and(|it| it.is_due(now));
        if reconciles {
            self.list.ask();
        }
        for (label_id, followed) in self.labels.all() {
            let schedule = self.schedules.entry(label_id.clone()).or_default();
            schedule.is_reconcile_due |= reconciles;
            if schedule.is_busy || now < schedule.not_before {
                continue;
            }
            if let Some(job) = schedule.job(&followed) {
                schedule.begin(job);
                self.waiting.push_back((label_id, job));
            }
        }
    }

    /// Starts as many jobs as may run at once.
    fn start(&mut self) {
        while self.running.len() < self.jobs.at_once() {
            let Some((label_id, job)) = self.waiting.pop_front() else {
                return;
            };
            let (jobs, label) = (Arc::clone(&self.jobs), self.labels.label(&label_id));
            let task = self
                .running
                .spawn(async move { jobs.perform(job, &label).await });
            self.tasks.insert(task.id(), (label_id, job));
        }
    }

    fn note_end(&mut self, ended: Result<(task::Id, JobEnd), JoinError>) {
        let (task, end) = ended.unwrap_or_else(|failed| {
            error!("a job has panicked: {failed}");
            (failed.id(), JobEnd::Failed)
        });
        let Some((label_id, job)) = self.tasks.remove(&task) else {
            return;
        };
        self.changed.notify_one();
        let schedule = self.schedules.entry(label_id.clone()).or_default();
        if let Some(pause) = schedule.end(job, end) {
            let pause_s = pause.as_secs();
            info!(label_id, pause_s, "next attempt after a pause");
        }
    }
}

impl ListSchedule {
    /// Reads the list soon.
    fn ask(&mut self) {
        let now = Instant::now();
        let soon = self
            .read_at
            .map_or(now, |at| at + LIST_AT_MOST_EVERY)
            .max(now);
        self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
    }

    fn succeeded(&mut self) {
        self.next = None;
        self.read_at = Some(Instant::now());
        self.failures = pauses();
    }

    fn failed(&mut self) {
        let pause = self.failures.next().unwrap_or(PAUSES.1);
        self.next = Some(Instant::now() + pause);
        self.read_at = Some(Instant::now());
    }
}
