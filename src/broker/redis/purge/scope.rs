//! The queues and labels that a purge works on, and their keys.

use std::collections::BTreeSet;

use tracing::warn;

use super::beside::SCANNED_KEYS;
use super::remote::{Remote, script};
use crate::broker::factory::fill_in;
use crate::broker::purge::impossible;
use crate::broker::redis::connect::Endpoint;
use crate::broker::redis::keys::{Keys, hash_tag};
use crate::broker::{BrokerError, Purge, Target};
use crate::retry::RetryPolicy;

/// Reads the label of the first entry, to know whether a stream is the label's.
const FIRST_LABEL: &str = concat!(
    include_str!("label_of.lua"),
    include_str!("first_label.lua")
);

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
                    if *kind == self.checkpoint_kind() {
                        locks.insert(key.replacen(kind, self.lock_kind(), 1));
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
        Ok(Scope {
            label: None,
            locks: locks.into_iter().collect(),
            streams: self.streams(&labels, true),
        })
    }

    /// The prefixes of the keys of all accounts and labels beside a stream.
    fn keys_of_all(&self, keys: &Keys) -> [(&'static str, String); 2] {
        [self.checkpoint_kind(), self.members_kind()].map(|kind| {
            let tag = hash_tag(&keys.stream).unwrap_or(&keys.stream);
            let prefix = format!("labelcast:{kind}:{{{tag}}}:{}:", keys.stream);
            (kind, prefix)
        })
    }

    /// Finds the labels whose queues have messages or keys.
    async fn labels(
        &self,
        endpoint: &Endpoint,
        retry: &RetryPolicy,
    ) -> Result<BTreeSet<String>, BrokerError> {
        let mut remote = Remote::new(endpoint, "labelcast", retry);
        let (mut labels, mut cursor) = (BTreeSet::new(), "0".to_owned());
        loop {
            let found = scan(&mut remote, &mut cursor, "labelcast:[cms]*", None).await?;
            labels.extend(found.iter().filter_map(|key| self.label_of_key(key)));
            if cursor == "0" {
                break;
            }
        }
        if self.is_state {
            return Ok(labels);
        }
        // A stream can outlive the keys beside it, for a label that is not published any more.
        let (start, end) = self.around_label();
        let pattern = format!("{}*{}*", escaped(&start), escaped(&end));
        loop {
            let found = scan(&mut remote, &mut cursor, &pattern, Some("stream")).await?;
            for stream in found {
                let Some(label) = self.label_of_stream(&stream) else {
                    continue;
                };
                let first = script(FIRST_LABEL, &[stream.as_str()]);
                let first: Option<String> = remote.query(&first).await?;
                if first.as_ref() == Some(&label) {
                    labels.insert(label);
                }
            }
            if cursor == "0" {
                return Ok(labels);
            }
        }
    }

    /// Returns the label whose checkpoint or members a key holds. Labels may contain colons, so
    /// each end of the key is tried.
    fn label_of_key(&self, key: &str) -> Option<String> {
        let mut ends = key.match_indices(':').map(|(at, _)| &key[at + 1..]);
        let is_label = |label: &&str| {
            let keys = self.keys(label, self.first_partition());
            key == self.checkpoint(&keys) || key == self.members(&keys)
        };
        ends.rfind(is_label).map(str::to_owned)
    }

    /// Returns the label in the name of a stream.
    fn label_of_stream(&self, stream: &str) -> Option<String> {
        let (start, end) = self.around_label();
        let queue = match self.partitions {
            None => stream,
            Some(_) => stream.strip_suffix('}')?.rsplit_once(":{")?.0,
        };
        let label = queue
            .strip_prefix(start.as_str())?
            .strip_suffix(end.as_str())?;
        let is_whole = fill_in(&self.purge.queue, label, &self.purge.instance_id) == queue;
        (is_whole && !label.is_empty()).then(|| label.to_owned())
    }

    /// The parts of the queue's name before and after the label.
    fn around_label(&self) -> (String, String) {
        let Purge {
            queue, instance_id, ..
        } = self.purge;
        let (start, end) = queue.split_once("{label_id}").unwrap_or((queue, ""));
        // The label may be in the name twice: the name is compared as a whole later.
        let end = end.rsplit("{label_id}").next().unwrap_or_default();
        (
            fill_in(start, "", instance_id),
            fill_in(end, "", instance_id),
        )
    }

    fn checkpoint_kind(&self) -> &'static str {
        if self.is_state { "state" } else { "checkpoint" }
    }

    fn members_kind(&self) -> &'static str {
        if self.is_state {
            "state-members"
        } else {
            "members"
        }
    }

    fn lock_kind(&self) -> &'static str {
        if self.is_state { "state-lock" } else { "lock" }
    }

    fn checkpoint(&self, keys: &Keys) -> String {
        (keys.checkpoint).replacen("checkpoint", self.checkpoint_kind(), 1)
    }

    /// The members of a label.
    fn members(&self, keys: &Keys) -> String {
        (keys.members).replacen("members", self.members_kind(), 1)
    }

    /// The times of publication to a queue.
    fn published(&self, keys: &Keys) -> String {
        match self.is_state {
            true => (keys.published).replacen("published", "state-published", 1),
            false => keys.published.clone(),
        }
    }

    /// The lock of a run.
    fn lock(&self, label: &str) -> String {
        let keys = self.keys(label, self.first_partition());
        keys.lock.replacen("lock", self.lock_kind(), 1)
    }

    fn keys(&self, label: &str, partition: Option<u32>) -> Keys {
        let target = Target {
            queue: fill_in(&self.purge.queue, label, &self.purge.instance_id),
            label_id: label.to_owned(),
            instance_id: self.purge.instance_id.clone(),
        };
        Keys::new(&target, partition)
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
                removed: removed(&keys.stream),
                published: has_published.then(|| self.published(&keys)),
                manifests: manifests(&keys.stream),
                stream: keys.stream,
                is_state: self.is_state,
                ..Beside::default()
            };
            for label in labels {
                let keys = self.keys(label, partition);
                beside.members.push(self.members(&keys));
                beside.checkpoints.push(self.checkpoint(&keys));
                beside.events.push(keys.events().to_owned());
                if partition.is_none() {
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
            queue: removed(&queue),
            label_id: label.to_owned(),
            instance_id: self.purge.instance_id.clone(),
        };
        Keys::new(&target, None)
    }

    /// That queue, which partitions share.
    fn shared_removals(&self, labels: &[String]) -> Beside {
        let some = labels.first().map_or("", String::as_str);
        let stream = self.removals(some).stream;
        let events = labels.iter().map(|label| self.removals(label));
        Beside {
            is_removals: true,
            manifests: manifests(&stream),
            events: events.map(|keys| keys.events().to_owned()).collect(),
            stream,
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

/// Returns the prefix of manifests beside a stream.
fn manifests(stream: &str) -> String {
    format!("labelcast:run:{{{}}}:", hash_tag(stream).unwrap_or(stream))
}

/// Returns the stream for chats that have left, in the slot of the stream.
fn removed(stream: &str) -> String {
    match hash_tag(stream) {
        Some(_) => format!("{stream}:removed"),
        None => format!("{{{stream}}}:removed"),
    }
}

/// Returns a pattern that matches this text only.
fn escaped(text: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    let escape = |c: char| special(c).then_some('\\').into_iter().chain([c]);
    text.chars().flat_map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::PurgeSelection;

    fn purge(queue: &str) -> Purge {
        Purge {
            queue: queue.to_owned(),
            instance_id: "i".to_owned(),
            labels: None,
            selection: PurgeSelection::default(),
            dry_run: false,
        }
    }

    #[test]
    fn labels_are_found_in_names() {
        let cases = [
            // queue, partitions, stream, label
            ("labelcast:{label_id}", None, "labelcast:4", Some("4")),
            ("labelcast:{label_id}", None, "labelcast:4:5", Some("4:5")),
            ("labelcast:{label_id}", None, "labelcast:", None),
            (
                "labelcast:{label_id}",
                Some(2),
                "labelcast:4:{1}",
                Some("4"),
            ),
            ("labelcast:{label_id}", Some(2), "labelcast:4", None),
            ("{instance_id}-{label_id}-x", None, "i-4-x", Some("4")),
            ("{instance_id}-{label_id}-x", None, "j-4-x", None),
            ("{label_id}-{label_id}", None, "4-4", None),
        ];
        for (queue, partitions, stream, label) in cases {
            let purge = purge(queue);
            let finder = Finder::new(Place::Sink(partitions), &purge);
            assert_eq!(finder.label_of_stream(stream).as_deref(), label, "{stream}");
            for label in label.into_iter().filter(|_| partitions.is_none()) {
                let keys = finder.keys(label, None);
                for key in [keys.members, keys.checkpoint] {
                    assert_eq!(finder.label_of_key(&key).as_deref(), Some(label));
                }
            }
        }
    }

    #[test]
    fn the_stream_of_removals_is_in_the_slot_of_the_stream() {
        assert_eq!(removed("labelcast:1"), "{labelcast:1}:removed");
        assert_eq!(removed("q:{3}"), "q:{3}:removed");
        assert_eq!(removed("a{x}b"), "a{x}b:removed");
    }

    #[test]
    fn patterns_match_the_text_only() {
        assert_eq!(escaped("a*b[c]"), "a\\*b\\[c\\]");
    }
}
