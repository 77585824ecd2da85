//! Redis Streams: each chat of a run exactly once, whatever fails.

mod changed;
mod cluster;
mod consumers;
mod faults;
mod judge;
mod locks;
mod logins;
mod losses;
mod membership;
mod membership_kills;
mod membership_losses;
mod messages;
mod refusals;
mod suppression;

use std::time::Duration;

use redis::Commands;
use tokio_util::sync::CancellationToken;

use crate::support::redis::{Server, chat_ids, forget_run, length};
use crate::support::{Numbers, Process, Running, Stage, gated, wait_until};

/// The stream of the tests.
const STREAM: &str = "labelcast:1";

/// Creates a run to a server.
fn run(stage: &Stage, url: &str) -> Running {
    stage.program("run").args(["--label", "1", "--sink", url])
}

/// Kills a run at a random point after it has requested its list: before, between or after the
/// appends. Returns when its lock has expired. A list that has changed is requested again, so the
/// run may have ended as complete.
fn kill_somewhere(
    stage: &Stage,
    run: Running,
    numbers: &mut Numbers,
    connection: &mut redis::Connection,
) {
    let requests = stage.mock.requests().len();
    let process = run.spawn();
    wait_until("the list is requested", || {
        let requests = &stage.mock.requests()[requests..];
        requests
            .iter()
            .any(|request| request.path.ends_with("/chats"))
    });
    std::thread::sleep(Duration::from_micros(numbers.below(40_000)));
    process.kill_or_complete();
    forget_run(connection);
}

/// Checks that the stream has each chat once, in the order of the list.
#[track_caller]
fn holds(server: &Server, ids: &[String]) {
    let found = chat_ids(&mut server.connection(), STREAM);
    if found != ids {
        let at = found.iter().zip(ids).position(|(a, b)| a != b);
        panic!(
            "{} entries for {} chats, different from position {at:?}",
            found.len(),
            ids.len()
        );
    }
}

/// A run that has published the whole first half and waits for the second.
fn half_way(stage: &Stage, server: &Server, body: &str) -> (Process, CancellationToken) {
    let (reply, gate) = gated(body);
    stage.mock.script("1", reply);
    let process = run(stage, &server.url()).spawn();
    let half = body[..body.len() / 2].matches('}').count();
    wait_until("the first half is published", || {
        length(&mut server.connection(), STREAM) == half
    });
    (process, gate)
}

/// Deletes the keys beside the stream that match a pattern.
fn delete(server: &Server, pattern: &str) {
    let mut connection = server.connection();
    let keys: Vec<String> = connection.keys(pattern).unwrap();
    assert!(!keys.is_empty(), "{pattern}");
    let _: () = connection.del(keys).unwrap();
}
