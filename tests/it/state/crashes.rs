//! Kills at random points lose no chat, and leave a state that opens again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use labelcast::mock::{Piece, Reply, Request};

use super::{Store, adds_up, counts, run, set_list, set_of};
use crate::support::{Numbers, Process, Running, Stage, map_of, small_list, wait_until};

/// How often each chat was published, by the run that did it.
fn published(stage: &Stage) -> BTreeMap<(String, String), usize> {
    let mut times = BTreeMap::new();
    for message in stage.messages() {
        let text = |key: &str| message[key].as_str().unwrap().to_owned();
        *times.entry((text("chat_id"), text("run_id"))).or_default() += 1;
    }
    times
}

fn is_whole(store: &Store) {
    let database = store.database();
    let check: String = database
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
}

/// Chats that the state knows to be published. There may be no table yet.
fn recorded(store: &Store) -> BTreeSet<String> {
    let database = store.database();
    let select = "SELECT chat_id FROM members_1 WHERE published > 0";
    let Ok(mut select) = database.prepare(select) else {
        return BTreeSet::new();
    };
    let ids = select.query_map([], |row| row.get(0)).unwrap();
    ids.map(Result::unwrap).collect()
}

/// Chats in the whole lines of the file. A killed run may have left half a line.
fn whole_lines(stage: &Stage) -> Vec<String> {
    let text = std::fs::read_to_string(stage.out()).unwrap_or_default();
    let lines = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    let id = |line: &str| {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        message["chat_id"].as_str().unwrap().to_owned()
    };
    lines.map(id).collect()
}

/// Checks what a run has added to these lines, of which it may have cut off some that had no
/// checkpoint: each chat once, and none that was recorded before. So all that a kill can repeat is
/// what was in hand.
#[track_caller]
fn repeats_only_what_was_in_hand(stage: &Stage, before: &[String], recorded: &BTreeSet<String>) {
    let after = whole_lines(stage);
    let same = before
        .iter()
        .zip(&after)
        .take_while(|(old, new)| old == new);
    let added = &after[same.count()..];
    let ids = set_of(added);
    assert_eq!(ids.len(), added.len(), "a run repeats its own chats");
    let again = ids.intersection(recorded).count();
    assert_eq!(again, 0, "chats that were recorded came again");
}

/// Sends a list in pieces, so that a run has always something in hand, and never its end.
fn endless(ids: &[String]) -> Reply {
    let body = map_of(ids);
    let pieces = body.as_bytes().chunks(3000);
    let pieces = pieces.map(|piece| Piece::Bytes(Bytes::copy_from_slice(piece)));
    let mut pieces: Vec<Piece> = pieces.collect();
    pieces.pop();
    pieces.push(Piece::Hold);
    Reply::pieces(pieces)
}

/// Chats that a run of this list surely publishes before the end that never comes: [`endless`] keeps
/// back less than 100 chats. Lines cannot be counted instead, since a run cuts off those that had no
/// checkpoint.
fn unseen(list: &[String], lines: &[String], recorded: &BTreeSet<String>) -> BTreeSet<String> {
    let sent = set_of(&list[..list.len() - 100]);
    let seen = &set_of(lines) | recorded;
    &sent - &seen
}

/// Starts a run, and waits until it has requested the list.
fn requesting(stage: &Stage, run: Running) -> Process {
    let requests = || {
        let requests = stage.mock.requests();
        let of_chats = |it: &&Request| it.path.ends_with("/chats");
        requests.iter().filter(of_chats).count()
    };
    let before = requests();
    let process = run.spawn();
    wait_until("the list is requested", || requests() > before);
    process
}

#[test]
fn kills_at_random_points_lose_no_chat_and_repeat_none() {
    let store = Store::file();
    let mut numbers = Numbers(5);
    let (all, _) = small_list(9000);
    let stage = Stage::with_body(map_of(&all));
    let only_new = || run(&stage, &store).args(["--only-new"]);
    let mut listed = 0;
    let mut kills = 0;
    for round in 0..30 {
        // The label grows; in most rounds the list is the one before with more at its end.
        listed = (listed + numbers.below(600) as usize).min(all.len());
        set_list(&stage, &all[..listed]);
        if round % 7 == 6 {
            adds_up(&only_new().end().expect(0));
            continue;
        }
        stage.mock.script("1", endless(&all[..listed]));
        let requests = || {
            let requests = stage.mock.requests();
            requests
                .iter()
                .filter(|it| it.path.ends_with("/chats"))
                .count()
        };
        let before = requests();
        let process = only_new().spawn();
        wait_until("the list is requested", || requests() > before);
        std::thread::sleep(std::time::Duration::from_micros(numbers.below(60_000)));
        process.kill();
        kills += 1;
        is_whole(&store);
    }
    assert!(kills > 20);
    set_list(&stage, &all);
    adds_up(&only_new().end().expect(0));
    counts(&only_new().end().expect(0), [0, 0, all.len(), 0]);
    is_whole(&store);
    let times = published(&stage);
    let found: BTreeSet<String> = times.keys().map(|(id, _)| id.clone()).collect();
    assert_eq!(found, set_of(&all));
    let most = times.values().max();
    assert_eq!(
        (times.len(), most),
        (all.len(), Some(&1)),
        "chats came twice"
    );
    assert_eq!(store.members(), set_of(&all));
}

#[test]
fn kills_with_changed_lists_lose_no_chat_and_repeat_messages_only() {
    let store = Store::file();
    let mut numbers = Numbers(9);
    let (all, _) = small_list(4000);
    let stage = Stage::with_body(map_of(&all));
    let only_new = || run(&stage, &store).args(["--only-new", "--max-change", "100"]);
    for round in 0..25 {
        let start = numbers.below(1000) as usize;
        let mut list = all[start..start + 3000].to_vec();
        if round % 2 == 1 {
            list.reverse();
        }
        stage.mock.script("1", endless(&list));
        let (before, known) = (whole_lines(&stage), recorded(&store));
        let unseen = unseen(&list, &before, &known);
        let process = requesting(&stage, only_new());
        if round % 3 > 0 && !unseen.is_empty() {
            let publishes = || !set_of(&whole_lines(&stage)).is_disjoint(&unseen);
            wait_until("the run publishes a chat that no run published", publishes);
        }
        std::thread::sleep(std::time::Duration::from_micros(numbers.below(30_000)));
        process.kill();
        is_whole(&store);
        repeats_only_what_was_in_hand(&stage, &before, &known);
    }
    set_list(&stage, &all);
    let (before, known) = (whole_lines(&stage), recorded(&store));
    let ended = only_new().end().expect(0);
    assert_eq!(ended.label()["read"], all.len());
    repeats_only_what_was_in_hand(&stage, &before, &known);
    counts(&only_new().end().expect(0), [0, 0, all.len(), 0]);
    let times = published(&stage);
    let found: BTreeSet<String> = times.keys().map(|(id, _)| id.clone()).collect();
    assert_eq!(found, set_of(&all));
    // What was decided about a list says nothing about a changed one, so chats that were in hand
    // when their run was killed may come again, but as the same messages.
    assert_eq!(times.len(), all.len(), "chats came with other ids");
}
