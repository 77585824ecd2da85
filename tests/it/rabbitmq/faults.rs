//! Whatever fails: no chat is missing, and repeats are few and have the same id.

use bytes::Bytes;
use labelcast::mock::{Piece, Reply};
use tokio_util::sync::CancellationToken;

use super::{CHECKPOINT, QUEUE, WINDOW, holds, run};
use crate::support::proxy::{Direction, Proxy};
use crate::support::rabbitmq::{Broker, Vhost, once, vhost};
use crate::support::{
    Numbers, Process, Stage, gated, gated_after, gated_whole, held_after, map_of, part_of,
    small_list, wait_until,
};

#[test]
fn a_run_killed_at_any_moment_loses_nothing() {
    let mut numbers = Numbers(50);
    let (ids, body) = small_list(8000);
    let mut kills = 0;
    for round in 0..12 {
        let kind = ["quorum", "classic"][round % 2];
        let vhost = vhost();
        let client = vhost.client();
        // The number of entries that the run receives. In some rounds these are all entries, and
        // only the closing bracket is missing. The run is killed at an arbitrary moment during
        // these, so never too late.
        let given = match round % 4 {
            0 => ids.len(),
            _ => 2 * WINDOW + numbers.below(8000 - 2 * WINDOW as u64) as usize,
        };
        let moment = 1 + numbers.below(given as u64) as usize;
        let stage = Stage::with_body(&body);
        stage.mock.script("1", held_after(&body, given));
        let arguments = ["--queue-type", kind];
        let process = run(&stage, &vhost.url()).args(arguments).spawn();
        wait_until("the moment to kill has come", || {
            client.depth(QUEUE).is_some_and(|depth| depth >= moment)
        });
        process.kill();
        kills += 1;

        let ended = run(&stage, &vhost.url()).args(arguments).end().expect(0);
        let messages = client.drain(QUEUE);
        let label = ended.label();
        let (found, repeats) = once(&messages);
        assert!(found == ids, "round {round}: {} chats", found.len());
        assert!(repeats <= WINDOW, "{repeats} repeats");
        assert_eq!(messages[0].data["run_id"], label["run_id"]);
        let count = |key: &str| label[key].as_u64().unwrap() as usize;
        assert_eq!(count("published") + count("resumed"), 8000, "{label}");
        // Messages of the first run.
        let sent = messages.len() - count("published");
        assert!((moment..=given).contains(&sent), "{sent} of {given}");
        assert_eq!(label.get("list_changed"), None);
    }
    assert_eq!(kills, 12);
}

#[test]
fn a_run_killed_several_times_loses_nothing() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(12_000);
    let stage = Stage::with_body(&body);
    for part in 1..=3 {
        stage
            .mock
            .script("1", part_of(&body, f64::from(part) / 4.0, Piece::Hold));
        let asked = stage.mock.requests().len();
        let process = run(&stage, &vhost.url()).spawn();
        wait_until("the run has made progress", || {
            let requests = stage.mock.requests();
            let is_served = requests[asked..].iter().any(|r| r.path.ends_with("/chats"));
            is_served && client.depth(QUEUE).unwrap_or(0) >= part as usize * 3000 - 2000
        });
        process.kill();
    }
    let ended = run(&stage, &vhost.url()).end().expect(0);
    // The queue may contain the repeats of two kills, and messages that the checkpoint does not
    // cover yet.
    assert!(ended.label()["resumed"].as_u64().unwrap() > 7000 - 3 * WINDOW as u64);
    let repeats = holds(&client, &ids);
    assert!(repeats <= 3 * WINDOW, "{repeats} repeats");
}

#[test]
fn a_connection_cut_anywhere_loses_nothing() {
    let vhost = vhost();
    let client = vhost.client();
    let proxy = Proxy::start(vhost.port);
    let mut numbers = Numbers(7);
    let (ids, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    let mut cuts = 0;
    for round in 0..20 {
        // A run sends more than 1,000,000 bytes and receives more than 3,500, so each cut takes
        // effect.
        let (direction, most) = match round % 2 {
            0 => (Direction::ToServer, 900_000),
            _ => (Direction::ToClient, 3000),
        };
        proxy.cut_after(numbers.below(most) as i64, direction);
        let ended = run(&stage, &vhost.url_by(proxy.port)).end().expect(0);
        assert!(!proxy.is_armed(), "cut {direction:?} in round {round}");
        cuts += 1;
        assert_eq!(ended.label()["published"], 4000, "round {round}");
        let (mut found, repeats) = once(&client.drain(QUEUE));
        found.sort();
        let mut expected = ids.clone();
        expected.sort();
        assert!(found == expected, "round {round}: {} chats", found.len());
        assert!(repeats <= WINDOW, "{repeats} repeats");
    }
    assert_eq!(cuts, 20);
}

#[test]
fn messages_that_never_arrived_are_sent_again() {
    let vhost = vhost();
    let client = vhost.client();
    let proxy = Proxy::start(vhost.port);
    let (ids, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    // The first batch is small, and its confirm is still being waited for when the second one is
    // sent.
    let first = 100;
    let (reply, gate) = gated_after(&body, first);
    stage.mock.script("1", reply);
    let process = run(&stage, &vhost.url_by(proxy.port)).spawn();
    wait_until("the first batch is published", || {
        client.depth(QUEUE) == Some(first)
    });
    proxy.drop_what_is_sent();
    gate.cancel();
    // A message has about 250 bytes, so more than one batch of 256 messages was sent.
    wait_until("more than a batch is dropped", || {
        proxy.dropped_bytes() > 100_000
    });
    assert_eq!(client.depth(QUEUE), Some(first));
    proxy.cut_connections();
    let ended = process.end().expect(0);
    assert_eq!(ended.label()["published"], 4000);
    assert!(holds(&client, &ids) <= WINDOW);
}

#[test]
fn a_broker_restart_loses_nothing() {
    for kind in ["quorum", "classic"] {
        let mut broker = Broker::start();
        let vhost = broker.vhost();
        let (ids, body) = small_list(10_000);
        let stage = Stage::with_body(&body);
        let (reply, gate) = gated(&body);
        stage.mock.script("1", reply);
        let process = run(&stage, &vhost.url())
            .args(["--retries", "30", "--queue-type", kind])
            .spawn();
        let client = vhost.client();
        wait_until("the first half is being published", || {
            client.depth(QUEUE).unwrap_or(0) > 1000
        });
        broker.down();
        broker.up();
        gate.cancel();
        let ended = process.end().expect(0);
        let messages = vhost.client().drain(QUEUE);
        let (mut found, repeats) = once(&messages);
        found.sort();
        let mut expected = ids;
        expected.sort();
        assert!(found == expected, "{kind}: {} chats", found.len());
        assert!(repeats <= 2 * WINDOW, "{repeats} repeats");
        assert_eq!(ended.label()["published"], 10_000);
    }
}

#[test]
fn a_blocking_broker_is_waited_for() {
    let broker = Broker::start();
    let vhost = broker.vhost();
    let client = vhost.client();
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    broker.control(&["set_vm_memory_high_watermark", "0.000001"]);
    let process = run(&stage, &vhost.url())
        .args(["--progress", "always"])
        .spawn();
    wait_until("the run is about to write", || {
        client.depth(CHECKPOINT).is_some()
    });
    // The deadline also applies to a run that waits.
    let other = ["--queue", "other", "--deadline", "3s"];
    let ended = run(&stage, &vhost.url()).args(other).end();
    assert_eq!(ended.code, Some(75), "{ended:#?}");
    // A second run cannot tell whether the first is alive. The broker keeps a dead run's connection
    // too.
    let second = run(&stage, &vhost.url()).end().expect(69);
    let error = second.label()["error"].as_str().unwrap();
    assert!(error.contains("does not answer"), "{error}");
    assert_eq!(client.depth(QUEUE), None, "the queue was not declared");
    broker.control(&["set_vm_memory_high_watermark", "0.6"]);
    let ended = process.end().expect(0);
    assert!(
        ended.stderr.contains("broker blocks publishing"),
        "{}",
        ended.stderr
    );
    assert_eq!(holds(&client, &ids), 0);
}

/// A run that was stopped by SIGSTOP half-way, until another run had taken over its lock and
/// published the whole list. It is still stopped. The token releases the second half of its list.
fn overtaken(vhost: &Vhost, ids: &[String], body: &str) -> (Stage, Process, CancellationToken) {
    let client = vhost.client();
    let stage = Stage::with_body(body);
    let (reply, gate) = gated(body);
    stage.mock.script("1", reply);
    let process = run(&stage, &vhost.url()).spawn();
    let half = body[..body.len() / 2].matches('}').count();
    wait_until("the first half is published", || {
        client.depth(QUEUE) == Some(half)
    });
    process.signal("STOP");
    // After a while the broker misses the run's heartbeats and releases its lock.
    let second = run(&stage, &vhost.url()).end().expect(0);
    assert!(second.label()["resumed"].as_u64().unwrap() > 0);
    assert!(holds(&client, ids) <= WINDOW);
    (stage, process, gate)
}

#[test]
fn a_suspended_worker_does_not_continue_after_a_takeover() {
    let vhost = vhost();
    let (ids, body) = small_list(5000);
    let (_stage, process, gate) = overtaken(&vhost, &ids, &body);
    gate.cancel();
    process.signal("CONT");
    process.end().expect(81);
    assert_eq!(
        vhost.client().depth(QUEUE),
        Some(0),
        "the suspended run sent nothing"
    );
}

#[test]
fn a_suspended_worker_does_not_continue_after_a_later_run() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(5000);
    let (stage, process, gate) = overtaken(&vhost, &ids, &body);
    let later = run(&stage, &vhost.url()).end().expect(0);
    assert_eq!(later.label()["resumed"], 0);
    assert_eq!(holds(&client, &ids), 0);
    gate.cancel();
    process.signal("CONT");
    process.end().expect(81);
    assert_eq!(
        client.depth(QUEUE),
        Some(0),
        "the suspended run sent nothing"
    );
}

#[test]
fn a_suspended_worker_stops_on_a_signal() {
    let vhost = vhost();
    let (ids, body) = small_list(5000);
    let (_stage, process, _gate) = overtaken(&vhost, &ids, &body);
    process.signal("TERM");
    process.signal("CONT");
    process.end().expect(75);
    assert_eq!(
        vhost.client().depth(QUEUE),
        Some(0),
        "the suspended run sent nothing"
    );
}

#[test]
fn a_suspended_worker_does_not_start_after_a_takeover() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated_whole(&body);
    stage.mock.script("1", reply);
    let process = run(&stage, &vhost.url()).spawn();
    wait_until("the run waits for the list", || {
        stage.mock.requests().len() == 2
    });
    process.signal("STOP");
    run(&stage, &vhost.url()).end().expect(0);
    process.signal("CONT");
    gate.cancel();
    process.end().expect(81);
    assert_eq!(holds(&client, &ids), 0);
}

/// Deletes the queue of a run that has published half of the list. Calls `then` before the run
/// receives the second half. Returns the run's error.
fn deleted_half_way(vhost: &Vhost, port: u16, then: impl Fn()) -> String {
    let client = vhost.client();
    let (_, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let process = run(&stage, &vhost.url_by(port)).spawn();
    let half = body[..body.len() / 2].matches('}').count();
    wait_until("the first half is published", || {
        client.depth(QUEUE) == Some(half)
    });
    client.delete(QUEUE);
    then();
    gate.cancel();
    let ended = process.end().expect(78);
    assert_eq!(client.depth(QUEUE), None, "the queue is not declared again");
    assert_eq!(client.depth(CHECKPOINT), Some(1));
    ended.label()["error"].as_str().unwrap().to_owned()
}

#[test]
fn deleting_the_queue_during_a_run_is_an_error() {
    let vhost = vhost();
    // The connection is unchanged, so the next message is returned.
    let error = deleted_half_way(&vhost, vhost.port, || {});
    let unroutable = "the default exchange has nowhere to put a message";
    assert!(error.contains(unroutable), "{error}");
}

#[test]
fn deleting_the_queue_while_the_connection_breaks_is_an_error() {
    let vhost = vhost();
    let proxy = Proxy::start(vhost.port);
    let error = deleted_half_way(&vhost, proxy.port, || proxy.cut_connections());
    assert!(error.contains("labelcast:1 was deleted"), "{error}");
}

#[test]
fn deleting_the_queue_while_a_changed_list_is_republished_is_an_error() {
    let vhost = vhost();
    let client = vhost.client();
    let proxy = Proxy::start(vhost.port);
    let (mut ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    ids.rotate_left(1);
    let changed = map_of(&ids);
    let (again, gate) = gated(&changed);
    // The first fetch shows that the list has changed, and the second publishes it again.
    stage.mock.script("1", Reply::json(changed.clone()));
    stage.mock.script("1", again);
    let process = run(&stage, &vhost.url_by(proxy.port)).spawn();
    let halves = [&body, &changed].map(|body| body[..body.len() / 2].matches('}').count());
    wait_until("the run waits within the changed list", || {
        client.depth(QUEUE) == Some(halves.iter().sum())
    });
    client.delete(QUEUE);
    proxy.cut_connections();
    gate.cancel();
    let ended = process.end().expect(78);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("labelcast:1 was deleted"), "{error}");
}

#[test]
fn a_run_follows_a_checkpoint_that_was_rewound() {
    let vhost = vhost();
    let client = vhost.client();
    let proxy = Proxy::start(vhost.port);
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let gates = [(); 2].map(|()| CancellationToken::new());
    let parts = [0, body.len() / 8, body.len() / 2, body.len()];
    let [first, second, third] = [0, 1, 2].map(|at| {
        let part = &body.as_bytes()[parts[at]..parts[at + 1]];
        Piece::Bytes(Bytes::copy_from_slice(part))
    });
    let [early_gate, late_gate] = gates.each_ref().map(|gate| Piece::Until(gate.clone()));
    let reply = Reply::pieces([first, early_gate, second, late_gate, third]);
    stage.mock.script("1", reply);
    let process = run(&stage, &vhost.url_by(proxy.port)).spawn();
    let waits_at = |end: usize| {
        let there = body[..end].matches('}').count();
        wait_until("the run waits", || client.depth(QUEUE) == Some(there));
    };
    waits_at(parts[1]);
    let early = client.take(CHECKPOINT).unwrap();
    gates[0].cancel();
    waits_at(parts[2]);
    client.drain(QUEUE);
    client.drain(CHECKPOINT);
    client.put(CHECKPOINT, &early);
    proxy.cut_connections();
    gates[1].cancel();
    let ended = process.end().expect(0);
    assert!(ended.label()["rewinds"].as_u64().unwrap() >= 1);
    let from = early.data["position"].as_u64().unwrap() as usize;
    // Messages that were in flight when the connection broke may have arrived first.
    let (mut found, _) = once(&client.drain(QUEUE));
    let mut behind = ids[from..].to_vec();
    found.sort();
    behind.sort();
    assert!(
        found == behind,
        "all chats after the checkpoint are published"
    );
}

#[test]
fn deleting_the_queue_between_two_processes_publishes_the_list_again() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let one_try = ["--retries", "0"];
    let first = run(&stage, &vhost.url()).args(one_try).end().expect(69);
    client.delete(QUEUE);
    let ended = run(&stage, &vhost.url()).end().expect(0);
    assert_eq!(ended.label()["run_id"], first.label()["run_id"]);
    assert_eq!(ended.label()["resumed"], 0);
    assert_eq!(holds(&client, &ids), 0);
}

#[test]
fn publishing_waits_while_too_many_messages_are_pending() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let process = run(&stage, &vhost.url())
        .args(["--max-pending", "500"])
        .spawn();
    wait_until("the queue is full", || {
        client.depth(QUEUE).unwrap_or(0) >= 500
    });
    let mut messages = Vec::new();
    while messages.len() < 3000 {
        assert!(
            client.depth(QUEUE).unwrap() <= 600,
            "the run does not exceed the limit"
        );
        wait_until("there is another message", || match client.take(QUEUE) {
            Some(message) => {
                messages.push(message);
                true
            }
            None => false,
        });
        messages.extend(client.drain(QUEUE));
    }
    process.end().expect(0);
    assert_eq!(once(&messages), (ids, 0));
}
