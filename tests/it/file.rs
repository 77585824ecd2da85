//! The sink `file:PATH` and its journal.

use labelcast::mock::Chats;
use serde_json::json;

use crate::support::{Running, Stage, messages_in};

#[test]
fn messages_have_the_documented_form() {
    let stage = Stage::with_body(r#"[{"id":"1@c.us","name":"A"}]"#);
    let ended = stage.run().end().expect(0);
    let run_id = ended.label()["run_id"].clone();
    assert_eq!(
        std::fs::read_to_string(stage.out()).unwrap(),
        format!("{{\"chat_id\":\"1@c.us\",\"label_id\":\"1\",\"run_id\":{run_id}}}\n")
    );
}

#[test]
fn the_run_id_contains_the_time_of_the_snapshot() {
    let stage = Stage::with_chats(1);
    let before = std::time::SystemTime::now();
    let ended = stage.run().end().expect(0);
    let run_id = ended.label()["run_id"].as_str().unwrap();
    let run_id: uuid::Uuid = run_id.parse().unwrap();
    assert_eq!(run_id.get_version_num(), 7);
    let time = labelcast::message::snapshot_time(run_id);
    let second = std::time::Duration::from_secs(1);
    assert!(time >= before - second && time <= std::time::SystemTime::now() + second);
}

#[test]
fn runs_append_and_labels_share_a_file() {
    let labels = vec![("1", Chats::Generated(3)), ("2", Chats::Generated(2))];
    let stage = Stage::with_labels(labels);
    for _ in 0..2 {
        stage.run().args(["--label", "2"]).end().expect(0);
    }
    let labels: Vec<_> = stage
        .messages()
        .iter()
        .map(|message| message["label_id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(labels.concat(), "1112211122");
}

#[test]
fn packed_messages_and_events_have_the_documented_form() {
    let stage = Stage::with_chats(25);
    let arguments = ["--ids-per-message", "10", "--format", "cloudevents"];
    let ended = stage.run().args(arguments).end().expect(0);
    assert_eq!(ended.label()["messages"], 3);
    assert_eq!(ended.label()["published"], 25);
    let messages = stage.messages();
    let run_id = ended.label()["run_id"].as_str().unwrap();
    let id = messages[2]["id"].as_str().unwrap();
    assert!(id.starts_with(&format!("{run_id}:20:")), "{id}");
    assert_eq!(messages[2]["type"], "net.wawp.label.chat");
    assert_eq!(messages[2]["specversion"], "1.0");
    assert_eq!(messages[2]["data"]["label_id"], "1");
    let sizes = messages
        .iter()
        .map(|m| m["data"]["chat_ids"].as_array().unwrap().len());
    assert_eq!(sizes.collect::<Vec<_>>(), [10, 10, 5]);
}

#[test]
fn packed_messages_may_be_larger_than_a_batch() {
    let stage = Stage::with_chats(12_000);
    let arguments = ["--ids-per-message", "5000"];
    let ended = stage.run().args(arguments).end().expect(0);
    assert_eq!(ended.label()["messages"], 3);
    let sizes = stage
        .messages()
        .into_iter()
        .map(|m| m["chat_ids"].as_array().unwrap().len());
    assert_eq!(sizes.collect::<Vec<_>>(), [5000, 5000, 2000]);
}

#[test]
fn a_partial_last_line_is_not_continued() {
    let stage = Stage::with_body(r#"[{"id":"1@c.us"}]"#);
    std::fs::write(stage.out(), r#"{"chat_id":"theirs"}"#).unwrap();
    stage.run().end().expect(0);
    assert_eq!(stage.ids(), ["theirs", "1@c.us"]);
}

#[test]
fn special_files_are_refused() {
    let stage = Stage::with_chats(1);
    for path in ["/dev/null", stage.folder.path().to_str().unwrap()] {
        let sink = format!("file:{path}");
        let ended = stage.run().args(["--sink", &sink]).end().expect(78);
        assert!(ended.stderr.contains("regular file"), "{}", ended.stderr);
    }
}

#[test]
fn a_damaged_journal_only_causes_repeats() {
    let stage = Stage::with_chats(10);
    std::fs::write(stage.path("out.jsonl.labelcast"), "not ours\n{\"half").unwrap();
    stage.run().end().expect(0);
    assert_eq!(stage.ids().len(), 10);
    std::fs::write(stage.out(), "").unwrap();
    stage.run().end().expect(0);
    assert_eq!(stage.ids().len(), 10);
}

#[test]
fn stdout_has_only_messages() {
    let stage = Stage::with_chats(3);
    let ended = stage.run().args(["--sink", "-"]).end().expect(0);
    let path = stage.path("stdout");
    std::fs::write(&path, &ended.stdout).unwrap();
    let messages = messages_in(&path);
    assert_eq!(messages.len(), 3);
    let run_id = &ended.label()["run_id"];
    let first = json!({"chat_id": "4900000000000@lid", "label_id": "1", "run_id": run_id});
    assert_eq!(messages[0], first);
    assert!(ended.stderr.contains("complete in"), "the report");
}

#[test]
fn a_check_changes_nothing() {
    let stage = Stage::with_chats(3);
    let sink = format!("file:{}", stage.out().display());
    let check = |label: &str| {
        let arguments = ["--label", label, "--sink", &sink];
        stage.program("check").args(arguments).end()
    };
    let ended = check("1").expect(0);
    assert_eq!(ended.stdout.matches("ok  ").count(), 4, "{}", ended.stdout);
    let left: Vec<_> = std::fs::read_dir(stage.folder.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let requests = stage.mock.requests();
    assert!(
        requests
            .iter()
            .all(|request| !request.path.contains("chats"))
    );

    let ended = check("9").expect(80);
    assert!(ended.stdout.contains("FAIL  label 9"), "{}", ended.stdout);
    let arguments = ["--label", "9", "--sink", "file:/nowhere/x"];
    let ended = stage.program("check").args(arguments).end().expect(80);
    assert!(ended.stdout.contains("FAIL  sink"), "{}", ended.stdout);
    let ended = Running::new("check").end().expect(78);
    assert!(ended.stderr.contains("3 settings"), "{}", ended.stderr);
}
