//! The queues and labels that a purge works on, and their keys.

mod labels;

use std::collections::BTreeSet;

use tracing::warn;

use super::beside::SCANNED_KEYS;
use super::remote::Remote;
use crate::broker::factory::fill_in;
use crate::broker::purge::impossible;
use crate::broker::redis::connect::Endpoint;
use crate::broker::redis::keys::{Keys, Kinds, SINK, STATE, hash_tag, removed_stream};
use crate::broker::{BrokerError, Purge, Target};
use crate::retry::RetryPolicy;

/// One queue, with the labels that are purged together.
pub(super) struct Scope {
    /// The label whose entries and keys are deleted; `None` for all entries of the queue.
    pub(super) label: Option<String>,
    /// The locks of all runs to the queue and these labels.
    pub(super) locks: Vec<String>,
    /// The streams of the queue.
    pub(super) streams: Vec<Beside>,
}

/// A stream, and the keys beside it.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The stream, or the queue that a state is kept for.
    pub(super) stream: String,
    /// Whether these are the keys of a state, without a stream.
    pub(super) is_state: bool,
    /// Whether the stream itself is the one for chats that have left, which partitions share if
    /// their state is elsewhere.
    pub(super) is_removals: bool,
    /// The stream for chats that have left.
    pub(super) removed: String,
    pub(super) members: Vec<String>,
    /// The times of publication; `None` if other labels have a share in them.
    pub(super) published: Option<String>,
    pub(super) dedup_sets: Vec<String>,
    pub(super) checkpoints: Vec<String>,
    /// Prefix of manifests, which may be those of other queues.
    pub(super) manifests: String,
    /// Prefixes of the keys that remember events.
    pub(super) events: Vec<String>,
}

/// What a server is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// As the sink, with this number of partitions.
    Sink(Option<u32>),
    /// As the state of a sink that is elsewhere.
    State,
}

/// Finds the queues and labels to purge.
pub(super) async fn find(
    endpoint: &Endpoint,
    place: Place,
    purge: &Purge,
    retry: &RetryPolicy,
) -> Result<Vec<Scope>, BrokerError> {
    let finder = Finder::new(place, purge);
    if let Some(labels) = &purge.labels {
        if !purge.is_queue_per_label() && !purge.selection.acknowledged {
            warn!(
                "times of publication are kept, because labels of this queue may share them; \
                 without --label they are deleted"
            );
        }
        return Ok(labels.iter().map(|label| finder.of_label(label)).collect());
    }
    if !purge.is_queue_per_label() {
        let scope = finder.of_queue(endpoint, retry).await?;
        return Ok(vec![scope]);
    }
    check_request(endpoint, purge)?;
    let labels = finder.labels(endpoint, retry).await?;
    Ok(labels.iter().map(|label| finder.of_label(label)).collect())
}

/// Checks that the queues and labels can be found.
///
/// # Errors
///
/// [`BrokerError::Misconfigured`].
pub(super) fn check_request(endpoint: &Endpoint, purge: &Purge) -> Result<(), BrokerError> {
    if purge.labels.is_some() || !purge.is_queue_per_label() || !endpoint.is_cluster() {
        return Ok(());
    }
    let problem = "the queues of all labels cannot be found in a Redis Cluster";
    let fix = "name the labels with --label, or one queue with --queue";
    Err(impossible(problem, fix))
}

struct Finder<'a> {
    partitions: Option<u32>,
    is_state: bool,
    purge: &'a Purge,
}

impl<'a> Finder<'a> {
    fn new(place: Place, purge: &'a Purge) -> Self {
        Self {
            partitions: match place {
                Place::Sink(partitions) => partitions,
                Place::State => None,
            },
            is_state: place == Place::State,
            purge,
        }
    }

    /// The scope of one label.
    fn of_label(&self, label: &str) -> Scope {
        Scope {
            label: Some(label.to_owned()),
            locks: vec![self.lock(label)],
            streams: self.streams(&[label.to_owned()], self.purge.is_queue_per_label()),
        }
    }

    /// The scope of a whole queue, with all labels of the account that have keys beside it.
    async fn of_queue(
        &self,
        endpoint: &Endpoint,
        retry: &RetryPolicy,
    ) -> Result<Scope, BrokerError> {
        let keys = self.keys("", self.first_partition());
        let mut remote = Remote::new(endpoint, &keys.stream, retry);
        // Entries do not name the account, so the runs of other accounts count too.
        let of_all = self.keys_of_all(&keys);
        let (mut labels, mut locks) = (BTreeSet::new(), BTreeSet::new());
        let mut cursor = "0".to_owned();
        loop {
            let found = scan(&mut remote, &mut cursor, "labelcast:[cms]*", None).await?;
            for key in found {
                for (kind, prefix) in &of_all {
                    let Some(rest) = key.strip_prefix(prefix.as_str()) else {
                        continue;
                    };
                    if *kind == self.kinds().checkpoint {
                        locks.insert(key.replacen(kind, self.kinds().lock, 1));
                    }
                    let account = format!("{}:", self.purge.instance_id);
                    labels.extend(rest.strip_prefix(&account).map(str::to_owned));
                }
            }
            if cursor == "0" {
                break;
            }
        }
        let labels: Vec<String> = labels.into_iter().collect();
        locks.extend(labels.iter().map(|label| self.lock(label)));
        let mut streams = self.streams(&labels, true);
        for beside in &mut streams {
            // Also those of `enrich`, which have no label.
            let events = self.key_of_all(self.kinds().event, &beside.stream);
            beside.events.push(events);
        }
        Ok(Scope {
            label: None,
            locks: locks.into_iter().collect(),
            streams,
        })
    }

    /// The prefixes of the keys of all accounts and labels beside a stream.
    fn keys_of_all(&self, keys: &Keys) -> [(&'static str, String); 2] {
        [self.kinds().checkpoint, self.kinds().members]
            .map(|kind| (kind, self.key_of_all(kind, &keys.stream)))
    }

    /// The prefix of the keys of a kind, of all accounts and labels beside a stream.
    fn key_of_all(&self, kind: &str, stream: &str) -> String {
        let tag = hash_tag(stream).unwrap_or(stream);
        format!("labelcast:{kind}:{{{tag}}}:{stream}:")
    }

    fn keys(&self, label: &str, partition: Option<u32>) -> Keys {
        let target = Target {
            queue: fill_in(&self.purge.queue, label, &self.purge.instance_id),
            label_id: label.to_owned(),
            instance_id: self.purge.instance_id.clone(),
        };
        match self.is_state {
            true => Keys::of_state(&target),
            false => Keys::new(&target, partition),
        }
    }

    /// The names of the keys.
    fn kinds(&self) -> &'static Kinds {
        if self.is_state { &STATE } else { &SINK }
    }

    /// The lock of a run.
    fn lock(&self, label: &str) -> String {
        self.keys(label, self.first_partition()).lock
    }

    /// The partition whose lock guards all.
    fn first_partition(&self) -> Option<u32> {
        self.partitions.map(|_| 0)
    }

    /// The streams of the queue, with the keys of these labels.
    fn streams(&self, labels: &[String], has_published: bool) -> Vec<Beside> {
        let of_partition = |partition: Option<u32>| {
            let some = labels.first().map_or("", String::as_str);
            let keys = self.keys(some, partition);
            let mut beside = Beside {
                removed: keys.removed.clone(),
                published: has_published.then(|| keys.published.clone()),
                manifests: keys.manifests().to_owned(),
                stream: keys.stream,
                is_state: self.is_state,
                ..Beside::default()
            };
            for label in labels {
                let keys = self.keys(label, partition);
                beside.members.push(keys.members.clone());
                beside.checkpoints.push(keys.checkpoint.clone());
                beside.events.push(keys.events().to_owned());
                if partition.is_none() && !self.is_state {
                    beside.events.push(self.removals(label).events().to_owned());
                }
                beside.dedup_sets.push(keys.dedup);
            }
            beside
        };
        match self.partitions {
            None => vec![of_partition(None)],
            Some(count) => {
                let partitions = (0..count).map(|index| of_partition(Some(index)));
                partitions.chain([self.shared_removals(labels)]).collect()
            }
        }
    }

    /// The keys of the queue for chats that have left, which a sink has whose state is elsewhere.
    fn removals(&self, label: &str) -> Keys {
        let queue = fill_in(&self.purge.queue, label, &self.purge.instance_id);
        let target = Target {
            queue: removed_stream(&queue),
            label_id: label.to_owned(),
            instance_id: self.purge.instance_id.clone(),
        };
        Keys::new(&target, None)
    }

    /// That queue, which partitions share.
    fn shared_removals(&self, labels: &[String]) -> Beside {
        let some = labels.first().map_or("", String::as_str);
        let keys = self.removals(some);
        let events = labels.iter().map(|label| self.removals(label));
        Beside {
            is_removals: true,
            manifests: keys.manifests().to_owned(),
            events: events.map(|keys| keys.events().to_owned()).collect(),
            stream: keys.stream,
            ..Beside::default()
        }
    }
}

/// Reads one page of a scan, and moves the cursor.
async fn scan(
    remote: &mut Remote,
    cursor: &mut String,
    pattern: &str,
    kind: Option<&str>,
) -> Result<Vec<String>, BrokerError> {
    let mut scan = redis::cmd("SCAN");
    scan.arg(&*cursor).arg("MATCH").arg(pattern);
    scan.arg("COUNT").arg(SCANNED_KEYS);
    if let Some(kind) = kind {
        scan.arg("TYPE").arg(kind);
    }
    let (next, keys): (String, Vec<String>) = remote.query(&scan).await?;
    *cursor = next;
    Ok(keys)
}
