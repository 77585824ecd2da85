//! Kills, a broker that is away, and hostile senders.

use std::sync::Mutex;

use super::listen;
use super::load::{Load, on_stream, with_senders};
use crate::support::listener::{Sender, event, signed};
use crate::support::redis::{Server, entries};
use crate::support::{Numbers, Stage, wait_until};

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
    for (number, sender) in slow.iter_mut().enumerate() {
        let begin: &[u8] = match number % 3 {
            0 => b"POST /webhook HTTP/1.1\r\nHost:",
            1 => b"POST /webhook HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{",
            _ => {
                b"POST /webhook HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"
            }
        };
        sender.send(begin).unwrap();
    }
    for number in 0..20 {
        listener.acknowledged(&event(
            &format!("{number}"),
            "added",
            "1",
            &format!("{number}@c.us"),
        ));
    }
    // Half a body each, of bodies that are allowed.
    let half = format!(
        "POST /webhook HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{}",
        "[".repeat(500_000)
    );
    let large: Vec<std::io::Result<Sender>> = (0..60)
        .map(|_| {
            let mut sender = Sender::connect(listener.address())?;
            sender.send(half.as_bytes()).map(|()| sender)
        })
        .collect();
    let peak = listener.process().peak_memory();
    assert!(peak < 96 * 1024, "{peak} KiB");
    // They are given up after a while, and then answered or closed.
    let outcome = r#"labelcast_webhook_requests_total{outcome="not_whole"}"#;
    wait_until("slow bodies are given up", || {
        listener.metric(outcome) >= Some(300)
    });
    drop(large);
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
