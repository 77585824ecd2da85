//! The live list: label events on the queues, and what is known of the labels meanwhile.
//!
//! ```text
//!  webhook ──▶ receive ──▶ intake (a worker for each label) ──▶ event sink: queue and membership
//!                 │                                                 │
//!                 ▼                                                 ▼
//!               labels ◀──────────── watch (members, queues, runs) ──▶ overview ──▶ dashboard
//!                 ▲
//!               follow (list of labels, baselines, reconciliations) ──▶ pipeline
//! ```
//!
//! A body is acknowledged when all of its events are durable. Everything else — names, counts, what
//! is shown — is derived from the state, and is found again after a restart.

pub mod activity;
pub mod follow;
pub mod inbound;
pub mod intake;
pub mod jobs;
pub mod labels;
pub mod metrics;
pub mod overview;
pub mod receive;
pub mod store;
mod trend;
pub mod watch;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use self::activity::Activity;
use self::follow::Follower;
use self::inbound::InboundReader;
use self::intake::Intake;
use self::jobs::Jobs;
use self::labels::FollowedLabels;
use self::metrics::Metrics;
use self::overview::Overview;
use self::receive::Receiver;
use self::store::LabelStore;
use self::watch::Watcher;
use crate::api::{ApiSettings, Client};
use crate::broker::factory::{SinkSettings, StateHold};
use crate::broker::{BrokerError, NoPauses, SessionContext};
use crate::enrich;
use crate::error::Error;
use crate::pipeline::RunSettings;
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;
use crate::state::Selection;

/// Retries of a batch of events. There is one, for a connection that was closed while it was idle:
/// senders expect an answer within two seconds, and send again.
const EVENT_RETRIES: usize = 1;

/// The settings of a live list.
#[derive(Clone)]
pub struct LiveSettings {
    /// The API.
    pub api: ApiSettings,
    /// Which labels are followed, and how their lists are published.
    pub run: RunSettings,
    /// The queues and the state.
    pub sink: SinkSettings,
    /// The session whose events are accepted.
    pub session: String,
    /// Time between two reconciliations, if there are any.
    pub reconcile_every: Option<Duration>,
}

/// A live list, with its parts that run by themselves.
pub struct Live {
    /// Takes the bodies of webhooks.
    pub receiver: Arc<Receiver>,
    /// The overview for supervisors.
    pub overview: tokio::sync::watch::Receiver<Arc<Overview>>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    follower: Follower,
    watcher: Watcher,
    _state: StateHold,
}

impl Live {
    /// Builds the parts, without connecting. A state in a file is held from now on.
    ///
    /// # Errors
    ///
    /// If there is no state or another process holds it, or the API's client cannot be set up.
    pub fn new(settings: &LiveSettings, shutdown: &Shutdown) -> Result<Self, Error> {
        let LiveSettings { run, sink, api, .. } = settings;
        let instance_id = &api.instance_id;
        let state = sink.broker.hold_state()?;
        let metrics = Arc::new(Metrics::new());
        let activity = Arc::new(Activity::default());
        let changed = Arc::new(Notify::new());
        let (store, members) = sink
            .broker
            .count_store(instance_id)
            .zip(sink.broker.member_monitor())
            .ok_or_else(no_state)?;
        let store = Arc::new(LabelStore::new(store));
        let address = sink.broker.address.clone();
        let is_queue = move |queue: &str| address.problem_with_name(queue).is_none();
        let labels = FollowedLabels::new(run.clone(), target_of(settings), Box::new(is_queue));
        let labels = Arc::new(labels);
        let events = sink_of(settings, shutdown);
        let intake = Intake::new(
            Arc::clone(&events),
            Arc::clone(&metrics),
            Arc::clone(&changed),
        );
        let (list_requests, requested) = mpsc::channel(1);
        let empty = Overview {
            at: SystemTime::now(),
            labels: Vec::new(),
            events_by_minute: Vec::new(),
            error: Some("the state has not been read yet".to_owned()),
            reconcile_every: settings.reconcile_every,
            enriched: Vec::new(),
        };
        let (overview, shown) = tokio::sync::watch::channel(Arc::new(empty));
        let jobs = Jobs::new(
            Client::new(api)?,
            RetryPolicy::new(api.retries, shutdown.clone()),
            run.clone(),
            sink.clone(),
            events,
            instance_id.clone(),
        );
        Ok(Self {
            receiver: Arc::new(Receiver {
                reader: Mutex::new(InboundReader::new(&settings.session)),
                labels: Arc::clone(&labels),
                intake,
                store: Arc::clone(&store),
                activity: Arc::clone(&activity),
                metrics: Arc::clone(&metrics),
                list_requests: list_requests.clone(),
                others: Mutex::default(),
            }),
            metrics: Arc::clone(&metrics),
            follower: Follower::new(
                jobs,
                Arc::clone(&labels),
                Arc::clone(&store),
                requested,
                settings.reconcile_every,
                Arc::clone(&changed),
                shown.clone(),
            ),
            overview: shown,
            watcher: Watcher {
                labels: Arc::clone(&labels),
                members,
                queues: sink.broker.queue_monitor(),
                store: Arc::clone(&store),
                activity,
                metrics,
                reconcile_every: settings.reconcile_every,
                enriching: Vec::new(),
                overview,
                changed,
                list_requests,
                unstored: BTreeMap::new(),
            },
            _state: state,
        })
    }

    /// Shows what a worker of this process enriches, from this queue.
    pub fn show_enrichment(&mut self, queue: &str, metrics: Arc<enrich::metrics::Metrics>) {
        self.watcher.enriching.push((queue.to_owned(), metrics));
    }

    /// Follows the labels and keeps the overview up to date, until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let watching = self.watcher.watch(stop.clone());
        tokio::join!(watching, self.follower.follow(stop));
    }
}

fn no_state() -> Error {
    Error::Broker(BrokerError::Misconfigured {
        problem: "listen needs a state, to know which events change a label".to_owned(),
        fix: "use a Redis sink in --sink, or --state",
    })
}

fn target_of(settings: &LiveSettings) -> Box<dyn Fn(&str) -> crate::broker::Target + Send + Sync> {
    let (sink, instance_id) = (settings.sink.clone(), settings.api.instance_id.clone());
    Box::new(move |label_id| sink.target(label_id, &instance_id))
}

/// Returns what makes the sink for the events of a label.
fn sink_of(settings: &LiveSettings, shutdown: &Shutdown) -> Arc<intake::SinkOfLabel> {
    let (sink, instance_id) = (settings.sink.clone(), settings.api.instance_id.clone());
    let selection = Selection {
        membership: Some(jobs::membership(&settings.run.selection)),
        ..settings.run.selection.clone()
    };
    let retry = RetryPolicy::new(EVENT_RETRIES, shutdown.clone());
    Arc::new(move |label_id| {
        sink.broker.event_sink(&SessionContext {
            target: sink.target(label_id, &instance_id),
            layout: sink.layout.clone(),
            retry: retry.clone(),
            selection: selection.clone(),
            pauses: Arc::new(NoPauses),
        })
    })
}
