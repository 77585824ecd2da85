//! Which chats of a list are published.

use serde_json::json;

use super::{Store, counts, each_once, run, set_list, set_of, with_both_stores};
use crate::support::{Stage, map_of, messages_in, small_list};

with_both_stores! {
    only_new_publishes_what_a_list_turns_into_members
    a_chat_that_comes_back_is_new
    removed_chats_go_to_a_file_of_their_own
    a_removed_chat_is_a_cloud_event_too
    suppress_for_leaves_out_what_was_published_recently
    two_labels_of_one_queue_share_the_times_of_publication
    min_age_waits_until_a_chat_has_been_a_member_for_long_enough
    a_baseline_publishes_nothing_and_makes_the_list_known
    a_baseline_counts_as_a_publication
    a_chat_that_another_label_published_is_known
    track_publishes_all_and_makes_the_list_known
    a_chat_that_is_in_the_list_twice_is_published_once
    names_and_events_are_published_as_ever
}

fn only_new_publishes_what_a_list_turns_into_members(store: &Store) {
    let (ids, _) = small_list(5000);
    let stage = Stage::with_body(map_of(&ids[..4900]));
    let only_new = || run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&only_new(), [4900, 0, 0, 0]);
    counts(&only_new(), [0, 0, 4900, 0]);
    // Some left the label, some are new, and the order is another one.
    let next: Vec<String> = ids[30..].iter().rev().cloned().collect();
    set_list(&stage, &next);
    counts(&only_new(), [100, 0, 4870, 30]);
    each_once(&stage, &ids);
    assert_eq!(store.members(), set_of(&next));
}

fn a_chat_that_comes_back_is_new(store: &Store) {
    let (ids, body) = small_list(100);
    let stage = Stage::with_body(&body);
    let only_new = || run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&only_new(), [100, 0, 0, 0]);
    set_list(&stage, &ids[10..]);
    counts(&only_new(), [0, 0, 90, 10]);
    set_list(&stage, &ids);
    counts(&only_new(), [10, 0, 90, 0]);
    assert_eq!(stage.ids()[100..], ids[..10]);
}

fn removed_chats_go_to_a_file_of_their_own(store: &Store) {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let run = || run(&stage, store).args(["--only-new", "--removed"]).end();
    counts(&run().expect(0), [3000, 0, 0, 0]);
    let removed = stage.path("out.jsonl.removed");
    assert!(!removed.exists());
    // A process that was killed while it wrote has left half a line.
    std::fs::write(&removed, "{\"event\":").unwrap();
    set_list(&stage, &ids[1200..]);
    let ended = run().expect(0);
    counts(&ended, [0, 0, 1800, 1200]);
    let text = std::fs::read_to_string(&removed).unwrap();
    std::fs::write(&removed, text.split_once('\n').unwrap().1).unwrap();
    let run_id = &ended.label()["run_id"];
    let message = |id: &String| json!({"event": "label.chat.deleted", "chat_id": id, "label_id": "1", "run_id": run_id});
    let mut messages = messages_in(&removed);
    messages.sort_by_key(|message| message["chat_id"].to_string());
    let mut expected: Vec<_> = ids[..1200].iter().map(message).collect();
    expected.sort_by_key(|message| message["chat_id"].to_string());
    assert_eq!(messages, expected);
    counts(&run().expect(0), [0, 0, 1800, 0]);
    assert_eq!(messages_in(&removed).len(), 1200);
    each_once(&stage, &ids);
}

fn a_removed_chat_is_a_cloud_event_too(store: &Store) {
    let (ids, body) = small_list(10);
    let stage = Stage::with_body(&body);
    let run = || run(&stage, store).args(["--removed", "--format", "cloudevents"]);
    counts(&run().end().expect(0), [10, 0, 0, 0]);
    set_list(&stage, &ids[1..]);
    let ended = run().end().expect(0);
    counts(&ended, [9, 0, 0, 1]);
    let messages = messages_in(&stage.path("out.jsonl.removed"));
    let run_id = ended.label()["run_id"].as_str().unwrap();
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0]["type"], "net.wawp.label.chat.deleted");
    assert_eq!(messages[0]["id"], format!("{run_id}:{}:deleted", ids[0]));
    assert_eq!(messages[0]["data"]["chat_id"], ids[0]);
}

fn suppress_for_leaves_out_what_was_published_recently(store: &Store) {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let run = || {
        run(&stage, store)
            .args(["--suppress-for", "1d"])
            .end()
            .expect(0)
    };
    counts(&run(), [3000, 0, 0, 0]);
    let (more, _) = small_list(3100);
    set_list(&stage, &more);
    counts(&run(), [100, 3000, 0, 0]);
    store.age(&ids[0], 24 * 3600 + 1);
    store.age(&ids[1], 24 * 3600 - 600);
    counts(&run(), [1, 3099, 0, 0]);
    assert_eq!(stage.ids().last(), Some(&ids[0]));
    if let Store::File(_) = store {
        let tables = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'members_%'";
        let tables: i64 = store
            .database()
            .query_row(tables, [], |row| row.get(0))
            .unwrap();
        assert_eq!(tables, 0, "no membership was asked for");
    }
}

fn two_labels_of_one_queue_share_the_times_of_publication(store: &Store) {
    use labelcast::mock::Chats;
    let (ids, _) = small_list(300);
    let body = |range: std::ops::Range<usize>| Chats::Body(map_of(&ids[range]).into());
    let stage = Stage::with_labels(vec![("1", body(0..200)), ("2", body(100..300))]);
    let run = stage.program("run").args(["--all-labels", "--queue", "q"]);
    let sink = format!("file:{}", stage.out().display());
    let run = run.args(["--sink", &sink, "--state", &store.url()]);
    let ended = run.args(["--suppress-for", "1h"]).end().expect(0);
    assert_eq!(ended.report["totals"]["published"], 300);
    assert_eq!(ended.report["totals"]["suppressed"], 100);
    each_once(&stage, &ids);
}

fn min_age_waits_until_a_chat_has_been_a_member_for_long_enough(store: &Store) {
    let (ids, body) = small_list(200);
    let stage = Stage::with_body(&body);
    let run = || run(&stage, store).args(["--only-new", "--min-age", "1h"]);
    let run = || run().end().expect(0);
    counts(&run(), [0, 200, 0, 0]);
    for id in &ids[..50] {
        store.age(id, 3600);
    }
    counts(&run(), [50, 150, 0, 0]);
    // Each of them once.
    counts(&run(), [0, 150, 50, 0]);
    each_once(&stage, &ids[..50]);
}

fn a_baseline_publishes_nothing_and_makes_the_list_known(store: &Store) {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let baseline = || run(&stage, store).args(["--baseline"]).end().expect(0);
    counts(&baseline(), [0, 0, 3000, 0]);
    // Far fewer: that is no guard's matter.
    set_list(&stage, &ids[..1000]);
    counts(&baseline(), [0, 0, 1000, 2000]);
    assert_eq!(stage.ids().len(), 0);
    set_list(&stage, &ids[..1010]);
    let only_new = run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&only_new, [10, 0, 1000, 0]);
    each_once(&stage, &ids[1000..1010]);
}

fn a_baseline_counts_as_a_publication(store: &Store) {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let run = |more: &[&str]| {
        let run = run(&stage, store).args(["--suppress-for", "1d"]);
        run.args(more).end().expect(0)
    };
    counts(&run(&["--baseline"]), [0, 0, 3000, 0]);
    let (more, _) = small_list(3010);
    set_list(&stage, &more);
    counts(&run(&[]), [10, 3000, 0, 0]);
    assert_eq!(stage.ids(), more[ids.len()..]);
}

fn a_chat_that_another_label_published_is_known(store: &Store) {
    use labelcast::mock::Chats;
    let (ids, _) = small_list(200);
    let body = |range: std::ops::Range<usize>| Chats::Body(map_of(&ids[range]).into());
    let stage = Stage::with_labels(vec![("1", body(0..200)), ("2", body(100..200))]);
    let sink = format!("file:{}", stage.out().display());
    let only_new = |label: &str, window: &[&str]| {
        let run = stage
            .program("run")
            .args(["--label", label, "--queue", "q"]);
        let run = run.args(["--sink", &sink, "--state", &store.url(), "--only-new"]);
        run.args(window).end().expect(0)
    };
    let window = ["--suppress-for", "1h"];
    counts(&only_new("1", &window), [200, 0, 0, 0]);
    counts(&only_new("2", &window), [0, 100, 0, 0]);
    counts(&only_new("2", &[]), [0, 0, 100, 0]);
    each_once(&stage, &ids);
}

fn track_publishes_all_and_makes_the_list_known(store: &Store) {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let track = run(&stage, store).args(["--track"]).end().expect(0);
    counts(&track, [3000, 0, 0, 0]);
    let again = run(&stage, store).args(["--track"]).end().expect(0);
    counts(&again, [3000, 0, 0, 0]);
    let only_new = run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&only_new, [0, 0, 3000, 0]);
    assert_eq!(store.members(), set_of(&ids));
}

fn a_chat_that_is_in_the_list_twice_is_published_once(store: &Store) {
    let (ids, _) = small_list(3000);
    let twice = [&ids[..], &ids[..10], &ids[..10]].concat();
    let list = [&ids[..5], &twice].concat();
    for arguments in [["--only-new", "--track"], ["--suppress-for", "1h"]] {
        let stage = Stage::with_body(map_of(&list));
        // Another account has a state of its own.
        let queue = arguments[0];
        let run = || run(&stage, store).args(arguments).args(["--queue", queue]);
        counts(&run().end().expect(0), [3000, 25, 0, 0]);
        each_once(&stage, &ids);
    }
}

fn names_and_events_are_published_as_ever(store: &Store) {
    let (ids, body) = small_list(50);
    let stage = Stage::with_body(&body);
    let arguments = ["--only-new", "--include-names", "--format", "cloudevents"];
    let run = || run(&stage, store).args(arguments).end().expect(0);
    counts(&run(), [50, 0, 0, 0]);
    let (more, body) = small_list(53);
    set_list(&stage, &more);
    counts(&run(), [3, 0, 50, 0]);
    let messages = messages_in(&stage.out());
    let last = &messages[52]["data"];
    assert_eq!(
        (&last["chat_id"], &last["name"]),
        (&json!(more[52]), &json!("Person 52"))
    );
    assert!(body.contains("Person 52") && ids.len() == 50);
}
