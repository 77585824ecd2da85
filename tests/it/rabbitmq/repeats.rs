//! A message that is sent again after a crash is either the same message or has another id, so a
//! consumer that skips known ids loses nothing.

use std::collections::BTreeSet;

use bytes::Bytes;
use labelcast::mock::{Chats, Piece};

use super::{CHECKPOINT, QUEUE, run};
use crate::support::proxy::{Direction, Proxy};
use crate::support::rabbitmq::{Client, once, vhost};
use crate::support::{Stage, map_of, part_of, small_list, wait_until};

/// Checks that a consumer that skips known ids receives all chats.
#[track_caller]
fn has_all(client: &Client, ids: &[String]) {
    let (found, _) = once(&client.drain(QUEUE));
    let found: BTreeSet<String> = found.into_iter().collect();
    let missing = ids.iter().filter(|id| !found.contains(*id)).count();
    assert_eq!(missing, 0, "of {} chats", ids.len());
}

#[test]
fn packed_messages_of_a_changed_list_lose_nothing() {
    for before_end in [1, 400, 2000] {
        let vhost = vhost();
        let client = vhost.client();
        let proxy = Proxy::start(vhost.port);
        let (mut ids, body) = small_list(20_000);
        let stage = Stage::with_body(&body);
        stage.mock.script("1", part_of(&body, 0.8, Piece::Hold));
        let packed = ["--ids-per-message", "50"];
        let process = run(&stage, &vhost.url_by(proxy.port)).args(packed).spawn();
        wait_until("the run is publishing", || {
            client.depth(QUEUE).unwrap_or(0) > 50
        });
        // From here on, confirms no longer arrive, and the checkpoint falls behind.
        proxy.hold_connections();
        process.kill();
        let sent = client.depth(QUEUE).unwrap() * 50;
        ids.insert(sent - before_end, "new@c.us".to_owned());
        let list = Chats::Body(Bytes::from(map_of(&ids)));
        stage.mock.set_chats("1", &list);
        run(&stage, &vhost.url()).args(packed).end().expect(0);
        has_all(&client, &ids);
    }
}

#[test]
fn another_number_of_ids_per_message_loses_nothing() {
    for (first, second) in [("3", "5"), ("5", "3"), ("1", "4"), ("4", "1")] {
        let vhost = vhost();
        let client = vhost.client();
        let proxy = Proxy::start(vhost.port);
        let (ids, body) = small_list(3000);
        let stage = Stage::with_body(&body);
        stage.mock.script("1", part_of(&body, 0.8, Piece::Hold));
        let process = run(&stage, &vhost.url_by(proxy.port))
            .args(["--ids-per-message", first])
            .spawn();
        wait_until("the run is publishing", || {
            client.depth(QUEUE).unwrap_or(0) > 200
        });
        proxy.hold_connections();
        process.kill();
        run(&stage, &vhost.url())
            .args(["--ids-per-message", second])
            .end()
            .expect(0);
        has_all(&client, &ids);
    }
}

#[test]
fn message_ends_do_not_depend_on_how_the_list_arrives() {
    let entries: Vec<String> = (0..5000)
        .map(|i| match i % 97 {
            0 => "{\"id\":null}".to_owned(),
            _ => format!(
                "{{\"id\":\"{i}@c.us\",\"name\":\"{}\"}}",
                "n".repeat(i % 300)
            ),
        })
        .collect();
    let body = format!("[{}]", entries.join(","));
    let mut all = Vec::new();
    for pieces in [1, 7, 50] {
        let vhost = vhost();
        let stage = Stage::with_body(&body);
        let chunks = body.as_bytes().chunks(body.len().div_ceil(pieces));
        let chunks = chunks.map(|chunk| Piece::Bytes(Bytes::copy_from_slice(chunk)));
        stage
            .mock
            .script("1", labelcast::mock::Reply::pieces(chunks));
        let arguments = ["--ids-per-message", "7", "--include-names"];
        run(&stage, &vhost.url())
            .args(arguments)
            .args(["--max-invalid", "100"])
            .end()
            .expect(0);
        let messages = vhost.client().drain(QUEUE);
        let chats: Vec<Vec<String>> = messages.iter().map(|message| message.chats()).collect();
        let (last, others) = chats.split_last().unwrap();
        assert!(others.iter().all(|chats| chats.len() == 7));
        assert!((1..=7).contains(&last.len()));
        all.push(chats);
    }
    assert!(all.iter().all(|chats| *chats == all[0]));
}

#[test]
fn a_checkpoint_held_by_a_dead_process_is_waited_for() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let one_try = ["--retries", "0"];
    let first = run(&stage, &vhost.url()).args(one_try).end().expect(69);
    let holder = vhost.client();
    holder.hold(CHECKPOINT);
    let proxy = Proxy::start(vhost.port);
    let process = run(&stage, &vhost.url_by(proxy.port)).spawn();
    wait_until("the run has connected to the broker", || {
        proxy.connections() > 0
    });
    drop(holder);
    let ended = process.end().expect(0);
    assert_eq!(ended.label()["run_id"], first.label()["run_id"]);
    has_all(&client, &ids);
}

#[test]
fn a_complete_run_whose_process_did_not_know_it_is_not_published_again() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(500);
    let stage = Stage::with_body(&body);
    let first = run(&stage, &vhost.url()).end().expect(0);
    let mut ended = client.take(CHECKPOINT).unwrap();
    assert_eq!(ended.data["settled"], true);
    // As if the run had been cut off after its end.
    ended.data["settled"] = false.into();
    client.put(CHECKPOINT, &ended);
    let second = run(&stage, &vhost.url()).end().expect(0);
    assert_eq!(second.label()["run_id"], first.label()["run_id"]);
    assert_eq!(second.label()["published"], 0);
    assert_eq!(second.label()["resumed"], 500);
    assert_eq!(once(&client.drain(QUEUE)), (ids, 0));
    let third = run(&stage, &vhost.url()).end().expect(0);
    assert_ne!(third.label()["run_id"], first.label()["run_id"]);
}

#[test]
fn the_start_marker_is_published_wherever_the_first_process_ends() {
    let stage = Stage::with_chats(100);
    let vhost = vhost();
    let proxy = Proxy::start(vhost.port);
    let client = vhost.client();
    for bytes in (300..4000).step_by(150) {
        let queue = format!("cut{bytes}");
        let marker = ["--marker", "--queue", &queue];
        proxy.cut_after(bytes, Direction::ToServer);
        let first = run(&stage, &vhost.url_by(proxy.port)).args(marker);
        first.args(["--retries", "0"]).end().expect(69);
        assert!(!proxy.is_armed(), "after {bytes} bytes");
        run(&stage, &vhost.url()).args(marker).end().expect(0);
        let events: BTreeSet<String> = client
            .drain(&queue)
            .iter()
            .filter_map(|message| message.event())
            .collect();
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        assert_eq!(
            events,
            ["run.completed", "run.started"],
            "after {bytes} bytes"
        );
    }
}
