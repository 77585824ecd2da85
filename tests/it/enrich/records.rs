//! What is on the queue of records.

use labelcast::mock::Reply;
use serde_json::{Value, json};

use super::{
    FAILED, FROM, Place, Queues, RUN, Streams, TO, by_chat, chat, drain, of_run, of_runs, worker,
};
use crate::support::redis::{entries, field};
use crate::support::{INSTANCE, Running, Stage};

/// All forms in which a chat id, and what is no chat id, can be on a queue.
fn messages() -> Vec<Value> {
    let cloud = |id: &str, data: Value| json!({"specversion": "1.0", "type": "net.wawp.label.chat", "source": "/x", "id": id, "data": data});
    let event = json!({
        "event": "label.chat.added", "event_id": "evt_1", "occurred_at": "2026-01-01T00:00:00.000Z",
        "chat_id": chat(3), "label_id": "1", "run_id": RUN,
    });
    let mut removal = event.clone();
    removal["event"] = "label.chat.deleted".into();
    removal["chat_id"] = chat(90).into();
    vec![
        json!({"event": "run.started", "label_id": "1", "run_id": RUN}),
        of_run(&chat(0)),
        json!({"chat_ids": [chat(1), "123@g.us"], "label_id": "1", "run_id": RUN}),
        cloud("a", of_run(&chat(2))),
        event,
        cloud(
            "b",
            json!({"chat_ids": [chat(4), chat(5)], "label_id": "1", "run_id": RUN}),
        ),
        removal,
        json!({"event": "run.completed", "label_id": "1", "run_id": RUN, "chats": 6}),
    ]
}

fn each_chat_of_each_format_becomes_one_record(place: &impl Place) {
    let stage = Stage::with_chats(0);
    place.put(FROM, &messages());
    drain(&stage, place);
    assert!(place.is_done());
    let records = place.take(TO);
    for (id, record) in &records {
        let source = record["event_id"].as_str().unwrap_or(RUN);
        let expected = format!("{source}:{}:contact", record["chat_id"].as_str().unwrap());
        assert!(id.as_ref().is_none_or(|id| *id == expected), "{id:?}");
    }
    let records = by_chat(records);
    assert_eq!(records.len(), 7);
    for number in 0..6 {
        let record = &records[&chat(number)];
        assert_eq!(record["found"], true);
        assert_eq!(record["label_id"], "1");
        assert!(
            record["name"].is_string() && record["number"].is_string(),
            "{record:?}"
        );
        // They were not asked for.
        assert!(record["about"].is_null() && record["picture_url"].is_null());
        assert!(humantime::parse_rfc3339(record["fetched_at"].as_str().unwrap()).is_ok());
    }
    assert_eq!(records[&chat(3)]["event_id"], "evt_1");
    assert_eq!(records[&chat(2)]["run_id"], RUN);
    let group = &records["123@g.us"];
    assert!(
        group["found"].is_null() && group["fetched_at"].is_null(),
        "{group:?}"
    );
    let calls = stage.mock.contact_calls();
    assert_eq!(calls.len(), 6, "{calls:?}");
    assert!(place.take(FAILED).is_empty());
}

#[test]
fn each_chat_of_each_format_becomes_one_record_on_redis() {
    each_chat_of_each_format_becomes_one_record(&Streams::start());
}

#[test]
fn each_chat_of_each_format_becomes_one_record_on_rabbitmq() {
    each_chat_of_each_format_becomes_one_record(&Queues::start());
}

/// What `run` publishes is understood, in each of its formats.
#[test]
fn a_run_can_be_enriched_in_every_format() {
    for (format, packed) in [
        ("fields", "1"),
        ("fields", "3"),
        ("json", "1"),
        ("json", "3"),
        ("cloudevents", "1"),
        ("cloudevents", "3"),
    ] {
        let stage = Stage::with_chats(10);
        let place = Streams::start();
        let url = place.url();
        let run = stage
            .program("run")
            .args(["--label", "1", "--sink", &url, "--marker"]);
        let run = run.args(["--format", format, "--ids-per-message", packed]);
        run.end().expect(0);
        drain(&stage, &place);
        let records = by_chat(place.take(TO));
        assert_eq!(records.len(), 10, "{format} {packed}");
        let people = records
            .values()
            .filter(|record| record["found"] == true)
            .count();
        assert_eq!(people, 9, "one is a group");
    }
}

#[test]
fn fields_of_a_stream_leave_out_what_is_unknown() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &[of_run(&chat(0))]);
    let url = place.url();
    let program = stage
        .program("enrich")
        .args(["--sink", &url, "--from", FROM]);
    program.args(["--to", TO, "--drain"]).end().expect(0);
    let entries = entries(&mut place.0.connection(), TO);
    let value = |name: &str| field(&entries[0], name);
    assert_eq!(value("chat_id"), Some(chat(0)));
    assert_eq!(value("found").as_deref(), Some("true"));
    assert_eq!(value("run_id").as_deref(), Some(RUN));
    assert!(value("name").is_some() && value("about").is_none());
}

#[test]
fn a_cloud_event_has_the_same_id_each_time() {
    let stage = Stage::with_chats(0);
    let place = Queues::start();
    for _ in 0..2 {
        place.put(FROM, &[of_run(&chat(0))]);
        let worker = worker(&stage, &place).args(["--format", "cloudevents", "--drain"]);
        worker.end().expect(0);
    }
    let messages = place.take(TO);
    assert_eq!(messages.len(), 2);
    for (id, event) in messages {
        let expected = format!("{RUN}:{}:contact", chat(0));
        assert_eq!(id.as_deref(), Some(expected.as_str()));
        assert_eq!(event["id"], expected);
        assert_eq!(event["type"], "net.wawp.label.contact");
        assert_eq!(event["source"], format!("/labelcast/{INSTANCE}/labels/1"));
        assert_eq!(event["data"]["chat_id"], chat(0));
    }
}

#[test]
fn only_the_fields_that_are_asked_for_leave_the_worker() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &[of_run(&chat(0))]);
    let worker = worker(&stage, &place).args(["--fields", "name,number", "--drain"]);
    let ended = worker.env("RUST_LOG", "trace").end().expect(0);
    let record = by_chat(place.take(TO)).remove(&chat(0)).unwrap();
    let mut names: Vec<&String> = record.keys().collect();
    names.sort();
    let expected = [
        "chat_id",
        "fetched_at",
        "found",
        "label_id",
        "name",
        "number",
        "run_id",
    ];
    assert_eq!(names, expected);
    // Nothing of a record is in the log.
    for secret in [
        record["name"].as_str().unwrap(),
        record["number"].as_str().unwrap(),
    ] {
        assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
    }
}

#[test]
fn pictures_and_texts_are_added_when_they_are_asked_for() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    let many: Vec<Value> = (0..20).map(|number| of_run(&chat(number))).collect();
    place.put(FROM, &many);
    worker(&stage, &place)
        .args(["--include", "photo,about", "--drain"])
        .end()
        .expect(0);
    let records = by_chat(place.take(TO));
    let has = |name: &str| {
        records
            .values()
            .filter(|record| record[name].is_string())
            .count()
    };
    // Some people have neither.
    assert!((1..20).contains(&has("about")), "{records:?}");
    assert!((1..20).contains(&has("picture_url")), "{records:?}");
    assert_eq!(stage.mock.contact_calls().len(), 60);
}

#[test]
fn an_lid_is_resolved_and_the_record_says_so() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    let lids: Vec<String> = (0..12)
        .map(|number| format!("{}@lid", 8_000_000_000_u64 + number))
        .collect();
    place.put(
        FROM,
        &lids.iter().map(|lid| of_run(lid)).collect::<Vec<_>>(),
    );
    worker(&stage, &place)
        .args(["--dialect", "waha", "--drain"])
        .end()
        .expect(0);
    let records = by_chat(place.take(TO));
    assert_eq!(records.len(), 12);
    let resolved = records
        .values()
        .filter(|record| record.contains_key("resolved_id"));
    let resolved: Vec<_> = resolved.collect();
    assert!((1..12).contains(&resolved.len()), "{records:?}");
    for record in resolved {
        let id = record["resolved_id"].as_str().unwrap();
        let number = record["number"].as_str().unwrap();
        assert_eq!(id, format!("{number}@c.us"));
        assert!(record["chat_id"].as_str().unwrap().ends_with("@lid"));
    }
}

#[test]
fn a_number_that_does_not_exist_is_not_looked_up() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    let absent = Reply::json(r#"{"numberExists":false}"#);
    let number = chat(0).replace("@c.us", "");
    stage.mock.script_contact(&number, absent);
    place.put(FROM, &[of_run(&chat(0)), of_run(&chat(1))]);
    let worker = worker(&stage, &place).args(["--check-exists", "--concurrency", "1"]);
    worker
        .args(["--dialect", "waha", "--drain"])
        .end()
        .expect(0);
    let records = by_chat(place.take(TO));
    assert_eq!(records[&chat(0)]["found"], false);
    assert!(records[&chat(0)]["name"].is_null());
    assert_eq!(records[&chat(1)]["found"], true);
    let paths: Vec<String> = stage
        .mock
        .contact_calls()
        .into_iter()
        .map(|call| call.path)
        .collect();
    let [exists, contact] = ["/api/contacts/check-exists", "/api/contacts"];
    assert_eq!(paths, [exists, exists, contact]);
}

#[test]
fn what_an_engine_does_not_implement_is_said_once() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(
        FROM,
        &(0..10)
            .map(|number| of_run(&chat(number)))
            .collect::<Vec<_>>(),
    );
    for number in 0..10 {
        let contact = format!(r#"{{"id":"{}","name":"A"}}"#, chat(number));
        stage
            .mock
            .script_contact(&chat(number), Reply::json(contact));
        let lacking =
            r#"{"statusCode":422,"message":"The method is not implemented by the engine"}"#;
        stage
            .mock
            .script_contact(&chat(number), Reply::json(lacking).status(422));
    }
    let worker = worker(&stage, &place).args(["--include", "about", "--concurrency", "1"]);
    let ended = worker
        .args(["--dialect", "waha", "--drain"])
        .end()
        .expect(0);
    assert_eq!(by_chat(place.take(TO)).len(), 10);
    let about = stage.mock.contact_calls();
    let about = about
        .iter()
        .filter(|call| call.path.ends_with("/about"))
        .count();
    assert_eq!(about, 1);
    assert_eq!(
        ended.stderr.matches("not implemented").count(),
        1,
        "{}",
        ended.stderr
    );
}

/// Otherwise the records would be repeats for a day.
#[test]
fn records_that_were_purged_can_be_published_again() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(3));
    drain(&stage, &place);
    let url = place.url();
    let purge = Running::new("purge").args(["--sink", &url, "--instance-id", INSTANCE]);
    purge
        .args(["--queue", TO, "--older-than", "0s"])
        .end()
        .expect(0);
    let mut connection = place.0.connection();
    let remembered: Vec<String> = redis::cmd("KEYS")
        .arg("labelcast:event:*")
        .query(&mut connection)
        .unwrap();
    assert_eq!(remembered, Vec::<String>::new());
    assert_eq!(place.length(TO), 0);
    redis::cmd("XGROUP")
        .arg(&["DESTROY", FROM, "labelcast-enrich"])
        .exec(&mut connection)
        .unwrap();
    drain(&stage, &place);
    assert_eq!(by_chat(place.take(TO)).len(), 3);
}
