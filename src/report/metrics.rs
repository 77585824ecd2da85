//! The report as metrics, in Prometheus' text format.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>. All metrics
//! are gauges about the last run, because a batch job has no counters.

use std::collections::BTreeSet;
use std::fmt::{Display, Write as _};
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{LabelReport, Report, Status, replace_or_write};
use crate::shard::Shard;

/// The maximum size of a metrics file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;

const LAST_SUCCESS: &str = "labelcast_last_success_timestamp_seconds";

/// The names and help texts of all metrics.
const FAMILIES: [(&str, &str); 12] = [
    (
        LAST_SUCCESS,
        "When a label's run last ended as complete, in seconds since 1970.",
    ),
    (
        "labelcast_last_end_timestamp_seconds",
        "When a label's run last ended, with any status.",
    ),
    (
        "labelcast_last_run_status",
        "1 for the status of a label's last run, 0 for all others.",
    ),
    (
        "labelcast_last_run_exit_code",
        "The exit code that a label's last run alone would have had.",
    ),
    (
        "labelcast_last_run_chats",
        "Chats of a label's last run, by outcome.",
    ),
    (
        "labelcast_last_run_messages",
        "Messages that a label's last run put on the queue.",
    ),
    (
        "labelcast_last_run_bytes",
        "Bytes of the list in a label's last run, uncompressed.",
    ),
    (
        "labelcast_last_run_attempts",
        "How often a label's last run requested the list.",
    ),
    (
        "labelcast_last_run_duration_seconds",
        "How long a label's last run took.",
    ),
    (
        "labelcast_last_process_end_timestamp_seconds",
        "When a process last ended, even if it processed no label.",
    ),
    (
        "labelcast_last_process_exit_code",
        "The exit code of the last process.",
    ),
    (
        "labelcast_last_process_duration_seconds",
        "How long the last process took.",
    ),
];

/// A value, with its labels.
#[derive(Debug)]
pub(super) struct Sample {
    name: &'static str,
    labels: String,
    value: String,
}

/// The samples of a label or of the process.
#[derive(Debug)]
pub(super) struct Group {
    /// The labels that all samples share, without `job`.
    pub(super) key: Vec<(&'static str, String)>,
    samples: Vec<Sample>,
}

impl Group {
    fn new(key: Vec<(&'static str, String)>) -> Self {
        Self {
            key,
            samples: Vec::new(),
        }
    }

    fn add(&mut self, name: &'static str, value: impl Display) {
        self.add_with(name, None, value);
    }

    fn add_with(&mut self, name: &'static str, more: Option<(&str, &str)>, value: impl Display) {
        let mut labels = String::new();
        let key = self.key.iter().map(|(name, value)| (*name, value.as_str()));
        for (name, value) in key.chain(more) {
            let separator = if labels.is_empty() { "" } else { "," };
            let _ = write!(labels, "{separator}{name}=\"{}\"", escaped(value));
        }
        self.samples.push(Sample {
            name,
            labels,
            value: value.to_string(),
        });
    }
}

/// Returns the groups of a report: one for each label, and that of the process, which is the last.
pub(super) fn groups(report: &Report, instance_id: &str, shard: Option<Shard>) -> Vec<Group> {
    let ended = seconds(report.finished_at);
    let of_label = |label: &LabelReport| of_label(label, instance_id, &ended);
    let mut groups: Vec<Group> = report.labels.iter().map(of_label).collect();
    let mut key = vec![("instance_id", instance_id.to_owned())];
    key.extend(shard.map(|shard| ("shard", shard.to_string())));
    let mut process = Group::new(key);
    process.add("labelcast_last_process_end_timestamp_seconds", &ended);
    process.add("labelcast_last_process_exit_code", report.exit_code);
    process.add(
        "labelcast_last_process_duration_seconds",
        millis(report.elapsed_ms.into()),
    );
    groups.push(process);
    groups
}

fn of_label(label: &LabelReport, instance_id: &str, ended: &str) -> Group {
    let mut group = Group::new(vec![
        ("instance_id", instance_id.to_owned()),
        ("label_id", label.label_id.clone()),
        ("queue", label.queue.clone()),
    ]);
    if label.status == Status::Complete {
        group.add(LAST_SUCCESS, ended);
    }
    group.add("labelcast_last_end_timestamp_seconds", ended);
    for status in Status::ALL {
        let is_it = u8::from(status == label.status);
        let named = Some(("status", status.name()));
        group.add_with("labelcast_last_run_status", named, is_it);
    }
    group.add("labelcast_last_run_exit_code", label.exit.code());
    if label.status == Status::Locked {
        // The run that holds the lock reports the numbers.
        return group;
    }
    let counts = label.counts;
    for (outcome, chats) in [
        ("read", counts.read),
        ("published", counts.published),
        ("resumed", counts.resumed),
        ("suppressed", counts.suppressed),
        ("known", counts.known),
        ("invalid", counts.invalid),
        ("removed", counts.removed),
    ] {
        group.add_with(
            "labelcast_last_run_chats",
            Some(("outcome", outcome)),
            chats,
        );
    }
    group.add("labelcast_last_run_messages", counts.messages);
    group.add("labelcast_last_run_bytes", counts.bytes);
    group.add("labelcast_last_run_attempts", label.history.attempts);
    let duration = millis(label.elapsed.as_millis());
    group.add("labelcast_last_run_duration_seconds", duration);
    group
}

/// Renders groups, and lines of [`LAST_SUCCESS`] kept from an earlier file.
pub(super) fn text<'a>(groups: impl IntoIterator<Item = &'a Group>, kept: &[&str]) -> String {
    let samples: Vec<&Sample> = groups.into_iter().flat_map(|g| &g.samples).collect();
    let mut text = String::new();
    for (name, help) in FAMILIES {
        let of_family = samples.iter().filter(|sample| sample.name == name);
        let mut lines: String = of_family
            .map(|Sample { labels, value, .. }| format!("{name}{{{labels}}} {value}\n"))
            .collect();
        if name == LAST_SUCCESS {
            lines.extend(kept.iter().flat_map(|line| [line, "\n"]));
        }
        if !lines.is_empty() {
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{lines}");
        }
    }
    text
}

/// Writes the metrics of a report to a file, atomically if it can be replaced. If this run was not
/// complete, the time of a label's last success is kept from the previous file.
pub(super) fn write(path: &Path, groups: &[Group]) -> io::Result<()> {
    let before = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= MAX_FILE_BYTES => {
            std::fs::read_to_string(path).unwrap_or_default()
        }
        _ => String::new(),
    };
    let new: BTreeSet<&str> = groups
        .iter()
        .flat_map(|group| &group.samples)
        .filter(|sample| sample.name == LAST_SUCCESS)
        .map(|sample| sample.labels.as_str())
        .collect();
    let is_kept = |line: &&str| last_success_labels(line).is_some_and(|of| !new.contains(of));
    let kept: Vec<&str> = before.lines().filter(is_kept).collect();
    replace_or_write(path, text(groups, &kept).as_bytes())
}

/// Returns the labels of a line of [`LAST_SUCCESS`].
fn last_success_labels(line: &str) -> Option<&str> {
    let (labels, value) = line
        .strip_prefix(LAST_SUCCESS)?
        .strip_prefix('{')?
        .rsplit_once("} ")?;
    value.parse::<f64>().ok().map(|_| labels)
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"");
    value.replace('\n', r"\n")
}

fn seconds(at: SystemTime) -> String {
    millis(
        at.duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis(),
    )
}

fn millis(millis: u128) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}
