//! Whatever fails in between: none missing, and repeats are few and carry the same id.

use bytes::Bytes;
use labelcast::mock::{Piece, Reply};
use tokio_util::sync::CancellationToken;

use super::{CHECKPOINT, QUEUE, WINDOW, holds, run};
use crate::support::proxy::{Direction, Proxy};
use crate::support::rabbitmq::{Broker, once, vhost};
use crate::support::{Numbers, Stage, gated, map_of, part_of, small_list, wait_until};

#[test]
fn killed_at_moments_and_run_again() {
    let mut numbers = Numbers(50);
    let (ids, body) = small_list(8000);
    for round in 0..12 {
        let kind = ["quorum", "classic"][round % 2];
        let vhost = vhost();
        let client = vhost.client();
        let stage = Stage::with_body(&body);
        let arguments = ["--queue-type", kind];
        let process = run(&stage, &vhost.url()).args(arguments).spawn();
        let moment = numbers.below(8000) as usize;
        wait_until("the moment has come", || {
            client.depth(QUEUE).is_some_and(|depth| depth >= moment)
        });
        // It may be through already: then there is nothing to kill.
        let _ = std::process::Command::new("kill")
            .args(["-9", &process.id().to_string()])
            .status();
        process.end();
        let ended = run(&stage, &vhost.url()).args(arguments).end().expect(0);
        let messages = client.drain(QUEUE);
        let label = ended.label();
        if label["resumed"] == 0 && messages.len() == 16_000 {
            continue;
        }
        let (found, repeats) = once(&messages);
        assert_eq!(found, ids, "round {round}");
        assert!(repeats <= WINDOW, "{repeats} repeats");
        let count = |key: &str| label[key].as_u64().unwrap();
        assert_eq!(count("published") + count("resumed"), 8000, "{label}");
    }
}

#[test]
fn killed_several_times_in_one_run() {
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
        wait_until("it has come further", || {
            let requests = stage.mock.requests();
            let is_served = requests[asked..].iter().any(|r| r.path.ends_with("/chats"));
            is_served && client.depth(QUEUE).unwrap_or(0) >= part as usize * 3000 - 2000
        });
        process.kill();
    }
    let ended = run(&stage, &vhost.url()).end().expect(0);
    // What is in the queue may hold the repeats of two kills, and what is not covered yet.
    assert!(ended.label()["resumed"].as_u64().unwrap() > 7000 - 3 * WINDOW as u64);
    let repeats = holds(&client, &ids);
    assert!(repeats <= 3 * WINDOW, "{repeats} repeats");
}

#[test]
fn cut_at_places_in_either_direction() {
    let vhost = vhost();
    let client = vhost.client();
    let proxy = Proxy::start(vhost.port);
    let mut numbers = Numbers(7);
    let (ids, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    let mut cuts = 0;
    for round in 0..24 {
        let (direction, most) = match round % 2 {
            0 => (Direction::ToServer, 900_000),
            _ => (Direction::ToClient, 6000),
        };
        proxy.cut_after(numbers.below(most) as i64, direction);
        let ended = run(&stage, &vhost.url_by(proxy.port)).end().expect(0);
        cuts += u32::from(!proxy.is_armed());
        proxy.cut_after(-1, direction);
        assert_eq!(ended.label()["published"], 4000, "round {round}");
        let (mut found, repeats) = once(&client.drain(QUEUE));
        found.sort();
        let mut expected = ids.clone();
        expected.sort();
        assert!(found == expected, "round {round}: {} chats", found.len());
        assert!(repeats <= WINDOW, "{repeats} repeats");
    }
    assert!(cuts > 12, "only {cuts} cuts took place");
}

#[test]
fn a_broker_that_is_stopped_and_started_again() {
    for kind in ["quorum", "classic"] {
        let mut broker = Broker::start();
        let vhost = broker.vhost();
        let (ids, body) = small_list(10_000);
        let stage = Stage::with_body(&body);
        stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
        let process = run(&stage, &vhost.url())
            .args(["--retries", "30", "--queue-type", kind])
            .spawn();
        let client = vhost.client();
        wait_until("it is at it", || client.depth(QUEUE).unwrap_or(0) > 1000);
        broker.down();
        broker.up();
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
fn a_broker_that_takes_nothing_for_a_while() {
    let broker = Broker::start();
    let vhost = broker.vhost();
    let client = vhost.client();
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    broker.control(&["set_vm_memory_high_watermark", "0.000001"]);
    let process = run(&stage, &vhost.url())
        .args(["--progress", "always"])
        .spawn();
    wait_until("it has come to where it would write", || {
        client.depth(CHECKPOINT).is_some()
    });
    // The deadline holds for one that waits, too.
    let other = ["--queue", "other", "--deadline", "3s"];
    let ended = run(&stage, &vhost.url()).args(other).end();
    assert_eq!(ended.code, Some(75), "{ended:#?}");
    // Nor can a second run hear of the first whether it lives; the broker keeps a dead one's connection too.
    let second = run(&stage, &vhost.url()).end().expect(69);
    let error = second.label()["error"].as_str().unwrap();
    assert!(error.contains("does not answer"), "{error}");
    assert_eq!(client.depth(QUEUE), None, "nothing was taken");
    broker.control(&["set_vm_memory_high_watermark", "0.6"]);
    let ended = process.end().expect(0);
    assert!(
        ended.stderr.contains("takes no messages for now"),
        "{}",
        ended.stderr
    );
    assert_eq!(holds(&client, &ids), 0);
}

#[test]
fn a_worker_that_was_away_does_not_go_on() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(5000);
    let stage = Stage::with_body(&body);
    let (start, end) = body.as_bytes().split_at(body.len() / 2);
    let pieces = [start, end].map(|part| Piece::Bytes(Bytes::copy_from_slice(part)));
    let [start, end] = pieces;
    stage
        .mock
        .script("1", Reply::pieces([start, Piece::Hold, end]));
    let process = run(&stage, &vhost.url()).spawn();
    wait_until("it is at it", || client.depth(QUEUE).unwrap_or(0) > 1000);
    process.signal("STOP");
    // Its heart is missed after a while, and its lock is free then.
    run(&stage, &vhost.url()).end().expect(0);
    process.signal("CONT");
    process.signal("TERM");
    let ended = process.end();
    assert!(matches!(ended.code, Some(75 | 81)), "{ended:#?}");
    assert!(holds(&client, &ids) <= WINDOW);
}

#[test]
fn a_worker_that_was_away_before_its_first_chat_does_not_begin() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    let gate = CancellationToken::new();
    let whole = Piece::Bytes(Bytes::copy_from_slice(body.as_bytes()));
    let reply = Reply::pieces([Piece::Until(gate.clone()), whole]);
    stage.mock.script("1", reply);
    let process = run(&stage, &vhost.url()).spawn();
    wait_until("it waits for the list", || stage.mock.requests().len() == 2);
    process.signal("STOP");
    run(&stage, &vhost.url()).end().expect(0);
    process.signal("CONT");
    gate.cancel();
    process.end().expect(81);
    assert_eq!(holds(&client, &ids), 0);
}

#[test]
fn a_queue_that_is_deleted_in_the_middle() {
    let vhost = vhost();
    let client = vhost.client();
    let (_, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let process = run(&stage, &vhost.url()).spawn();
    wait_until("it is at it", || client.depth(QUEUE).unwrap_or(0) > 1000);
    client.delete(QUEUE);
    gate.cancel();
    let ended = process.end().expect(78);
    let error = ended.label()["error"].as_str().unwrap();
    // Whether a message comes back, or the channel breaks, is the broker's choice.
    let comes_back = "the default exchange has nowhere to put a message";
    let breaks = "labelcast:1 was deleted";
    assert!(
        error.contains(comes_back) || error.contains(breaks),
        "{error}"
    );
    assert_eq!(client.depth(CHECKPOINT), Some(1));
}

#[test]
fn a_queue_that_is_deleted_while_a_changed_list_is_published_again() {
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
    wait_until("it waits within the changed list", || {
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
fn a_checkpoint_that_goes_back_takes_the_run_with_it() {
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
        wait_until("it waits", || client.depth(QUEUE) == Some(there));
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
    assert!(ended.label()["went_back"].as_u64().unwrap() >= 1);
    let from = early.data["position"].as_u64().unwrap() as usize;
    // What was on its way when the connection broke may have come first.
    let (mut found, _) = once(&client.drain(QUEUE));
    let mut behind = ids[from..].to_vec();
    found.sort();
    behind.sort();
    assert!(found == behind, "all behind the checkpoint is there");
}

#[test]
fn a_queue_that_is_deleted_between_two_processes_of_a_run() {
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
fn publishing_waits_while_too_much_is_pending() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let process = run(&stage, &vhost.url())
        .args(["--max-pending", "500"])
        .spawn();
    wait_until("it is full", || client.depth(QUEUE).unwrap_or(0) >= 500);
    let mut messages = Vec::new();
    while messages.len() < 3000 {
        assert!(client.depth(QUEUE).unwrap() <= 600, "it waits for us");
        wait_until("there is more", || match client.take(QUEUE) {
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
