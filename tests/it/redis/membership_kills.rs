//! Members through kills, lost replies and takeovers: each chat joins and leaves in turns.

use std::collections::{BTreeMap, BTreeSet};

use super::membership::{REMOVED, counts, members, only_new, set_list, set_of};
use super::{STREAM, kill_somewhere, run};
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::{Server, expire_locks, field, length, numbered_entries};
use crate::support::{Numbers, Stage, gated_after, held_after, map_of, small_list, wait_until};

/// What the streams say about each chat, in order: that it joined, or that it left.
fn history(server: &Server, streams: &[(&str, bool)]) -> BTreeMap<String, Vec<bool>> {
    let mut all = Vec::new();
    for (stream, joined) in streams {
        for (id, entry) in numbered_entries(&mut server.connection(), stream) {
            let (at, number) = id.split_once('-').unwrap();
            let id: (u64, u64) = (at.parse().unwrap(), number.parse().unwrap());
            all.push((id, field(&entry, "chat_id").unwrap(), *joined));
        }
    }
    all.sort();
    let mut history: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for (_, chat, joined) in all {
        history.entry(chat).or_default().push(joined);
    }
    history
}

/// Checks that each chat was told to have joined and left in turns, and that those in the last list
/// joined last.
#[track_caller]
fn adds_up(history: &BTreeMap<String, Vec<bool>>, list: &[String]) {
    for (chat, turns) in history {
        let in_turns = turns
            .iter()
            .enumerate()
            .all(|(k, joined)| *joined == (k % 2 == 0));
        assert!(in_turns, "{turns:?}");
        assert_eq!(*turns.last().unwrap(), list.contains(chat), "{turns:?}");
    }
    assert!(list.iter().all(|chat| history.contains_key(chat)));
}

/// Kills runs at random points, each with another part of the chats in another order. Returns the
/// last list, whose run was whole.
fn kills_and_changes(server: &Server, stage: &Stage, more: &[&str]) -> Vec<String> {
    let mut numbers = Numbers(7);
    let (all, _) = small_list(3000);
    let mut connection = server.connection();
    let with = || {
        let run = only_new(stage, server).args(["--removed", "--max-change", "100"]);
        run.args(more)
    };
    for round in 0..50 {
        let start = numbers.below(1500) as usize;
        let mut list = all[start..start + 1500].to_vec();
        if numbers.below(2) == 0 {
            list.reverse();
        }
        set_list(stage, &list);
        if round % 4 == 3 {
            with().end().expect(0);
            continue;
        }
        let cut = 1 + numbers.below(1499) as usize;
        stage.mock.script("1", held_after(&map_of(&list), cut));
        kill_somewhere(stage, with(), &mut numbers, &mut connection);
    }
    let list = all[700..2200].to_vec();
    set_list(stage, &list);
    with().end().expect(0);
    list
}

#[test]
fn whatever_kills_and_changes_there_are_each_chat_joins_and_leaves_in_turns() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(1);
    let list = kills_and_changes(&server, &stage, &[]);
    let history = history(&server, &[(STREAM, true), (REMOVED, false)]);
    adds_up(&history, &list);
    assert!(
        history.values().any(|turns| turns.len() > 3),
        "no chat came back"
    );
    assert_eq!(members(&server), set_of(&list));
}

#[test]
fn partitions_have_their_own_members_through_kills_and_changes() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(1);
    let list = kills_and_changes(&server, &stage, &["--partitions", "3"]);
    let streams = [
        ("labelcast:1:{0}", true),
        ("labelcast:1:{1}", true),
        ("labelcast:1:{2}", true),
        ("labelcast:1:{0}:removed", false),
        ("labelcast:1:{1}:removed", false),
        ("labelcast:1:{2}:removed", false),
    ];
    adds_up(&history(&server, &streams), &list);
}

#[test]
fn lost_replies_change_neither_what_is_published_nor_the_counts() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let (all, _) = small_list(12_000);
    let stage = Stage::with_chats(1);
    let mut numbers = Numbers(3);
    let mut before: BTreeSet<String> = BTreeSet::new();
    for round in 1..=12 {
        let list = &all[round * 100..8000 + round * 150];
        set_list(&stage, list);
        proxy.cut_after(numbers.below(1500) as i64, Direction::ToClient);
        let with = run(&stage, &proxy.url()).args(["--only-new", "--removed"]);
        let ended = with.end().expect(0);
        assert!(!proxy.is_armed(), "the connection was cut");
        let now = set_of(list);
        let new = now.difference(&before).count();
        counts(
            &ended,
            new,
            list.len() - new,
            before.difference(&now).count(),
        );
        before = now;
        assert_eq!(members(&server), before);
    }
    adds_up(
        &history(&server, &[(STREAM, true), (REMOVED, false)]),
        &before.into_iter().collect::<Vec<_>>(),
    );
}

#[test]
fn of_two_workers_one_publishes_and_a_suspended_one_cannot_write() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(map_of(&ids[..1000]));
    only_new(&stage, &server).end().expect(0);
    let (reply, gate) = gated_after(&body, 2000);
    stage.mock.script("1", reply);
    let with = || only_new(&stage, &server).args(["--removed"]);
    let first = with().spawn();
    let mut connection = server.connection();
    wait_until("new chats are published", || {
        length(&mut connection, STREAM) > 1500
    });
    let second = with().end().expect(81);
    assert_eq!(second.label()["published"], 0);
    first.signal("STOP");
    expire_locks(&mut connection);
    set_list(&stage, &ids[500..]);
    // The other chats that are new were published by the suspended one.
    let ended = with().end().expect(0);
    counts(&ended, 1000, 500, 500);
    assert_eq!(ended.label()["suppressed"], 1000);
    first.signal("CONT");
    gate.cancel();
    first.end().expect(81);
    assert_eq!(members(&server), set_of(&ids[500..]));
    adds_up(
        &history(&server, &[(STREAM, true), (REMOVED, false)]),
        &ids[500..],
    );
}
