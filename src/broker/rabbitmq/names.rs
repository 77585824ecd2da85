//! Names of the queues beside a target queue.

use xxhash_rust::xxh3::xxh3_128;

use crate::broker::{BrokerError, Target};

/// Maximum length of a name in AMQP, in bytes.
pub(in crate::broker) const MAX_NAME: usize = 255;

/// Prefix of names that RabbitMQ reserves for itself.
const RESERVED: &str = "amq.";

/// Returns the queue for chats that have left.
pub(in crate::broker) fn removed_queue(queue: &str) -> String {
    format!("{queue}:removed")
}

/// Returns the problem with a queue's name, if there is one.
///
/// With an exchange the queue need not exist, but its name is the routing key and the start of
/// other queues' names.
pub(in crate::broker) fn problem_with(queue: &str) -> Option<String> {
    if queue.len() > MAX_NAME {
        let length = queue.len();
        return Some(format!(
            "the queue's name is {length} bytes long; RabbitMQ takes at most {MAX_NAME} bytes"
        ));
    }
    queue.starts_with(RESERVED).then(|| {
        format!("the queue's name begins with {RESERVED}, which is reserved for RabbitMQ itself")
    })
}

/// Builds the error for a name that RabbitMQ does not accept.
pub(super) fn misnamed(problem: String) -> BrokerError {
    BrokerError::Misconfigured {
        problem,
        fix: "choose another name (--queue; for enrich --from, --to)",
    }
}

/// Checks a queue's name.
pub(super) fn check(queue: &str) -> Result<(), BrokerError> {
    problem_with(queue).map_or(Ok(()), |problem| Err(misnamed(problem)))
}

/// Names that belong to one queue, for one label of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// The queue that chats go to.
    pub(super) queue: String,
    /// A queue of one message: the run, its progress, and the last complete run.
    pub(super) checkpoint: String,
    /// The checkpoint's queue after a move, when the first one has other arguments.
    pub(super) other_checkpoint: String,
    /// The producer, over the stream protocol.
    pub(super) producer: String,
    /// An exclusive queue, which the broker deletes with its owner's connection.
    pub(super) lock: String,
}

impl Names {
    pub(super) fn new(target: &Target) -> Self {
        // The queue's name comes first, because permissions often go by prefix.
        let beside = |kind: &str| {
            let Target {
                queue,
                label_id,
                instance_id,
            } = target;
            fitting(format!("{queue}.labelcast-{kind}.{instance_id}.{label_id}"))
        };
        Self {
            checkpoint: beside("checkpoint"),
            other_checkpoint: beside("checkpoint-2"),
            lock: beside("lock"),
            producer: beside("producer"),
            queue: target.queue.clone(),
        }
    }
}

/// Returns a name unchanged, or, if it is too long, its start followed by its hash.
pub(super) fn fitting(name: String) -> String {
    if name.len() <= MAX_NAME {
        return name;
    }
    let hash = format!("~{:032x}", xxh3_128(name.as_bytes()));
    let mut start = name;
    while start.len() + hash.len() > MAX_NAME {
        start.pop();
    }
    start + &hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_fit() {
        let target = |queue: String| Target {
            queue,
            label_id: "7".to_owned(),
            instance_id: "i".to_owned(),
        };
        let short = Names::new(&target("q".to_owned()));
        assert_eq!(short.lock, "q.labelcast-lock.i.7");
        let long = Names::new(&target("ä".repeat(120)));
        assert!(long.lock.len() <= MAX_NAME && long.checkpoint.len() <= MAX_NAME);
        assert_ne!(long.lock, long.checkpoint);
        assert_ne!(long.checkpoint, long.other_checkpoint);
        assert_ne!(fitting("x".repeat(300)), fitting("x".repeat(301)));
    }
}
