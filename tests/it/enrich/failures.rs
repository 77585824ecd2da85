//! Ids that cannot be looked up, and times when none can.

use std::time::Duration;

use labelcast::mock::{Piece, Reply};
use serde_json::json;

use super::{
    FAILED, FROM, Place, Queues, RUN, Streams, TO, by_chat, chat, drain, of_run, of_runs, worker,
};
use crate::support::{Stage, wait_until};

fn error(status: u16, body: &'static str) -> Reply {
    Reply::json(body).status(status)
}

#[test]
fn a_404_that_does_not_say_what_is_missing_is_believed_once_a_contact_was_found() {
    let place = Streams::start();
    let stage = Stage::with_chats(0);
    let not_found = error(404, r#"{"message":"Not Found"}"#);
    stage.mock.always_contact(&chat(0), not_found);
    let page = error(404, "<h1>Not Found</h1>");
    stage.mock.always_contact(&chat(5), page);
    let worker = || {
        let limits = ["--attempts", "2", "--concurrency", "1", "--drain"];
        worker(&stage, &place).args(limits)
    };
    // Alone, it could be the answer to a wrong address.
    place.put(FROM, &of_runs(1));
    worker().end().expect(0);
    assert_eq!(place.length(TO), 0);
    let failed = by_chat(place.take(FAILED));
    assert_eq!(failed[&chat(0)]["attempts"], 2);
    let reason = failed[&chat(0)]["reason"].as_str().unwrap();
    assert!(reason.contains("status 404"), "{reason}");

    // Another contact comes first. A page is of no API, whatever was found.
    let mut chats = of_runs(10);
    chats.reverse();
    place.put(FROM, &chats);
    worker().end().expect(0);
    assert!(place.is_done());
    let records = by_chat(place.take(TO));
    assert_eq!(records.len(), 9);
    assert_eq!(records[&chat(0)]["found"], false);
    assert_eq!(records[&chat(9)]["found"], true);
    let failed = by_chat(place.take(FAILED));
    assert_eq!(failed.len(), 2);
    assert_eq!(failed[&chat(5)]["attempts"], 1);
}

fn failing_missing_and_slow_contacts_do_not_block_the_rest(place: &impl Place) {
    let stage = Stage::with_chats(0);
    place.put(FROM, &of_runs(30));
    stage
        .mock
        .always_contact(&chat(0), error(500, r#"{"message":"engine error"}"#));
    stage
        .mock
        .always_contact(&chat(1), error(404, r#"{"message":"Contact not found"}"#));
    stage
        .mock
        .always_contact(&chat(2), Reply::pieces([Piece::Hold]));
    stage.mock.always_contact(
        &chat(3),
        error(400, r#"{"message":"contactId is invalid"}"#),
    );
    stage
        .mock
        .always_contact(&chat(4), Reply::json("<html>busy</html>"));
    let worker = worker(&stage, place).args(["--attempts", "2", "--read-timeout", "1s"]);
    let ended = worker
        .args(["--concurrency", "4", "--drain"])
        .end()
        .expect(0);
    assert!(place.is_done());

    let records = by_chat(place.take(TO));
    assert_eq!(records.len(), 26);
    assert_eq!(records[&chat(1)]["found"], false);
    let failed = place.take(FAILED);
    for (id, failure) in &failed {
        let expected = format!("{RUN}:{}:failed", failure["chat_id"].as_str().unwrap());
        assert!(id.as_ref().is_none_or(|id| *id == expected), "{id:?}");
    }
    let failed = by_chat(failed);
    for (number, attempts, reason) in [
        (0, 2, "status 500"),
        (2, 2, "--read-timeout"),
        (3, 1, "status 400"),
        (4, 2, "HTML"),
    ] {
        let failure = &failed[&chat(number)];
        assert_eq!(failure["attempts"], attempts, "{failure:?}");
        assert_eq!(
            (&failure["label_id"], &failure["run_id"]),
            (&json!("1"), &json!(RUN))
        );
        let text = failure["reason"].as_str().unwrap();
        assert!(text.contains(reason), "{text}");
    }
    assert_eq!(failed.len(), 4);
    let calls = stage.mock.contact_calls();
    let calls_of = |number: u64| {
        calls
            .iter()
            .filter(|call| call.chat_id == chat(number))
            .count()
    };
    assert_eq!([0, 1, 2, 3, 4, 5].map(calls_of), [2, 1, 2, 1, 2, 1]);
    // The others did not wait for the pauses.
    let last_of_others = calls
        .iter()
        .rposition(|call| call.chat_id == chat(29))
        .unwrap();
    assert!(last_of_others < calls.len() - 1, "{calls:?}");
    assert!(!ended.stderr.contains("4915550000"), "{}", ended.stderr);
}

#[test]
fn failing_missing_and_slow_contacts_do_not_block_the_rest_on_redis() {
    failing_missing_and_slow_contacts_do_not_block_the_rest(&Streams::start());
}

#[test]
fn failing_missing_and_slow_contacts_do_not_block_the_rest_on_rabbitmq() {
    failing_missing_and_slow_contacts_do_not_block_the_rest(&Queues::start());
}

/// More of them than a worker has in hand at once.
fn many_failing_contacts_do_not_block_the_rest(place: &impl Place) {
    let stage = Stage::with_chats(0);
    place.put(FROM, &of_runs(60));
    for number in 0..40 {
        let failure = error(500, r#"{"message":"engine error"}"#);
        stage.mock.always_contact(&chat(number), failure);
    }
    let worker = worker(&stage, place).args(["--concurrency", "2", "--attempts", "4"]);
    worker.arg("--drain").end().expect(0);
    assert!(place.is_done());
    assert_eq!(by_chat(place.take(TO)).len(), 20);
    assert_eq!(by_chat(place.take(FAILED)).len(), 40);
    // The others did not wait until these were given up, a few at a time.
    let calls = stage.mock.contact_calls();
    let last = |number: u64| calls.iter().rposition(|call| call.chat_id == chat(number));
    let others = (40..60).filter_map(last).max();
    let given_up = (0..40).filter(|number| last(*number) < others);
    assert!(given_up.count() < 20);
}

#[test]
fn many_failing_contacts_do_not_block_the_rest_on_redis() {
    many_failing_contacts_do_not_block_the_rest(&Streams::start());
}

#[test]
fn many_failing_contacts_do_not_block_the_rest_on_rabbitmq() {
    many_failing_contacts_do_not_block_the_rest(&Queues::start());
}

/// These pause the worker, unless they are about one contact alone.
#[test]
fn a_contact_that_alone_is_refused_holds_up_nobody() {
    let expected = r#"{"error":"not as expected","status":"STOPPED","expected":["WORKING"]}"#;
    for refusal in [
        error(403, r#"{"message":"Forbidden"}"#),
        error(422, expected),
        error(503, "").header("retry-after", "1"),
    ] {
        let stage = Stage::with_chats(0);
        let place = Streams::start();
        place.put(FROM, &of_runs(5));
        stage.mock.always_contact(&chat(0), refusal);
        let worker = worker(&stage, &place).args(["--concurrency", "1", "--attempts", "2"]);
        worker.arg("--drain").end().expect(0);
        assert!(place.is_done());
        assert_eq!(by_chat(place.take(TO)).len(), 4);
        let failed = by_chat(place.take(FAILED));
        assert_eq!(failed[&chat(0)]["attempts"], 2);
    }
}

/// Too many requests are never its fault, so it is asked again for ever, but ever less often.
#[test]
fn a_contact_that_alone_is_throttled_holds_up_nobody() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(40));
    let throttled = error(429, r#"{"message":"Too many requests"}"#);
    stage.mock.always_contact(&chat(0), throttled);
    let process = worker(&stage, &place).args(["--concurrency", "1"]).spawn();
    wait_until("the others are enriched", || place.length(TO) == 39);
    process.signal("TERM");
    process.end().expect(0);
    assert_eq!(place.length(FAILED), 0);
}

#[test]
fn a_failure_that_passes_is_tried_again() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(3));
    for reply in [
        error(503, "{}"),
        error(502, "<html>"),
        Reply::pieces([Piece::Cut]),
    ] {
        stage.mock.script_contact(&chat(1), reply);
    }
    drain(&stage, &place);
    let records = by_chat(place.take(TO));
    assert_eq!(records.len(), 3);
    assert_eq!(records[&chat(1)]["found"], true);
    assert!(place.take(FAILED).is_empty());
}

fn a_message_that_is_none_is_set_aside_with_its_contents(place: &impl Place) {
    let stage = Stage::with_chats(0);
    let nonsense = json!({"hello": "world"});
    let messages = [
        nonsense.clone(),
        json!(["an", "array"]),
        json!({"chat_ids": [chat(0), "no id", 7], "label_id": "1", "run_id": RUN}),
        json!({"event": "label.chat.renamed", "chat_id": chat(1)}),
    ];
    place.put(FROM, &messages);
    drain(&stage, place);
    assert!(place.is_done());
    assert_eq!(by_chat(place.take(TO)).len(), 1);
    let failed = place.take(FAILED);
    let contents: Vec<String> = failed
        .iter()
        .map(|(_, failure)| {
            assert!(
                failure["chat_id"].is_null() && failure["reason"].is_string(),
                "{failure}"
            );
            failure["message"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(contents.len(), 5);
    for expected in [
        nonsense.to_string(),
        r#"["an","array"]"#.to_owned(),
        "\"no id\"".to_owned(),
        "7".to_owned(),
    ] {
        assert!(contents.contains(&expected), "{expected}: {contents:?}");
    }
}

#[test]
fn a_message_that_is_none_is_set_aside_with_its_contents_on_redis() {
    a_message_that_is_none_is_set_aside_with_its_contents(&Streams::start());
}

#[test]
fn a_message_that_is_none_is_set_aside_with_its_contents_on_rabbitmq() {
    a_message_that_is_none_is_set_aside_with_its_contents(&Queues::start());
}

/// Escaped twice, its contents would be larger than brokers take.
fn a_large_message_that_is_none_is_set_aside(place: &impl Place) {
    let stage = Stage::with_chats(0);
    place.put(FROM, &[json!("\u{0}".repeat(3_000_000)), of_run(&chat(0))]);
    drain(&stage, place);
    assert!(place.is_done());
    assert_eq!(by_chat(place.take(TO)).len(), 1);
    let failed = place.take(FAILED);
    let [(_, failure)] = failed.as_slice() else {
        panic!("{}", failed.len());
    };
    let contents = failure["message"].as_str().unwrap();
    assert!((1_000_000..=1024 * 1024).contains(&contents.len()));
}

#[test]
fn a_large_message_that_is_none_is_set_aside_on_redis() {
    a_large_message_that_is_none_is_set_aside(&Streams::start());
}

#[test]
fn a_large_message_that_is_none_is_set_aside_on_rabbitmq() {
    a_large_message_that_is_none_is_set_aside(&Queues::start());
}

/// No id is burnt while nothing can be looked up.
#[test]
fn a_worker_pauses_while_the_api_is_not_ready() {
    let refusals = [
        error(401, r#"{"status":401,"message":"Invalid access token"}"#),
        error(
            422,
            r#"{"error":"Session status is not as expected.","status":"SCAN_QR_CODE","expected":["WORKING"]}"#,
        ),
        error(
            404,
            r#"{"code":"invalid_session","message":"Session not found."}"#,
        ),
    ];
    for refusal in refusals {
        let stage = Stage::with_chats(0);
        let place = Streams::start();
        place.put(FROM, &of_runs(20));
        stage.mock.refuse_contacts(Some(refusal));
        let worker = worker(&stage, &place)
            .args(["--concurrency", "4", "--attempts", "1"])
            .spawn();
        // The first look-ups are refused together, the others one by one.
        wait_until("it has asked several times", || {
            stage.mock.contact_calls().len() >= 7
        });
        assert_eq!(place.length(TO) + place.length(FAILED), 0);
        stage.mock.refuse_contacts(None);
        wait_until("all are enriched", || place.length(TO) == 20);
        worker.signal("TERM");
        worker.end().expect(0);
        assert_eq!(place.length(FAILED), 0);
        assert!(place.is_done());
    }
}

#[test]
fn a_worker_that_drains_ends_with_77_when_the_login_is_refused() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(3));
    let worker = worker(&stage, &place).env("WAWP_ACCESS_TOKEN", "wrong-token-123");
    let ended = worker.arg("--drain").end().expect(77);
    assert!(!ended.stderr.contains("wrong-token-123"));
    assert_eq!(place.length(TO) + place.length(FAILED), 0);
    // Nothing is lost, and nothing waits for a takeover.
    drain(&stage, &place);
    assert_eq!(by_chat(place.take(TO)).len(), 3);
}

#[test]
fn a_worker_that_drains_gives_up_when_the_session_stays_away() {
    let stage = Stage::with_chats(0);
    let place = Queues::start();
    place.put(FROM, &of_runs(3));
    let away = r#"{"error":"not as expected","status":"STARTING","expected":["WORKING"]}"#;
    stage.mock.refuse_contacts(Some(error(422, away)));
    worker(&stage, &place)
        .args(["--drain", "--retries", "1"])
        .end()
        .expect(69);
    stage.mock.refuse_contacts(None);
    drain(&stage, &place);
    assert_eq!(by_chat(place.take(TO)).len(), 3);
}

#[test]
fn an_api_that_is_away_burns_no_id() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(5));
    let dead = worker(&stage, &place).args(["--api-url", "http://127.0.0.1:9", "--attempts", "1"]);
    dead.args(["--drain", "--retries", "1"]).end().expect(69);
    assert_eq!(place.length(TO) + place.length(FAILED), 0);
    drain(&stage, &place);
    assert_eq!(by_chat(place.take(TO)).len(), 5);
}

#[test]
fn retry_after_slows_all_look_ups() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(12));
    let wait = error(429, r#"{"message":"Too many requests"}"#).header("retry-after", "2");
    stage.mock.script_contact(&chat(3), wait);
    worker(&stage, &place)
        .args(["--concurrency", "1", "--attempts", "1", "--drain"])
        .end()
        .expect(0);
    assert_eq!(by_chat(place.take(TO)).len(), 12);
    assert!(place.take(FAILED).is_empty());
    let calls = stage.mock.contact_calls();
    let refused = calls
        .iter()
        .position(|call| call.chat_id == chat(3))
        .unwrap();
    let pause = calls[refused + 1].at - calls[refused].at;
    assert!(pause >= Duration::from_millis(1990), "{pause:?}");
    // The id that was refused comes next.
    assert_eq!(calls[refused + 1].chat_id, chat(3));
}

/// A limit of the API below the worker's own rate costs time and loses nobody.
#[test]
fn a_limit_of_the_api_sets_nobody_aside() {
    let stage = Stage::with_chats(0);
    let place = Queues::start();
    place.put(FROM, &of_runs(30));
    stage.mock.limit_contacts(10);
    worker(&stage, &place)
        .args(["--concurrency", "8", "--attempts", "1", "--drain"])
        .end()
        .expect(0);
    assert_eq!(by_chat(place.take(TO)).len(), 30);
    assert!(place.take(FAILED).is_empty());
}

/// The twentieth delivery of a message is the last one.
#[test]
fn a_message_that_is_never_acknowledged_is_set_aside() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &[of_run(&chat(0)), of_run(&chat(1))]);
    let mut connection = place.0.connection();
    let mut run = |arguments: &[&str]| -> redis::Value {
        redis::cmd(arguments[0])
            .arg(&arguments[1..])
            .query(&mut connection)
            .unwrap()
    };
    let group = "labelcast-enrich";
    run(&["XGROUP", "CREATE", FROM, group, "0"]);
    run(&[
        "XREADGROUP",
        "GROUP",
        group,
        "labelcast-dead",
        "COUNT",
        "1",
        "STREAMS",
        FROM,
        ">",
    ]);
    for _ in 0..18 {
        run(&[
            "XREADGROUP",
            "GROUP",
            group,
            "labelcast-dead",
            "STREAMS",
            FROM,
            "0",
        ]);
    }
    // It has been idle for an hour.
    let id = crate::support::redis::numbered_entries(&mut place.0.connection(), FROM)[0]
        .0
        .clone();
    run(&[
        "XCLAIM",
        FROM,
        group,
        "labelcast-dead",
        "0",
        &id,
        "IDLE",
        "3600000",
        "JUSTID",
    ]);
    drain(&stage, &place);
    let failed = by_chat(place.take(FAILED));
    assert_eq!(failed.len(), 1);
    let reason = failed[&chat(0)]["reason"].as_str().unwrap();
    assert!(reason.contains("20 times"), "{reason}");
    assert_eq!(by_chat(place.take(TO)).len(), 1);
}
