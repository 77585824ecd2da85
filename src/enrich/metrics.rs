//! Metrics of `enrich`, in the text format of OpenMetrics, and the same numbers for the report.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::gate::Closing;
use crate::api::FailureKind;

type ByResult = [(&'static str, &'static str); 1];
type Count = Counter<u64, AtomicU64>;

/// The outcome of a chat, or of a message without a chat id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatResult {
    /// A record of a contact that exists.
    Found,
    /// A record of a contact that does not exist.
    Missing,
    /// A record without a look-up.
    NotAsked,
    /// It was set aside.
    Failed,
    /// A message, or an entry of one, that is no chat id. It was set aside.
    Unusable,
}

impl ChatResult {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 5] = [
        Self::Found,
        Self::Missing,
        Self::NotAsked,
        Self::Failed,
        Self::Unusable,
    ];

    /// Returns the spelling in metrics and in the report.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Missing => "missing",
            Self::NotAsked => "not_asked",
            Self::Failed => "failed",
            Self::Unusable => "unusable",
        }
    }
}

/// The metrics, shared by everything that counts.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    messages: Count,
    passed_over: Count,
    chats: Family<ByResult, Count>,
    requests: Count,
    failures: Family<ByResult, Count>,
    looking_up: Histogram,
    closed: Family<ByResult, Gauge>,
    in_hand: Gauge,
    last_confirm: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            messages: Count::default(),
            passed_over: Count::default(),
            chats: Family::default(),
            requests: Count::default(),
            failures: Family::default(),
            // 5 ms to 80 s.
            looking_up: Histogram::new(exponential_buckets(0.005, 2.0, 15)),
            closed: Family::default(),
            in_hand: Gauge::default(),
            last_confirm: Gauge::default(),
        };
        // So that they are there before the first one.
        for result in ChatResult::ALL {
            drop(metrics.chats.get_or_create(&[("result", result.name())]));
        }
        metrics.show_closed(None);
        let mut registry = Registry::with_prefix("labelcast_enrich");
        metrics.register_counters(&mut registry);
        metrics.register_states(&mut registry);
        Self {
            registry,
            ..metrics
        }
    }

    fn register_counters(&self, registry: &mut Registry) {
        for (name, help, counter) in [
            ("messages", "Messages that were received", &self.messages),
            (
                "passed_over",
                "Messages about runs, and about chats that have left their label",
                &self.passed_over,
            ),
            ("requests", "Requests to the API", &self.requests),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register(
            "chats",
            "Chats whose record or failure is confirmed, by result",
            self.chats.clone(),
        );
        registry.register(
            "failures",
            "Look-ups that failed, by kind; most of them are tried again",
            self.failures.clone(),
        );
    }

    fn register_states(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "lookup",
            "Time of a look-up with all of its requests",
            Unit::Seconds,
            self.looking_up.clone(),
        );
        registry.register(
            "paused",
            "Whether look-ups wait, because the API asks for fewer or is not ready",
            self.closed.clone(),
        );
        registry.register("in_hand", "Messages in hand", self.in_hand.clone());
        registry.register_with_unit(
            "last_confirm_timestamp",
            "When the broker last confirmed a record or a failure",
            Unit::Seconds,
            self.last_confirm.clone(),
        );
    }

    /// Counts a message that was received.
    pub fn count_message(&self) {
        self.messages.inc();
    }

    /// Counts a message that asks for nothing.
    pub fn count_passed_over(&self) {
        self.passed_over.inc();
    }

    /// Counts a chat whose message is confirmed.
    pub fn count_chat(&self, result: ChatResult) {
        self.chats.get_or_create(&[("result", result.name())]).inc();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        self.last_confirm
            .set(i64::try_from(now).unwrap_or(i64::MAX));
    }

    /// Counts a request to the API.
    pub fn count_request(&self) {
        self.requests.inc();
    }

    /// Counts a look-up that failed.
    pub fn count_failure(&self, kind: FailureKind) {
        self.failures.get_or_create(&[("kind", kind.name())]).inc();
    }

    /// Takes the time of a look-up.
    pub fn observe_lookup(&self, elapsed: Duration) {
        self.looking_up.observe(elapsed.as_secs_f64());
    }

    /// Shows why look-ups wait, if they do.
    pub fn show_closed(&self, closed: Option<Closing>) {
        for why in [Closing::Throttled, Closing::Unready] {
            let gauge = self.closed.get_or_create(&[("reason", why.name())]);
            gauge.set(i64::from(closed == Some(why)));
        }
    }

    /// Shows the number of messages in hand.
    pub fn show_in_hand(&self, messages: usize) {
        self.in_hand
            .set(i64::try_from(messages).unwrap_or(i64::MAX));
    }

    /// Returns the numbers so far.
    pub fn totals(&self) -> Totals {
        let chats =
            |result: ChatResult| self.chats.get_or_create(&[("result", result.name())]).get();
        Totals {
            messages: self.messages.get(),
            passed_over: self.passed_over.get(),
            found: chats(ChatResult::Found),
            missing: chats(ChatResult::Missing),
            not_asked: chats(ChatResult::NotAsked),
            failed: chats(ChatResult::Failed),
            unusable: chats(ChatResult::Unusable),
            requests: self.requests.get(),
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

/// The numbers of a worker since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Totals {
    /// Messages that were received; one that was delivered twice counts twice.
    pub messages: u64,
    /// Messages that ask for nothing.
    pub passed_over: u64,
    /// Records of contacts that exist.
    pub found: u64,
    /// Records of contacts that do not exist.
    pub missing: u64,
    /// Records without a look-up.
    pub not_asked: u64,
    /// Chats that were set aside.
    pub failed: u64,
    /// Messages and entries that are no chat ids, which were set aside.
    pub unusable: u64,
    /// Requests to the API.
    pub requests: u64,
}

impl Totals {
    /// Returns the number of records that were published.
    pub fn records(&self) -> u64 {
        self.found + self.missing + self.not_asked
    }
}
