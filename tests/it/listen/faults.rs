//! Kills, a broker that is away, and hostile senders.

use std::sync::Mutex;

use labelcast::mock::Chats;
use redis::Commands as _;
use serde_json::{Value, json};

use super::listen;
use super::load::{Load, on_stream, with_senders};
use crate::support::listener::{Sender, event, signed};
use crate::support::redis::{Server, entries};
use crate::support::{INSTANCE, Numbers, Stage, wait_until};

const QUEUE: &str = "labelcast:1";
#[test]
fn kills_at_fifty_points_lose_and_double_no_event() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let (load, mut numbers) = (Load::new(), Numbers(50));
    let first = listen(&stage, &server);
    let address = Mutex::new(first.address().to_owned());
    let listener = with_senders(&load, &address, || {
        let mut listener = first;
        for _ in 0..50 {
            let goal = load.acknowledged() + 1 + numbers.below(100) as usize;
            wait_until("some are acknowledged", || load.acknowledged() >= goal);
            listener.kill();
            listener = listen(&stage, &server);
            *address.lock().unwrap() = listener.address().to_owned();
        }
        listener
    });
    assert_eq!(load.check(&on_stream(&server, QUEUE)), 0, "repeats");
    assert_eq!(listener.stop().code, Some(0));
}

#[test]
fn a_broker_that_is_away_loses_and_doubles_no_acknowledged_event() {
    let stage = Stage::with_body("[]");
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let listener = listen(&stage, &server);
    let load = Load::new();
    let address = Mutex::new(listener.address().to_owned());
    with_senders(&load, &address, || {
        wait_until("some are acknowledged", || load.acknowledged() > 100);
        server.kill();
        let refused = r#"labelcast_webhook_requests_total{outcome="unavailable"}"#;
        wait_until("requests are refused", || {
            listener.metric(refused) > Some(20)
        });
        wait_until("it is not ready", || listener.get("/readyz").status == 503);
        assert_eq!(listener.get("/healthz").status, 200);
        let before = load.acknowledged();
        server.up();
        wait_until("it goes on", || load.acknowledged() > before + 100);
    });
    assert_eq!(load.check(&on_stream(&server, QUEUE)), 0, "repeats");
    wait_until("it is ready", || listener.get("/readyz").status == 200);
}

#[test]
fn a_refusal_asks_to_come_again() {
    let stage = Stage::with_body("[]");
    let mut server = Server::start(&["--appendonly", "yes"]);
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    server.kill();
    let answer = listener.post(&event("a", "added", "1", "1@c.us").to_string());
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.head.contains("retry-after: 2"), "{answer:?}");
    assert!(!answer.body.contains("@c.us"), "{answer:?}");
    server.up();
    listener.acknowledged(&event("a", "added", "1", "1@c.us"));
    assert_eq!(entries(&mut server.connection(), QUEUE).len(), 1);
}

#[test]
fn a_stop_finishes_what_was_accepted() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    let mut idle = listener.sender();
    assert_eq!(
        idle.post(&event("a", "added", "1", "1@c.us").to_string())
            .unwrap()
            .status,
        200
    );
    let (mut sender, request) = (
        listener.sender(),
        signed(&event("b", "added", "1", "2@c.us").to_string()),
    );
    let (first, rest) = request.split_at(request.len() - 10);
    sender.send(first.as_bytes()).unwrap();
    let metric = r#"labelcast_webhook_requests_total{outcome="received"}"#;
    wait_until("the first is counted", || {
        listener.metric(metric) == Some(1)
    });
    listener.process().signal("TERM");
    wait_until("it accepts no more", || {
        Sender::connect(listener.address()).is_err()
    });
    assert_eq!(sender.exchange(rest.as_bytes()).unwrap().status, 200);
    assert_eq!(listener.end().code, Some(0));
    assert_eq!(entries(&mut server.connection(), QUEUE).len(), 2);
}

#[test]
fn slow_senders_do_not_keep_others_from_being_answered_and_hold_little_memory() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    let mut slow: Vec<Sender> = (0..500).map(|_| listener.sender()).collect();
    let hmac = "0".repeat(128);
    let head = format!("POST /webhook HTTP/1.1\r\nHost: a\r\nX-Webhook-Hmac: {hmac}\r\n");
    for (number, sender) in slow.iter_mut().enumerate() {
        let begin = match number % 3 {
            0 => head.clone(),
            1 => format!("{head}Content-Length: 1000000\r\n\r\n{{"),
            _ => format!("{head}Transfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n"),
        };
        sender.send(begin.as_bytes()).unwrap();
    }
    for number in 0..20 {
        listener.acknowledged(&event(
            &format!("{number}"),
            "added",
            "1",
            &format!("{number}@c.us"),
        ));
    }
    // They are given up after a while, and then answered or closed.
    let outcome = r#"labelcast_webhook_requests_total{outcome="not_whole"}"#;
    wait_until("slow bodies are given up", || {
        listener.metric(outcome) >= Some(300)
    });
    let peak = listener.process().peak_memory();
    assert!(peak < 96 * 1024, "{peak} KiB");
    assert_eq!(listener.stop().code, Some(0));
}

#[test]
fn large_bodies_of_many_senders_hold_little_memory_after_they_gave_up() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    let address = listener.address();
    std::thread::scope(|scope| {
        for sender in 0..16 {
            scope.spawn(move || {
                for number in 0..8 {
                    let chat = |chat: usize| {
                        let chat = format!("{sender}-{number}-{chat}@c.us");
                        event(&chat, "added", "1", &chat).to_string()
                    };
                    let events: Vec<String> = (0..5000).map(chat).collect();
                    let mut sender = Sender::connect(address).unwrap();
                    let answer = sender.post(&format!("[{}]", events.join(",")));
                    assert!(matches!(answer.unwrap().status, 200 | 503));
                }
            });
        }
    });
    let peak = listener.process().peak_memory();
    assert!(peak < 192 * 1024, "{peak} KiB");
    assert_eq!(listener.stop().code, Some(0));
}

#[test]
fn large_bodies_without_an_end_do_not_keep_small_ones_out() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    let hmac = "0".repeat(128);
    let half = format!(
        "POST /webhook HTTP/1.1\r\nHost: a\r\nX-Webhook-Hmac: {hmac}\r\nContent-Length: 1000000\r\n\r\n{}",
        "[".repeat(500_000)
    );
    let large: Vec<_> = (0..60)
        .map(|_| {
            let mut sender = Sender::connect(listener.address())?;
            sender.send(half.as_bytes()).map(|()| sender)
        })
        .collect();
    let refused = r#"labelcast_webhook_requests_total{outcome="unavailable"}"#;
    wait_until("the memory for large bodies is taken", || {
        listener.metric(refused) > Some(0)
    });
    for number in 0..20 {
        listener.acknowledged(&event(
            &format!("{number}"),
            "added",
            "1",
            &format!("{number}@c.us"),
        ));
    }
    let peak = listener.process().peak_memory();
    assert!(peak < 96 * 1024, "{peak} KiB");
    drop(large);
    assert_eq!(listener.stop().code, Some(0));
}

#[test]
fn a_label_whose_queue_is_refused_holds_up_no_other_and_its_count_stays() {
    let stage = Stage::with_labels(vec![("1", Chats::Generated(3)), ("2", Chats::Generated(3))]);
    let server = Server::start(&[]);
    let listener = listen(&stage, &server);
    listener.wait_until_exact(2);
    let mut connection = server.connection();
    connection.set::<_, _, ()>(QUEUE, "no stream").unwrap();
    for number in 0..5 {
        let refused = event(&format!("a{number}"), "added", "1", "5@c.us");
        assert_eq!(listener.post(&refused.to_string()).status, 503);
        listener.acknowledged(&event(
            &format!("b{number}"),
            "added",
            "2",
            &format!("{number}@c.us"),
        ));
    }
    let both = json!([
        event("c", "added", "1", "5@c.us"),
        event("d", "added", "2", "6@c.us")
    ]);
    assert_eq!(listener.post(&both.to_string()).status, 503);
    assert_eq!(listener.get("/readyz").status, 200);
    let members: u64 = connection
        .hget(
            "labelcast:membership:{labelcast:1}:labelcast:1:inst-1:1",
            "members",
        )
        .unwrap();
    assert_eq!(members, 3);
    connection.del::<_, ()>(QUEUE).unwrap();
    listener.acknowledged(&both);
    assert_eq!(on_stream(&server, QUEUE), ["c"]);
    assert_eq!(on_stream(&server, "labelcast:2").len(), 6);
}

#[test]
fn it_is_not_ready_before_the_state_was_read_and_ends_while_it_hangs() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    server.hold();
    let listener = listen(&stage, &server);
    let ready = listener.get("/readyz");
    assert_eq!(ready.status, 503, "{ready:?}");
    let answer = listener.post(&event("a", "added", "1", "1@c.us").to_string());
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(listener.stop().code, Some(0));
}

#[test]
fn labels_that_nobody_knows_are_bounded() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    let upserts: Vec<_> = (0..2000)
        .map(|number| json!({"event": "label.upsert", "session": INSTANCE, "payload": {"id": format!("x{number}"), "name": "n"}}))
        .collect();
    assert_eq!(listener.post(&json!(upserts).to_string()).status, 503);
    wait_until("the labels are shown", || {
        let labels: Value = serde_json::from_str(&listener.get("/api/labels").body).unwrap();
        labels.as_array().unwrap().len() == 1000
    });
    let answer = listener.post(&event("a", "added", "another", "1@c.us").to_string());
    assert_eq!(answer.status, 503, "{answer:?}");
    listener.acknowledged(&event("b", "added", "1", "1@c.us"));
}
