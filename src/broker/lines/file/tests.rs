//! Recovery of a file, at the level of its records and bytes.

use super::*;
use crate::batch::Batch;
use crate::message::{Encoder, Format, Layout};

struct Fixture {
    folder: tempfile::TempDir,
    start: Checkpoint,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            start: Checkpoint::start_of(uuid::Uuid::now_v7()),
        }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("out.jsonl")
    }

    fn content(&self) -> String {
        std::fs::read_to_string(self.path()).unwrap()
    }

    fn open(&self) -> (LineFile, Recovered) {
        let target = Target {
            queue: "q".to_owned(),
            label_id: "1".to_owned(),
            instance_id: "i".to_owned(),
        };
        LineFile::open(self.path(), target, "", None).unwrap()
    }

    fn after(&self, chats: u64) -> Checkpoint {
        Checkpoint {
            position: chats,
            chats,
            ..self.start
        }
    }

    fn append(&self, text: &str) {
        let file = OpenOptions::new().append(true).open(self.path());
        file.unwrap().write_all(text.as_bytes()).unwrap();
    }

    fn message(&self, chat: &str) -> String {
        let run_id = self.start.run_id;
        format!("{{\"chat_id\":\"{chat}\",\"label_id\":\"1\",\"run_id\":\"{run_id}\"}}\n")
    }
}

#[test]
fn lines_without_a_record_are_removed() {
    let fixture = Fixture::new();
    let (mut file, _) = fixture.open();
    file.start(fixture.start, true).unwrap();
    file.write(b"one\n", fixture.after(1)).unwrap();
    fixture.append("theirs\n");
    file.journal.fill_disk();
    assert!(file.write(b"two\n", fixture.after(2)).is_err());
    file.finish(Outcome::Unfinished).unwrap();
    drop(file);
    assert_eq!(fixture.content(), "one\ntheirs\n");
    let (_, recovered) = fixture.open();
    assert_eq!(
        recovered.unfinished.unwrap().resume_point.at,
        fixture.after(1)
    );
    assert_eq!(fixture.content(), "one\ntheirs\n");
}

#[test]
fn another_writer_may_append_during_a_run() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.message("one"), fixture.message("two"));
    let (mut file, _) = fixture.open();
    file.start(fixture.start, true).unwrap();
    file.write(one.as_bytes(), fixture.after(1)).unwrap();
    fixture.append("theirs\n");
    file.write(two.as_bytes(), fixture.after(2)).unwrap();
    drop(file);
    fixture.append(&fixture.message("three"));
    fixture.append("{\"chat_id\":\"fo");
    let (_, recovered) = fixture.open();
    assert_eq!(
        recovered.unfinished.unwrap().resume_point.at,
        fixture.after(2)
    );
    assert_eq!(fixture.content(), format!("{one}theirs\n{two}"));
}

#[test]
fn nothing_is_truncated_behind_the_end_of_a_run() {
    let fixture = Fixture::new();
    let (mut file, _) = fixture.open();
    file.start(fixture.start, true).unwrap();
    file.write(b"one\n", fixture.after(1)).unwrap();
    file.finish(Outcome::Complete { chats: 1 }).unwrap();
    drop(file);
    fixture.append(&fixture.message("copied"));
    fixture.append("{\"chat_id\":\"th");
    let before = fixture.content();
    fixture.open();
    assert_eq!(fixture.content(), before);
}

#[test]
fn recorded_lines_that_were_moved_in_the_file_are_not_truncated() {
    let fixture = Fixture::new();
    let (mut file, _) = fixture.open();
    file.start(fixture.start, true).unwrap();
    for (chat, chats) in [("a", 1), ("b", 2)] {
        let line = fixture.message(chat);
        file.write(line.as_bytes(), fixture.after(chats)).unwrap();
    }
    drop(file);
    // As long as one of the lines, so that the recorded length is the start of a line again.
    let inserted = "x".repeat(fixture.message("a").len() - 1) + "\n";
    let moved = inserted + &fixture.content();
    std::fs::write(fixture.path(), &moved).unwrap();
    let (_, recovered) = fixture.open();
    assert_eq!(recovered.unfinished.unwrap().resume_point.at, fixture.start);
    assert_eq!(fixture.content(), moved);
}

#[test]
fn lines_of_other_writers_are_told_from_those_of_a_run() {
    let start = Fixture::new().start;
    let run_id = start.run_id.to_string();
    let is_ours = |line: &[u8]| is_line_of(&run_id, line);
    let mut batch = Batch::new();
    batch.push("ë\u{1}@lid".as_bytes(), Some(Some("Zoë".as_bytes())));
    batch.push(b"2@c.us", Some(None));
    for (format, ids_per_message) in [
        (Format::Json, 1),
        (Format::Json, 2),
        (Format::CloudEvents, 1),
        (Format::CloudEvents, 2),
    ] {
        let layout = Layout {
            format,
            ids_per_message,
            include_names: true,
        };
        let mut line = Vec::new();
        let encoder = Encoder::new(&layout, "i", "1", start.run_id);
        encoder.batch(&batch, b"\n", &mut line);
        line.truncate(memchr::memchr(b'\n', &line).unwrap() + 1);
        for end in 1..=line.len() {
            assert!(is_ours(&line[..end]), "{end} bytes of {line:?}");
        }
    }
    let own_id_elsewhere = format!("{{\"event\":\"published\",\"run_id\":\"{run_id}\"}}\n");
    for theirs in [
        "{\"chat_id\":\"1@c.us\",\"run_id\":\"run-8\"}\n",
        "{\"chat_id\":\"1@c.us\",\"run_id\":\"run-8\"}",
        "{\"chat_id\":\n",
        &own_id_elsewhere,
        "{\"event\":\"pub",
        "\n",
    ] {
        assert!(!is_ours(theirs.as_bytes()), "{theirs}");
    }
}

#[test]
fn records_of_other_versions_are_understood() {
    let fixture = Fixture::new();
    std::fs::write(fixture.path(), "one\n").unwrap();
    let journal = journal::path_beside(&fixture.path());
    let Checkpoint { run_id, digest, .. } = fixture.start;
    let of_first_version = format!(
        r#"{{"instance_id":"i","queue":"q","label_id":"1","state":"running","run_id":"{run_id}","position":1,"digest":"{digest}","chats":1,"length":4,"at":"2026-01-01T00:00:00.000Z"}}"#
    );
    let with_all = of_first_version.replace(
        r#","at""#,
        r#","own_end":{"at":4,"bytes":4,"hash":HASH,"new":0},"had_lines":true,"unsettled":true,"new":{},"at""#,
    );
    let hash = xxhash_rust::xxh3::xxh3_64(b"one\n");
    for (record, from) in [
        (of_first_version.clone(), fixture.after(1)),
        (
            with_all.replace("HASH", &hash.to_string()),
            fixture.after(1),
        ),
        (with_all.replace("HASH", "1"), fixture.start),
    ] {
        std::fs::write(&journal, record + "\n").unwrap();
        let (_, recovered) = fixture.open();
        assert_eq!(recovered.unfinished.unwrap().resume_point.at, from);
    }
    assert_eq!(fixture.content(), "one\n");
    std::fs::write(fixture.path(), "").unwrap();
    std::fs::write(&journal, of_first_version + "\n").unwrap();
    let (_, recovered) = fixture.open();
    assert_eq!(recovered.unfinished.unwrap().resume_point.at, fixture.start);
}
