//! Metrics of `listen`, in the text format of OpenMetrics.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::overview::{LabelView, Overview};

type ByName = [(&'static str, &'static str); 1];
type ByEventAndResult = [(&'static str, &'static str); 2];
type ByLabel = [(&'static str, String); 1];
type ByLabelAndStatus = [(&'static str, String); 2];

/// The metrics, shared by everything that counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<ByName, Counter>,
    events: Family<ByEventAndResult, Counter>,
    publishing: Histogram,
    delay: Histogram,
    state_read: Gauge,
    labels: LabelGauges,
}

/// Gauges that are set from what the dashboard shows.
#[derive(Debug, Default)]
struct LabelGauges {
    members: Family<ByLabel, Gauge>,
    is_exact: Family<ByLabel, Gauge>,
    messages: Family<ByLabel, Gauge>,
    lag: Family<ByLabel, Gauge>,
    last_run: Family<ByLabelAndStatus, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("labelcast");
        let metrics = Self {
            requests: Family::default(),
            events: Family::default(),
            // 1 ms to 16 s.
            publishing: Histogram::new(exponential_buckets(0.001, 2.0, 15)),
            // 0.1 s to a day.
            delay: Histogram::new(exponential_buckets(0.1, 4.0, 11)),
            state_read: Gauge::default(),
            labels: LabelGauges::default(),
            registry: Registry::default(),
        };
        registry.register(
            "webhook_requests",
            "Requests with webhooks, by how they were answered",
            metrics.requests.clone(),
        );
        registry.register(
            "events",
            "Events, by their kind and by what became of them",
            metrics.events.clone(),
        );
        registry.register_with_unit(
            "event_publish",
            "Time until a batch of events was durable",
            Unit::Seconds,
            metrics.publishing.clone(),
        );
        registry.register_with_unit(
            "event_delay",
            "Time between an event's own time and its arrival",
            Unit::Seconds,
            metrics.delay.clone(),
        );
        registry.register_with_unit(
            "state_read_timestamp",
            "When the broker and the state were last read",
            Unit::Seconds,
            metrics.state_read.clone(),
        );
        metrics.labels.register(&mut registry);
        Self {
            registry,
            ..metrics
        }
    }

    /// Counts a request.
    pub fn count_request(&self, outcome: &'static str) {
        self.requests.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts an event.
    pub fn count_event(&self, event: &'static str, result: &'static str) {
        let labels = [("event", event), ("result", result)];
        self.events.get_or_create(&labels).inc();
    }

    /// Takes the time until a batch of events was durable.
    pub fn observe_publishing(&self, elapsed: Duration) {
        self.publishing.observe(elapsed.as_secs_f64());
    }

    /// Takes the time between an event's own time and its arrival. A sender's clock that is ahead
    /// counts as no delay.
    pub fn observe_delay(&self, delay: Duration) {
        self.delay.observe(delay.as_secs_f64());
    }

    /// Sets the gauges of labels and queues.
    pub fn show(&self, overview: &Overview) {
        self.state_read.set(gauge(seconds(overview.at)));
        self.labels.clear();
        for label in &overview.labels {
            self.labels.show(label);
        }
    }

    /// Returns all metrics as text.
    ///
    /// # Errors
    ///
    /// If a metric cannot be written.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl LabelGauges {
    fn register(&self, registry: &mut Registry) {
        for (name, help, gauge) in [
            ("label_members", "Chats in a label now", &self.members),
            (
                "label_exact",
                "Whether a whole list and all events since are counted",
                &self.is_exact,
            ),
            (
                "queue_messages",
                "Messages on the queue of a label",
                &self.messages,
            ),
            (
                "queue_lag",
                "Messages that consumers have not taken yet",
                &self.lag,
            ),
        ] {
            registry.register(name, help, gauge.clone());
        }
        registry.register_with_unit(
            "last_run_timestamp",
            "When the last run of a label ended, by how it ended",
            Unit::Seconds,
            self.last_run.clone(),
        );
    }

    /// Removes labels that are not followed any more.
    fn clear(&self) {
        self.members.clear();
        self.is_exact.clear();
        self.messages.clear();
        self.lag.clear();
        self.last_run.clear();
    }

    fn show(&self, label: &LabelView) {
        let by_label: ByLabel = [("label_id", label.label_id.clone())];
        let set = |family: &Family<ByLabel, Gauge>, value: Option<u64>| {
            if let Some(value) = value {
                family.get_or_create(&by_label).set(gauge(value));
            }
        };
        set(&self.members, label.chats);
        // A label that was deleted needs no list any more.
        let is_exact = (!label.is_deleted).then_some(u64::from(label.is_exact));
        set(&self.is_exact, is_exact);
        set(&self.messages, label.messages);
        set(&self.lag, label.lag);
        if let Some(run) = &label.last_run {
            let [label_id] = by_label;
            let labels = [label_id, ("status", run.status.name().to_owned())];
            self.last_run
                .get_or_create(&labels)
                .set(gauge(seconds(run.finished_at)));
        }
    }
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
