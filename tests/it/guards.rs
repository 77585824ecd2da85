//! No false zero: the label must exist, and the list must be long enough.

use bytes::Bytes;
use labelcast::mock::{Chats, Piece, Reply};

use crate::support::{Stage, part_of, small_list, wait_until};

#[test]
fn the_chats_of_a_missing_label_are_not_requested() {
    let stage = Stage::with_labels(vec![("2", Chats::Generated(5))]);
    let ended = stage.run().end().expect(80);
    assert_eq!(ended.label()["status"], "guarded");
    assert_eq!(ended.label()["attempts"], 0);
    assert!(!stage.out().exists());
    assert_eq!(stage.mock.requests().len(), 1);
    assert!(ended.stderr.contains("labelcast labels"), "a hint");
}

#[test]
fn without_the_label_check_an_empty_list_is_accepted() {
    let stage = Stage::with_labels(vec![]);
    let ended = stage.run().args(["--skip-label-check"]).end().expect(0);
    assert_eq!(ended.label()["read"], 0);
    assert_eq!(ended.label()["label_name"], serde_json::Value::Null);
}

#[test]
fn all_labels_publishes_every_label() {
    let labels = vec![("7", Chats::Generated(3)), ("x/8", Chats::Generated(4))];
    let stage = Stage::with_labels(labels);
    let sink = format!("file:{}", stage.out().display());
    let arguments = ["--all-labels", "--sink", &sink];
    let ended = stage.program("run").args(arguments).end().expect(0);
    assert_eq!(ended.report["totals"]["published"], 7);
    assert_eq!(ended.report["labels"][1]["label_id"], "x/8");
    assert_eq!(ended.report["labels"][1]["label_name"], "name of x/8");
    assert_eq!(ended.report["labels"][1]["queue"], "labelcast:x/8");

    let empty = Stage::with_labels(vec![]);
    let ended = empty.program("run").args(["--all-labels"]).end().expect(80);
    assert_eq!(ended.report["status"], "failed");
}

#[test]
fn too_few_chats_publish_nothing() {
    // A short list is held back. A long one is counted first.
    for (count, min) in [(0, 1), (9, 10), (49_999, 50_000)] {
        let stage = Stage::with_chats(count);
        let min = min.to_string();
        let ended = stage.run().args(["--min-chats", &min]).end().expect(80);
        assert_eq!(ended.label()["status"], "guarded");
        assert_eq!(ended.label()["read"], count);
        assert_eq!(ended.label()["published"], 0);
        assert!(stage.ids().is_empty());
        let error = ended.label()["error"].as_str().unwrap();
        assert!(error.contains(&count.to_string()), "{error}");
        assert!(error.contains("--min-chats"), "{error}");
    }
}

#[test]
fn a_list_with_enough_chats_is_published_in_order() {
    for count in [10, 2000, 50_000] {
        let (ids, body) = small_list(count);
        let stage = Stage::with_body(body);
        let min = count.to_string();
        let ended = stage.run().args(["--min-chats", &min]).end().expect(0);
        assert_eq!(stage.ids(), ids);
        assert_eq!(ended.label()["published"], count);
        // A list that does not fit into memory is counted and fetched again.
        let attempts = if count > 10_000 { 2 } else { 1 };
        assert_eq!(ended.label()["attempts"], attempts);
    }
}

#[test]
fn a_body_that_is_cut_while_held_back_is_fetched_again() {
    let (ids, body) = small_list(5000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let ended = stage.run().args(["--min-chats", "4000"]).end().expect(0);
    assert_eq!(ended.label()["attempts"], 2);
    assert_eq!(stage.ids(), ids);
}

#[test]
fn a_list_that_shrank_too_much_publishes_nothing() {
    let stage = Stage::with_chats(100);
    let guarded = || stage.run().args(["--max-shrink", "10"]);
    guarded().end().expect(0);
    stage.mock.set_chats("1", &Chats::Generated(90));
    guarded().end().expect(0);
    assert_eq!(stage.ids().len(), 190);
    stage.mock.set_chats("1", &Chats::Generated(80));
    let ended = guarded().end().expect(80);
    assert_eq!(ended.label()["status"], "guarded");
    assert!(ended.label()["error"].as_str().unwrap().contains("had 90"));
    assert_eq!(stage.ids().len(), 190);
    // The last complete run is the reference, however often the guard has stopped runs since.
    guarded().end().expect(80);
    stage.mock.set_chats("1", &Chats::Generated(81));
    guarded().end().expect(0);
}

#[test]
fn max_shrink_forgets_the_last_run_after_retain() {
    let stage = Stage::with_chats(100);
    stage.run().end().expect(0);
    stage.mock.set_chats("1", &Chats::Generated(0));
    let guarded = ["--max-shrink", "0%"];
    stage.run().args(guarded).end().expect(80);
    stage.age_journal();
    let forever = ["--retain", "forever"];
    stage.run().args(guarded).args(forever).end().expect(80);
    stage.run().args(guarded).end().expect(0);
}

#[test]
fn guards_apply_to_dry_runs() {
    let stage = Stage::with_chats(100);
    let ended = stage.run().args(["--dry-run"]).end().expect(0);
    assert_eq!(ended.label()["read"], 100);
    assert_eq!(ended.label()["published"], 0);
    assert_eq!(ended.report["dry_run"], true);
    assert!(!stage.out().exists());
    let arguments = ["--dry-run", "--min-chats", "101"];
    stage.run().args(arguments).end().expect(80);
}

#[test]
fn a_list_that_shrank_between_count_and_fetch_publishes_nothing() {
    // The list is long enough when it is counted, and short when it is fetched again.
    let (_, long) = small_list(40_000);
    let stage = Stage::with_chats(5);
    stage.mock.script("1", Reply::json(long));
    let ended = stage.run().args(["--min-chats", "30000"]).end().expect(80);
    assert_eq!(ended.label()["attempts"], 2);
    assert!(stage.ids().is_empty());
}

#[test]
fn a_changed_list_is_guarded_again() {
    let (ids, body) = small_list(1000);
    for retries in ["0", "1"] {
        let stage = Stage::with_chats(5);
        let start = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
        let cut = Reply::pieces([Piece::Bytes(start), Piece::Cut]);
        stage.mock.script("1", cut);
        let guarded = || {
            stage
                .run()
                .args(["--min-chats", "100", "--retries", retries])
        };
        let mut ended = guarded().end();
        if retries == "0" {
            assert_eq!(ended.code, Some(69));
            ended = guarded().end();
        }
        let ended = ended.expect(80);
        assert_eq!(ended.label()["list_changed"], true);
        let found = stage.ids();
        assert!(ids.starts_with(&found), "nothing of the short list");
    }
}

#[test]
fn a_resumed_run_is_guarded_too() {
    let (ids, body) = small_list(1000);
    let stage = Stage::with_body(crate::support::map_of(&ids[..600]));
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    stage.run().args(["--retries", "0"]).end().expect(69);
    let before = stage.ids().len();
    stage.run().args(["--min-chats", "700"]).end().expect(80);
    assert_eq!(stage.ids().len(), before);
    stage.run().args(["--min-chats", "600"]).end().expect(0);
    assert_eq!(stage.ids(), ids[..600]);
}

#[test]
fn a_label_that_is_given_twice_is_published_once() {
    let stage = Stage::with_chats(3);
    let labels = r#"[{"id":"1"},{"id":1}]"#;
    stage.mock.script_labels(Reply::json(labels));
    let sink = format!("file:{}", stage.out().display());
    let arguments = ["--all-labels", "--sink", &sink];
    stage.program("run").args(arguments).end().expect(0);
    assert_eq!(stage.ids().len(), 3);
}

#[test]
fn a_label_deleted_during_the_run_is_80() {
    let (_, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let busy = Reply::json("busy").status(503).header("retry-after", "2");
    stage.mock.script("1", busy);
    let process = stage.run().spawn();
    wait_until("the run waits", || stage.mock.requests().len() >= 3);
    stage.mock.remove_label("1");
    let ended = process.end().expect(80);
    assert_eq!(ended.label()["status"], "guarded");
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("deleted during the run"), "{error}");
}
