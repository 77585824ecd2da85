//! RabbitMQ: every chat is published, and every repeat has the same `message_id`.

mod checkpoints;
mod faults;
mod messages;
mod names;
mod refusals;
mod repeats;
mod stream;

use crate::support::rabbitmq::{Client, once};
use crate::support::{Running, Stage};

/// The queue of the tests.
const QUEUE: &str = "labelcast:1";
const CHECKPOINT: &str = "labelcast:1.labelcast-checkpoint.inst-1.1";
const LOCK: &str = "labelcast:1.labelcast-lock.inst-1.1";
/// The maximum number of repeated messages after a crash or a lost connection.
const WINDOW: usize = 1024;

/// Creates a run to a broker.
fn run(stage: &Stage, url: &str) -> Running {
    stage.program("run").args(["--label", "1", "--sink", url])
}

/// Takes all messages off the queue and checks that each chat is there, in the order of the list if
/// nothing interrupted the run. Returns the number of repeated messages.
#[track_caller]
fn holds(client: &Client, ids: &[String]) -> usize {
    let (found, repeats) = once(&client.drain(QUEUE));
    if found != ids {
        let at = found.iter().zip(ids).position(|(a, b)| a != b);
        panic!(
            "{} chats instead of {}, different from position {at:?}",
            found.len(),
            ids.len()
        );
    }
    repeats
}
