//! A list that changes during a run: each chat of the new list is published, and none twice.

use std::collections::BTreeSet;

use bytes::Bytes;
use labelcast::mock::{Chats, Piece, Reply};
use redis::Commands;

use super::{STREAM, delete, run};
use crate::support::redis::{Server, chat_ids, expire_locks, kill_run, length};
use crate::support::{Stage, gated_whole, held_after, map_of, part_of, small_list, wait_until};

/// The number of chats on the stream when a run is killed.
const BEFORE: usize = 3003;

/// The counts that the run after a kill reports.
#[derive(Debug, PartialEq)]
struct Reported {
    list_changed: bool,
    published: usize,
    resumed: usize,
    suppressed: usize,
}

/// Kills a run that has [`BEFORE`] chats on the stream, changes the list, and runs again. The
/// stream must then have the chats of the new list, once each, beside the chats of the old list
/// that were there before. Returns the counts of the second run.
fn changed(new: impl Fn(Vec<String>) -> Vec<String>, ids_per_message: usize) -> Reported {
    let arguments = ["--ids-per-message", &ids_per_message.to_string()];
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", held_after(&body, BEFORE));
    let process = run(&stage, &server.url()).args(arguments).spawn();
    wait_until("all received chats are published", || {
        length(&mut connection, STREAM) == BEFORE / ids_per_message
    });
    kill_run(process, &mut connection);
    let before = all_ids(&server);
    assert_eq!(before, ids[..BEFORE]);
    let list = new(ids);
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(map_of(&list))));
    let ended = run(&stage, &server.url()).args(arguments).end().expect(0);

    let is_new = |id: &&String| !before.contains(id);
    let expected = [
        before.clone(),
        list.iter().filter(is_new).cloned().collect(),
    ]
    .concat();
    let found = all_ids(&server);
    let at = found.iter().zip(&expected).position(|(a, b)| a != b);
    assert_eq!((found.len(), at), (expected.len(), None));
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap() as usize;
    Reported {
        list_changed: label.get("list_changed").is_some_and(|value| value == true),
        published: count("published"),
        resumed: count("resumed"),
        suppressed: label.get("suppressed").map_or(0, |_| count("suppressed")),
    }
}

/// The list was published again, except for `suppressed` chats that were already there.
fn again(published: usize, suppressed: usize) -> Reported {
    Reported {
        list_changed: true,
        published,
        resumed: 0,
        suppressed,
    }
}

/// The run was resumed at [`BEFORE`].
fn resumed(published: usize) -> Reported {
    Reported {
        list_changed: false,
        published,
        resumed: BEFORE,
        suppressed: 0,
    }
}

fn all_ids(server: &Server) -> Vec<String> {
    let entries = crate::support::redis::entries(&mut server.connection(), STREAM);
    let field = |entry, name| crate::support::redis::field(entry, name);
    entries
        .iter()
        .flat_map(|entry| match field(entry, "chat_id") {
            Some(id) => vec![id],
            None => serde_json::from_str(&field(entry, "chat_ids").unwrap()).unwrap(),
        })
        .collect()
}

fn with_new(mut ids: Vec<String>, at: usize) -> Vec<String> {
    ids.insert(at, "new@c.us".to_owned());
    ids
}

fn reversed(ids: Vec<String>) -> Vec<String> {
    ids.into_iter().rev().collect()
}

#[test]
fn a_list_that_changed_before_the_kill_position_is_published_again() {
    let rest = 6000 - BEFORE;
    assert_eq!(changed(reversed, 1), again(rest, BEFORE));
    assert_eq!(changed(reversed, 7), again(rest, BEFORE));
    for at in [0, BEFORE - 1] {
        let found = changed(|ids| with_new(ids, at), 1);
        assert_eq!(found, again(rest + 1, BEFORE), "new at {at}");
    }
    let without_ten = |ids: Vec<String>| ids[10..].to_vec();
    assert_eq!(changed(without_ten, 1), again(rest, BEFORE - 10));
    for chats in [100, BEFORE - 1] {
        let shorter = |ids: Vec<String>| ids[..chats].to_vec();
        assert_eq!(changed(shorter, 1), again(0, chats), "of {chats} chats");
    }
}

#[test]
fn a_list_that_changed_after_the_kill_position_is_resumed() {
    let rest = 6000 - BEFORE;
    for at in [BEFORE, 6000] {
        let found = changed(|ids| with_new(ids, at), 1);
        assert_eq!(found, resumed(rest + 1), "new at {at}");
    }
    assert_eq!(changed(|ids| with_new(ids, BEFORE), 7), resumed(rest + 1));
    let shorter = |ids: Vec<String>| ids[..BEFORE].to_vec();
    assert_eq!(changed(shorter, 1), resumed(0));
}

#[test]
fn a_second_kill_of_a_changed_list_publishes_nothing_twice() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let turned: Vec<String> = ids.iter().rev().cloned().collect();
    let turned_body = map_of(&turned);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Hold));
    let process = run(&stage, &server.url()).spawn();
    wait_until("the run is publishing", || {
        length(&mut connection, STREAM) > 2500
    });
    process.kill();
    expire_locks(&mut connection);
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(turned_body.clone())));
    // The first fetch shows that the list has changed, and the second is held.
    stage.mock.script("1", Reply::json(turned_body.clone()));
    stage
        .mock
        .script("1", part_of(&turned_body, 0.3, Piece::Hold));
    let process = run(&stage, &server.url()).spawn();
    wait_until("the run is publishing again", || {
        length(&mut connection, STREAM) > 4000
    });
    process.kill();
    expire_locks(&mut connection);
    run(&stage, &server.url()).end().expect(0);
    let found = chat_ids(&mut connection, STREAM);
    let unique: BTreeSet<&String> = found.iter().collect();
    assert_eq!((found.len(), unique.len()), (6000, 6000));
}

#[test]
fn a_lost_set_of_published_chats_is_rebuilt() {
    with_a_set_that_is_lost(|server, _| delete(server, "labelcast:seen:*"));
}

#[test]
fn a_set_of_published_chats_from_another_pass_is_rebuilt() {
    with_a_set_that_is_lost(|server, ids| {
        // A set with all chats, which would skip all of them.
        let mut connection = server.connection();
        let key: Vec<String> = connection.keys("labelcast:seen:*").unwrap();
        let token = format!(":{}", uuid::Uuid::now_v7());
        let _: () = connection.del(&key).unwrap();
        let _: () = connection.sadd(&key[0], ids).unwrap();
        let whole = [token.clone(), format!("{token}:whole"), String::new()];
        let _: () = connection.sadd(&key[0], &whole).unwrap();
    });
}

/// Publishes a changed list and modifies the set of published chats meanwhile.
fn with_a_set_that_is_lost(lose: impl Fn(&Server, &[String])) {
    let server = Server::start(&[]);
    let (ids, body) = small_list(10_000);
    let stage = Stage::with_body(&body);
    let turned: Vec<String> = ids.iter().rev().cloned().collect();
    let turned = map_of(&turned);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    stage.mock.script("1", Reply::json(turned.clone()));
    stage.mock.script("1", part_of(&turned, 0.2, Piece::Cut));
    let (whole, gate) = gated_whole(&turned);
    stage.mock.script("1", whole);
    let process = run(&stage, &server.url()).spawn();
    wait_until("the run waits", || stage.mock.requests().len() >= 5);
    lose(&server, &ids);
    gate.cancel();
    let ended = process.end().expect(0);
    assert_eq!(ended.label()["list_changed"], true);
    let mut found = chat_ids(&mut server.connection(), STREAM);
    let mut ids = ids;
    found.sort();
    ids.sort();
    assert!(found == ids, "{} entries", found.len());
}

#[test]
fn published_chats_are_read_back_in_small_parts() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let (mut ids, body) = small_list(300_000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.9, Piece::Hold));
    let packed = ["--ids-per-message", "10000"];
    let process = run(&stage, &server.url()).args(packed).spawn();
    wait_until("most of the list is published", || {
        length(&mut connection, STREAM) >= 26
    });
    let before = process.peak_memory();
    process.kill();
    expire_locks(&mut connection);
    ids.truncate(10);
    ids.reverse();
    let changed = map_of(&ids);
    stage.mock.script("1", Reply::json(changed.clone()));
    stage.mock.script("1", part_of(&changed, 0.9, Piece::Hold));
    let process = run(&stage, &server.url()).spawn();
    wait_until("the chats were read back", || {
        stage.mock.requests().len() >= 5
    });
    let after = process.peak_memory();
    process.signal("TERM");
    let ended = process.end().expect(75);
    assert_eq!(ended.label()["list_changed"], true);
    assert!(after < before + 4096, "{after} KiB, {before} before");
}
