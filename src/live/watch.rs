//! Keeps what supervisors see up to date: reads members, queues and runs, stores changed counts,
//! and replaces the overview.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::activity::Activity;
use super::labels::FollowedLabels;
use super::metrics::Metrics;
use super::overview::{EnrichedView, Overview};
use super::store::LabelStore;
use crate::broker::{BrokerError, MemberMonitor, QueueDepth, QueueMonitor, Target};
use crate::enrich;
use crate::state::counts::LabelCount;

/// How often members are read, without an event. Other processes change them too.
const MEMBERS_EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two readings, however many events there are.
const AT_MOST_EVERY: Duration = Duration::from_millis(200);
/// How often queues and runs are read.
const QUEUES_EVERY: Duration = Duration::from_secs(5);

/// Reads what is shown.
pub struct Watcher {
    pub(super) labels: Arc<FollowedLabels>,
    pub(super) members: Box<dyn MemberMonitor>,
    pub(super) queues: Option<Box<dyn QueueMonitor>>,
    pub(super) store: Arc<LabelStore>,
    pub(super) activity: Arc<Activity>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reconcile_every: Option<Duration>,
    /// Workers of this process that are shown, by the queues that they take chat ids from.
    pub(super) enriching: Vec<(String, Arc<enrich::metrics::Metrics>)>,
    pub(super) overview: watch::Sender<Arc<Overview>>,
    /// Notified when events were published.
    pub(super) changed: Arc<Notify>,
    /// Requests the account's list of labels.
    pub(super) list_requests: mpsc::Sender<()>,
    /// Counts that are not stored yet, by label.
    pub(super) unstored: BTreeMap<String, LabelCount>,
}

impl Watcher {
    /// Reads until it is stopped.
    pub async fn watch(mut self, stop: CancellationToken) {
        let mut queues_at = None;
        let mut last_error = None;
        let mut broker_error = None;
        loop {
            let is_due = queues_at.is_none_or(|at: Instant| at.elapsed() >= QUEUES_EVERY);
            let read = tokio::select! {
                () = stop.cancelled() => return,
                read = self.read(is_due) => read,
            };
            let mut error = read.err().map(|error| error.to_string());
            if is_due {
                queues_at = Some(Instant::now());
                broker_error.clone_from(&error);
            }
            // The queues are read less often.
            error = error.or_else(|| broker_error.clone());
            if let Some(error) = error
                .as_ref()
                .filter(|error| Some(*error) != last_error.as_ref())
            {
                warn!("cannot read the state of the labels: {error}");
            }
            last_error.clone_from(&error);
            self.show(error);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.next() => {}
            }
        }
    }

    /// Waits for the next reading.
    async fn next(&self) {
        tokio::time::sleep(AT_MOST_EVERY).await;
        let rest = MEMBERS_EVERY - AT_MOST_EVERY;
        let _ = tokio::time::timeout(rest, self.changed.notified()).await;
    }

    async fn read(&mut self, with_queues: bool) -> Result<(), BrokerError> {
        let ids = self.labels.ids();
        let targets: Vec<Target> = ids.iter().map(|id| self.labels.target(id)).collect();
        let members = self.members.members(&targets).await?;
        let counts = ids.iter().cloned().zip(members);
        for count in self.labels.take_members(counts, SystemTime::now()) {
            self.unstored.insert(count.label_id.clone(), count);
        }
        if !self.unstored.is_empty() {
            let counts: Vec<LabelCount> = self.unstored.values().cloned().collect();
            self.store.record_all(&counts).await?;
            self.unstored.clear();
        }
        if !with_queues {
            return Ok(());
        }
        let (stored, runs) = self.store.load().await?;
        if self.labels.take_stored(stored) {
            // Another process was told of a deletion.
            let _ = self.list_requests.try_send(());
        }
        self.labels.take_runs(runs);
        if let Some(queues) = &mut self.queues {
            match queues.depths(&targets).await {
                Ok(depths) => self.labels.take_depths(ids.into_iter().zip(depths)),
                Err(error) => {
                    let unknown = ids.into_iter().map(|id| (id, QueueDepth::default()));
                    self.labels.take_depths(unknown);
                    match error {
                        BrokerError::Unavailable(_) => return Err(error),
                        // One queue that is refused: depths are only shown.
                        _ => debug!("cannot read the depths of queues: {error}"),
                    }
                }
            }
        }
        Ok(())
    }

    fn enriched(&self) -> Vec<EnrichedView> {
        let view = |(queue, metrics): &(String, Arc<enrich::metrics::Metrics>)| EnrichedView {
            queue: queue.clone(),
            totals: metrics.totals(),
        };
        self.enriching.iter().map(view).collect()
    }

    fn show(&self, error: Option<String>) {
        let now = SystemTime::now();
        let shown = self.overview.borrow().clone();
        let overview = Overview {
            // After an error, the numbers are those of the last time.
            at: if error.is_some() { shown.at } else { now },
            labels: self.labels.views(),
            events_by_minute: self.activity.by_minute(now),
            error,
            reconcile_every: self.reconcile_every,
            enriched: self.enriched(),
        };
        self.metrics.show(&overview);
        self.overview.send_replace(Arc::new(overview));
    }
}
