//! Runs that are resumed, and lists that change.

use super::{Store, adds_up, counts, each_once, run, set_list, set_of, with_both_stores};
use crate::support::{
    Process, Stage, gated_after, held_after, map_of, part_of, small_list, wait_until,
};
use labelcast::mock::Piece;

with_both_stores! {
    a_resumed_run_goes_on_and_confirms_the_start_again
    a_killed_run_is_resumed_without_repeats
    a_cut_body_is_fetched_again
    a_changed_list_repeats_nobody
    a_list_that_changed_while_no_run_was_alive_repeats_nobody
    a_run_of_another_mode_is_not_resumed
    resumed_times_of_publication_add_up
}

/// Starts a run whose list stops after `entries` entries, and waits until these were processed.
fn stopped_after(stage: &Stage, store: &Store, body: &str, entries: usize) -> Process {
    started(stage, run(stage, store).args(["--only-new"]), body, entries)
}

fn started(stage: &Stage, run: crate::support::Running, body: &str, entries: usize) -> Process {
    stage.mock.script("1", held_after(body, entries));
    let process = run.spawn();
    wait_until("the run has processed that much", || {
        let record = stage.journal();
        record.is_some_and(|it| it["position"] == entries && it["state"] == "running")
    });
    process
}

fn a_resumed_run_goes_on_and_confirms_the_start_again(store: &Store) {
    let (ids, _) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..2000]));
    let only_new = || run(&stage, store).args(["--only-new"]).end();
    counts(&only_new().expect(0), [2000, 0, 0, 0]);
    let body = map_of(&ids[1000..]);
    let first = stopped_after(&stage, store, &body, 3000);
    first.signal("TERM");
    let first = first.end().expect(75);
    assert_eq!(
        (&first.label()["published"], &first.label()["known"]),
        (&2000.into(), &1000.into())
    );
    // A partial run removes nobody.
    assert_eq!(store.members().len(), 4000);
    set_list(&stage, &ids[1000..]);
    let ended = only_new().expect(0);
    let label = ended.label();
    assert_eq!(label["run_id"], first.label()["run_id"]);
    assert_eq!(label["resumed"], 2000);
    counts(&ended, [2000, 0, 1000, 1000]);
    each_once(&stage, &ids);
    assert_eq!(store.members(), set_of(&ids[1000..]));
}

fn a_killed_run_is_resumed_without_repeats(store: &Store) {
    let (ids, _) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..100]));
    run(&stage, store).args(["--baseline"]).end().expect(0);
    let body = map_of(&ids);
    let first = stopped_after(&stage, store, &body, 5000);
    first.kill();
    release(store);
    // The messages are in the file, and not one of them is recorded as published.
    assert_eq!(stage.ids().len(), 4900);
    assert!(store.records().values().all(|record| record.published == 0));
    set_list(&stage, &ids);
    let ended = run(&stage, store).args(["--only-new"]).end().expect(0);
    assert_eq!(ended.label()["resumed"], 4900);
    counts(&ended, [1000, 0, 100, 0]);
    each_once(&stage, &ids[100..]);
    let ended = run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&ended, [0, 0, 6000, 0]);
}

/// Lets the lock of a killed process expire at once.
pub(super) fn release(store: &Store) {
    if let Store::Redis(server) = store {
        use redis::Commands as _;
        let lock = "labelcast:state-lock:{labelcast:1}:labelcast:1:inst-1:1";
        let _: () = server.connection().del(lock).unwrap();
    }
}

fn a_cut_body_is_fetched_again(store: &Store) {
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    for part in [0.3, 0.6, 0.9] {
        stage.mock.script("1", part_of(&body, part, Piece::Cut));
    }
    let ended = run(&stage, store).args(["--only-new"]).end().expect(0);
    assert_eq!(ended.label()["attempts"], 4);
    counts(&ended, [6000, 0, 0, 0]);
    each_once(&stage, &ids);
}

fn a_changed_list_repeats_nobody(store: &Store) {
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.8, Piece::Cut));
    let mut changed = ids[1..].to_vec();
    changed.reverse();
    set_list(&stage, &changed);
    let ended = run(&stage, store)
        .args(["--track", "--removed"])
        .end()
        .expect(0);
    assert_eq!(ended.label()["list_changed"], true);
    each_once(&stage, &ids);
    // The chat that has left meanwhile was a member for a moment.
    assert_eq!(ended.label()["removed"], 1);
    assert_eq!(store.members(), set_of(&changed));
}

fn a_list_that_changed_while_no_run_was_alive_repeats_nobody(store: &Store) {
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let first = stopped_after(&stage, store, &body, 5000);
    first.signal("TERM");
    first.end().expect(75);
    let mut changed = ids.clone();
    changed.swap(0, 5999);
    set_list(&stage, &changed);
    let ended = run(&stage, store).args(["--only-new"]).end().expect(0);
    assert_eq!(ended.label()["list_changed"], true);
    assert_eq!(ended.label()["published"], 1000);
    each_once(&stage, &ids);
}

fn a_run_of_another_mode_is_not_resumed(store: &Store) {
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let first = stopped_after(&stage, store, &body, 5000);
    first.signal("TERM");
    let first = first.end().expect(75);
    let ended = run(&stage, store).args(["--track"]).end().expect(0);
    assert_ne!(ended.label()["run_id"], first.label()["run_id"]);
    counts(&ended, [6000, 0, 0, 0]);
    assert_eq!(stage.ids().len(), 11_000);
    let ended = run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&ended, [0, 0, ids.len(), 0]);
}

fn resumed_times_of_publication_add_up(store: &Store) {
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..1000]));
    let suppressing = || run(&stage, store).args(["--suppress-for", "1h"]);
    counts(&suppressing().end().expect(0), [1000, 0, 0, 0]);
    let first = started(&stage, suppressing(), &body, 4000);
    first.kill();
    release(store);
    let (reply, gate) = gated_after(&body, 5000);
    stage.mock.script("1", reply);
    let second = suppressing().spawn();
    wait_until("the second run has got further", || {
        stage.ids().len() == 5000
    });
    gate.cancel();
    let ended = second.end().expect(0);
    adds_up(&ended);
    assert_eq!(ended.label()["resumed"], 3000);
    counts(&ended, [2000, 1000, 0, 0]);
    each_once(&stage, &ids);
}

#[test]
fn a_run_that_publishes_all_does_not_resume_one_that_left_out_chats() {
    let store = Store::file();
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..4000]));
    run(&stage, &store).args(["--baseline"]).end().expect(0);
    let first = stopped_after(&stage, &store, &body, 5000);
    first.signal("TERM");
    first.end().expect(75);
    set_list(&stage, &ids);
    // Without a state, nothing but the checkpoint of the file tells.
    let ended = stage.run().end().expect(0);
    assert_eq!(ended.label()["published"], 6000);
    assert_eq!(ended.label()["resumed"], 0);
}
