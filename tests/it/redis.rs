//! Redis Streams: each chat of a run exactly once, whatever fails in between.

mod cluster;
mod consumers;
mod faults;
mod losses;
mod messages;
mod refusals;

use crate::support::redis::{Server, chat_ids};
use crate::support::{Process, Running, Stage};

/// The stream of the tests.
const STREAM: &str = "labelcast:1";

/// A run into a server.
fn run(stage: &Stage, url: &str) -> Running {
    stage.program("run").args(["--label", "1", "--sink", url])
}

/// Checks that the stream holds each chat once, in the list's order.
#[track_caller]
fn holds(server: &Server, ids: &[String]) {
    let found = chat_ids(&mut server.connection(), STREAM);
    if found != ids {
        let at = found.iter().zip(ids).position(|(a, b)| a != b);
        panic!(
            "{} entries for {} chats, different from {at:?} on",
            found.len(),
            ids.len()
        );
    }
}

fn kill(process: Process) {
    process.signal("KILL");
    assert_eq!(process.end().code, None);
}
