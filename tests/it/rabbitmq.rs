//! RabbitMQ: every chat is there, and whatever is there twice carries the same `message_id`.

mod checkpoints;
mod faults;
mod messages;
mod names;
mod refusals;
mod repeats;

use crate::support::rabbitmq::{Client, once};
use crate::support::{Running, Stage};

/// The queue of the tests.
const QUEUE: &str = "labelcast:1";
const CHECKPOINT: &str = "labelcast:1.labelcast-checkpoint.inst-1.1";
const LOCK: &str = "labelcast:1.labelcast-lock.inst-1.1";
/// Messages that may come twice after a crash or a cut.
const WINDOW: usize = 1024;

/// A run into a broker.
fn run(stage: &Stage, url: &str) -> Running {
    stage.program("run").args(["--label", "1", "--sink", url])
}

/// Takes all messages off the queue: each chat has to be there, in the list's order where nothing
/// came between. Returns how many messages were repeats.
#[track_caller]
fn holds(client: &Client, ids: &[String]) -> usize {
    let (found, repeats) = once(&client.drain(QUEUE));
    if found != ids {
        let at = found.iter().zip(ids).position(|(a, b)| a != b);
        panic!(
            "{} chats of {}, different from {at:?} on",
            found.len(),
            ids.len()
        );
    }
    repeats
}
