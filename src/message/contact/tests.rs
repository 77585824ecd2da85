//! Tests of records and messages about failures.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

const RUN: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

fn chat(source: Source) -> QueuedChat {
    QueuedChat {
        chat_id: "1@lid".to_owned(),
        origin: Arc::new(Origin {
            label_id: Some("7".to_owned()),
            source,
        }),
    }
}

fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(1_700_000_000_123)
}

fn encoder(format: Format, fields: &[ContactField]) -> ContactEncoder {
    ContactEncoder::new(format, "i", fields)
}

fn json_of(message: &ReadyMessage) -> Value {
    match &message.body {
        MessageBody::Json(json) => serde_json::from_str(json).unwrap(),
        MessageBody::Fields(fields) => panic!("{fields:?}"),
    }
}

fn ada() -> Lookup {
    Lookup::Found(Contact {
        name: Some("Ada".to_owned()),
        number: Some("491".to_owned()),
        resolved_id: Some("491@c.us".to_owned()),
        is_business: Some(false),
        ..Contact::default()
    })
}

#[test]
fn a_record_has_all_members_and_an_identity_of_its_own() {
    let encoder = encoder(Format::Json, &ContactField::ALL);
    let run = encoder.record(&chat(Source::Run(RUN.to_owned())), &ada(), at());
    assert_eq!(run.id, format!("{RUN}:1@lid:contact"));
    assert_eq!(run.kind, "labelcast.contact");
    assert_eq!(
        json_of(&run),
        json!({
            "chat_id": "1@lid", "label_id": "7", "run_id": RUN, "found": true,
            "name": "Ada", "push_name": null, "number": "491", "is_business": false,
            "about": null, "picture_url": null, "resolved_id": "491@c.us",
            "fetched_at": "2023-11-14T22:13:20.123Z",
        })
    );
    let event = encoder.record(
        &chat(Source::Event("evt_1".to_owned())),
        &Lookup::Missing,
        at(),
    );
    assert_eq!(event.id, "evt_1:1@lid:contact");
    let event = json_of(&event);
    assert_eq!(event["event_id"], "evt_1");
    assert_eq!(
        (&event["found"], &event["run_id"]),
        (&json!(false), &Value::Null)
    );
}

#[test]
fn only_the_fields_that_are_asked_for_are_there() {
    let encoder = encoder(Format::Json, &[ContactField::Name]);
    let record = json_of(&encoder.record(&chat(Source::Run(RUN.to_owned())), &ada(), at()));
    let mut names: Vec<&String> = record.as_object().unwrap().keys().collect();
    names.sort();
    let expected = [
        "chat_id",
        "fetched_at",
        "found",
        "label_id",
        "name",
        "run_id",
    ];
    assert_eq!(names, expected);
}

#[test]
fn fields_of_a_stream_leave_out_what_is_unknown() {
    let encoder = encoder(Format::Fields, &[ContactField::Name, ContactField::About]);
    let record = encoder.record(&chat(Source::Run(RUN.to_owned())), &ada(), at());
    let expected = [
        "chat_id",
        "1@lid",
        "label_id",
        "7",
        "run_id",
        RUN,
        "found",
        "true",
        "name",
        "Ada",
        "fetched_at",
        "2023-11-14T22:13:20.123Z",
    ];
    let expected = MessageBody::Fields(expected.map(str::to_owned).to_vec());
    assert_eq!(record.body, expected);
}

#[test]
fn a_group_was_not_asked_for() {
    let encoder = encoder(Format::Json, &[ContactField::Name]);
    let record = encoder.record(&chat(Source::Run(RUN.to_owned())), &Lookup::NotAsked, at());
    let record = json_of(&record);
    assert!(
        record["found"].is_null() && record["fetched_at"].is_null(),
        "{record}"
    );
}

#[test]
fn failures_say_why_and_how_often_it_was_tried() {
    let encoder = encoder(Format::CloudEvents, &[]);
    let failed = encoder.failed(&chat(Source::Run(RUN.to_owned())), "status 500", 5, at());
    assert_eq!(failed.kind, "labelcast.contact.failed");
    let event = json_of(&failed);
    assert_eq!(event["type"], "net.wawp.label.contact.failed");
    assert_eq!(event["source"], "/labelcast/i/labels/7");
    assert_eq!(event["id"], format!("{RUN}:1@lid:failed"));
    assert_eq!(
        event["data"],
        json!({
            "chat_id": "1@lid", "label_id": "7", "run_id": RUN, "reason": "status 500",
            "attempts": 5, "failed_at": "2023-11-14T22:13:20.123Z",
        })
    );
    let unusable = Unusable {
        identity: "1-1".to_owned(),
        reason: "it is not JSON",
        contents: "\"x\"".to_owned(),
    };
    let unusable = json_of(&encoder.unusable(&unusable, at()));
    assert_eq!(unusable["id"], "1-1:failed");
    assert_eq!(unusable["source"], "/labelcast/i");
    assert_eq!(unusable["data"]["message"], "\"x\"");
}
