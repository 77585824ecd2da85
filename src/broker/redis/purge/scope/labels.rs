//! The labels whose queues have messages or keys, found by their names.

use std::collections::BTreeSet;

use super::{Finder, scan};
use crate::broker::factory::fill_in;
use crate::broker::redis::connect::Endpoint;
use crate::broker::redis::purge::remote::{Remote, script};
use crate::broker::{BrokerError, Purge};
use crate::retry::RetryPolicy;

/// Reads the label of the first entry, to know whether a stream is the label's.
const FIRST_LABEL: &str = concat!(
    include_str!("../label_of.lua"),
    include_str!("../first_label.lua")
);

impl Finder<'_> {
    /// Finds the labels whose queues have messages or keys.
    pub(super) async fn labels(
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
            key == keys.checkpoint || key == keys.members
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
    use crate::broker::redis::purge::scope::Place;

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
    fn patterns_match_the_text_only() {
        assert_eq!(escaped("a*b[c]"), "a\\*b\\[c\\]");
    }
}
