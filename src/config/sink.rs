//! The settings of sinks, and which settings go with which sink.

use std::path::Path;
use std::time::Duration;

use super::values::{Optional, Reader};
use super::{ConfigSources, Labels, Origin, RunMode};
use crate::broker::factory::{
    Address, Broker, SinkSettings, StateAddress, fill_in, problem_with_braces,
};
use crate::broker::{BrokerOptions, QueueType};
use crate::message::{Format, Layout};

/// Each partition has a connection of its own.
const MAX_PARTITIONS: u64 = 256;

pub(super) fn read(sources: &mut ConfigSources) -> Option<SinkSettings> {
    let mut read = Reader::new(sources);
    let address = address(&mut read);
    let queue = read.required("sink.queue");
    let format = read.optional("sink.format", format);
    let ids_per_message = read.number("sink.ids_per_message", 1..=10_000);
    let include_names = read.switch("sink.include_names");
    let (options, all_valid) = options(&mut read);
    let state = state_elsewhere(&mut read, address.as_ref());
    match (&address, &queue) {
        (Some(address), Some(queue)) => {
            fit_together(&mut read, address, &options, queue, format.flatten());
        }
        (None, Some(queue)) => {
            if let Some((key, problem)) = problem_with_braces(&fill_in(queue, "", "")) {
                read.error(key, &problem);
            }
        }
        (_, None) => {}
    }
    let address = address?;
    let layout = Layout {
        format: format?.unwrap_or(address.formats()[0]),
        ids_per_message: u32::try_from(ids_per_message?).ok()?,
        include_names: include_names?,
    };
    all_valid.then_some(SinkSettings {
        broker: Broker {
            address,
            options,
            state: state?,
        },
        queue: queue?,
        layout,
    })
}

/// The broker of a worker, and the format of its messages. Settings of label queues do not matter for
/// it.
pub(super) fn read_for_messages(sources: &mut ConfigSources) -> Option<SinkSettings> {
    let mut read = Reader::new(sources);
    let address = address(&mut read);
    let format = read.optional("sink.format", format);
    let (options, all_valid) = options(&mut read);
    let options = BrokerOptions {
        max_pending: None,
        marker: false,
        partitions: None,
        ..options
    };
    let address = address?;
    if !address.is_broker() {
        read.error(
            "sink.url",
            "is no broker: enrich takes chat ids from Redis or RabbitMQ",
        );
        return None;
    }
    fit_together(&mut read, &address, &options, "", format.flatten());
    let layout = Layout {
        format: format?.unwrap_or(address.formats()[0]),
        ids_per_message: 1,
        include_names: false,
    };
    all_valid.then_some(SinkSettings {
        broker: Broker {
            address,
            options,
            state: None,
        },
        queue: String::new(),
        layout,
    })
}

/// The broker whose state has the counts of an account. Settings of messages and queues do not
/// matter for it.
pub(super) fn read_for_counts(sources: &mut ConfigSources) -> Option<Broker> {
    let mut read = Reader::new(sources);
    let address = address(&mut read);
    let retain = read.retain("sink.retain");
    let state = state_elsewhere(&mut read, address.as_ref());
    Some(Broker {
        address: address?,
        options: BrokerOptions {
            retain: retain?,
            ..BrokerOptions::default()
        },
        state: state?,
    })
}

/// The state, if it is not at the sink's own server: there, the sink decides in one step with its
/// messages.
fn state_elsewhere(read: &mut Reader<'_>, address: Option<&Address>) -> Optional<StateAddress> {
    let state = read.optional("state.url", state)?;
    let is_own = |state: &StateAddress| address.is_some_and(|it| state.is_own_of(it));
    Some(state.filter(|state| !is_own(state)))
}

fn state(read: &mut Reader<'_>, key: &'static str) -> Option<StateAddress> {
    StateAddress::parse(&read.text(key))
        .map_err(|problem| read.error(key, &problem))
        .ok()
}

fn format(read: &mut Reader<'_>, key: &'static str) -> Option<Format> {
    let formats = [
        ("fields", Format::Fields),
        ("json", Format::Json),
        ("cloudevents", Format::CloudEvents),
    ];
    read.one_of(key, &formats)
}

/// The options of brokers, and whether all of them are valid. An invalid one is as if it were not
/// set, so that the others can be checked.
fn options(read: &mut Reader<'_>) -> (BrokerOptions, bool) {
    let retain = read.retain("sink.retain");
    let max_pending = read.optional("sink.max_pending", |read, key| {
        read.number(key, 1..=u64::MAX)
    });
    let marker = read.switch("sink.marker");
    let partitions = read.optional("sink.partitions", |read, key| {
        let partitions = read.number(key, 1..=MAX_PARTITIONS)?;
        u32::try_from(partitions).ok()
    });
    let min_replicas = read.number("sink.min_replicas", 0..=100);
    let min_replicas = min_replicas.and_then(|replicas| u32::try_from(replicas).ok());
    let exchange = read.text("sink.exchange");
    let queue_types = QueueType::ALL.map(|queue_type| (queue_type.name(), queue_type));
    let queue_type = read.one_of("sink.queue_type", &queue_types);
    let no_declare = read.switch("sink.no_declare");
    let all_valid = retain.is_some()
        && max_pending.is_some()
        && marker.is_some()
        && partitions.is_some()
        && min_replicas.is_some()
        && queue_type.is_some()
        && no_declare.is_some();
    let options = BrokerOptions {
        retain: retain.flatten(),
        max_pending: max_pending.flatten(),
        marker: marker.unwrap_or_default(),
        partitions: partitions.flatten(),
        min_replicas: min_replicas.unwrap_or_default(),
        exchange: (!exchange.is_empty()).then_some(exchange),
        queue_type: queue_type.unwrap_or_default(),
        no_declare: no_declare.unwrap_or_default(),
    };
    (options, all_valid)
}

fn address(read: &mut Reader<'_>) -> Option<Address> {
    let (key, url) = url(read)?;
    Address::parse(&url)
        .map_err(|problem| read.error(key, &problem))
        .ok()
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

/// Checks settings that the sink does not use, or that do not go with it.
fn fit_together(
    read: &mut Reader<'_>,
    address: &Address,
    options: &BrokerOptions,
    queue: &str,
    format: Option<Format>,
) {
    for (key, users) in address.unused_settings() {
        if read.is_set(key) {
            let problem = format!("has no meaning for this sink, only for {users}");
            read.error(key, &problem);
        }
    }
    if format.is_some_and(|format| !address.formats().contains(&format)) {
        let problem = "is for Redis; this sink takes json and cloudevents";
        read.error("sink.format", problem);
    }
    for (key, problem) in address.problems(options, &fill_in(queue, "", "")) {
        read.error(key, &problem);
    }
}

/// Checks settings of other parts that depend on the sink.
pub(super) fn check_combinations(read: &mut Reader<'_>, mode: RunMode) {
    let dry_run = mode == RunMode::Dry;
    // Errors of single settings were recorded where these were read.
    let report_file = read.optional("report.file", Reader::path).flatten();
    let metrics_file = read.optional("report.metrics_file", Reader::path).flatten();
    if report_file.is_some() && report_file == metrics_file {
        read.error(
            "report.metrics_file",
            "is the report's file: use another one",
        );
    }
    let Some(address) = address(read) else {
        return;
    };
    if address.is_stdout() {
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
        if read.switch("run.removed") == Some(true) {
            read.error("run.removed", NO_REMOVED_QUEUE);
        }
    }
    check_selection(read, &address, mode);
    let state = read.optional("state.url", |read, key| {
        StateAddress::parse(&read.text(key)).ok()
    });
    let state_file = state
        .flatten()
        .and_then(|state| state.file().map(Path::to_owned));
    for (name, file) in [
        ("report.file", &report_file),
        ("report.metrics_file", &metrics_file),
    ] {
        if file.is_some() && *file == state_file {
            read.error(name, "is the file of --state: use another one");
        }
    }
    for (name, file) in [
        ("report.file", report_file),
        ("report.metrics_file", metrics_file),
        ("state.url", state_file),
    ] {
        if file.is_some_and(|file| address.uses_file(&file)) {
            read.error(name, "is the sink's own file: use another one");
        }
    }
    check_names(read, &address);
}

const NO_REMOVED_QUEUE: &str = "chats that have left need a queue of their own, which the sink “-” does not have: use another --sink";

/// Settings for which something has to be known between runs, without `--baseline`.
const NEED_STATE: [&str; 5] = [
    "run.suppress_for",
    "run.only_new",
    "run.removed",
    "run.min_age",
    "state.track",
];

/// Checks that what has to be known between runs can be kept.
fn check_selection(read: &mut Reader<'_>, address: &Address, mode: RunMode) {
    let mut keys: Vec<&'static str> = NEED_STATE
        .into_iter()
        .filter(|key| read.is_set(key))
        .collect();
    if let Some(window) = read
        .optional("run.suppress_for", Reader::duration)
        .flatten()
    {
        check_window(read, window);
    }
    if mode == RunMode::Baseline {
        keys.push("state.url");
    }
    if mode != RunMode::Dry && !address.keeps_state() && !read.is_set("state.url") {
        for key in &keys {
            let problem = "needs to know what earlier runs did: use a Redis sink, or --state";
            read.error(key, problem);
        }
    }
    if !keys.is_empty() && read.number("sink.ids_per_message", 1..=10_000) != Some(1) {
        let problem = "has to be 1 where some chats are left out or recorded";
        read.error("sink.ids_per_message", problem);
    }
}

/// Checks what following labels needs: a state, and a message for each event.
pub(super) fn check_followed(read: &mut Reader<'_>) {
    let Some(address) = address(read) else {
        return;
    };
    if !address.keeps_state() && !read.is_set("state.url") {
        let problem = "is needed to know which events change a label, or a Redis sink";
        read.error("state.url", problem);
    }
    if read.number("sink.ids_per_message", 1..=10_000) != Some(1) {
        read.error(
            "sink.ids_per_message",
            "has to be 1: an event is one message",
        );
    }
    if address.is_stdout() && read.switch("run.removed") == Some(true) {
        read.error("run.removed", NO_REMOVED_QUEUE);
    }
    if let Some(window) = read
        .optional("run.suppress_for", Reader::duration)
        .flatten()
    {
        check_window(read, window);
    }
    check_state_file(read, &address);
    if read.is_set("run.labels") {
        check_names(read, &address);
    }
}

/// Checks that the state is not the sink's own file.
fn check_state_file(read: &mut Reader<'_>, address: &Address) {
    let state = read.optional("state.url", |read, key| {
        StateAddress::parse(&read.text(key)).ok()
    });
    let is_own = state
        .flatten()
        .is_some_and(|state| state.file().is_some_and(|file| address.uses_file(file)));
    if is_own {
        read.error("state.url", "is the sink's own file: use another one");
    }
}

fn check_window(read: &mut Reader<'_>, window: Duration) {
    let key = "run.suppress_for";
    if window < Duration::from_secs(1) {
        read.error(key, "is under a second");
    }
    if let Some(Some(retain)) = read.retain("sink.retain")
        && window > retain
    {
        read.error(key, "is longer than --retain, after which nothing is known");
    }
}

/// Checks the names of queues, as far as the labels are known.
fn check_names(read: &mut Reader<'_>, address: &Address) {
    let (queue, instance_id) = (read.text("sink.queue"), read.text("api.instance_id"));
    let labels = match read.labels("run.labels", "run.all_labels") {
        Some(Labels::These(labels)) => labels,
        // The labels come from the API: their queue names are checked before use.
        Some(Labels::All) | None => return,
    };
    let misnamed = labels.iter().find_map(|label_id| {
        let problem = address.problem_with_name(&fill_in(&queue, label_id, &instance_id))?;
        Some(format!("for label {label_id}, {problem}"))
    });
    if let Some(problem) = misnamed {
        read.error("sink.queue", &problem);
    }
}
