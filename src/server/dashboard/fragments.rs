//! The parts of the page that change, as HTML.
//!
//! The page contains all of them, and an update those that changed. They do not depend on the
//! current time: the script of the page writes the ages.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use xxhash_rust::xxh3::Xxh3;

use super::{rows, summary};
use crate::live::overview::{EnrichedView, LabelView, Overview, RunStatus};

/// All parts for one [`Overview`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fragments {
    /// Contents of elements, by the ids of the elements.
    pub(super) parts: BTreeMap<&'static str, String>,
    /// Rows of tables, by the ids of their bodies.
    pub(super) tables: BTreeMap<&'static str, Vec<Row>>,
    /// A digest over all of it: equal for equal fragments, also of another process.
    pub(super) version: String,
}

/// A row of a table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Tells it from the others in its table.
    pub(super) key: String,
    /// The element, `<tr data-key="…">…</tr>`.
    pub(super) html: String,
}

impl Fragments {
    /// Renders all parts.
    pub(super) fn of(overview: &Overview, now: SystemTime) -> Self {
        let parts = BTreeMap::from([
            ("attention", summary::attention_list(overview, now)),
            ("numbers", summary::numbers(overview)),
            ("minutes", summary::minutes(overview)),
        ]);
        let tables = BTreeMap::from([
            ("chats", chats(overview)),
            ("enriched", enriched(overview)),
            ("minute-rows", minutes(overview)),
            ("queues", queues(overview)),
            ("runs", runs(overview)),
        ]);
        let version = version(&parts, &tables);
        Self {
            parts,
            tables,
            version,
        }
    }
}

fn version(
    parts: &BTreeMap<&'static str, String>,
    tables: &BTreeMap<&'static str, Vec<Row>>,
) -> String {
    let mut digest = Xxh3::new();
    let rows = tables.values().flatten().map(|row| &row.html);
    for html in parts.values().chain(rows) {
        digest.update(html.as_bytes());
        // No HTML contains this byte, so it separates the parts.
        digest.update(&[0xff]);
    }
    format!("{:016x}", digest.digest())
}

/// Labels, the largest first. Labels that are not counted yet are last.
fn chats(overview: &Overview) -> Vec<Row> {
    let mut labels: Vec<&LabelView> = overview.labels.iter().collect();
    labels.sort_by_key(|label| std::cmp::Reverse(label.chats));
    let most = labels.iter().filter_map(|label| label.chats).max();
    let end = super::charts::round_up(most.unwrap_or(0));
    let row = |label: &&LabelView| rows::chats(label, end);
    labels.iter().map(row).collect()
}

/// Queues whose chats are enriched, those with the most records first.
fn enriched(overview: &Overview) -> Vec<Row> {
    let mut enriched: Vec<&EnrichedView> = overview.enriched.iter().collect();
    enriched.sort_by_key(|enriched| std::cmp::Reverse(enriched.totals.records()));
    enriched.into_iter().map(rows::enriched).collect()
}

/// Queues with their labels, the longest first. Several labels may share a queue.
fn queues(overview: &Overview) -> Vec<Row> {
    let mut by_name: BTreeMap<&str, Vec<&LabelView>> = BTreeMap::new();
    for label in &overview.labels {
        by_name.entry(&label.queue).or_default().push(label);
    }
    let mut queues: Vec<_> = by_name.into_iter().collect();
    let size = |labels: &[&LabelView]| labels.first().map(|label| (label.lag, label.messages));
    queues.sort_by_key(|(_, labels)| std::cmp::Reverse(size(labels)));
    let row = |(queue, labels): &(&str, Vec<&LabelView>)| rows::queue(queue, labels);
    queues.iter().map(row).collect()
}

/// Last runs: those that did not end well first, then the newest first.
fn runs(overview: &Overview) -> Vec<Row> {
    let rank = |status| match status {
        RunStatus::Failed => 0,
        RunStatus::Guarded => 1,
        RunStatus::Partial => 2,
        RunStatus::Complete => 3,
    };
    let labels = overview.labels.iter();
    let mut runs: Vec<_> = labels
        .filter_map(|label| Some((label, label.last_run.as_ref()?)))
        .collect();
    runs.sort_by_key(|(_, run)| (rank(run.status), std::cmp::Reverse(run.finished_at)));
    runs.iter()
        .map(|(label, run)| rows::run(label, run))
        .collect()
}

/// Minutes with their events, the newest first.
fn minutes(overview: &Overview) -> Vec<Row> {
    let events = overview.events_by_minute.iter().rev();
    (0_u64..)
        .zip(events)
        .map(|(ago, events)| {
            let at = overview.at.checked_sub(Duration::from_secs(60 * ago));
            rows::minute(at.unwrap_or(overview.at), *events)
        })
        .collect()
}
