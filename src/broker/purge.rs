//! Deletion of what is stored: the request, and what was deleted.

use std::time::Duration;

use serde::Serialize;

use super::{BrokerError, CountStore};
use crate::state::counts::LabelCount;

/// A request to delete what is stored about chats.
#[derive(Clone, Debug)]
pub struct Purge {
    /// The queue's name, with its placeholders.
    pub queue: String,
    /// The account.
    pub instance_id: String,
    /// The labels; `None` for everything on the queue.
    pub labels: Option<Vec<String>>,
    /// What is deleted.
    pub selection: PurgeSelection,
    /// Whether to delete nothing, and only count.
    pub dry_run: bool,
}

/// What a purge deletes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PurgeSelection {
    /// Age from which on something is deleted; zero for everything. `None` to delete messages only,
    /// of any age.
    pub older_than: Option<Duration>,
    /// Whether only messages are deleted, and of them only those that every consumer group has
    /// acknowledged.
    pub acknowledged: bool,
}

impl PurgeSelection {
    /// Age from which on something that is not a message is deleted; `None` to delete messages only.
    pub fn age_of_records(&self) -> Option<Duration> {
        self.older_than.filter(|_| !self.acknowledged)
    }
}

impl Purge {
    /// Whether each label has a queue of its own.
    pub fn is_queue_per_label(&self) -> bool {
        self.queue.contains("{label_id}")
    }
}

/// How much was deleted, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Messages on the queue.
    pub messages: u64,
    /// Messages on the queue for chats that have left.
    pub removed_messages: u64,
    /// Chats whose membership is recorded.
    pub members: u64,
    /// Chats whose time of publication is recorded.
    pub publication_times: u64,
    /// Sets of the chats that a run has published.
    pub dedup_sets: u64,
    /// Ids of events.
    pub events: u64,
    /// Checkpoints.
    pub checkpoints: u64,
    /// Manifests of runs.
    pub manifests: u64,
    /// Numbers of chats of labels.
    pub counts: u64,
}

impl Purged {
    /// Adds what was deleted elsewhere.
    pub(super) fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.removed_messages += other.removed_messages;
        self.members += other.members;
        self.publication_times += other.publication_times;
        self.dedup_sets += other.dedup_sets;
        self.events += other.events;
        self.checkpoints += other.checkpoints;
        self.manifests += other.manifests;
        self.counts += other.counts;
    }
}

/// The end of a purge. A queue and label that fails does not stop the others.
#[derive(Debug, Default)]
pub struct PurgeOutcome {
    /// What was deleted, also where an error followed.
    pub purged: Purged,
    /// Why something was not deleted.
    pub errors: Vec<BrokerError>,
}

impl PurgeOutcome {
    /// The outcome of a purge that cannot begin.
    pub(super) fn failed(error: BrokerError) -> Self {
        Self {
            errors: vec![error],
            ..Self::default()
        }
    }

    /// Deletes the counts of the labels, unless their queue could not be purged.
    pub(super) async fn purge_counts(&mut self, store: &mut dyn CountStore, purge: &Purge) {
        let Some(age) = purge.selection.age_of_records() else {
            return;
        };
        if !self.errors.is_empty() {
            return;
        }
        match purge_counts(store, purge, age).await {
            Ok(counts) => self.purged.counts += counts,
            Err(error) => self.errors.push(error),
        }
    }

    /// Adds the outcome at another place.
    pub(super) fn merge(&mut self, other: Self) {
        self.purged.add(other.purged);
        self.errors.extend(other.errors);
    }

    /// Notes the end of one part.
    pub(super) fn add(&mut self, purged: Purged, result: Result<(), BrokerError>) {
        self.purged.add(purged);
        self.errors.extend(result.err());
    }
}

/// The error for a request that a sink cannot fulfil.
pub(super) fn impossible(problem: &str, fix: &'static str) -> BrokerError {
    BrokerError::Misconfigured {
        problem: problem.to_owned(),
        fix,
    }
}

/// Deletes or counts the counts that are older than this.
async fn purge_counts(
    store: &mut dyn CountStore,
    purge: &Purge,
    age: Duration,
) -> Result<u64, BrokerError> {
    let counts = store.load().await?;
    let is_kept = |count: &&LabelCount| {
        let is_ours = (purge.labels.as_ref()).is_none_or(|ids| ids.contains(&count.label_id));
        let elapsed = count.counted_at.elapsed().unwrap_or_default();
        !(is_ours && (age.is_zero() || elapsed > age))
    };
    let kept: Vec<&str> = counts
        .iter()
        .filter(is_kept)
        .map(|count| count.label_id.as_str())
        .collect();
    if !purge.dry_run && kept.len() < counts.len() {
        store.replace(&[], &kept).await?;
    }
    Ok((counts.len() - kept.len()) as u64)
}
