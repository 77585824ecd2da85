//! The messages that a consumer finds on the queue.

use bytes::Bytes;
use labelcast::mock::{Chats, Piece};
use serde_json::json;

use super::{CHECKPOINT, LOCK, QUEUE, holds, run};
use crate::support::rabbitmq::vhost;
use crate::support::{Running, Stage, map_of, part_of, small_list, wait_until};

#[test]
fn each_chat_is_a_message_with_its_properties() {
    let vhost = vhost();
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    let ended = run(&stage, &vhost.url()).end().expect(0);
    let run_id = ended.label()["run_id"].as_str().unwrap();
    assert_eq!(ended.label()["messages"], 300);
    let client = vhost.client();
    assert_eq!(client.depth(QUEUE), Some(300));
    let first = client.take(QUEUE).unwrap();
    assert_eq!(
        first.data,
        json!({"chat_id": ids[0], "label_id": "1", "run_id": run_id})
    );
    let properties = &first.properties;
    assert_eq!(first.id(), format!("{run_id}:{}", ids[0]));
    let text = |text: &Option<lapin::types::ShortString>| text.clone().unwrap().to_string();
    assert_eq!(text(properties.content_type()), "application/json");
    assert_eq!(text(properties.app_id()), "labelcast");
    assert_eq!(text(properties.kind()), "labelcast.chat");
    assert_eq!(text(properties.expiration()), "604800000");
    assert_eq!(*properties.delivery_mode(), Some(2));
    assert_eq!(holds(&client, &ids[1..]), 0);
    assert_eq!(client.depth(LOCK), None, "the lock is released");
    assert_eq!(client.depth(CHECKPOINT), Some(1));
}

#[test]
fn every_queue_type_and_format_works() {
    for (kind, arguments) in [
        ("classic", vec!["--retain", "forever"]),
        ("quorum", vec!["--format", "cloudevents", "--retain", "1h"]),
        ("quorum", vec!["--ids-per-message", "7", "--include-names"]),
        (
            "classic",
            vec!["--ids-per-message", "500", "--format", "cloudevents"],
        ),
    ] {
        let vhost = vhost();
        let (ids, body) = small_list(1000);
        let stage = Stage::with_body(&body);
        let ended = run(&stage, &vhost.url())
            .args(["--queue-type", kind])
            .args(&arguments)
            .end()
            .expect(0);
        let client = vhost.client();
        let first = client.take(QUEUE).unwrap();
        let run_id = ended.label()["run_id"].as_str().unwrap();
        let is_packed = arguments.contains(&"--ids-per-message");
        if is_packed {
            assert_eq!(first.id(), format!("{run_id}:0"));
        }
        if arguments.contains(&"cloudevents") {
            assert_eq!(first.data["specversion"], "1.0");
            let content_type = first.properties.content_type().clone().unwrap();
            assert_eq!(content_type.as_str(), "application/cloudevents+json");
        }
        if arguments.contains(&"--include-names") {
            assert_eq!(first.data["names"][1], "Person 1");
        }
        if arguments.contains(&"forever") {
            assert_eq!(*first.properties.expiration(), None);
        }
        let start = first.chats();
        assert_eq!(start, ids[..start.len()]);
        assert_eq!(holds(&client, &ids[start.len()..]), 0);
    }
}

#[test]
fn tail_reads_a_stream_from_its_start() {
    let vhost = vhost();
    let (ids, body) = small_list(500);
    let stage = Stage::with_body(&body);
    let stream = ["--queue-type", "stream"];
    run(&stage, &vhost.url()).args(stream).end().expect(0);
    for _ in 0..2 {
        let tail = Running::new("tail");
        let tail = tail.args(["--sink", &vhost.url(), "--queue", QUEUE, "--count", "500"]);
        let read = tail.args(stream).end().expect(0);
        let lines: Vec<serde_json::Value> = read
            .stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let found: Vec<&str> = lines
            .iter()
            .map(|line| line["data"]["chat_id"].as_str().unwrap())
            .collect();
        assert_eq!(found, ids);
    }
    // Another --retain is not a reason to refuse the existing queue.
    run(&stage, &vhost.url())
        .args(stream)
        .args(["--retain", "3h"])
        .end()
        .expect(0);
}

#[test]
fn tail_returns_unacknowledged_messages() {
    let vhost = vhost();
    let (ids, body) = small_list(20);
    let stage = Stage::with_body(&body);
    run(&stage, &vhost.url()).args(["--marker"]).end().expect(0);
    let tail = |arguments: &[&str]| {
        let tail = Running::new("tail");
        let tail = tail.args(["--sink", &vhost.url(), "--queue", QUEUE]);
        tail.args(arguments).end().expect(0).stdout
    };
    let shown = tail(&[]);
    assert_eq!(shown.lines().count(), 22);
    assert!(
        shown
            .lines()
            .next()
            .unwrap()
            .contains(r#""event":"run.started""#)
    );
    let two = tail(&["--ack", "--count", "2"]);
    assert_eq!(two.lines().count(), 2);
    let rest = tail(&["--ack"]);
    assert_eq!(rest.lines().count(), 20);
    let both = two + &rest;
    assert!(
        ids.iter()
            .all(|id| both.matches(&format!(":{id}\"")).count() == 1)
    );
    assert_eq!(tail(&[]), "");
}

#[test]
fn markers_surround_the_chats_of_a_run() {
    let vhost = vhost();
    let (ids, body) = small_list(200);
    let stage = Stage::with_body(&body);
    run(&stage, &vhost.url()).args(["--marker"]).end().expect(0);
    let messages = vhost.client().drain(QUEUE);
    assert_eq!(messages.len(), 202);
    assert_eq!(messages[0].event().unwrap(), "run.started");
    assert_eq!(messages[201].event().unwrap(), "run.completed");
    assert_eq!(messages[201].data["chats"], 200);
    assert_eq!(messages[200].chats(), ids[199..]);
}

#[test]
fn an_existing_exchange_and_queue_can_be_used() {
    let vhost = vhost();
    let client = vhost.client();
    client.exchange("to-outreach", Some(QUEUE));
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    let exchange = ["--exchange", "to-outreach"];
    run(&stage, &vhost.url()).args(exchange).end().expect(0);
    assert_eq!(holds(&client, &ids), 0);
    run(&stage, &vhost.url())
        .args(["--no-declare"])
        .end()
        .expect(0);
    assert_eq!(holds(&client, &ids), 0);
}

#[test]
fn a_shrunken_list_is_guarded_and_an_empty_one_accepted() {
    let vhost = vhost();
    let (_, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    run(&stage, &vhost.url()).end().expect(0);
    let (_, shorter) = small_list(100);
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(shorter)));
    let ended = run(&stage, &vhost.url())
        .args(["--max-shrink", "50"])
        .end()
        .expect(80);
    assert_eq!(ended.label()["published"], 0);
    assert_eq!(vhost.client().drain(QUEUE).len(), 1000);
    stage.mock.set_chats("1", &Chats::Body(Bytes::from("{}")));
    run(&stage, &vhost.url()).end().expect(0);
    assert_eq!(vhost.client().drain(QUEUE).len(), 0);
}

#[test]
fn a_changed_list_is_published_again_under_the_same_run_id() {
    for arguments in [vec![], vec!["--ids-per-message", "7"]] {
        let vhost = vhost();
        let client = vhost.client();
        let (ids, body) = small_list(6000);
        let stage = Stage::with_body(&body);
        stage.mock.script("1", part_of(&body, 0.5, Piece::Hold));
        let process = run(&stage, &vhost.url()).args(&arguments).spawn();
        wait_until("the run is publishing", || {
            client.depth(QUEUE).unwrap_or(0) > 200
        });
        process.signal("TERM");
        process.end().expect(75);
        let turned: Vec<String> = ids.iter().rev().cloned().collect();
        let list = Chats::Body(Bytes::from(map_of(&turned)));
        stage.mock.set_chats("1", &list);
        let ended = run(&stage, &vhost.url()).args(&arguments).end().expect(0);
        assert_eq!(ended.label()["list_changed"], true);
        assert_eq!(ended.label()["published"], 6000);
        let messages = client.drain(QUEUE);
        let run_id = ended.label()["run_id"].as_str().unwrap();
        assert!(
            messages
                .iter()
                .all(|message| message.id().starts_with(run_id))
        );
        let (found, _) = crate::support::rabbitmq::once(&messages);
        assert!(ids.iter().all(|id| found.contains(id)), "none missing");
    }
}

#[test]
fn check_leaves_nothing_behind() {
    let vhost = vhost();
    let stage = Stage::with_chats(3);
    let check = || {
        let check = stage.program("check");
        check.args(["--label", "1", "--sink", &vhost.url()])
    };
    let found = check().end().expect(0);
    assert!(found.stdout.contains("can be declared"), "{}", found.stdout);
    let client = vhost.client();
    assert_eq!(client.depth(QUEUE), None);
    client.declare(QUEUE, &[("x-queue-type", json!("quorum"))]);
    let found = check().end().expect(0);
    assert!(
        found.stdout.contains("can be published to"),
        "{}",
        found.stdout
    );
    let found = check().args(["--queue-type", "classic"]).end().expect(78);
    assert!(found.stdout.contains("x-queue-type"), "{}", found.stdout);
    assert!(found.stdout.contains("--no-declare"), "{}", found.stdout);
}
