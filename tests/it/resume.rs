//! A run that was cut short resumes where it stopped.

use std::time::SystemTime;

use bytes::Bytes;
use labelcast::mock::{Chats, Piece, Reply};
use serde_json::Value;

use crate::support::{Process, Stage, gated, lines_in, map_of, part_of, small_list, wait_until};

/// Starts a run that receives a part of the body and then nothing more.
fn held(stage: &Stage, body: &str, part: f64) -> Process {
    stage.mock.script("1", part_of(body, part, Piece::Hold));
    let asked = stage.mock.requests().len();
    let process = stage.run().spawn();
    // An earlier process may have written the lines, so wait until this one has requested its
    // reply.
    wait_until("the run has received its reply", || {
        let requests = stage.mock.requests();
        requests[asked..].iter().any(|r| r.path.ends_with("/chats"))
    });
    process
}

/// Runs until at least `lines` lines are in the file, then kills the run, possibly in the middle of
/// a batch.
fn kill_after(stage: &Stage, body: &str, part: f64, lines: usize) {
    let process = held(stage, body, part);
    wait_until("lines are written", || lines_in(&stage.out()) >= lines);
    process.kill();
}

/// Runs until a part of the body is in the file and in the journal, then kills the run. Returns the
/// number of lines.
fn kill_at_rest(stage: &Stage, body: &str, part: f64) -> usize {
    let process = held(stage, body, part);
    let part = &body[..(body.len() as f64 * part) as usize];
    let lines = part.matches("\"}").count();
    wait_until("all lines are written", || {
        let length = std::fs::metadata(stage.out()).map_or(0, |file| file.len());
        lines_in(&stage.out()) == lines
            && stage.journal().is_some_and(|last| last["length"] == length)
    });
    process.kill();
    lines
}

fn run_id_of(line: &str) -> String {
    let message: Value = serde_json::from_str(line).unwrap();
    message["run_id"].as_str().unwrap().to_owned()
}

#[test]
fn after_a_kill_the_rest_is_published_under_the_same_run_id() {
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    let published = kill_at_rest(&stage, &body, 0.5);
    let before = std::fs::read_to_string(stage.out()).unwrap();
    let run_id = run_id_of(before.lines().next().unwrap());

    let ended = stage.run().end().expect(0);
    let label = ended.label();
    assert_eq!(stage.ids(), ids, "each chat, once, in order");
    assert_eq!(label["run_id"], run_id);
    assert_eq!(ended.report["run_id"], run_id);
    assert_eq!(label["resumed"], published);
    assert_eq!(label["published"], 20_000 - published);
    assert_eq!(label["read"], 20_000);

    let again = stage.run().end().expect(0);
    assert_ne!(again.label()["run_id"], run_id, "a complete run is over");
    assert_eq!(again.label()["published"], 20_000);
}

#[test]
fn a_complete_run_whose_process_did_not_know_it_is_not_published_again() {
    for (body, code) in [
        (small_list(3000).1, 0),
        ("[{},{\"id\":\"1@c.us\"}]".to_owned(), 65),
    ] {
        let stage = Stage::with_body(&body);
        let first = stage.run().end().expect(code);
        let ids = stage.ids();
        // As if the run was killed while its end was flushed to the disk: its last line is missing.
        let path = stage.path("out.jsonl.labelcast");
        let journal = std::fs::read_to_string(&path).unwrap();
        let (before, _) = journal.trim_end().rsplit_once('\n').unwrap();
        std::fs::write(&path, format!("{before}\n")).unwrap();
        let second = stage.run().end().expect(code);
        assert_eq!(second.label()["run_id"], first.label()["run_id"]);
        assert_eq!(second.label()["published"], 0);
        assert_eq!(second.label()["resumed"], ids.len());
        assert_eq!(stage.ids(), ids);
        let third = stage.run().end().expect(code);
        assert_ne!(third.label()["run_id"], first.label()["run_id"]);
    }
}

#[test]
fn a_run_that_is_killed_repeatedly_completes() {
    let (ids, body) = small_list(30_000);
    let stage = Stage::with_body(&body);
    for (part, lines) in [(0.2, 1), (0.4, 6000), (0.4, 11_000), (0.9, 20_000)] {
        kill_after(&stage, &body, part, lines);
    }
    stage.run().end().expect(0);
    assert_eq!(stage.ids(), ids);
}

#[test]
fn a_partial_last_line_is_removed() {
    let (ids, body) = small_list(5000);
    let stage = Stage::with_body(&body);
    kill_after(&stage, &body, 0.9, 2000);
    let mut text = std::fs::read_to_string(stage.out()).unwrap();
    let run_id = run_id_of(text.lines().next().unwrap());
    // One and a half lines that are not in the journal.
    text.push_str(&format!(
        "{{\"chat_id\":\"x\",\"label_id\":\"1\",\"run_id\":\"{run_id}\"}}\n{{\"chat_id\":\"y\",\"la"
    ));
    std::fs::write(stage.out(), text).unwrap();
    stage.run().end().expect(0);
    assert_eq!(stage.ids(), ids);
}

#[test]
fn a_partial_last_line_is_removed_by_a_new_run_too() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let before = kill_at_rest(&stage, &body, 0.9);
    let mut text = std::fs::read_to_string(stage.out()).unwrap();
    text.push_str("{\"chat_id\":\"y\",\"la");
    std::fs::write(stage.out(), text).unwrap();
    let ended = stage.run().args(["--no-resume"]).end().expect(0);
    assert_eq!(ended.label()["resumed"], 0);
    assert_eq!(stage.ids()[before..], ids);
}

#[test]
fn lines_of_other_writers_are_kept() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let before = kill_at_rest(&stage, &body, 0.9);
    let mut text = std::fs::read_to_string(stage.out()).unwrap();
    text.push_str("{\"chat_id\":\"theirs\"}\n{\"chat_id\":\"theirs too\"}");
    std::fs::write(stage.out(), text).unwrap();
    stage.run().end().expect(0);
    let mut found = stage.ids();
    let theirs: Vec<String> = found.drain(before..before + 2).collect();
    assert_eq!(theirs, ["theirs", "theirs too"]);
    assert_eq!(found, ids);
}

#[test]
fn a_line_of_another_writer_without_a_newline_is_left_alone() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let before = kill_at_rest(&stage, &body, 0.9);
    let mut text = std::fs::read_to_string(stage.out()).unwrap();
    text.push_str("{\"chat_id\":\"theirs\"}");
    std::fs::write(stage.out(), text).unwrap();
    stage.run().end().expect(0);
    let mut found = stage.ids();
    assert_eq!(found.remove(before), "theirs");
    assert_eq!(found, ids);
}

#[test]
fn a_file_that_was_rotated_and_is_longer_again_gets_the_whole_list() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_labels(vec![
        ("1", Chats::Body(Bytes::from(body.clone()))),
        ("2", Chats::Generated(5000)),
    ]);
    kill_at_rest(&stage, &body, 0.5);
    std::fs::rename(stage.out(), stage.path("out.jsonl.1")).unwrap();
    let sink = format!("file:{}", stage.out().display());
    let of_label_2 = stage.program("run").args(["--label", "2", "--sink", &sink]);
    of_label_2.end().expect(0);
    stage.run().end().expect(0);
    assert_eq!(stage.ids()[5000..], ids);
}

#[test]
fn the_resume_window_and_no_resume_start_a_new_run() {
    let (ids, body) = small_list(3000);
    for arguments in [["--no-resume", "--retries=1"], ["--resume-window", "0s"]] {
        let stage = Stage::with_body(&body);
        let before = kill_at_rest(&stage, &body, 0.5);
        let ended = stage.run().args(arguments).end().expect(0);
        assert_eq!(ended.label()["resumed"], 0);
        assert_eq!(ended.label()["published"], 3000);
        assert_eq!(stage.ids()[before..], ids);
    }
}

#[test]
fn a_run_older_than_the_resume_window_is_not_resumed() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let before = kill_at_rest(&stage, &body, 0.5);
    stage.age_journal();
    let ended = stage.run().end().expect(0);
    assert_eq!(ended.label()["resumed"], 0);
    assert_eq!(stage.ids()[before..], ids);
}

#[test]
fn a_list_that_changed_in_the_published_part_is_published_again() {
    let (mut ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    kill_at_rest(&stage, &body, 0.8);
    ids.swap(3, 4);
    let changed = Bytes::from(map_of(&ids));
    stage.mock.set_chats("1", &Chats::Body(changed));
    let ended = stage.run().end().expect(0);
    let label = ended.label();
    assert_eq!(label["list_changed"], true);
    assert_eq!(label["attempts"], 2);
    assert_eq!(label["published"], 3000);
    assert_eq!(label["resumed"], 0);
    let found = stage.ids();
    assert_eq!(found[found.len() - 3000..], ids);
    let runs: std::collections::BTreeSet<String> = stage
        .messages()
        .iter()
        .map(|message| message["run_id"].to_string())
        .collect();
    assert_eq!(runs.len(), 1, "a repeat has the same run id");
}

#[test]
fn a_list_that_changed_after_the_published_part_is_resumed() {
    let (mut ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    kill_after(&stage, &body, 0.5, 1000);
    ids.push("new@c.us".to_owned());
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(map_of(&ids))));
    let ended = stage.run().end().expect(0);
    assert_eq!(ended.label().get("list_changed"), None);
    assert_eq!(stage.ids(), ids);
}

#[test]
fn a_list_that_became_shorter_than_the_published_part_is_published_again() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let before = kill_at_rest(&stage, &body, 0.9);
    let few = &ids[..10];
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(map_of(few))));
    let ended = stage.run().end().expect(0);
    assert_eq!(ended.label()["list_changed"], true);
    assert_eq!(stage.ids()[before..], *few);
}

#[test]
fn a_list_that_changes_between_two_attempts_is_published_again() {
    let (mut ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    ids.reverse();
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(map_of(&ids))));
    let ended = stage.run().end().expect(0);
    assert_eq!(ended.label()["list_changed"], true);
    assert_eq!(ended.label()["attempts"], 3);
    let found = stage.ids();
    assert_eq!(found[found.len() - 3000..], ids);
}

#[test]
fn invalid_entries_count_as_positions() {
    let entries: Vec<String> = (0..4000)
        .map(|i| match i % 3 {
            0 => "{\"id\":null}".to_owned(),
            _ => format!("{{\"id\":\"{i}@c.us\"}}"),
        })
        .collect();
    let body = format!("[{}]", entries.join(","));
    let stage = Stage::with_body(&body);
    kill_after(&stage, &body, 0.7, 700);
    let ended = stage.run().args(["--max-invalid", "4000"]).end().expect(0);
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap();
    assert_eq!(count("invalid"), 1334);
    assert_eq!(count("read"), 4000);
    assert_eq!(count("published") + count("resumed") + 1334, 4000);
    assert_eq!(stage.ids().len(), 2666);
}

#[test]
fn lines_of_other_runs_do_not_prevent_a_resume() {
    // Label 1 writes many lines after label 2's last one. Label 2 is then retried and fails again.
    let (ids, body) = small_list(1000);
    let labels = vec![
        ("1", Chats::Generated(5000)),
        ("2", Chats::Body(Bytes::from(body.clone()))),
    ];
    let stage = Stage::with_labels(labels);
    let start = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
    let cut = Reply::pieces([Piece::Bytes(start), Piece::Cut]);
    stage.mock.script("2", cut);
    stage.mock.script("2", Reply::json("busy").status(503));
    let arguments = ["--label", "2", "--retries", "0"];
    for code in [69, 69, 0] {
        stage.run().args(arguments).end().expect(code);
    }
    let of_label_2 = |message: &&Value| message["label_id"] == "2";
    let messages = stage.messages();
    let found: Vec<_> = messages.iter().filter(of_label_2).collect();
    assert_eq!(found.len(), ids.len());
    assert!(
        found
            .iter()
            .all(|message| message["run_id"] == found[0]["run_id"])
    );
}

#[test]
fn long_messages_are_resumed_and_partial_ones_removed() {
    let entries: Vec<String> = (0..9000)
        .map(|i| format!("{{\"id\":\"{i}@c.us\",\"name\":\"{}\"}}", "n".repeat(200)))
        .collect();
    let body = format!("[{}]", entries.join(","));
    let stage = Stage::with_body(&body);
    let start = Bytes::copy_from_slice(&body.as_bytes()[..body.len() * 8 / 10]);
    stage
        .mock
        .script("1", Reply::pieces([Piece::Bytes(start), Piece::Cut]));
    let run = || {
        let arguments = [
            "--ids-per-message",
            "3000",
            "--include-names",
            "--retries",
            "0",
        ];
        stage.run().args(arguments)
    };
    run().end().expect(69);
    let text = std::fs::read_to_string(stage.out()).unwrap();
    std::fs::write(stage.out(), text + "{\"chat_ids\":[\"torn").unwrap();
    let ended = run().end().expect(0);
    assert!(ended.label()["resumed"].as_u64().unwrap() >= 3000);
    let ids: Vec<String> = stage
        .messages()
        .iter()
        .flat_map(|message| message["chat_ids"].as_array().unwrap().clone())
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    let expected: Vec<String> = (0..9000).map(|i| format!("{i}@c.us")).collect();
    assert_eq!(ids, expected);
}

#[test]
fn a_list_with_too_many_invalid_entries_is_not_resumed() {
    let stage = Stage::with_body(r#"[{"id":"1@c.us"},{}]"#);
    let first = stage.run().end().expect(65);
    let second = stage.run().end().expect(65);
    assert_ne!(first.label()["run_id"], second.label()["run_id"]);
    assert_eq!(second.label()["resumed"], 0);
}

#[test]
fn two_accounts_do_not_share_a_checkpoint() {
    let (_, body) = small_list(100);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let first = stage.run().args(["--retries", "0"]).end().expect(69);
    let other = Stage::with_account("inst-2", &body);
    let sink = format!("file:{}", stage.out().display());
    let second = other.run().args(["--sink", &sink]).end().expect(0);
    assert_ne!(first.label()["run_id"], second.label()["run_id"]);
    assert_eq!(second.label()["published"], 100);
}

#[test]
fn a_file_under_another_name_uses_the_same_journal() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    kill_after(&stage, &body, 0.5, 1000);
    let link = stage.path("link.jsonl");
    std::os::unix::fs::symlink(stage.out(), &link).unwrap();
    let sink = format!("file:{}", link.display());
    stage.run().args(["--sink", &sink]).end().expect(0);
    assert_eq!(stage.ids(), ids);
}

#[test]
fn a_changed_list_keeps_its_run_id_when_it_is_killed_before_its_first_batch() {
    let (mut ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    kill_at_rest(&stage, &body, 0.8);
    ids.swap(3, 4);
    let changed = Chats::Body(Bytes::from(map_of(&ids)));
    stage.mock.set_chats("1", &changed);
    // The run finds that the list has changed, and then receives no other list.
    stage.mock.script("1", Reply::chats(changed));
    let busy = Reply::json("busy").status(503).header("retry-after", "60");
    stage.mock.script("1", busy);
    let before = stage.mock.requests().len();
    let process = stage.run().spawn();
    wait_until("the run waits", || {
        stage.mock.requests().len() >= before + 3
    });
    process.kill();
    stage.run().end().expect(0);
    assert_eq!(stage.ids()[stage.ids().len() - 3000..], ids);
    let runs: std::collections::BTreeSet<String> = stage
        .messages()
        .iter()
        .map(|message| message["run_id"].to_string())
        .collect();
    assert_eq!(runs.len(), 1, "a repeat has the same run id");
}

#[test]
fn the_resume_window_counts_from_when_a_run_was_stopped() {
    let (_, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let (reply, _gate) = gated(&body);
    stage.mock.script("1", reply);
    let process = stage.run().spawn();
    let half = body[..body.len() / 2].matches("\"}").count();
    wait_until("the first half is published", || {
        let last = stage.journal();
        last.is_some_and(|last| last["position"] == half)
    });
    let batch = stage.journal().unwrap();
    // Times in the journal are in milliseconds.
    let now = || humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    wait_until("the time has changed", || batch["at"] != now());
    process.signal("TERM");
    process.end().expect(75);
    let stop = stage.journal().unwrap();
    assert_eq!(batch["position"], stop["position"]);
    assert!(batch["at"].as_str() < stop["at"].as_str(), "{batch} {stop}");
}
