//! Key names. All keys of a stream share its slot, so that one script can use them.

use xxhash_rust::xxh3::xxh3_128;

use crate::broker::Target;

/// The keys of one stream, for one label of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    /// The stream.
    pub(super) stream: String,
    /// A hash: the run, its progress, the fencing token, and the last complete run.
    pub(super) checkpoint: String,
    /// A string that expires when its owner's heartbeat stops.
    pub(super) lock: String,
    /// The dedup set: the chats that are already on the stream, while a changed list is published.
    /// For a state, the chats that a run has in flight.
    pub(super) dedup: String,
    /// Prefix of manifest keys, which a run's id follows. A manifest is a hash that tells consumers
    /// whether the run is complete.
    manifest: String,
    /// Prefix of the keys that remember events, which a hash of the event's id follows.
    event: String,
    /// A hash: chat id → when it was last published to the stream, by any label's run, in seconds
    /// since 1970.
    pub(super) published: String,
    /// A hash: chat id → record of its membership in the label, and the set's token at `:`.
    pub(super) members: String,
    /// A hash about the members, without ids, which does not expire.
    pub(super) note: String,
    /// A string, for a state: who changes it now, a run or events.
    pub(super) turn: String,
    /// The stream for chats that have left the label.
    pub(super) removed: String,
}

impl Keys {
    /// Builds the keys of the stream `queue`, or of one `partition` of it.
    pub(super) fn new(target: &Target, partition: Option<u32>) -> Self {
        Self::of_kinds(&SINK, target, partition)
    }

    /// Builds the keys of a state that is kept here for a queue elsewhere. There is no stream.
    pub(super) fn of_state(target: &Target) -> Self {
        Self::of_kinds(&STATE, target, None)
    }

    fn of_kinds(kinds: &Kinds, target: &Target, partition: Option<u32>) -> Self {
        let stream = match partition {
            Some(partition) => format!("{}:{{{partition}}}", target.queue),
            None => target.queue.clone(),
        };
        let tag = hash_tag(&stream).unwrap_or(&stream).to_owned();
        let beside = |kind: &str| {
            format!(
                "labelcast:{kind}:{{{tag}}}:{stream}:{}:{}",
                target.instance_id, target.label_id
            )
        };
        Self {
            checkpoint: beside(kinds.checkpoint),
            lock: beside(kinds.lock),
            dedup: beside(kinds.dedup),
            manifest: format!("labelcast:run:{{{tag}}}:"),
            event: beside(kinds.event) + ":",
            published: format!("labelcast:{}:{{{tag}}}:{stream}", kinds.published),
            members: beside(kinds.members),
            note: beside(kinds.note),
            turn: beside(kinds.turn),
            removed: removed_stream(&stream),
            stream,
        }
    }

    /// Returns the keys that the append script takes.
    pub(super) fn of_append(&self) -> [&String; 5] {
        [
            &self.stream,
            &self.checkpoint,
            &self.published,
            &self.members,
            &self.note,
        ]
    }

    /// Returns the prefix of manifests, which may be those of other queues too.
    pub(super) fn manifests(&self) -> &str {
        &self.manifest
    }

    /// Returns the key of a run's manifest.
    pub(super) fn manifest(&self, run_id: uuid::Uuid) -> String {
        format!("{}{run_id}", self.manifest)
    }

    /// Returns the prefix of the keys that remember events.
    pub(super) fn events(&self) -> &str {
        &self.event
    }

    /// Returns the key that remembers an event. It has a hash of the event's id, which may contain a
    /// chat id.
    pub(super) fn event(&self, id: &str) -> String {
        format!("{}{:032x}", self.event, xxh3_128(id.as_bytes()))
    }
}

/// The second parts of key names.
pub(super) struct Kinds {
    pub(super) checkpoint: &'static str,
    pub(super) lock: &'static str,
    pub(super) members: &'static str,
    dedup: &'static str,
    pub(super) event: &'static str,
    turn: &'static str,
    note: &'static str,
    published: &'static str,
}

/// Beside a stream.
pub(super) const SINK: Kinds = Kinds {
    checkpoint: "checkpoint",
    lock: "lock",
    members: "members",
    dedup: "seen",
    event: "event",
    turn: "turn",
    note: "membership",
    published: "published",
};

/// Of a state for a queue elsewhere. A Redis sink may have a queue of the same name on this server.
pub(super) const STATE: Kinds = Kinds {
    checkpoint: "state",
    lock: "state-lock",
    members: "state-members",
    dedup: "state-in-flight",
    event: "state-event",
    turn: "state-turn",
    note: "state-note",
    published: "state-published",
};

/// Returns the stream for chats that have left, in the slot of the stream.
pub(in crate::broker) fn removed_stream(stream: &str) -> String {
    match hash_tag(stream) {
        Some(_) => format!("{stream}:removed"),
        None => format!("{{{stream}}}:removed"),
    }
}

/// Returns the hash tag of a key: the text in its first braces, if that decides the slot instead of
/// the whole key.
pub(super) fn hash_tag(key: &str) -> Option<&str> {
    let (_, rest) = key.split_once('{')?;
    let (tag, _) = rest.split_once('}')?;
    (!tag.is_empty()).then_some(tag)
}

/// Returns whether the queue's hash tag, or its whole name, can be the hash tag of the keys beside
/// it.
pub(super) fn is_taggable(queue: &str) -> bool {
    hash_tag(queue).is_some() || !queue.contains(['{', '}'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(queue: &str, partition: Option<u32>) -> Keys {
        let target = Target {
            queue: queue.to_owned(),
            label_id: "7".to_owned(),
            instance_id: "i".to_owned(),
        };
        Keys::new(&target, partition)
    }

    #[test]
    fn all_keys_of_a_stream_have_its_slot() {
        for (queue, partition, tag) in [
            ("labelcast:7", None, "labelcast:7"),
            ("a{x}b", None, "x"),
            ("labelcast:7", Some(3), "3"),
        ] {
            let keys = keys(queue, partition);
            let all = [
                &keys.checkpoint,
                &keys.lock,
                &keys.dedup,
                &keys.manifest(uuid::Uuid::nil()),
                &keys.event("1"),
                &keys.published,
                &keys.members,
                &keys.note,
                &keys.turn,
                &keys.removed,
            ];
            assert!(all.iter().all(|key| hash_tag(key) == Some(tag)), "{keys:?}");
            assert_eq!(hash_tag(&keys.stream).unwrap_or(&keys.stream), tag);
        }
        assert_eq!(keys("labelcast:7", Some(3)).stream, "labelcast:7:{3}");
        assert_eq!(keys("labelcast:7", None).removed, "{labelcast:7}:removed");
        assert_eq!(
            keys("labelcast:7", Some(3)).removed,
            "labelcast:7:{3}:removed"
        );
        assert_eq!(keys("a{x}b", None).removed, "a{x}b:removed");
    }

    #[test]
    fn braces_that_are_no_tag_cannot_be_lent() {
        assert!(is_taggable("a") && is_taggable("a{b}c"));
        assert!(!is_taggable("a}b") && !is_taggable("a{}b") && !is_taggable("{"));
    }
}
