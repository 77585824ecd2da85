//! The factory: from a sink's URL to its broker. The only place outside their folders that names
//! brokers.

mod events;
mod state;
mod workers;

use std::path::{Path, PathBuf};

pub use self::state::{StateAddress, StateHold};
use super::blackhole::Blackhole;
use super::lines::{self, Lines};
use super::rabbitmq::{self, RabbitMq};
use super::redis::{self, Redis};
use super::tracked::{Tracked, TrackedOnDemand};
use super::{
    BrokerError, BrokerOptions, Consumer, ConsumerOptions, Finding, QueueMonitor, SessionContext,
    SnapshotSink, Target,
};
use crate::message::{Format, Layout};
use crate::state::{Membership, Selection};

/// Sinks, for the error text of a URL that is none of them.
const SINKS: &str = "there are -, file:PATH, redis://, rediss://, redis+cluster://, \
                     rediss+cluster://, redis+sentinel://, rediss+sentinel://, amqp://, amqps://, \
                     rabbitmq-stream:// and rabbitmq-stream+tls://";
/// Maximum number of list entries in a batch, whatever the broker could take.
const MAX_BATCH_ENTRIES: u32 = 2048;
/// Settings that only some brokers use, by the brokers' names.
const SETTINGS: [(&str, &[&str]); 2] = [
    ("Redis", &redis::SETTINGS),
    ("RabbitMQ", &rabbitmq::SETTINGS),
];

/// The sink's settings: broker, queue and message layout.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// stdout, a file or a broker.
    pub broker: Broker,
    /// The queue's name, with its placeholders.
    pub queue: String,
    /// What messages look like.
    pub layout: Layout,
}

impl SinkSettings {
    /// The scope of a label's run.
    pub fn target(&self, label_id: &str, instance_id: &str) -> Target {
        Target {
            queue: fill_in(&self.queue, label_id, instance_id),
            label_id: label_id.to_owned(),
            instance_id: instance_id.to_owned(),
        }
    }

    /// Maximum number of list entries in a batch: as many as the broker takes at once. If
    /// `max_pending` limits the queue, batches are small enough to keep that limit within a tenth.
    pub fn batch_entries(&self) -> u32 {
        batch_entries(
            self.broker.address.batch_messages(&self.broker.options),
            self.broker.options.max_pending,
            self.layout.ids_per_message,
        )
    }
}

/// Returns a queue's name with its placeholders filled in.
pub fn fill_in(queue: &str, label_id: &str, instance_id: &str) -> String {
    queue
        .replace("{label_id}", label_id)
        .replace("{instance_id}", instance_id)
}

fn batch_entries(batch_messages: u32, max_pending: Option<u64>, ids_per_message: u32) -> u32 {
    let messages = max_pending.map_or(batch_messages, |max| {
        u32::try_from(max / 10).unwrap_or(batch_messages)
    });
    messages
        .clamp(1, batch_messages)
        .saturating_mul(ids_per_message)
        .min(MAX_BATCH_ENTRIES)
}

/// A sink's URL, parsed.
#[derive(Clone, Debug)]
pub struct Address(Kind);

#[derive(Clone, Debug)]
enum Kind {
    /// JSON lines on stdout.
    Stdout,
    /// JSON lines, appended to a file.
    File(PathBuf),
    /// A Redis server, cluster or set of sentinels.
    Redis(Box<redis::Endpoint>),
    /// A RabbitMQ broker.
    RabbitMq(Box<rabbitmq::Endpoint>),
}

impl Address {
    /// Parses a sink's URL.
    ///
    /// # Errors
    ///
    /// A description of the problem, which does not quote the URL: it may contain a password.
    pub fn parse(url: &str) -> Result<Self, String> {
        if url == "-" {
            return Ok(Self(Kind::Stdout));
        }
        if let Some(path) = lines::path_of(url) {
            return path.map(|path| Self(Kind::File(path)));
        }
        if let Some(endpoint) = redis::Endpoint::parse(url) {
            return Ok(Self(Kind::Redis(Box::new(endpoint?))));
        }
        if let Some(endpoint) = rabbitmq::Endpoint::parse(url) {
            return Ok(Self(Kind::RabbitMq(Box::new(endpoint?))));
        }
        let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
        let is_word = !scheme.is_empty() && scheme.chars().all(|c| c.is_alphanumeric() || c == '+');
        Err(if is_word && url.contains("://") {
            format!("there is no sink “{scheme}:”; {SINKS}")
        } else {
            format!("is not a sink; {SINKS}")
        })
    }

    /// The formats of messages that the broker takes; the first one is the default.
    pub fn formats(&self) -> &'static [Format] {
        match &self.0 {
            Kind::Redis(_) => &[Format::Fields, Format::Json, Format::CloudEvents],
            Kind::Stdout | Kind::File(_) | Kind::RabbitMq(_) => {
                &[Format::Json, Format::CloudEvents]
            }
        }
    }

    /// Returns the settings that this broker does not use, each with the names of those that do.
    pub fn unused_settings(&self) -> Vec<(&'static str, &'static str)> {
        let used: &[&str] = match &self.0 {
            Kind::Stdout | Kind::File(_) => &[],
            Kind::Redis(_) => &redis::SETTINGS,
            Kind::RabbitMq(_) => &rabbitmq::SETTINGS,
        };
        let mut unused: Vec<(&str, &str)> = Vec::new();
        for (name, keys) in SETTINGS {
            for key in keys.iter().filter(|key| !used.contains(key)) {
                match unused.iter_mut().find(|(before, _)| before == key) {
                    Some((_, names)) => *names = "brokers",
                    None => unused.push((key, name)),
                }
            }
        }
        unused
    }

    /// Returns what is wrong with the options, or with the name of a queue whose placeholders were
    /// replaced by empty strings: the key of the setting, and the problem.
    pub fn problems(&self, options: &BrokerOptions, queue: &str) -> Vec<(&'static str, String)> {
        match &self.0 {
            Kind::Redis(_) => redis::problems(options, queue).into_iter().collect(),
            Kind::RabbitMq(endpoint) => rabbitmq::problems(endpoint, options, queue),
            Kind::Stdout | Kind::File(_) => problem_with_braces(queue).into_iter().collect(),
        }
    }

    /// Returns the problem with the whole name of a queue to publish to, if there is one.
    pub fn problem_with_name(&self, queue: &str) -> Option<String> {
        match &self.0 {
            Kind::RabbitMq(_) => rabbitmq::problem_with(queue),
            Kind::Stdout | Kind::File(_) | Kind::Redis(_) => None,
        }
    }

    /// Length of the longest name of a queue, in bytes.
    pub fn longest_name(&self) -> usize {
        match &self.0 {
            Kind::RabbitMq(_) => rabbitmq::MAX_NAME,
            Kind::Stdout | Kind::File(_) | Kind::Redis(_) => usize::MAX,
        }
    }

    /// Whether the broker remembers what was published earlier, beside its queues.
    pub fn keeps_state(&self) -> bool {
        match &self.0 {
            Kind::Redis(_) => true,
            Kind::Stdout | Kind::File(_) | Kind::RabbitMq(_) => false,
        }
    }

    /// Whether messages go to this process's stdout, which keeps no record of earlier runs.
    pub fn is_stdout(&self) -> bool {
        matches!(self.0, Kind::Stdout)
    }

    /// Whether it has queues that others can read, as a file and stdout have not.
    pub fn is_broker(&self) -> bool {
        match &self.0 {
            Kind::Stdout | Kind::File(_) => false,
            Kind::Redis(_) | Kind::RabbitMq(_) => true,
        }
    }

    /// Whether a path is one of the sink's own files.
    pub fn uses_file(&self, path: &Path) -> bool {
        match &self.0 {
            Kind::File(own) => lines::uses(own, path),
            Kind::Stdout | Kind::Redis(_) | Kind::RabbitMq(_) => false,
        }
    }

    /// Number of labels that can be published at once: a file and stdout take one after the other.
    pub fn sessions_at_once(&self) -> usize {
        match &self.0 {
            Kind::Stdout | Kind::File(_) => 1,
            Kind::Redis(_) | Kind::RabbitMq(_) => usize::MAX,
        }
    }

    fn batch_messages(&self, options: &BrokerOptions) -> u32 {
        match &self.0 {
            Kind::Redis(_) => redis::batch_messages(options).min(MAX_BATCH_ENTRIES),
            Kind::RabbitMq(endpoint) => rabbitmq::batch_messages(endpoint),
            Kind::Stdout | Kind::File(_) => MAX_BATCH_ENTRIES,
        }
    }
}

/// Returns the problem with a queue whose name still has braces after its placeholders were
/// replaced by empty strings.
pub(crate) fn problem_with_braces(queue: &str) -> Option<(&'static str, String)> {
    let problem = "only {label_id} and {instance_id} can be filled in";
    queue
        .contains(['{', '}'])
        .then(|| ("sink.queue", problem.to_owned()))
}

/// A broker with its options, not connected to yet.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Where it is.
    pub address: Address,
    /// How to use it.
    pub options: BrokerOptions,
    /// Where what is known between runs is kept; `None` for beside the messages.
    pub state: Option<StateAddress>,
}

impl Broker {
    /// Returns the sink for a label's list, without connecting.
    pub fn sink(&self, context: SessionContext) -> Box<dyn SnapshotSink> {
        let Some(state) = &self.state else {
            return self.plain_sink(context);
        };
        if context.selection.is_active() {
            return Box::new(self.tracked_sink(state, context));
        }
        let tracked = SessionContext {
            selection: Selection {
                membership: Some(Membership::recorded_only(context.selection.max_change)),
                ..context.selection.clone()
            },
            ..context.clone()
        };
        Box::new(TrackedOnDemand {
            store: state.event_store(&self.options, &context),
            tracked: self.tracked_sink(state, tracked),
            ids_per_message: context.layout.ids_per_message,
            plain: self.plain_sink(context),
        })
    }

    /// Returns the sink for a label's list with a store beside it.
    fn tracked_sink(&self, state: &StateAddress, context: SessionContext) -> Tracked {
        let store = state.store(&self.options, &context);
        let removals = self.removals(&context);
        let selection = context.selection.clone();
        let inner: Box<dyn SnapshotSink> = match &self.address.0 {
            // It would select chats by itself.
            Kind::Redis(endpoint) => {
                let context = SessionContext {
                    selection: Selection::default(),
                    ..context
                };
                Box::new(Redis::new(
                    endpoint,
                    &self.options,
                    context,
                    selection.mode(),
                ))
            }
            // Their checkpoints only name the selection.
            Kind::Stdout | Kind::File(_) | Kind::RabbitMq(_) => self.plain_sink(context),
        };
        Tracked {
            inner,
            store,
            removals,
            selection,
        }
    }

    /// Returns the sink for a label's list without a store beside it.
    fn plain_sink(&self, context: SessionContext) -> Box<dyn SnapshotSink> {
        let options = &self.options;
        match &self.address.0 {
            Kind::Stdout => Box::new(Lines::new(lines::Destination::Stdout, context)),
            Kind::File(path) => {
                let (path, retain) = (path.clone(), options.retain);
                let destination = lines::Destination::File { path, retain };
                Box::new(Lines::new(destination, context))
            }
            Kind::Redis(endpoint) => {
                let mode = context.selection.mode();
                Box::new(Redis::new(endpoint, options, context, mode))
            }
            Kind::RabbitMq(endpoint) => Box::new(RabbitMq::new(endpoint, options, context)),
        }
    }

    /// Returns the broker for a run that publishes nothing. A file is not locked by it, so that
    /// events can be appended meanwhile.
    #[must_use]
    pub fn without_file(&self) -> Self {
        match &self.address.0 {
            Kind::File(_) => Self {
                address: Address(Kind::Stdout),
                ..self.clone()
            },
            Kind::Stdout | Kind::Redis(_) | Kind::RabbitMq(_) => self.clone(),
        }
    }

    /// Returns the monitor of the depths of queues, without connecting. `None` if the sink does not
    /// tell, as an exchange does not.
    pub fn queue_monitor(&self) -> Option<Box<dyn QueueMonitor>> {
        match &self.address.0 {
            Kind::Redis(endpoint) => {
                let partitions = self.options.partitions;
                Some(Box::new(redis::RedisMonitor::new(endpoint, partitions)))
            }
            Kind::RabbitMq(endpoint) if self.options.exchange.is_none() => {
                Some(Box::new(rabbitmq::RabbitMqMonitor::new(endpoint)))
            }
            Kind::Stdout | Kind::File(_) | Kind::RabbitMq(_) => None,
        }
    }

    /// Checks that a run could publish to these queues. Returns one result for each thing that was
    /// checked; none, if there is no queue to check.
    pub async fn check(
        &self,
        targets: &[Target],
        selection: &Selection,
    ) -> Vec<Result<Finding, BrokerError>> {
        let mut findings = Vec::new();
        let nothing = Selection::default();
        // A state outside the broker has all that is known between runs.
        let selection = match &self.state {
            Some(_) => &nothing,
            None => selection,
        };
        match &self.address.0 {
            Kind::Stdout => findings.push(Ok("stdout".to_owned().into())),
            Kind::File(path) => findings.push(lines::check(path)),
            Kind::Redis(endpoint) => {
                for target in targets {
                    let partitions = self.options.partitions;
                    findings.push(redis::check(endpoint, partitions, target, selection).await);
                }
            }
            Kind::RabbitMq(endpoint) => {
                for target in targets {
                    findings.push(rabbitmq::check(endpoint, &self.options, target).await);
                }
            }
        }
        findings
    }

    /// Opens a queue for reading.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached, the queue does not exist, or an option does not fit.
    pub async fn consumer(
        &self,
        options: ConsumerOptions,
    ) -> Result<Box<dyn Consumer>, BrokerError> {
        match &self.address.0 {
            Kind::Redis(endpoint) => redis::consumer(endpoint, options).await,
            Kind::RabbitMq(endpoint) => {
                let queue_type = rabbitmq::queue_type(endpoint, &self.options);
                rabbitmq::consumer(endpoint, queue_type, options).await
            }
            Kind::Stdout | Kind::File(_) => {
                let text = "tail reads brokers only; read JSON lines with any other tool";
                Err(BrokerError::WrongQueue(text.to_owned()))
            }
        }
    }
}

/// Returns the sink that discards everything, for a dry run.
pub fn blackhole() -> Box<dyn SnapshotSink> {
    Box::new(Blackhole::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_as_large_as_the_broker_and_the_limit_of_pending_messages_allow() {
        let cases = [
            // messages the broker takes, max_pending, ids per message, entries
            (1024, None, 1, 1024),
            (1024, None, 100, 2048),
            (256, None, 1, 256),
            (256, Some(1000), 1, 100),
            (256, Some(10_000), 1, 256),
            (256, Some(5), 1, 1),
            (256, Some(50), 10, 50),
            (2048, Some(u64::MAX), 1, 2048),
        ];
        for (messages, max_pending, ids, expected) in cases {
            assert_eq!(batch_entries(messages, max_pending, ids), expected);
        }
    }

    #[test]
    fn settings_of_other_brokers_are_named_with_those_that_use_them() {
        let unused = |url: &str| Address::parse(url).map(|address| address.unused_settings());
        let file = unused("file:/tmp/a").unwrap_or_default();
        assert!(file.contains(&("sink.partitions", "Redis")));
        assert!(file.contains(&("sink.exchange", "RabbitMQ")));
        assert!(file.contains(&("sink.marker", "brokers")));
        let redis = unused("redis://localhost").unwrap_or_default();
        assert!(
            redis.iter().all(|(_, takers)| *takers == "RabbitMQ"),
            "{redis:?}"
        );
    }
}
