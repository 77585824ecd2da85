//! What senders send, and how it is answered.

use redis::Commands as _;
use serde_json::json;

use super::{command, listen};
use crate::support::listener::{Listener, SECRET, event, event_at, hmac_of, now_ms};
use crate::support::redis::{Server, chat_ids, entries, field};
use crate::support::{INSTANCE, Stage};

const QUEUE: &str = "labelcast:1";

#[test]
fn an_event_is_one_message_with_what_consumers_expect() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.acknowledged(&event_at(
        "evt_7",
        "added",
        "1",
        "7@c.us",
        1_764_209_000_123,
    ));
    let mut connection = server.connection();
    let entries = entries(&mut connection, QUEUE);
    let names: Vec<&str> = entries[0].iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "event",
            "event_id",
            "occurred_at",
            "chat_id",
            "label_id",
            "run_id"
        ]
    );
    let value = |name| field(&entries[0], name).unwrap();
    assert_eq!(value("event"), "label.chat.added");
    assert_eq!(value("event_id"), "evt_7");
    assert_eq!(value("occurred_at"), "2025-11-27T02:03:20.123Z");
    assert_eq!(
        (value("chat_id").as_str(), value("label_id").as_str()),
        ("7@c.us", "1")
    );
    let run_id: uuid::Uuid = value("run_id").parse().unwrap();
    let (seconds, nanos) = run_id.get_timestamp().unwrap().to_unix();
    assert_eq!(
        seconds * 1000 + u64::from(nanos / 1_000_000),
        1_764_209_000_123
    );
    assert_eq!(listener.stop().code, Some(0));
}

#[test]
fn repeats_resyncs_and_late_events_publish_nothing() {
    let (stage, server) = (Stage::with_body(r#"[{"id":"1@c.us"}]"#), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    let now = now_ms();
    let at = |id: &str, change: &str, chat: &str, age: u64| {
        listener.acknowledged(&event_at(id, change, "1", chat, now - age));
    };
    // The baseline has it.
    at("a", "added", "1@c.us", 5000);
    at("b", "added", "2@c.us", 5000);
    // The same event, and a resync with another id.
    at("b", "added", "2@c.us", 5000);
    at("c", "added", "2@c.us", 4000);
    // Late: an addition before the last deletion, and both before the list.
    at("d", "deleted", "2@c.us", 2000);
    at("e", "added", "2@c.us", 3000);
    at("f", "added", "3@c.us", 600_000);
    at("g", "deleted", "1@c.us", 600_000);
    at("h", "added", "2@c.us", 1000);
    let mut connection = server.connection();
    assert_eq!(chat_ids(&mut connection, QUEUE), ["2@c.us", "2@c.us"]);
    let metric = |event: &str, result: &str| {
        let name =
            format!(r#"labelcast_events_total{{event="label.chat.{event}",result="{result}"}}"#);
        listener.metric(&name)
    };
    assert_eq!(metric("added", "published"), Some(2));
    assert_eq!(metric("added", "unchanged"), Some(2));
    assert_eq!(metric("added", "duplicate"), Some(1));
    assert_eq!(metric("added", "stale"), Some(2));
    assert_eq!(metric("deleted", "recorded"), Some(1));
    assert_eq!(metric("deleted", "stale"), Some(1));
}

#[test]
fn an_array_is_taken_as_a_whole_and_what_is_not_ours_is_passed_over() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = Listener::start(command(&stage, &server).args(["--label", "1"]));
    let mut other_session = event("d", "added", "1", "4@c.us");
    other_session["session"] = json!("other");
    let body = json!([
        event("a", "added", "1", "1@c.us"),
        event("b", "added", "2", "2@c.us"),
        {"event": "message", "session": INSTANCE, "payload": {"body": "hello"}},
        other_session,
        event("e", "added", "1", "5@c.us"),
    ]);
    listener.acknowledged(&body);
    listener.acknowledged(&json!([]));
    let mut connection = server.connection();
    assert_eq!(chat_ids(&mut connection, QUEUE), ["1@c.us", "5@c.us"]);
    let queues: Vec<String> = connection.keys("labelcast:2*").unwrap();
    assert_eq!(queues, [""; 0]);
    let log = listener.stop().stderr;
    for passed in ["other", "message"] {
        assert_eq!(
            log.matches(&format!("\"name\":\"{passed}\"")).count(),
            1,
            "{log}"
        );
    }
}

#[test]
fn what_is_no_event_is_refused_and_valid_events_beside_it_are_durable() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    let deep = "[".repeat(200_000);
    for body in ["", "{", "<html>", "7", "{}", "[7]", deep.as_str()] {
        let answer = listener.post(body);
        assert_eq!(answer.status, 400, "{body:.20} {answer:?}");
    }
    let mut invalid = event("b", "added", "1", "2@c.us");
    invalid["payload"]["chatId"] = json!("555-123-4567 no id");
    let body = json!([
        event("a", "added", "1", "1@c.us"),
        invalid,
        event("c", "added", "1", "3@c.us")
    ]);
    let answer = listener.post(&body.to_string());
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(!answer.body.contains("555"), "{answer:?}");
    let mut connection = server.connection();
    assert_eq!(chat_ids(&mut connection, QUEUE), ["1@c.us", "3@c.us"]);
    let log = listener.stop().stderr;
    // The time of a line may contain 555.
    assert!(!log.contains("555-123") && !log.contains("@c.us"), "{log}");
}

#[test]
fn a_forged_body_is_refused_whichever_way_senders_authenticate() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let body = event("a", "added", "1", "1@c.us").to_string();
    let sha512 = hmac_of(ring::hmac::HMAC_SHA512, SECRET, &body);
    let sha256 = hmac_of(ring::hmac::HMAC_SHA256, SECRET, &body);
    let forged = hmac_of(ring::hmac::HMAC_SHA512, "another", &body);
    let header = |name: &str, value: &str| format!("{name}: {value}\r\n");
    let hmac = |value: &str| header("X-Webhook-Hmac", value);
    let query = format!("/webhook?secret={SECRET}");
    type Requests<'a> = &'a [(&'a str, String)];
    let cases: [(&[&str], Requests<'_>, Requests<'_>); 4] = [
        (
            &[],
            &[
                ("/webhook", hmac(&sha512)),
                ("/webhook", hmac(&sha512.to_uppercase())),
            ],
            &[
                ("/webhook", String::new()),
                ("/webhook", hmac(&forged)),
                ("/webhook", hmac(&sha256)),
                ("/webhook", hmac("")),
                (&query, String::new()),
            ],
        ),
        (
            &[
                "--webhook-auth",
                "hmac-sha256",
                "--webhook-header",
                "X-Wawp-Signature",
            ],
            &[("/webhook", header("X-Wawp-Signature", &sha256))],
            &[
                ("/webhook", hmac(&sha256)),
                ("/webhook", header("X-Wawp-Signature", SECRET)),
            ],
        ),
        (
            &["--webhook-auth", "secret"],
            &[
                ("/webhook", header("X-Webhook-Secret", SECRET)),
                (&query, String::new()),
            ],
            &[
                ("/webhook", hmac(&sha512)),
                ("/webhook", header("X-Webhook-Secret", "wrong")),
                ("/webhook?secret=wrong", String::new()),
            ],
        ),
        (
            &["--webhook-auth", "none"],
            &[("/webhook", String::new())],
            &[],
        ),
    ];
    for (settings, accepted, refused) in cases {
        let listener = Listener::start(command(&stage, &server).args(settings));
        for (path, headers) in refused {
            let answer = listener.sender().post_with(path, headers, &body);
            assert_eq!(answer.status, 401, "{settings:?} {headers} {answer:?}");
        }
        let metric = r#"labelcast_events_total{event="label.chat.added",result="published"}"#;
        assert_eq!(listener.metric(metric), None);
        for (path, headers) in accepted {
            let answer = listener.sender().post_with(path, headers, &body);
            assert_eq!(answer.status, 200, "{settings:?} {headers} {answer:?}");
        }
        let log = listener.stop().stderr;
        assert!(!log.contains(SECRET) && !log.contains("wrong"), "{log}");
    }
    assert_eq!(chat_ids(&mut server.connection(), QUEUE), ["1@c.us"]);
}

#[test]
fn several_secrets_are_valid_at_once() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let file = stage.path("secrets");
    std::fs::write(&file, format!("newer\n\n{SECRET}\n")).unwrap();
    let command = command(&stage, &server).args(["--webhook-secret-file", file.to_str().unwrap()]);
    // The flag beats the variable.
    let listener = Listener::start(command.env("LABELCAST_WEBHOOK_SECRET", "other"));
    for (secret, status) in [(SECRET, 200), ("newer", 200), ("other", 401), ("", 401)] {
        let body = event(secret, "added", "1", "1@c.us").to_string();
        let hmac = hmac_of(ring::hmac::HMAC_SHA512, secret, &body);
        let header = format!("X-Webhook-Hmac: {hmac}\r\n");
        let answer = listener.sender().post_with("/webhook", &header, &body);
        assert_eq!(answer.status, status, "{secret} {answer:?}");
    }
}

#[test]
fn a_body_has_a_limit_however_it_is_sent() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    let padded = |size: usize| {
        let body = event("a", "added", "1", "1@c.us").to_string();
        body.clone() + &" ".repeat(size - body.len())
    };
    let limit = 1024 * 1024;
    assert_eq!(listener.post(&padded(limit)).status, 200);
    let hmac = "0".repeat(128);
    let head = format!("POST /webhook HTTP/1.1\r\nHost: a\r\nX-Webhook-Hmac: {hmac}\r\n");
    let mut sender = listener.sender();
    // Refused by its announced length, before it is sent.
    sender
        .send(format!("{head}Content-Length: 1048577\r\n\r\n").as_bytes())
        .unwrap();
    assert_eq!(sender.answer().unwrap().status, 413);
    let mut sender = listener.sender();
    sender
        .send(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .unwrap();
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let answer = std::iter::repeat_with(|| sender.send(chunk.as_bytes()))
        .take(17)
        .collect::<Result<Vec<()>, _>>()
        .and_then(|_| sender.answer());
    // The server may close while the rest is still being sent.
    assert!(
        answer.is_err() || answer.as_ref().is_ok_and(|it| it.status == 413),
        "{answer:?}"
    );
    assert_eq!(
        listener.metric(r#"labelcast_webhook_requests_total{outcome="too_large"}"#),
        Some(2)
    );
}

#[test]
fn other_methods_and_paths_are_refused() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    assert_eq!(listener.get("/webhook").status, 405);
    assert_eq!(listener.get("/nothing").status, 404);
    assert_eq!(listener.get("/healthz").status, 200);
    assert_eq!(listener.get("/readyz").status, 200);
}

#[test]
fn suppressed_chats_are_members_and_not_published_again() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = Listener::start(command(&stage, &server).args(["--suppress-for", "1d"]));
    listener.wait_until_exact(1);
    let now = now_ms();
    for (number, change) in ["added", "deleted", "added"].into_iter().enumerate() {
        let id = format!("evt_{number}");
        listener.acknowledged(&event_at(
            &id,
            change,
            "1",
            "1@c.us",
            now - 1000 + number as u64,
        ));
    }
    assert_eq!(chat_ids(&mut server.connection(), QUEUE), ["1@c.us"]);
    let metric = r#"labelcast_events_total{event="label.chat.added",result="suppressed"}"#;
    assert_eq!(listener.metric(metric), Some(1));
    // A run agrees.
    stage.mock.set_chats(
        "1",
        &labelcast::mock::Chats::Body(r#"[{"id":"1@c.us"}]"#.into()),
    );
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &server.url()]);
    let ended = run.args(["--suppress-for", "1d"]).end().expect(0);
    assert_eq!(ended.label()["suppressed"], 1, "{ended:?}");
}
