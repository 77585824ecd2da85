//! The stream protocol: each chat exactly once, whatever is killed or cut.

use labelcast::mock::Chats;

use super::QUEUE;
use crate::support::proxy::{Direction, Proxy};
use crate::support::rabbitmq::{Client, Message, Vhost, vhost};
use crate::support::{Numbers, Running, Stage, map_of, part_of, small_list, wait_until};

const FAULTS: u64 = 50;

fn url(vhost: &Vhost) -> String {
    vhost.stream_url(vhost.stream_port, vhost.port)
}

fn run(stage: &Stage, url: &str) -> Running {
    stage.program("run").args(["--label", "1", "--sink", url])
}

/// Checks that the stream has these chats, each once and in this order. Returns its messages.
#[track_caller]
fn has(client: &Client, ids: &[String]) -> Vec<Message> {
    let messages = client.read_stream(QUEUE);
    let chats = messages.iter().filter(|message| message.event().is_none());
    let found: Vec<String> = chats.flat_map(Message::chats).collect();
    let at = found.iter().zip(ids).position(|(a, b)| a != b);
    assert_eq!((found.len(), at), (ids.len(), None), "the lists differ");
    messages
}

#[test]
fn each_chat_is_a_message_with_its_properties() {
    let vhost = vhost();
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    let ended = run(&stage, &url(&vhost)).arg("--marker").end().expect(0);
    let run_id = ended.label()["run_id"].as_str().unwrap();
    let client = vhost.client();
    let messages = has(&client, &ids);
    let text = |text: &Option<lapin::types::ShortString>| text.clone().unwrap().to_string();
    let properties = &messages[1].properties;
    assert_eq!(messages[1].id(), format!("{run_id}:{}", ids[0]));
    assert_eq!(text(properties.content_type()), "application/json");
    assert_eq!(text(properties.kind()), "labelcast.chat");
    let (first, last) = (&messages[0], &messages[301]);
    assert_eq!(first.event().as_deref(), Some("run.started"));
    assert_eq!(text(first.properties.kind()), "labelcast.run");
    assert_eq!(last.id(), format!("{run_id}:run.completed"));
    assert_eq!(last.data["chats"], 300);
}

#[test]
fn every_format_works_and_the_next_run_is_not_taken_for_a_repeat() {
    for arguments in [
        &["--format", "cloudevents"][..],
        &["--ids-per-message", "7", "--include-names"],
        &["--ids-per-message", "500", "--format", "cloudevents"],
    ] {
        let vhost = vhost();
        let (ids, body) = small_list(3000);
        let stage = Stage::with_body(&body);
        let mut expected = Vec::new();
        for _ in 0..3 {
            run(&stage, &url(&vhost)).args(arguments).end().expect(0);
            expected.extend_from_slice(&ids);
            has(&vhost.client(), &expected);
        }
    }
}

#[test]
fn kills_at_any_moment_leave_each_chat_once() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(15_000);
    let stage = Stage::with_body(&body);
    let mut numbers = Numbers(3);
    let mut published = 0;
    for round in 1..=FAULTS {
        // The list arrives bit by bit, so that each run has something to do.
        let part = round as f64 / (FAULTS + 1) as f64;
        let silence = labelcast::mock::Piece::Hold;
        stage.mock.script("1", part_of(&body, part, silence));
        let enough = published + 1 + numbers.below(250) as usize;
        let process = run(&stage, &url(&vhost)).spawn();
        wait_until("the moment to kill has come", || {
            published = client.depth(QUEUE).unwrap_or(0);
            published >= enough
        });
        process.kill();
    }
    let ended = run(&stage, &url(&vhost)).end().expect(0);
    assert_eq!(ended.label()["read"], ids.len());
    has(&vhost.client(), &ids);
}

#[test]
fn kills_of_runs_with_packed_messages_leave_each_chat_once() {
    let vhost = vhost();
    let client = vhost.client();
    // Packed messages are published when a batch of 2,048 chats is complete, and not when the list
    // stalls.
    let (ids, body) = small_list(50_000);
    let stage = Stage::with_body(&body);
    let mut published = 0;
    for (round, size) in (1..=10).zip(["7", "10"].iter().cycle()) {
        let silence = labelcast::mock::Piece::Hold;
        let part = f64::from(round) / 11.0;
        stage.mock.script("1", part_of(&body, part, silence));
        // Another size does not matter: the broker tells which chats it has.
        let packed = ["--ids-per-message", size];
        let process = run(&stage, &url(&vhost)).args(packed).spawn();
        let enough = published + 20;
        wait_until("the moment to kill has come", || {
            published = client.depth(QUEUE).unwrap_or(0);
            published >= enough
        });
        process.kill();
    }
    run(&stage, &url(&vhost)).end().expect(0);
    has(&client, &ids);
}

#[test]
fn cuts_at_any_byte_leave_each_chat_once() {
    let vhost = vhost();
    let (ids, body) = small_list(100_000);
    let stage = Stage::with_body(&body);
    let proxy = Proxy::start(vhost.stream_port);
    let process = run(&stage, &vhost.stream_url(proxy.port, vhost.port))
        .args(["--retries", "20"])
        .spawn();
    let mut numbers = Numbers(4);
    for fault in 0..FAULTS {
        let direction = match fault % 5 {
            0 => Direction::ToClient,
            _ => Direction::ToServer,
        };
        let bytes = match direction {
            Direction::ToClient => numbers.below(20_000),
            // Frames are 128 KiB long.
            Direction::ToServer => numbers.below(400_000),
        };
        proxy.cut_after(bytes.try_into().unwrap(), direction);
        wait_until("the connection has broken", || !proxy.is_armed());
    }
    process.end().expect(0);
    has(&vhost.client(), &ids);
}

#[test]
fn a_list_that_has_changed_is_not_taken_for_the_one_before() {
    let vhost = vhost();
    let client = vhost.client();
    let (mut ids, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    let silence = labelcast::mock::Piece::Hold;
    stage.mock.script("1", part_of(&body, 0.5, silence));
    let process = run(&stage, &url(&vhost)).spawn();
    wait_until("half of it is published", || {
        client.depth(QUEUE).is_some_and(|depth| depth > 1900)
    });
    process.kill();
    ids.reverse();
    let changed = Chats::Body(map_of(&ids).into());
    stage.mock.set_chats("1", &changed);
    let ended = run(&stage, &url(&vhost)).end().expect(0);
    assert_eq!(ended.label()["list_changed"], true);
    let messages = client.read_stream(QUEUE);
    let found: Vec<String> = messages.iter().flat_map(Message::chats).collect();
    assert!(found.ends_with(&ids), "all of the new list, in its order");
}

#[test]
fn a_stream_is_read_by_tail_and_has_no_workers() {
    let vhost = vhost();
    let (ids, body) = small_list(50);
    let stage = Stage::with_body(&body);
    run(&stage, &url(&vhost)).end().expect(0);
    let tail = Running::new("tail").args(["--sink", &url(&vhost), "--queue", QUEUE]);
    let read = tail.args(["--count", "50"]).end().expect(0);
    assert_eq!(read.stdout.lines().count(), ids.len());
    let enrich = stage.program("enrich").args(["--sink", &url(&vhost)]);
    let refused = enrich.args(["--from", QUEUE, "--to", "records", "--drain"]);
    let refused = refused.end().expect(78);
    assert!(refused.stderr.contains("is a stream"), "{refused:?}");
}

#[test]
fn tls_works_with_the_authority_of_the_broker_only() {
    let vhost = vhost();
    let (ids, body) = small_list(50);
    let stage = Stage::with_body(&body);
    run(&stage, &vhost.stream_tls_url()).end().expect(0);
    has(&vhost.client(), &ids);
    let url = vhost.stream_tls_url();
    let (unknown, _) = url.split_once("&cacertfile").unwrap();
    let ended = run(&stage, unknown).args(["--retries", "0"]).end();
    assert_ne!(ended.code, Some(0));
    assert!(ended.stderr.contains("certificate"), "{ended:?}");
}

#[test]
fn a_login_that_is_refused_is_no_reason_to_retry() {
    let vhost = vhost();
    let stage = Stage::with_chats(1);
    let url = url(&vhost).replace("guest:guest", "guest:wrong-pass-1");
    let ended = run(&stage, &url).end().expect(77);
    assert!(!ended.stderr.contains("wrong-pass-1"), "{ended:?}");
}

#[test]
fn what_streams_do_not_have_is_refused() {
    let vhost = vhost();
    let stage = Stage::with_chats(1);
    for (arguments, problem) in [
        (["--exchange", "x"], "--exchange"),
        (["--max-pending", "5"], "--max-pending"),
    ] {
        let ended = run(&stage, &url(&vhost)).args(arguments).end().expect(78);
        assert!(ended.stderr.contains(problem), "{ended:?}");
    }
    for (url, problem) in [
        ("rabbitmq-stream://h:99999/", "port"),
        ("rabbitmq-stream://h/?amqp_port=x", "amqp_port"),
        ("rabbitmq-stream://h/?heartbeat=5", "heartbeat"),
    ] {
        let ended = run(&stage, url).end().expect(78);
        assert!(ended.stderr.contains(problem), "{url}: {ended:?}");
    }
}

/// Also those that an earlier process had published.
#[test]
fn messages_that_are_lost_are_published_again() {
    let vhost = vhost();
    let client = vhost.client();
    let (ids, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    let silence = labelcast::mock::Piece::Hold;
    stage.mock.script("1", part_of(&body, 0.5, silence));
    let process = run(&stage, &url(&vhost)).spawn();
    wait_until("half of it is published", || {
        client.depth(QUEUE).is_some_and(|depth| depth > 1900)
    });
    process.signal("TERM");
    let stopped = process.end().expect(75);
    assert!(stopped.label()["published"].as_u64().unwrap() > 1900);
    client.delete(QUEUE);
    client.declare(QUEUE, &[("x-queue-type", "stream".into())]);
    run(&stage, &url(&vhost)).end().expect(0);
    has(&vhost.client(), &ids);
}
