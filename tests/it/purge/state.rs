//! Members and times of publication on a server of their own.

use redis::{Commands as _, Connection};
use serde_json::json;

use super::redis::{add, dump};
use super::{purge, said};
use crate::support::redis::{Server, length};
use crate::support::{INSTANCE, Running, Stage, map_of, small_list};

fn key(kind: &str, label: &str) -> String {
    format!("labelcast:{kind}:{{labelcast:{label}}}:labelcast:{label}:{INSTANCE}:{label}")
}

/// Adds what a run keeps in a state.
fn keep(connection: &mut Connection, label: &str) {
    let members = [("", "token"), ("1@c.us", "ml1000:1000:1:1")];
    let _: () = connection
        .hset_multiple(key("state-members", label), &members)
        .unwrap();
    let published = format!("labelcast:state-published:{{labelcast:{label}}}:labelcast:{label}");
    let _: () = connection.hset(published, "1@c.us", 1000).unwrap();
    let _: () = connection.set(key("state-note", label), "{}").unwrap();
    let _: () = connection
        .hset(key("state", label), "fence", "1000000000")
        .unwrap();
}

fn of(stage: &Stage, state: &Server) -> Running {
    let sink = format!("file:{}", stage.out().display());
    purge(&sink).args(["--state", &state.url(), "--older-than", "1d"])
}

#[test]
fn what_is_known_of_labels_is_deleted_in_a_state() {
    let (state, stage) = (Server::start(&[]), Stage::with_chats(5));
    let mut connection = state.connection();
    for label in ["1", "2", "3"] {
        keep(&mut connection, label);
    }
    // A stream there is that of another sink.
    let entry = [("chat_id", "1@c.us"), ("label_id", "1")];
    add(&mut connection, "labelcast:1", "1-1", &entry);
    let one = json!({"members": 1, "publication_times": 1, "checkpoints": 1});
    let before = dump(&mut connection);
    let dry = of(&stage, &state).args(["--label", "1", "--dry-run"]);
    assert_eq!(said(&dry.end().expect(0)), one);
    assert!(dump(&mut connection) == before);
    let ended = of(&stage, &state).args(["--label", "1"]).end().expect(0);
    assert_eq!(said(&ended), one);
    // Without a label, all are found.
    let ended = of(&stage, &state).end().expect(0);
    let two = json!({"members": 2, "publication_times": 2, "checkpoints": 2});
    assert_eq!(said(&ended), two);
    let left: Vec<String> = dump(&mut connection).into_keys().collect();
    let notes = ["1", "2", "3"].map(|label| key("state-note", label));
    assert_eq!(left[..1], ["labelcast:1"]);
    assert_eq!(left[1..], notes);
    assert_eq!(length(&mut connection, "labelcast:1"), 1);
}

#[test]
fn a_state_that_a_run_holds_is_left_alone() {
    let (state, stage) = (Server::start(&[]), Stage::with_chats(5));
    let mut connection = state.connection();
    keep(&mut connection, "1");
    let _: () = connection.set(key("state-lock", "1"), "a run").unwrap();
    for label in [&["--label", "1"][..], &[]] {
        let ended = of(&stage, &state).args(label).end().expect(81);
        assert_eq!(said(&ended), json!({}));
    }
}

#[test]
fn what_is_known_of_labels_is_deleted_in_a_file() {
    let body = |ids: &[String]| labelcast::mock::Chats::Body(map_of(ids).into());
    let (ids, _) = small_list(70);
    let stage = Stage::with_labels(vec![("1", body(&ids[..40])), ("2", body(&ids[40..]))]);
    let (sink, state) = (
        format!("file:{}", stage.out().display()),
        format!("file:{}", stage.path("state").display()),
    );
    let run = |label: &str, code: i32| {
        let run = stage.program("run").args(["--label", label, "--only-new"]);
        let run = run.args(["--sink", &sink, "--state", &state, "--suppress-for", "1d"]);
        run.end().expect(code)
    };
    run("1", 0);
    run("2", 0);
    let forget = |more: &[&str]| {
        let purge = purge(&sink).args(["--state", &state]).args(more);
        said(&purge.end().expect(0))
    };
    let nothing = json!({});
    assert_eq!(forget(&["--older-than", "1h"]), nothing);
    let all = ["--label", "2", "--older-than", "0s"];
    let dry = forget(&[&all[..], &["--dry-run"]].concat());
    assert_eq!(
        (&dry["members"], &dry["publication_times"]),
        (&json!(30), &json!(30))
    );
    let done = forget(&all);
    assert_eq!(
        (&done["members"], &done["publication_times"]),
        (&json!(30), &json!(30))
    );
    let bytes = std::fs::read(stage.path("state")).unwrap();
    let contains = |text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(contains(&ids[0]), "label 1 still has its chats");
    assert!(!contains(&ids[69]), "what is deleted is overwritten");
    // The other label is known as before, and of this one nobody is new until a baseline.
    assert_eq!(run("1", 0).label()["known"], 40);
    let ended = run("2", 80);
    assert!(ended.stderr.contains("--baseline"), "{}", ended.stderr);
}
