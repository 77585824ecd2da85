//! The second worker: takes chat ids from a queue, looks up each contact, and publishes a record to
//! another queue.
//!
//! ```text
//!  queue ──▶ source ──▶ received ──▶ backlog ──▶ gate, rate ──▶ lookup ──▶ publish ──▶ records, failed
//!              ▲                        ▲                          │          │
//!              │                        └── again, after a pause ──┘          │
//!              └──────────────────────── acknowledge ◀───────────────────────┘
//! ```
//!
//! A message is acknowledged when all of its chats were published and confirmed, as records or as
//! failures. A crash therefore repeats what was in hand, and loses nothing.

pub mod decide;
pub mod gate;
pub mod in_hand;
pub mod lookup;
pub mod metrics;
pub mod publish;
pub mod rate;
pub mod received;
pub mod report;
pub mod source;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use self::lookup::{Include, Lookups};
use self::metrics::Metrics;
use self::publish::{Publisher, Sinks};
use self::rate::{Rate, RateLimiter};
use self::source::Source;
use self::worker::{Limits, Worker};
use crate::api::{ApiSettings, Client};
use crate::broker::factory::SinkSettings;
use crate::broker::{NoPauses, SessionContext, Target, WORKER_PREFIX, WorkerOptions};
use crate::error::Error;
use crate::message::{ContactEncoder, ContactField};
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;
use crate::state::Selection;

/// Deliveries of a worker that has shown no sign of life for this long are taken over.
const TAKEOVER_AFTER: Duration = Duration::from_secs(30);
/// Deliveries that a broker sends beside those that are looked up now. Few, because each kill of a
/// worker counts as a delivery of all of them.
const PREFETCH_SPARE: usize = 2;

/// The settings of the worker.
#[derive(Clone, Debug)]
pub struct EnrichSettings {
    /// The API.
    pub api: ApiSettings,
    /// The broker, and the format of records.
    pub sink: SinkSettings,
    /// The queues.
    pub queues: Queues,
    /// How contacts are looked up.
    pub lookups: LookupSettings,
    /// The members of records.
    pub fields: Vec<ContactField>,
    /// Whether to end when the queue is empty.
    pub drain: bool,
}

/// The queues of the worker.
#[derive(Clone, Debug)]
pub struct Queues {
    /// The queue that chat ids are taken from.
    pub from: String,
    /// The queue that records are published to.
    pub to: String,
    /// The consumer group, where the broker has groups.
    pub group: String,
}

impl Queues {
    /// Returns the queue of ids that could not be looked up.
    pub fn failed(&self) -> String {
        format!("{}:failed", self.to)
    }
}

/// How contacts are looked up.
#[derive(Clone, Copy, Debug)]
pub struct LookupSettings {
    /// The maximum number of look-ups at once.
    pub concurrency: usize,
    /// The rate of requests.
    pub rate: Rate,
    /// What is asked for beside the contact itself.
    pub include: Include,
    /// Whether the API is asked first whether a number exists.
    pub check_exists: bool,
    /// The number of failures after which an id is set aside.
    pub attempts: u32,
}

/// Builds the worker, without connecting.
///
/// # Errors
///
/// If the API's client cannot be set up.
pub fn worker(
    settings: &EnrichSettings,
    metrics: &Arc<Metrics>,
    shutdown: &Shutdown,
) -> Result<Worker, Error> {
    let EnrichSettings {
        api,
        queues,
        lookups,
        ..
    } = settings;
    let policy = RetryPolicy::new(api.retries, shutdown.clone());
    // After a stop, the worker decides how long it waits for confirmations.
    let unstopped = RetryPolicy::new(api.retries, Shutdown::manual(None));
    let sink_of = |queue: String| {
        let context = context(settings, queue, &unstopped);
        let sink = settings.sink.broker.message_sink(&context);
        sink.ok_or_else(|| Error::Bug("the settings have no broker".to_owned()))
    };
    let sinks = Sinks {
        records: sink_of(queues.to.clone())?,
        failed: sink_of(queues.failed())?,
    };
    let client = Client::new(api)?;
    let format = settings.sink.layout.format;
    let encoder = ContactEncoder::new(format, &api.instance_id, &settings.fields);
    Ok(Worker::new(
        Limits {
            concurrency: lookups.concurrency,
            attempts: lookups.attempts,
            drain: settings.drain,
            retries: api.retries,
        },
        source(settings, &policy),
        Lookups::new(
            client,
            RateLimiter::new(lookups.rate),
            lookups.include,
            lookups.check_exists,
            Arc::clone(metrics),
        ),
        Publisher::start(encoder, sinks, !settings.drain),
        Arc::clone(metrics),
        &policy,
    ))
}

fn source(settings: &EnrichSettings, policy: &RetryPolicy) -> Source {
    let LookupSettings {
        concurrency, rate, ..
    } = settings.lookups;
    // More would only be kept from other workers.
    let prefetch = concurrency.min(rate.per_second()) + PREFETCH_SPARE;
    let options = WorkerOptions {
        queue: settings.queues.from.clone(),
        group: settings.queues.group.clone(),
        worker: format!("{WORKER_PREFIX}{}", uuid::Uuid::now_v7()),
        prefetch: u16::try_from(prefetch).unwrap_or(u16::MAX),
        takeover_after: TAKEOVER_AFTER,
    };
    // A worker that stays waits for its broker as long as it takes.
    let policy = match settings.drain {
        true => policy.clone(),
        false => policy.with_retries(usize::MAX),
    };
    Source::new(settings.sink.broker.clone(), options, &policy)
}

fn context(settings: &EnrichSettings, queue: String, policy: &RetryPolicy) -> SessionContext {
    SessionContext {
        target: Target {
            queue,
            label_id: String::new(),
            // Another group enriches once more, and workers of one group remember together, whatever
            // account they ask.
            instance_id: settings.queues.group.clone(),
        },
        layout: settings.sink.layout.clone(),
        retry: policy.clone(),
        selection: Selection::default(),
        pauses: Arc::new(NoPauses),
    }
}
