//! RabbitMQ and files, with a state beside them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Mutex;

use serde_json::Value;

use super::load::{Load, with_senders};
use crate::support::listener::{Listener, event, event_at, now_ms};
use crate::support::rabbitmq::{Vhost, vhost};
use crate::support::redis::Server;
use crate::support::{Numbers, Running, Stage, gated, messages_in, wait_until};

/// Where the state is kept.
enum State {
    File(tempfile::TempDir),
    Redis(Server),
}

impl State {
    fn both() -> [Self; 2] {
        [
            Self::File(tempfile::tempdir().unwrap()),
            Self::Redis(Server::start(&[])),
        ]
    }

    fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("file:{}/state.sqlite", folder.path().display()),
            Self::Redis(server) => server.url(),
        }
    }
}

fn to_rabbitmq(stage: &Stage, vhost: &Vhost, state: &State) -> Running {
    let command = stage.program("listen").args(["--sink", &vhost.url()]);
    command.args(["--state", &state.url(), "--removed"])
}

/// The baseline and the file sink take one label after the other.
fn to_file(stage: &Stage) -> (Running, PathBuf) {
    let sink = format!("file:{}", stage.out().display());
    let state = format!("file:{}", stage.path("state.sqlite").display());
    let command = stage
        .program("listen")
        .args(["--sink", &sink, "--state", &state]);
    (command.arg("--removed"), stage.out())
}

#[test]
fn events_are_messages_on_rabbitmq_that_consumers_know_by_their_ids() {
    for state in State::both() {
        let (stage, vhost) = (Stage::with_body(r#"[{"id":"1@c.us"}]"#), vhost());
        let listener = Listener::start(to_rabbitmq(&stage, &vhost, &state));
        listener.wait_until_exact(1);
        let now = now_ms();
        for (id, change, chat, age) in [
            ("a", "added", "2@c.us", 900),
            ("a", "added", "2@c.us", 900),
            ("b", "added", "2@c.us", 800),
            ("c", "added", "1@c.us", 700),
            ("d", "deleted", "1@c.us", 600),
            ("e", "added", "1@c.us", 650),
        ] {
            listener.acknowledged(&event_at(id, change, "1", chat, now - age));
        }
        let client = vhost.client();
        let messages = client.drain("labelcast:1");
        let ids: Vec<String> = messages.iter().map(|message| message.id()).collect();
        assert_eq!(ids, ["a"]);
        let message = &messages[0];
        assert_eq!(message.data["event"], "label.chat.added");
        assert_eq!(
            (&message.data["event_id"], &message.data["chat_id"]),
            (&"a".into(), &"2@c.us".into())
        );
        let kind = message.properties.kind().as_ref().unwrap();
        assert_eq!(kind.as_str(), "labelcast.event");
        let left = client.drain("labelcast:1:removed");
        let left: Vec<String> = left.iter().map(|message| message.id()).collect();
        assert_eq!(left, ["d"]);
        wait_until("the count is shown", || {
            let labels: Value = serde_json::from_str(&listener.get("/api/labels").body).unwrap();
            labels[0]["chats"] == 1
        });
        assert_eq!(listener.stop().code, Some(0));
    }
}

#[test]
fn kills_with_rabbitmq_lose_no_event_and_repeats_have_the_same_id() {
    for state in State::both() {
        let (stage, vhost) = (Stage::with_body("[]"), vhost());
        let start = || Listener::start(to_rabbitmq(&stage, &vhost, &state));
        let (load, mut numbers) = (Load::new(), Numbers(7));
        let first = start();
        let address = Mutex::new(first.address().to_owned());
        let listener = with_senders(&load, &address, || {
            let mut listener = first;
            for _ in 0..15 {
                let goal = load.acknowledged() + 1 + numbers.below(60) as usize;
                wait_until("some are acknowledged", || load.acknowledged() >= goal);
                listener.kill();
                listener = start();
                *address.lock().unwrap() = listener.address().to_owned();
            }
            listener
        });
        assert_eq!(listener.stop().code, Some(0));
        let messages = vhost.client().drain("labelcast:1");
        let ids: Vec<String> = messages.iter().map(|message| message.id()).collect();
        let repeats = load.check(&ids);
        // At most what the senders had in hand at each kill.
        assert!(repeats <= 15 * 8, "{repeats} repeats of {}", ids.len());
        let chats: BTreeSet<String> = messages
            .iter()
            .flat_map(|message| message.chats())
            .collect();
        assert_eq!(chats.len(), ids.len() - repeats);
    }
}

#[test]
fn events_are_lines_of_a_file_also_while_lists_are_compared() {
    let stage = Stage::with_body(r#"[{"id":"1@c.us"}]"#);
    let (command, out) = to_file(&stage);
    let listener = Listener::start(command.args(["--reconcile", "1s"]));
    listener.wait_until_exact(1);
    let (mut expected, mut runs): (Vec<String>, BTreeSet<String>) = Default::default();
    wait_until("lists were compared twice", || {
        let number = expected.len();
        let chat = format!("{number}555@c.us");
        let event = event(&format!("evt_{number}"), "added", "1", &chat).to_string();
        wait_until("it is acknowledged", || listener.post(&event).status == 200);
        expected.push(chat);
        let last: Value = serde_json::from_str(&listener.get("/api/runs").body).unwrap();
        runs.extend(last[0]["run_id"].as_str().map(str::to_owned));
        runs.len() >= 3
    });
    assert_eq!(listener.stop().code, Some(0));
    let messages = messages_in(&out);
    let chats: Vec<&str> = messages
        .iter()
        .map(|it| it["chat_id"].as_str().unwrap())
        .collect();
    assert_eq!(chats, expected);
    assert!(
        messages
            .iter()
            .all(|message| message["event"] == "label.chat.added")
    );
}

#[test]
fn events_to_a_file_are_taken_while_its_label_gets_a_baseline() {
    let list = r#"[{"id":"1@c.us"}]"#;
    let stage = Stage::with_body(list);
    let (reply, gate) = gated(list);
    stage.mock.script("1", reply);
    let (command, out) = to_file(&stage);
    let listener = Listener::start(command);
    wait_until("the list is requested", || {
        stage
            .mock
            .requests()
            .iter()
            .any(|request| request.path.ends_with("/chats"))
    });
    listener.acknowledged(&event("a", "added", "1", "2@c.us"));
    gate.cancel();
    listener.wait_until_exact(1);
    // The state is held, also while nobody uses it.
    let state = format!("file:{}", stage.path("state.sqlite").display());
    let sink = format!("file:{}", stage.path("other.jsonl").display());
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &sink, "--state", &state]);
    run.arg("--only-new").end().expect(81);
    assert_eq!(listener.stop().code, Some(0));
    let messages = messages_in(&out);
    let chats: Vec<&str> = messages
        .iter()
        .map(|it| it["chat_id"].as_str().unwrap())
        .collect();
    assert_eq!(chats, ["2@c.us"]);
}
