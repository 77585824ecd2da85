//! The settings of sinks, and which settings go with which sink.

use std::path::PathBuf;
use std::time::Duration;

use super::values::{Optional, Reader};
use super::{ConfigSources, Labels, Origin};
use crate::broker::rabbitmq::{
    self, MAX_NAME, MAX_RETAIN, QueueType, RabbitSettings, problem_with,
};
use crate::broker::redis::{self, RedisSettings, is_taggable};
use crate::broker::{Destination, SinkSettings, filled_in, lines};
use crate::message::{Format, Layout};

/// A sink's URL, parsed.
enum Place {
    Stdout,
    File(PathBuf),
    Redis(redis::connect::Endpoint),
    RabbitMq(rabbitmq::connect::Endpoint),
}

/// The settings of brokers.
struct Broker {
    retain: Option<Duration>,
    max_pending: Option<u64>,
    marker: bool,
    partitions: Option<u32>,
    min_replicas: u32,
    exchange: Option<String>,
    queue_type: QueueType,
    declare: bool,
}

/// Settings of Redis only.
const REDIS_ONLY: [&str; 2] = ["sink.partitions", "sink.min_replicas"];
/// Settings of RabbitMQ only.
const RABBITMQ_ONLY: [&str; 3] = ["sink.exchange", "sink.queue_type", "sink.no_declare"];
/// Settings of brokers only.
const BROKERS_ONLY: [&str; 2] = ["sink.max_pending", "sink.marker"];
/// Each partition has a connection of its own.
const MAX_PARTITIONS: u64 = 256;

pub(super) fn read(sources: &mut ConfigSources) -> Option<SinkSettings> {
    let mut read = Reader::new(sources);
    let retain = read.retain("sink.retain");
    let place = place(&mut read);
    let queue = read.required("sink.queue");
    let format = read.optional("sink.format", format);
    let ids_per_message = read.number("sink.ids_per_message", 1..=10_000);
    let include_names = read.switch("sink.include_names");
    let broker = broker(&mut read, retain);
    if let Some(queue) = &queue {
        fit_together(&mut read, place.as_ref(), queue, format.flatten());
        if matches!(place, Some(Place::RabbitMq(_))) {
            fit_rabbitmq(&mut read, retain.flatten());
        }
    }
    let (place, queue, format) = (place?, queue?, format?);
    let layout = Layout {
        format: format.unwrap_or(match place {
            Place::Redis(_) => Format::Fields,
            Place::Stdout | Place::File(_) | Place::RabbitMq(_) => Format::Json,
        }),
        ids_per_message: u32::try_from(ids_per_message?).ok()?,
        include_names: include_names?,
    };
    let broker = broker?;
    let retain = broker.retain;
    let destination = match place {
        Place::Stdout => Destination::Lines(lines::Destination::Stdout),
        Place::File(path) => Destination::Lines(lines::Destination::File { path, retain }),
        Place::Redis(endpoint) => Destination::Redis(Box::new(RedisSettings {
            endpoint,
            partitions: broker.partitions,
            max_pending: broker.max_pending,
            min_replicas: broker.min_replicas,
            marker: broker.marker,
            retain,
        })),
        Place::RabbitMq(endpoint) => Destination::RabbitMq(Box::new(RabbitSettings {
            endpoint,
            exchange: broker.exchange,
            queue_type: broker.queue_type,
            declare: broker.declare,
            max_pending: broker.max_pending,
            marker: broker.marker,
            retain,
        })),
    };
    Some(SinkSettings {
        destination,
        queue,
        layout,
    })
}

fn format(read: &mut Reader<'_>, key: &'static str) -> Option<Format> {
    let formats = [
        ("fields", Format::Fields),
        ("json", Format::Json),
        ("cloudevents", Format::CloudEvents),
    ];
    read.one_of(key, &formats)
}

fn broker(read: &mut Reader<'_>, retain: Optional<Duration>) -> Option<Broker> {
    let max_pending = read.optional("sink.max_pending", |read, key| {
        read.number(key, 1..=u64::MAX)
    });
    let marker = read.switch("sink.marker");
    let partitions = read.optional("sink.partitions", |read, key| {
        read.number(key, 1..=MAX_PARTITIONS)
    });
    let min_replicas = read.number("sink.min_replicas", 0..=100);
    let exchange = read.text("sink.exchange");
    let queue_types = [QueueType::Quorum, QueueType::Classic, QueueType::Stream];
    let queue_type = read.one_of(
        "sink.queue_type",
        &queue_types.map(|queue_type| (queue_type.name(), queue_type)),
    );
    let no_declare = read.switch("sink.no_declare");
    Some(Broker {
        retain: retain?,
        max_pending: max_pending?,
        marker: marker?,
        partitions: partitions?.map(u32::try_from).transpose().ok()?,
        min_replicas: u32::try_from(min_replicas?).ok()?,
        exchange: (!exchange.is_empty()).then_some(exchange),
        queue_type: queue_type?,
        declare: !no_declare?,
    })
}

fn place(read: &mut Reader<'_>) -> Option<Place> {
    let (key, url) = url(read)?;
    if url == "-" {
        return Some(Place::Stdout);
    }
    // `file:PATH`, or `file:///PATH` as a URL.
    if let Some(path) = url.strip_prefix("file:") {
        let path = path.strip_prefix("//localhost/").map_or_else(
            || path.strip_prefix("//").unwrap_or(path).to_owned(),
            |path| format!("/{path}"),
        );
        let has_host = url.starts_with("file://") && !path.starts_with('/');
        if path.is_empty() || path.ends_with('/') || has_host {
            read.error(
                key,
                "a file's path has to follow file:, or file:// and a slash",
            );
            return None;
        }
        return Some(Place::File(PathBuf::from(path)));
    }
    let redis = redis::connect::Endpoint::parse(&url).map(|found| found.map(Place::Redis));
    let rabbitmq = || rabbitmq::connect::Endpoint::parse(&url);
    match redis.or_else(|| rabbitmq().map(|found| found.map(Place::RabbitMq))) {
        Some(Ok(place)) => return Some(place),
        Some(Err(what)) => {
            read.error(key, &what);
            return None;
        }
        None => {}
    }
    const SINKS: &str = "there are -, file:PATH, redis://, rediss://, redis+cluster://, \
                         rediss+cluster://, redis+sentinel://, rediss+sentinel://, amqp:// and amqps://";
    let scheme = url.split_once(':').map_or("", |(scheme, _)| scheme);
    let is_word = !scheme.is_empty() && scheme.chars().all(|c| c.is_alphanumeric() || c == '+');
    if is_word && url.contains("://") {
        read.error(key, &format!("there is no sink “{scheme}:”; {SINKS}"));
    } else {
        read.error(key, &format!("is not a sink; {SINKS}"));
    }
    None
}

/// The sink's URL, from the overriding one of its two settings.
fn url(read: &mut Reader<'_>) -> Option<(&'static str, String)> {
    let (_, url, origin) = read.get("sink.url");
    let (_, path, file_origin) = read.get("sink.url_file");
    let from_file = !path.is_empty()
        && (origin == Origin::Default
            || (file_origin == Origin::Flag && origin != Origin::Flag)
            || (file_origin == Origin::Env && matches!(origin, Origin::File(_))));
    if !from_file {
        return Some(("sink.url", url));
    }
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(("sink.url_file", text.trim().to_owned())),
        Err(error) => {
            read.error("sink.url_file", &format!("cannot be read: {error}"));
            None
        }
    }
}

/// Checks settings that depend on the sink.
pub(super) fn together(read: &mut Reader<'_>, dry_run: bool) {
    // Errors of single settings were recorded where these were read.
    let report_file = read.optional("report.file", Reader::path).flatten();
    let metrics_file = read.optional("report.metrics_file", Reader::path).flatten();
    if report_file.is_some() && report_file == metrics_file {
        read.error(
            "report.metrics_file",
            "is the report's file: use another one",
        );
    }
    match place(read) {
        Some(Place::Stdout) => {
            if !dry_run && read.text("report.format") == "json" {
                read.error(
                    "report.format",
                    "the JSON report goes to stdout, where the chats of the sink “-” go: use --report-file PATH",
                );
            }
            if !read.text("run.max_shrink").is_empty() {
                read.error(
                    "run.max_shrink",
                    "the sink “-” keeps no memory of the last complete run: use another --sink",
                );
            }
        }
        Some(Place::File(path)) => {
            for (name, file) in [
                ("report.file", report_file),
                ("report.metrics_file", metrics_file),
            ] {
                if file.is_some_and(|file| lines::uses(&path, &file)) {
                    read.error(name, "is the sink's own file: use another one");
                }
            }
        }
        Some(Place::RabbitMq(_)) => fit_names(read),
        Some(Place::Redis(_)) | None => {}
    }
}

/// Checks the queue names that RabbitMQ gets, as far as the labels are known.
fn fit_names(read: &mut Reader<'_>) {
    let (queue, instance_id) = (read.text("sink.queue"), read.text("api.instance_id"));
    let labels = match read.labels("run.labels", "run.all_labels") {
        Some(Labels::These(labels)) => labels,
        // The labels come from the API: their queue names are checked before use.
        Some(Labels::All) | None => return,
    };
    let misnamed = labels.iter().find_map(|label_id| {
        let problem = problem_with(&filled_in(&queue, label_id, &instance_id))?;
        Some(format!("for label {label_id}, {problem}"))
    });
    if let Some(problem) = misnamed {
        read.error("sink.queue", &problem);
    }
}

/// Checks settings that only some sinks accept.
fn fit_together(read: &mut Reader<'_>, place: Option<&Place>, queue: &str, format: Option<Format>) {
    let is_redis = matches!(place, Some(Place::Redis(_)));
    let is_rabbitmq = matches!(place, Some(Place::RabbitMq(_)));
    if place.is_some() && !is_redis {
        refuse(read, &REDIS_ONLY, "Redis");
        if !is_rabbitmq {
            refuse(read, &BROKERS_ONLY, "brokers");
        }
        if format == Some(Format::Fields) {
            read.error(
                "sink.format",
                "is for Redis; this sink takes json and cloudevents",
            );
        }
    }
    if place.is_some() && !is_rabbitmq {
        refuse(read, &RABBITMQ_ONLY, "RabbitMQ");
    }
    let rest = queue.replace("{label_id}", "").replace("{instance_id}", "");
    if rest.contains(['{', '}']) && !(is_redis && is_taggable(&rest)) {
        let what = if is_redis {
            "{label_id} and {instance_id} are filled in, and one {hash tag} may stand beside them"
        } else {
            "only {label_id} and {instance_id} can be filled in"
        };
        read.error("sink.queue", what);
    } else if rest.contains('{') && read.is_set("sink.partitions") {
        read.error(
            "sink.queue",
            "has a {hash tag}, which would keep all partitions in one slot",
        );
    }
}

fn refuse(read: &mut Reader<'_>, keys: &[&'static str], sinks: &str) {
    for key in keys {
        if read.is_set(key) {
            read.error(
                key,
                &format!("has no meaning for this sink, only for {sinks}"),
            );
        }
    }
}

/// Checks settings against the limits of RabbitMQ.
fn fit_rabbitmq(read: &mut Reader<'_>, retain: Option<Duration>) {
    if read.text("sink.exchange").len() > MAX_NAME {
        read.error("sink.exchange", &format!("is over {MAX_NAME} bytes long"));
    }
    if retain.is_some_and(|retain| retain > MAX_RETAIN || retain.is_zero()) {
        read.error(
            "sink.retain",
            "RabbitMQ keeps messages for at most 49 days, or forever",
        );
    }
    if read.is_set("sink.max_pending") {
        let cannot_be_seen = "cannot be seen: how many messages wait behind";
        if read.is_set("sink.exchange") {
            read.error("sink.max_pending", &format!("{cannot_be_seen} an exchange"));
        } else if read.text("sink.queue_type") == "stream" {
            read.error(
                "sink.max_pending",
                &format!("{cannot_be_seen} the readers of a stream"),
            );
        }
    }
}
