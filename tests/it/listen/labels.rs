//! Labels: baselines, names and colours, deletions, reconciliation.

use labelcast::mock::{Chats, Reply};
use redis::Commands as _;
use serde_json::{Value, json};

use super::{command, listen};
use crate::support::listener::{Listener, event, now_ms};
use crate::support::redis::{Server, chat_ids};
use crate::support::{INSTANCE, Stage, gated, wait_until};

const QUEUE: &str = "labelcast:1";
const REMOVED: &str = "{labelcast:1}:removed";
const COUNTS: &str = "labelcast:labels:{inst-1}";

fn count(server: &Server, label: &str) -> Value {
    let json: Option<String> = server.connection().hget(COUNTS, label).unwrap();
    json.map_or(Value::Null, |json| serde_json::from_str(&json).unwrap())
}

fn label_event(kind: &str, payload: &Value) -> Value {
    json!({"id": format!("evt_{kind}"), "timestamp": now_ms(), "event": kind, "session": INSTANCE, "payload": payload})
}

#[test]
fn a_label_without_a_list_gets_its_baseline_while_events_are_taken() {
    let list = r#"[{"id":"1@c.us"},{"id":"2@c.us"}]"#;
    let (stage, server) = (Stage::with_body(list), Server::start(&[]));
    let (reply, gate) = gated(list);
    stage.mock.script("1", reply);
    let listener = listen(&stage, &server);
    wait_until("the list is requested", || {
        stage
            .mock
            .requests()
            .iter()
            .any(|request| request.path.ends_with("/chats"))
    });
    let ready: Value = serde_json::from_str(&listener.get("/readyz").body).unwrap();
    assert_eq!(
        ready,
        json!({"ready": true, "problem": null, "labels": 1, "labels_not_exact": ["1"]})
    );
    listener.acknowledged(&event("a", "added", "1", "3@c.us"));
    // The list still has it, and the event is newer.
    listener.acknowledged(&event("b", "deleted", "1", "2@c.us"));
    gate.cancel();
    listener.wait_until_exact(1);
    wait_until("the count is stored", || count(&server, "1")["chats"] == 2);
    assert_eq!(chat_ids(&mut server.connection(), QUEUE), ["3@c.us"]);
    assert_eq!(count(&server, "1")["name"], "name of 1");
    // A plain run to the tracked queue keeps the membership.
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &server.url(), "--only-new"]);
    let ended = run.end().expect(0);
    assert_eq!(ended.label()["known"], 2, "{ended:?}");
    assert_eq!(listener.stop().code, Some(0));
}

#[test]
fn a_baseline_is_repeated_until_it_succeeds() {
    let (stage, server) = (Stage::with_body(r#"[{"id":"1@c.us"}]"#), Server::start(&[]));
    stage.mock.script(
        "1",
        Reply::json(r#"{"status":403,"message":"quota"}"#).status(403),
    );
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    let log = listener.stop().stderr;
    assert!(log.contains("next attempt after a pause"), "{log}");
    assert_eq!(chat_ids(&mut server.connection(), QUEUE), [""; 0]);
}

#[test]
fn names_and_colours_follow_webhooks() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    wait_until("the count is stored", || count(&server, "1")["chats"] == 0);
    listener.acknowledged(&label_event(
        "label.upsert",
        &json!({"id": "1", "name": "Gold", "colorHex": "#ff0000"}),
    ));
    let stored = count(&server, "1");
    assert_eq!(
        (&stored["name"], &stored["color"], &stored["chats"]),
        (&json!("Gold"), &json!("#ff0000"), &json!(0))
    );
    // One that was not listed yet: stored without a count.
    listener.acknowledged(&label_event(
        "label.upsert",
        &json!({"label": {"id": "8", "name": "New"}}),
    ));
    let stored = count(&server, "8");
    assert_eq!(
        (&stored["name"], &stored["chats"]),
        (&json!("New"), &Value::Null)
    );
    let cached = stage
        .program("labels")
        .args(["--cached", "--json", "--sink", &server.url()]);
    let lines: Vec<Value> = cached
        .end()
        .expect(0)
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(
        (&lines[0]["label_name"], &lines[0]["chats"]),
        (&json!("Gold"), &json!(0))
    );
    assert_eq!(
        (&lines[1]["label_name"], &lines[1]["chats"]),
        (&json!("New"), &Value::Null)
    );
}

#[test]
fn the_members_of_a_deleted_label_leave_once_the_list_of_labels_confirms_it() {
    let list = r#"[{"id":"1@c.us"},{"id":"2@c.us"}]"#;
    let stage = Stage::with_labels(vec![
        ("1", Chats::Body(list.into())),
        ("2", Chats::Body(list.into())),
    ]);
    let server = Server::start(&[]);
    let listener = Listener::start(command(&stage, &server).arg("--removed"));
    listener.wait_until_exact(2);
    listener.acknowledged(&event("a", "added", "1", "3@c.us"));
    stage.mock.remove_label("1");
    listener.acknowledged(&label_event("label.deleted", &json!({"labelId": "1"})));
    let mut connection = server.connection();
    wait_until("the members have left", || {
        chat_ids(&mut connection, REMOVED).len() == 3
    });
    let mut left = chat_ids(&mut connection, REMOVED);
    left.sort_unstable();
    assert_eq!(left, ["1@c.us", "2@c.us", "3@c.us"]);
    assert_eq!(
        chat_ids(&mut connection, QUEUE),
        ["3@c.us"],
        "its queue stays"
    );
    wait_until("the count is stored", || count(&server, "1")["chats"] == 0);
    assert!(count(&server, "1")["deleted_at"].is_string());
    assert_eq!(count(&server, "2")["chats"], 2);
    assert_eq!(chat_ids(&mut connection, "{labelcast:2}:removed"), [""; 0]);
}

#[test]
fn a_deletion_that_the_list_of_labels_does_not_confirm_removes_nobody() {
    let (stage, server) = (Stage::with_body(r#"[{"id":"1@c.us"}]"#), Server::start(&[]));
    let listener = Listener::start(command(&stage, &server).arg("--removed"));
    listener.wait_until_exact(1);
    let requests = |path: &str| {
        let requests = stage.mock.requests();
        requests
            .iter()
            .filter(|request| request.path.ends_with(path))
            .count()
    };
    let before = requests("/labels");
    listener.acknowledged(&label_event("label.deleted", &json!({"labelId": "1"})));
    wait_until("the list of labels is read", || {
        requests("/labels") > before
    });
    listener.acknowledged(&event("a", "added", "1", "2@c.us"));
    wait_until("the event is counted", || count(&server, "1")["chats"] == 2);
    assert_eq!(chat_ids(&mut server.connection(), REMOVED), [""; 0]);
}

#[test]
fn an_empty_list_of_labels_deletes_nothing() {
    let (stage, server) = (Stage::with_body(r#"[{"id":"1@c.us"}]"#), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    stage.mock.script_labels(Reply::json("[]"));
    listener.acknowledged(&label_event("label.deleted", &json!({"labelId": "1"})));
    wait_until("it is warned of", || {
        listener.log().contains("no label at all")
    });
    wait_until("the count is stored", || count(&server, "1")["chats"] == 1);
}

#[test]
fn a_label_that_is_new_at_the_api_is_followed_from_its_first_event_on() {
    let stage = Stage::with_labels(vec![("1", Chats::Generated(3))]);
    let server = Server::start(&[]);
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    stage.mock.add_label("2", "Second", Chats::Generated(5));
    listener.acknowledged(&event("a", "added", "2", "555@c.us"));
    listener.wait_until_exact(2);
    wait_until("the count is stored", || count(&server, "2")["chats"] == 6);
    assert_eq!(count(&server, "2")["name"], "Second");
}

#[test]
fn reconciliation_finds_what_no_event_has_reported() {
    let (stage, server) = (Stage::with_body(r#"[{"id":"1@c.us"}]"#), Server::start(&[]));
    let settings = ["--reconcile", "1s", "--removed"];
    let listener = Listener::start(command(&stage, &server).args(settings));
    listener.wait_until_exact(1);
    // A member since long before the events of this test.
    stage.mock.set_chats(
        "1",
        &Chats::Body(r#"[{"id":"1@c.us"},{"id":"9@c.us"}]"#.into()),
    );
    let mut connection = server.connection();
    wait_until("it is found", || {
        chat_ids(&mut connection, QUEUE) == ["9@c.us"]
    });
    stage
        .mock
        .set_chats("1", &Chats::Body(r#"[{"id":"9@c.us"}]"#.into()));
    wait_until("it has left", || {
        chat_ids(&mut connection, REMOVED) == ["1@c.us"]
    });
    assert_eq!(listener.stop().code, Some(0));
}

#[test]
fn a_plain_run_to_a_followed_label_keeps_its_members() {
    let (stage, server) = (Stage::with_body(r#"[{"id":"1@c.us"}]"#), Server::start(&[]));
    let listener = listen(&stage, &server);
    listener.wait_until_exact(1);
    let mut connection = server.connection();
    wait_until("the label is marked", || {
        let mark: Option<String> = connection
            .hget(
                "labelcast:checkpoint:{labelcast:1}:labelcast:1:inst-1:1",
                "tracked",
            )
            .unwrap();
        mark.as_deref() == Some("1")
    });
    let list = r#"[{"id":"1@c.us"},{"id":"2@c.us"},{"id":"3@c.us"}]"#;
    stage.mock.set_chats("1", &Chats::Body(list.into()));
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &server.url()]);
    assert_eq!(run.end().expect(0).label()["published"], 3);
    wait_until("its members are counted", || {
        count(&server, "1")["chats"] == 3
    });
    listener.acknowledged(&event("a", "added", "1", "3@c.us"));
    assert_eq!(chat_ids(&mut connection, QUEUE).len(), 3);
}
