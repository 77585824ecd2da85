//! Other sinks with a state beside them: stdout, and Redis.

use redis::Commands as _;

use super::{Store, adds_up, counts, set_list, set_of, with_both_stores};
use crate::support::redis::{Server, chat_ids, entries, field, length};
use crate::support::{Running, Stage, map_of, small_list};

with_both_stores! {
    stdout_with_a_state_knows_earlier_runs
    a_reader_that_leaves_is_no_failure
    a_redis_sink_with_a_state_of_its_own
    partitions_with_a_state_of_its_own
}

fn to(stage: &Stage, store: &Store, sink: &str) -> Running {
    let run = stage.program("run").args(["--label", "1", "--sink", sink]);
    run.args(["--state", &store.url()])
}

fn stdout_with_a_state_knows_earlier_runs(store: &Store) {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(map_of(&ids[..2900]));
    let only_new = || to(&stage, store, "-").args(["--only-new"]).end().expect(0);
    let first = only_new();
    counts(&first, [2900, 0, 0, 0]);
    assert_eq!(first.stdout.lines().count(), 2900);
    stage.mock.script(
        "1",
        crate::support::part_of(&body, 0.5, labelcast::mock::Piece::Cut),
    );
    set_list(&stage, &ids[10..]);
    let second = only_new();
    adds_up(&second);
    assert_eq!(second.stdout.lines().count(), 100);
    assert_eq!(second.label()["removed"], 10);
    // The cut list had members that the whole one does not have.
    assert_eq!(store.members(), set_of(&ids[10..]));
}

fn a_reader_that_leaves_is_no_failure(store: &Store) {
    let (ids, body) = small_list(30_000);
    let stage = Stage::with_body(&body);
    let mut process = to(&stage, store, "-").args(["--only-new"]).spawn();
    drop(process.take_stdout());
    let ended = process.end().expect(0);
    assert_eq!(ended.label()["status"], "partial");
    // What nobody has read is still new.
    let ended = to(&stage, store, "-").args(["--only-new"]).end().expect(0);
    assert_eq!(ended.stdout.lines().count(), ids.len());
}

fn a_redis_sink_with_a_state_of_its_own(store: &Store) {
    let server = Server::start(&[]);
    let (ids, _) = small_list(5000);
    let stage = Stage::with_body(map_of(&ids[..4900]));
    let run = || {
        let run = to(&stage, store, &server.url());
        run.args(["--only-new", "--removed", "--suppress-for", "1h"])
    };
    counts(&run().end().expect(0), [4900, 0, 0, 0]);
    set_list(&stage, &ids[100..]);
    let ended = run().end().expect(0);
    counts(&ended, [100, 0, 4800, 100]);
    let mut connection = server.connection();
    assert_eq!(chat_ids(&mut connection, "labelcast:1"), ids);
    let removed = entries(&mut connection, "{labelcast:1}:removed");
    let chats: Vec<String> = removed
        .iter()
        .map(|it| field(it, "chat_id").unwrap())
        .collect();
    assert_eq!((set_of(&chats), removed.len()), (set_of(&ids[..100]), 100));
    for entry in &removed {
        let names: Vec<&str> = entry.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["event", "chat_id", "label_id", "run_id"]);
        assert_eq!(field(entry, "event").unwrap(), "label.chat.deleted");
        assert_eq!(field(entry, "run_id").unwrap(), ended.label()["run_id"]);
    }
    // The sink's own server knows nothing of the members.
    let kept: Vec<String> = connection.keys("labelcast:members:*").unwrap();
    assert!(kept.is_empty(), "{kept:?}");
    // A queue with a hash tag of its own lends it.
    let tagged = || run().args(["--queue", "{q}:1"]);
    counts(&tagged().end().expect(0), [4900, 0, 0, 0]);
    set_list(&stage, &ids[101..]);
    counts(&tagged().end().expect(0), [0, 0, 4899, 1]);
    assert_eq!(length(&mut connection, "{q}:1:removed"), 1);
}

fn partitions_with_a_state_of_its_own(store: &Store) {
    let server = Server::start(&[]);
    let (ids, _) = small_list(3000);
    let stage = Stage::with_body(map_of(&ids[..2900]));
    let run = || {
        let run = to(&stage, store, &server.url());
        run.args(["--only-new", "--removed", "--partitions", "3"])
    };
    counts(&run().end().expect(0), [2900, 0, 0, 0]);
    set_list(&stage, &ids[100..]);
    counts(&run().end().expect(0), [100, 0, 2800, 100]);
    let mut connection = server.connection();
    let streams = ["labelcast:1:{0}", "labelcast:1:{1}", "labelcast:1:{2}"];
    let lengths = streams.map(|stream| length(&mut connection, stream));
    assert_eq!(lengths.iter().sum::<usize>(), 3000);
    assert_eq!(length(&mut connection, "{labelcast:1}:removed"), 100);
}

#[test]
fn a_state_at_the_server_of_the_sink_is_the_sinks_or_has_keys_of_its_own() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let run = |state: &[&str]| {
        let run = stage.program("run").args(["--label", "1"]).args(state);
        let run = run.args(["--sink", &server.url(), "--only-new"]);
        run.args(["--suppress-for", "1h"]).end().expect(0)
    };
    counts(&run(&[]), [3000, 0, 0, 0]);
    // Another spelling of the sink's URL.
    let own = format!("{}/0", server.url().trim_end_matches('/'));
    counts(&run(&["--state", &own]), [0, 0, 3000, 0]);
    // A name that nobody can know to be the same server.
    let other = format!("redis://localhost:{}", server.port);
    set_list(&stage, &ids[..2000]);
    counts(&run(&["--state", &other]), [2000, 0, 0, 0]);
    counts(&run(&["--state", &other]), [0, 0, 2000, 0]);
    counts(&run(&[]), [0, 0, 2000, 1000]);
    set_list(&stage, &ids);
    counts(&run(&["--state", &other]), [1000, 0, 2000, 0]);
}

#[test]
fn an_unreachable_state_is_an_unavailable_sink() {
    let stage = Stage::with_chats(10);
    let [port] = crate::support::redis::free_ports();
    let state = format!("redis://127.0.0.1:{port}");
    let run = stage
        .run()
        .args(["--only-new", "--state", &state, "--retries", "0"]);
    run.end().expect(69);
    assert_eq!(stage.ids().len(), 0);
}

#[test]
fn one_run_at_a_time_holds_a_state_on_a_server() {
    let store = Store::redis();
    let (_, body) = small_list(1000);
    let (first, second) = (Stage::with_body(&body), Stage::with_body(&body));
    first
        .mock
        .script("1", crate::support::held_after(&body, 900));
    let held = super::run(&first, &store).args(["--only-new"]).spawn();
    let lines = || crate::support::lines_in(&first.out());
    crate::support::wait_until("the first run publishes", || lines() == 900);
    // stdout has no lock, and the state has one.
    let ended = to(&second, &store, "-")
        .args(["--only-new"])
        .end()
        .expect(81);
    assert_eq!(ended.stdout, "");
    assert_eq!(ended.label()["status"], "locked");
    // Another queue is another state.
    let other = to(&second, &store, "-").args(["--only-new", "--queue", "other"]);
    counts(&other.end().expect(0), [1000, 0, 0, 0]);
    held.signal("TERM");
    held.end().expect(75);
}

#[test]
fn check_opens_the_state() {
    let store = Store::file();
    let (_, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    let check = |state: &str| {
        let check = stage.program("check").args(["--label", "1", "--only-new"]);
        let check = check.args(["--sink", "-", "--state", state]);
        check.end()
    };
    let ended = check(&store.url()).expect(0);
    assert!(ended.stdout.contains("ok    state:"), "{}", ended.stdout);
    let body = crate::support::held_after(&body, 900);
    stage.mock.script("1", body);
    let held = super::run(&stage, &store).args(["--only-new"]).spawn();
    let lines = || crate::support::lines_in(&stage.out());
    crate::support::wait_until("the run publishes", || lines() == 900);
    let ended = check(&store.url()).expect(0);
    assert!(ended.stdout.contains("warn  state:"), "{}", ended.stdout);
    held.signal("TERM");
    held.end().expect(75);
    store.lose_members();
    let ended = check(&store.url()).expect(80);
    assert!(ended.stdout.contains("--baseline"), "{}", ended.stdout);
    check("redis://127.0.0.1:1").expect(69);
}
