//! Sets that are not known any more, and guards against removing too many.

use super::{Store, adds_up, counts, each_once, run, set_list, set_of, with_both_stores};
use crate::support::{Stage, held_after, lines_in, map_of, small_list, wait_until};

with_both_stores! {
    a_lost_set_is_never_taken_for_an_empty_one
    a_baseline_that_was_cut_short_is_no_set
    a_baseline_that_was_cut_short_leaves_a_whole_set_as_it_is
    a_first_run_that_was_cut_short_leaves_a_set
    a_list_that_would_remove_too_many_removes_nobody
    a_small_label_may_lose_all_members
    an_expired_set_is_lost
    a_note_that_cannot_be_read_is_no_first_use
    a_note_of_an_earlier_version_can_be_read
}

fn a_lost_set_is_never_taken_for_an_empty_one(store: &Store) {
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    let only_new = || run(&stage, store).args(["--only-new"]).end();
    counts(&only_new().expect(0), [300, 0, 0, 0]);
    store.lose_members();
    let ended = only_new().expect(80);
    assert!(ended.stderr.contains("--baseline"), "{}", ended.stderr);
    assert_eq!(ended.label()["status"], "guarded");
    only_new().expect(80);
    assert_eq!(stage.ids().len(), 300);
    let (more, _) = small_list(310);
    counts(
        &run(&stage, store).args(["--baseline"]).end().expect(0),
        [0, 0, 300, 0],
    );
    set_list(&stage, &more);
    counts(&only_new().expect(0), [10, 0, 300, 0]);
    each_once(&stage, &more);
    // A run that publishes all builds a set too.
    store.lose_members();
    counts(
        &run(&stage, store).args(["--track"]).end().expect(0),
        [310, 0, 0, 0],
    );
    counts(&only_new().expect(0), [0, 0, 310, 0]);
    assert_eq!(ids.len(), 300);
}

/// Ends a baseline after this many entries of a list.
fn cut_baseline(stage: &Stage, store: &Store, body: &str, entries: usize) {
    stage.mock.script("1", held_after(body, entries));
    let before = stage.mock.requests().len();
    let baseline = run(stage, store).args(["--baseline"]).spawn();
    wait_until("the baseline has got that far", || {
        let record = stage.journal();
        let requests = stage.mock.requests().len();
        requests > before && record.is_some_and(|it| it["position"] == entries)
    });
    baseline.signal("TERM");
    baseline.end().expect(75);
}

fn a_baseline_that_was_cut_short_is_no_set(store: &Store) {
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let only_new = || run(&stage, store).args(["--only-new"]).end();
    counts(&only_new().expect(0), [6000, 0, 0, 0]);
    store.lose_members();
    cut_baseline(&stage, store, &body, 5000);
    // The set that the baseline was to build is there, and not whole.
    assert!(only_new().expect(80).stderr.contains("--baseline"));
    let ended = run(&stage, store).args(["--baseline"]).end().expect(0);
    adds_up(&ended);
    assert_eq!(ended.label()["known"], 6000);
    counts(&only_new().expect(0), [0, 0, 6000, 0]);
    each_once(&stage, &ids);
}

fn a_baseline_that_was_cut_short_leaves_a_whole_set_as_it_is(store: &Store) {
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..4000]));
    let only_new = || run(&stage, store).args(["--only-new"]).end();
    counts(&only_new().expect(0), [4000, 0, 0, 0]);
    cut_baseline(&stage, store, &body, 5000);
    set_list(&stage, &ids);
    counts(&only_new().expect(0), [1000, 0, 5000, 0]);
    assert_eq!(store.members(), set_of(&ids));
}

fn a_first_run_that_was_cut_short_leaves_a_set(store: &Store) {
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", held_after(&body, 5000));
    let first = run(&stage, store).args(["--track"]).spawn();
    wait_until("the run publishes", || lines_in(&stage.out()) == 5000);
    first.signal("TERM");
    first.end().expect(75);
    set_list(&stage, &ids);
    let only_new = run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&only_new, [1000, 0, 5000, 0]);
    each_once(&stage, &ids);
}

fn a_list_that_would_remove_too_many_removes_nobody(store: &Store) {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let run = |more: &[&str]| {
        run(&stage, store)
            .args(["--only-new", "--removed"])
            .args(more)
    };
    counts(&run(&[]).end().expect(0), [3000, 0, 0, 0]);
    let (more, _) = small_list(3005);
    // 1,501 of 3,000 have left, and some are new.
    set_list(&stage, &more[1501..]);
    let ended = run(&[]).end().expect(80);
    assert_eq!(ended.label()["status"], "guarded");
    assert_eq!(ended.label()["published"], 5);
    assert_eq!(store.members(), set_of(&more));
    assert!(!stage.path("out.jsonl.removed").exists());
    // Nor does the list pass when it comes again, although its new chats are members by now.
    for _ in 0..3 {
        run(&[]).end().expect(80);
    }
    assert_eq!(store.members(), set_of(&more));
    // Members that were published by the run that was stopped are known.
    set_list(&stage, &more[1500..]);
    counts(&run(&[]).end().expect(0), [0, 0, 1505, 1500]);
    set_list(&stage, &more[3000..]);
    run(&["--max-change", "99"]).end().expect(80);
    counts(
        &run(&["--max-change", "100"]).end().expect(0),
        [0, 0, 5, 1500],
    );
    assert_eq!(store.members(), set_of(&more[3000..]));
    let removed = crate::support::ids_in(&stage.path("out.jsonl.removed"));
    assert_eq!((set_of(&removed), removed.len()), (set_of(&ids), 3000));
    each_once(&stage, &more);
}

fn a_small_label_may_lose_all_members(store: &Store) {
    let (ids, _) = small_list(20);
    let stage = Stage::with_body(map_of(&ids[..19]));
    let only_new = || run(&stage, store).args(["--only-new"]).end();
    counts(&only_new().expect(0), [19, 0, 0, 0]);
    set_list(&stage, &[]);
    counts(&only_new().expect(0), [0, 0, 0, 19]);
    set_list(&stage, &ids);
    counts(&only_new().expect(0), [20, 0, 0, 0]);
    set_list(&stage, &[]);
    only_new().expect(80);
    assert_eq!(store.members().len(), 20);
}

fn an_expired_set_is_lost(store: &Store) {
    let (ids, body) = small_list(100);
    let stage = Stage::with_body(&body);
    let arguments = ["--only-new", "--suppress-for", "1d", "--retain", "2d"];
    let run = || run(&stage, store).args(arguments).end();
    counts(&run().expect(0), [100, 0, 0, 0]);
    let two_days = 2 * 24 * 3600;
    match store {
        Store::File(_) => {
            for (statement, seconds) in [
                (
                    "UPDATE lists SET expires_at = expires_at - ?",
                    two_days + 60,
                ),
                (
                    "UPDATE publications SET expires_at = expires_at - ?",
                    two_days + 60,
                ),
            ] {
                store.database().execute(statement, [seconds]).unwrap();
            }
        }
        Store::Redis(server) => {
            use redis::Commands as _;
            let mut connection = server.connection();
            for key in [super::MEMBERS, super::PUBLISHED] {
                let left: i64 = connection.ttl(key).unwrap();
                assert!(left > two_days - 600 && left <= two_days, "{key}: {left}");
                let _: () = connection.del(key).unwrap();
            }
            let left: i64 = connection.ttl(super::NOTE).unwrap();
            assert_eq!(left, -1, "the note outlives the set");
            let note = store.note();
            assert!(ids.iter().all(|id| !note.contains(id)));
        }
    }
    run().expect(80);
    let baseline = super::run(&stage, store).args(["--baseline", "--retain", "2d"]);
    counts(&baseline.end().expect(0), [0, 0, 100, 0]);
    if let Store::File(_) = store {
        let left = "SELECT count(*) FROM publications";
        let left: i64 = store
            .database()
            .query_row(left, [], |row| row.get(0))
            .unwrap();
        assert_eq!(left, 0, "a complete run deletes what has expired");
    }
}

fn a_note_that_cannot_be_read_is_no_first_use(store: &Store) {
    let stage = Stage::with_body(small_list(100).1);
    let run = |more: &[&str]| run(&stage, store).args(more).end();
    counts(&run(&["--only-new"]).expect(0), [100, 0, 0, 0]);
    store.set_note("{\"trusted\": 7}");
    let ended = run(&["--only-new"]).expect(80);
    assert!(
        ended.stderr.contains("the note cannot be read"),
        "{}",
        ended.stderr
    );
    // A run that asks for no members must not turn it into a first use.
    counts(&run(&["--suppress-for", "1h"]).expect(0), [100, 0, 0, 0]);
    run(&["--only-new"]).expect(80);
    counts(&run(&["--baseline"]).expect(0), [0, 0, 100, 0]);
    counts(&run(&["--only-new"]).expect(0), [0, 0, 100, 0]);
}

fn a_note_of_an_earlier_version_can_be_read(store: &Store) {
    let stage = Stage::with_body(small_list(100).1);
    let only_new = || run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&only_new(), [100, 0, 0, 0]);
    let mut note: serde_json::Value = serde_json::from_str(&store.note()).unwrap();
    let run = note["run"].as_object_mut().unwrap();
    for newer in ["members_before", "began_at", "lost_at", "decisions"] {
        assert!(run.remove(newer).is_some());
    }
    note["unknown"] = true.into();
    store.set_note(&note.to_string());
    counts(&only_new(), [0, 0, 100, 0]);
}
