//! The embedded store as a file.

use std::os::unix::fs::PermissionsExt as _;

use super::{Store, counts, run, set_list};
use crate::support::{Ended, Stage, held_after, lines_in, small_list, wait_until};

#[test]
fn a_second_process_ends_with_81() {
    let store = Store::file();
    let (_, body) = small_list(1000);
    let (first, second) = (Stage::with_body(&body), Stage::with_body(&body));
    first.mock.script("1", held_after(&body, 900));
    let held = run(&first, &store).args(["--only-new"]).spawn();
    wait_until("the first run publishes", || lines_in(&first.out()) == 900);
    // Another queue, and another file for chats: what they share is the state.
    let other = run(&second, &store).args(["--only-new", "--queue", "other"]);
    let ended = other.end().expect(81);
    assert_eq!(ended.label()["status"], "locked");
    assert!(ended.stderr.contains("state.db"), "{}", ended.stderr);
    assert_eq!(second.ids().len(), 0);
    held.kill();
    let other = run(&second, &store).args(["--only-new", "--queue", "other"]);
    counts(&other.end().expect(0), [1000, 0, 0, 0]);
}

#[test]
fn only_the_owner_can_read_the_file() {
    let store = Store::file();
    let (_, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", held_after(&body, 900));
    let held = run(&stage, &store)
        .args(["--only-new"])
        .with_umask("000")
        .spawn();
    wait_until("the run publishes", || lines_in(&stage.out()) == 900);
    let folder = store.path().parent().unwrap().to_owned();
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(files.len() > 1, "there is a log beside the file");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", file.file_name());
    }
    held.signal("TERM");
    held.end().expect(75);
    let left = std::fs::read_dir(store.path().parent().unwrap()).unwrap();
    assert_eq!(left.count(), 1, "one file is left");
}

#[test]
fn other_files_are_refused() {
    let stage = Stage::with_chats(10);
    let only_new = |state: &str| {
        let state = format!("file:{}", stage.path(state).display());
        stage.run().args(["--only-new", "--state", &state]).end()
    };
    let text = "This is no database, but a letter. ".repeat(100);
    std::fs::write(stage.path("letter"), &text).unwrap();
    only_new("letter").expect(74);
    assert_eq!(std::fs::read_to_string(stage.path("letter")).unwrap(), text);

    let other = rusqlite::Connection::open(stage.path("other.db")).unwrap();
    other.execute_batch("CREATE TABLE a (b)").unwrap();
    drop(other);
    let ended = only_new("other.db").expect(78);
    assert!(
        ended.stderr.contains("of another program"),
        "{}",
        ended.stderr
    );

    only_new("own.db").expect(0);
    let own = rusqlite::Connection::open(stage.path("own.db")).unwrap();
    own.pragma_update(None, "user_version", 99).unwrap();
    drop(own);
    let ended = only_new("own.db").expect(78);
    assert!(ended.stderr.contains("another version"), "{}", ended.stderr);

    only_new("missing/state.db").expect(74);
    only_new(".").expect(78);
}

#[test]
fn the_state_and_the_chats_are_different_files() {
    let stage = Stage::with_chats(10);
    for state in ["out.jsonl", "out.jsonl.labelcast", "out.jsonl.removed"] {
        let state = format!("file:{}", stage.path(state).display());
        let ended = stage
            .run()
            .args(["--only-new", "--state", &state])
            .end()
            .expect(78);
        assert!(
            ended.stderr.contains("the sink's own file"),
            "{}",
            ended.stderr
        );
    }
    let store = Store::file();
    let removed = stage
        .program("run")
        .args(["--label", "1", "--removed", "--sink", "-"]);
    let ended = removed.args(["--state", &store.url()]).end().expect(78);
    assert!(
        ended.stderr.contains("a queue of their own"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_disk_that_is_full_loses_nothing() {
    let store = Store::file();
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    // The file for chats gets 1.9 MB, the state about as much.
    let full = run(&stage, &store).args(["--only-new"]).with_disk_of(2000);
    let ended = full.end().expect(74);
    assert_ne!(ended.label()["status"], "complete");
    let only_new = || run(&stage, &store).args(["--only-new"]).end().expect(0);
    only_new();
    super::each_once(&stage, &ids);
    counts(&only_new(), [0, 0, 20_000, 0]);
}

/// Memory of a run that has read this many chats: new ones first, and then the same ones again.
fn peaks(count: usize) -> [u64; 2] {
    let store = Store::file();
    let (_, body) = small_list(count);
    let stage = Stage::with_body(&body);
    let selected = || run(&stage, &store).args(["--only-new", "--suppress-for", "1h"]);
    let peak = || {
        stage.mock.script("1", held_after(&body, count));
        let process = selected().spawn();
        wait_until("the list is processed", || {
            let record = stage.journal();
            record.is_some_and(|it| it["position"] == count && it["state"] == "running")
        });
        let peak = process.peak_memory();
        process.signal("TERM");
        process.end().expect(75);
        counts_of_a_complete_run(&selected().end().expect(0), count);
        peak
    };
    [peak(), peak()]
}

#[track_caller]
fn counts_of_a_complete_run(ended: &Ended, read: usize) {
    assert_eq!(ended.label()["read"], read);
    super::adds_up(ended);
}

#[test]
fn memory_is_flat_for_200_000_members() {
    // The cache of the file is 8 MiB, which the small list does not fill. With what is kept of each
    // chat until it is recorded, the large one would take 30 MiB more.
    const MORE_KIB: u64 = 14 * 1024;
    let (small, large) = (peaks(20_000), peaks(200_000));
    for (small, large) in small.into_iter().zip(large) {
        assert!(
            large < small + MORE_KIB,
            "{large} KiB, {small} for a small list"
        );
    }
}

#[test]
fn a_list_of_another_account_is_another_one() {
    let store = Store::file();
    let (ids, body) = small_list(100);
    let (first, second) = (
        Stage::with_body(&body),
        Stage::with_account("inst-2", &body),
    );
    counts(
        &run(&first, &store).args(["--only-new"]).end().expect(0),
        [100, 0, 0, 0],
    );
    counts(
        &run(&second, &store).args(["--only-new"]).end().expect(0),
        [100, 0, 0, 0],
    );
    set_list(&first, &ids[50..]);
    counts(
        &run(&first, &store).args(["--only-new"]).end().expect(0),
        [0, 0, 50, 50],
    );
    counts(
        &run(&second, &store).args(["--only-new"]).end().expect(0),
        [0, 0, 100, 0],
    );
}
