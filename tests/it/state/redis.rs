//! A state on a Redis server: lost replies, takeovers, and a server that loses its data.

use redis::Commands as _;

use super::{MEMBERS, Store, counts, each_once, run, set_list, set_of};
use crate::support::proxy::{Direction, Proxy};
use crate::support::{Numbers, Stage, gated_after, lines_in, map_of, small_list, wait_until};

/// Holds the fencing token of the process that has the state.
const HOLDER: &str = "labelcast:state:{labelcast:1}:labelcast:1:inst-1:1";

#[test]
fn lost_replies_cost_nothing() {
    let store = Store::redis();
    let Store::Redis(server) = &store else {
        panic!("it is a server");
    };
    let proxy = Proxy::start(server.port);
    let (all, _) = small_list(13_000);
    let stage = Stage::with_body(map_of(&all[..1000]));
    let mut numbers = Numbers(17);
    for round in 1..=12 {
        let list = &all[..1000 + 1000 * round];
        set_list(&stage, list);
        proxy.cut_after(numbers.below(20_000) as i64, Direction::ToClient);
        let only_new = stage.run().args(["--state", &proxy.url()]);
        let ended = only_new
            .args(["--only-new", "--suppress-for", "1h"])
            .end()
            .expect(0);
        assert!(!proxy.is_armed(), "the connection was cut");
        let new = if round == 1 { 2000 } else { 1000 };
        counts(&ended, [new, 0, list.len() - new, 0]);
        assert_eq!(store.members(), set_of(list));
    }
    each_once(&stage, &all);
}

#[test]
fn a_process_that_was_taken_over_writes_nothing_more() {
    let store = Store::redis();
    let Store::Redis(server) = &store else {
        panic!("it is a server");
    };
    let (_, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated_after(&body, 3000);
    stage.mock.script("1", reply);
    let process = run(&stage, &store).args(["--only-new"]).spawn();
    wait_until("the run publishes", || lines_in(&stage.out()) == 3000);
    let mut connection = server.connection();
    let _: () = connection
        .hset(HOLDER, "fence", "9999999999999999")
        .unwrap();
    let before = store.records();
    gate.cancel();
    process.end().expect(81);
    assert_eq!(store.records(), before);
}

#[test]
fn a_server_that_loses_its_data_ends_the_run() {
    let store = Store::redis();
    let Store::Redis(server) = &store else {
        panic!("it is a server");
    };
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..100]));
    counts(
        &run(&stage, &store).args(["--only-new"]).end().expect(0),
        [100, 0, 0, 0],
    );
    let (reply, gate) = gated_after(&body, 3000);
    stage.mock.script("1", reply);
    let process = run(&stage, &store).args(["--only-new"]).spawn();
    wait_until("the run publishes", || lines_in(&stage.out()) == 3000);
    let mut connection = server.connection();
    redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    gate.cancel();
    let ended = process.end().expect(80);
    assert!(
        ended.stderr.contains("members are missing"),
        "{}",
        ended.stderr
    );
    assert!(!connection.exists::<_, bool>(MEMBERS).unwrap());
}

#[test]
fn a_record_that_cannot_be_read_is_a_members() {
    let store = Store::redis();
    let Store::Redis(server) = &store else {
        panic!("it is a server");
    };
    let (ids, body) = small_list(10);
    let stage = Stage::with_body(&body);
    let only_new = || run(&stage, &store).args(["--only-new", "--removed"]).end();
    counts(&only_new().expect(0), [10, 0, 0, 0]);
    let mut connection = server.connection();
    for id in &ids[..2] {
        let _: () = connection.hset(MEMBERS, id, "zl:2").unwrap();
    }
    set_list(&stage, &ids[1..]);
    counts(&only_new().expect(0), [0, 0, 9, 1]);
    assert_eq!(store.members(), set_of(&ids[1..]));
    assert_eq!(lines_in(&stage.path("out.jsonl.removed")), 1);
}

#[test]
fn what_is_kept_for_ever_does_not_expire() {
    let store = Store::redis();
    let Store::Redis(server) = &store else {
        panic!("it is a server");
    };
    let stage = Stage::with_body(small_list(10).1);
    let mut connection = server.connection();
    for (retain, expires) in [("2d", true), ("forever", false)] {
        let run = run(&stage, &store).args(["--only-new", "--retain", retain]);
        run.args(["--suppress-for", "1d"]).end().expect(0);
        for key in [MEMBERS, super::PUBLISHED] {
            let left: i64 = connection.ttl(key).unwrap();
            assert_eq!(left > 0, expires, "{retain}, {key}: {left}");
        }
    }
}

#[test]
fn members_that_are_lost_in_the_middle_of_a_list_make_nobody_new() {
    let store = Store::redis();
    let Store::Redis(server) = &store else {
        panic!("it is a server");
    };
    let (ids, body) = small_list(9000);
    let stage = Stage::with_body(map_of(&ids[1000..]));
    run(&stage, &store).args(["--baseline"]).end().expect(0);
    let (reply, gate) = gated_after(&body, 5000);
    stage.mock.script("1", reply);
    set_list(&stage, &ids);
    let process = run(&stage, &store).args(["--only-new"]).spawn();
    wait_until("the new chats are published", || {
        lines_in(&stage.out()) == 1000
    });
    let _: () = server.connection().del(MEMBERS).unwrap();
    gate.cancel();
    process.end().expect(80);
    assert_eq!(lines_in(&stage.out()), 1000);
}

#[test]
fn a_note_that_is_lost_without_its_members_is_no_first_use() {
    let store = Store::redis();
    let Store::Redis(server) = &store else {
        panic!("it is a server");
    };
    let stage = Stage::with_chats(100);
    let only_new = || run(&stage, &store).args(["--only-new"]).end();
    only_new().expect(0);
    let note = "labelcast:state-note:{labelcast:1}:labelcast:1:inst-1:1";
    let removed: usize = server.connection().del(note).unwrap();
    assert_eq!(removed, 1);
    only_new().expect(80);
    run(&stage, &store).args(["--baseline"]).end().expect(0);
    counts(&only_new().expect(0), [0, 0, 100, 0]);
}
