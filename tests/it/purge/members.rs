//! The members of a label, as runs keep them.

use std::collections::BTreeMap;

use bytes::Bytes;
use labelcast::mock::Chats;
use serde_json::{Value, json};

use super::redis::{STREAM, dump};
use super::{purge, said};
use crate::support::redis::{Server, length};
use crate::support::{Running, Stage, gated, map_of, small_list, wait_until};

#[test]
fn members_that_runs_have_kept_are_deleted_and_never_taken_for_new() {
    for partitions in [&[][..], &["--partitions", "2"]] {
        let server = Server::start(&[]);
        let (ids, body) = small_list(3000);
        let stage = Stage::with_body(&body);
        let run = || {
            let run = stage
                .program("run")
                .args(["--label", "1", "--only-new", "--removed"]);
            run.args(["--sink", &server.url()]).args(partitions)
        };
        run().end().expect(0);
        let next = Chats::Body(Bytes::from(map_of(&ids[100..])));
        stage.mock.set_chats("1", &next);
        run().end().expect(0);
        let mut connection = server.connection();
        let purge = |more: &[&str]| {
            let purge = purge(&server.url()).args(["--label", "1"]).args(partitions);
            said(&purge.args(more).end().expect(0))
        };
        assert_eq!(purge(&["--older-than", "1h"]), json!({}));
        let parts = partitions.len().max(1);
        let all = json!({"messages": 3000, "removed_messages": 100, "members": 3000,
            "checkpoints": parts, "manifests": 2 * parts, "counts": 1});
        let before = dump(&mut connection);
        assert_eq!(purge(&["--older-than", "0s", "--dry-run"]), all);
        assert!(dump(&mut connection) == before);
        assert_eq!(purge(&["--older-than", "0s"]), all);
        let left: BTreeMap<_, _> = dump(&mut connection);
        let ids_left = left
            .values()
            .filter(|value| value.windows(5).any(|bytes| bytes == b"@c.us"));
        assert_eq!(ids_left.count(), 0, "{:?}", left.keys());
        run().end().expect(80);
        run().args(["--baseline"]).end().expect(0);
        let ended = run().end().expect(0);
        assert_eq!(ended.label()["known"], 2900);
        assert_eq!(length(&mut connection, STREAM), 0);
    }
}

#[test]
fn members_in_a_state_of_their_own_are_deleted() {
    let (state, stage) = (Server::start(&[]), Stage::with_chats(2000));
    let url = state.url();
    let purge = purged_state(&stage, &url);
    let mut connection = state.connection();
    let before = dump(&mut connection);
    let dry = purge(&["--older-than", "0s", "--dry-run"]);
    assert!(dump(&mut connection) == before);
    let all = json!({"messages": 2000, "members": 2000, "publication_times": 2000,
        "checkpoints": 2, "counts": 1});
    assert_eq!(dry, all);
    assert_eq!(purge(&["--older-than", "0s"]), all);
    let run = stage.run().args(["--only-new", "--suppress-for", "1h"]);
    run.args(["--state", &state.url()]).end().expect(80);
}

#[test]
fn members_in_a_file_are_deleted_and_overwritten() {
    let (_, body) = small_list(12_000);
    let stage = Stage::with_body(&body);
    let file = stage.path("state.db");
    let state = format!("file:{}", file.display());
    let purge = purged_state(&stage, &state);
    let ids = || {
        let bytes = std::fs::read(&file).unwrap();
        bytes.windows(5).filter(|bytes| *bytes == b"@c.us").count()
    };
    assert!(ids() >= 12_000);
    assert_eq!(purge(&["--older-than", "1h"]), json!({}));
    assert_eq!(purge(&["--older-than", "0s", "--label", "2"]), json!({}));
    let all = json!({"messages": 12_000, "members": 12_000, "publication_times": 12_000,
        "checkpoints": 1, "counts": 1});
    assert_eq!(
        purge(&["--older-than", "0s", "--dry-run", "--label", "1"]),
        all
    );
    assert_eq!(purge(&["--older-than", "0s", "--dry-run"]), all);
    assert_eq!(purge(&["--older-than", "0s"]), all);
    assert_eq!(ids(), 0);
    assert_eq!(purge(&["--older-than", "0s"]), json!({}));
    let run = || stage.run().args(["--only-new", "--state", &state]);
    run().end().expect(80);
    // A state that a run holds.
    let (_, body) = small_list(100);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let process = run().args(["--baseline"]).spawn();
    wait_until("the state is open", || {
        let journal = stage.path("state.db-wal");
        std::fs::metadata(journal).is_ok_and(|log| log.len() > 0)
    });
    let other = purge_of("-", &state).args(["--older-than", "0s"]);
    other.end().expect(81);
    let elsewhere = format!("file:{}", stage.path("other").display());
    purge_of(&elsewhere, &state)
        .args(["--older-than", "0s"])
        .end()
        .expect(81);
    gate.cancel();
    process.end().expect(0);
}

fn purge_of(sink: &str, state: &str) -> Running {
    purge(sink).args(["--state", state])
}

/// Runs once with a state, and returns a purge of it.
fn purged_state<'a>(stage: &'a Stage, state: &'a str) -> impl Fn(&[&str]) -> Value + use<'a> {
    let run = stage.run().args(["--only-new", "--suppress-for", "1h"]);
    run.args(["--state", state]).end().expect(0);
    let sink = format!("file:{}", stage.out().display());
    move |more| said(&purge_of(&sink, state).args(more).end().expect(0))
}

#[test]
fn chats_that_have_left_a_queue_whose_state_is_elsewhere_are_deleted() {
    for partitions in [&[][..], &["--partitions", "3"]] {
        let server = Server::start(&[]);
        let (ids, body) = small_list(300);
        let stage = Stage::with_body(&body);
        let state = format!("file:{}", stage.path("state").display());
        let run = || {
            let run = stage.program("run").args(["--label", "1", "--removed"]);
            let run = run.args(["--sink", &server.url(), "--state", &state]);
            run.args(partitions).end().expect(0)
        };
        run();
        let next = Chats::Body(Bytes::from(map_of(&ids[100..])));
        stage.mock.set_chats("1", &next);
        run();
        for more in [&["--dry-run"][..], &[]] {
            let purge = purge_of(&server.url(), &state).args(partitions).args(more);
            let purge = purge.args(["--label", "1", "--older-than", "0s"]);
            let told = said(&purge.end().expect(0));
            let found = ["messages", "removed_messages", "events"].map(|key| &told[key]);
            assert_eq!(found, [500, 100, 100].map(|count| json!(count)).each_ref());
        }
        let left = dump(&mut server.connection());
        let has_ids = |value: &&Vec<u8>| value.windows(5).any(|bytes| bytes == b"@c.us");
        assert_eq!(
            left.values().filter(has_ids).count(),
            0,
            "{:?}",
            left.keys()
        );
    }
}

#[test]
fn a_state_is_deleted_without_a_sink_and_shared_times_count_once() {
    let body = |ids: &[String]| Chats::Body(map_of(ids).into());
    let (ids, _) = small_list(70);
    let stage = Stage::with_labels(vec![("1", body(&ids[..40])), ("2", body(&ids[40..]))]);
    let state = format!("file:{}", stage.path("state").display());
    for label in ["1", "2"] {
        let run = stage
            .program("run")
            .args(["--label", label, "--queue", "q"]);
        let run = run.args(["--sink", "-", "--state", &state, "--only-new"]);
        run.args(["--suppress-for", "1d"]).end().expect(0);
    }
    for more in [&["--dry-run"][..], &[]] {
        let purge = purge_of("-", &state).args(["--queue", "q"]).args(more);
        let told = said(&purge.args(["--older-than", "0s"]).end().expect(0));
        let all = json!({"members": 70, "publication_times": 70, "counts": 2});
        assert_eq!(told, all);
    }
}

#[test]
fn an_impossible_request_deletes_nothing() {
    let (state, stage) = (Server::start(&[]), Stage::with_chats(20));
    let run = stage.run().args(["--only-new", "--state", &state.url()]);
    run.end().expect(0);
    let before = dump(&mut state.connection());
    // No cluster is needed to know that its queues cannot be found.
    let cluster = "redis+cluster://127.0.0.1:1";
    let purge = purge_of(cluster, &state.url()).args(["--older-than", "0s"]);
    assert_eq!(said(&purge.end().expect(78)), json!({}));
    assert!(dump(&mut state.connection()) == before);
    let sink = format!("file:{}", stage.out().display());
    let purge = purge_of(&sink, cluster).args(["--older-than", "0s"]);
    assert_eq!(said(&purge.end().expect(78)), json!({}));
    assert_eq!(stage.ids().len(), 20);
}

#[test]
fn chats_that_have_left_are_beside_the_file_itself_and_outlive_it_in_no_purge() {
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    let folder = stage.path("elsewhere");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("chats.jsonl");
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&file, stage.out()).unwrap();
    let state = format!("file:{}", stage.path("state").display());
    let run = || {
        let run = stage.run().args(["--removed", "--state", &state]);
        run.end().expect(0)
    };
    run();
    let next = Chats::Body(Bytes::from(map_of(&ids[100..])));
    stage.mock.set_chats("1", &next);
    run();
    let removed = folder.join("chats.jsonl.removed");
    assert_eq!(crate::support::lines_in(&removed), 100);
    std::fs::remove_file(&file).unwrap();
    let sink = format!("file:{}", file.display());
    for more in [&["--dry-run"][..], &[]] {
        let purge = purge_of(&sink, &state).args(["--label", "1", "--older-than", "0s"]);
        let told = said(&purge.args(more).end().expect(0));
        let found = ["removed_messages", "checkpoints"].map(|key| told[key].as_u64());
        assert_eq!(found, [Some(100), Some(1)]);
    }
    assert_eq!(crate::support::lines_in(&removed), 0);
}
