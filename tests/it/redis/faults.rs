//! Whatever fails in between: none missing, none twice, and in the list's order.

use std::collections::BTreeSet;

use bytes::Bytes;
use labelcast::mock::{Chats, Piece, Reply};

use super::{STREAM, holds, kill, run};
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::{Server, chat_ids, length, run_out};
use crate::support::{Numbers, Stage, map_of, part_of, small_list, wait_until};

#[test]
fn killed_at_fifty_moments_and_run_again() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let mut numbers = Numbers(50);
    let (ids, body) = small_list(20_000);
    for _ in 0..50 {
        let stage = Stage::with_body(&body);
        let process = run(&stage, &server.url()).spawn();
        let moment = numbers.below(20_000) as usize;
        wait_until("the moment has come", || {
            length(&mut connection, STREAM) >= moment
        });
        let id = process.id();
        // It may be through already: then there is nothing to kill.
        let _ = std::process::Command::new("kill")
            .args(["-9", &id.to_string()])
            .status();
        process.end();
        run_out(&mut connection);
        let ended = run(&stage, &server.url()).end().expect(0);
        let found = chat_ids(&mut connection, STREAM);
        let label = ended.label();
        if found.len() == 40_000 {
            // The first had come to its end, and the second was a run of its own.
            assert_eq!(label["resumed"], 0);
            assert_eq!(found, [&ids[..], &ids[..]].concat());
        } else {
            holds(&server, &ids);
            let count = |key: &str| label[key].as_u64().unwrap();
            assert_eq!(count("published") + count("resumed"), 20_000, "{label}");
        }
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    }
}

#[test]
fn killed_several_times_in_one_run() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let (ids, body) = small_list(30_000);
    let stage = Stage::with_body(&body);
    for part in 1..=5 {
        let start = Bytes::copy_from_slice(&body.as_bytes()[..body.len() * part / 6]);
        stage
            .mock
            .script("1", Reply::pieces([Piece::Bytes(start), Piece::Hold]));
        let process = run(&stage, &server.url()).spawn();
        wait_until("it has come further", || {
            length(&mut connection, STREAM) > (part - 1) * 5000 + 1000
        });
        kill(process);
        run_out(&mut connection);
    }
    run(&stage, &server.url()).end().expect(0);
    holds(&server, &ids);
}

#[test]
fn cut_at_fifty_places_in_either_direction() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let mut connection = server.connection();
    let mut numbers = Numbers(7);
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    let mut cuts = 0;
    for round in 0..50 {
        let (direction, most) = match round % 2 {
            0 => (Direction::ToServer, 900_000),
            _ => (Direction::ToClient, 900),
        };
        proxy.cut_after(numbers.below(most) as i64, direction);
        let ended = run(&stage, &proxy.url()).end().expect(0);
        cuts += u32::from(!proxy.is_armed());
        proxy.cut_after(-1, direction);
        holds(&server, &ids);
        assert_eq!(ended.label()["published"], 20_000);
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    }
    assert!(cuts > 25, "only {cuts} cuts took place");
}

#[test]
fn a_server_that_is_stopped_and_started_again() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let process = run(&stage, &server.url()).args(["--retries", "20"]).spawn();
    wait_until("it is at it", || {
        length(&mut server.connection(), STREAM) > 2000
    });
    server.kill();
    server.up();
    process.end().expect(0);
    holds(&server, &ids);
}

#[test]
fn a_server_that_is_started_again_empty() {
    let mut server = Server::start(&[]);
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    let busy = Reply::json("busy").status(503).header("retry-after", "4");
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    stage.mock.script("1", busy);
    let process = run(&stage, &server.url()).args(["--retries", "20"]).spawn();
    wait_until("it is at it", || {
        length(&mut server.connection(), STREAM) > 5000
    });
    server.kill();
    server.up();
    let ended = process.end().expect(0);
    holds(&server, &ids);
    let label = ended.label();
    assert_eq!(label["published"], 20_000);
    assert_eq!(label["messages"], 20_000);
    assert!(label["went_back"].as_u64().unwrap() >= 1, "{label}");
}

#[test]
fn a_worker_that_was_away_cannot_write_any_more() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    let process = run(&stage, &server.url()).spawn();
    wait_until("it is at it", || {
        length(&mut server.connection(), STREAM) > 1000
    });
    process.signal("STOP");
    run_out(&mut server.connection());
    run(&stage, &server.url()).end().expect(0);
    holds(&server, &ids);
    process.signal("CONT");
    let ended = process.end();
    assert_eq!(ended.code, Some(81), "{ended:#?}");
    holds(&server, &ids);
}

/// Kills a run, gives it another list, and runs again: the chats of the new list, once each,
/// beside those of the old that are gone.
fn changed(new: impl Fn(Vec<String>) -> Vec<String>, arguments: &[&str]) {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Hold));
    let process = run(&stage, &server.url()).args(arguments).spawn();
    wait_until("it is at it", || length(&mut connection, STREAM) > 0);
    kill(process);
    run_out(&mut connection);
    let before = all_ids(&server);
    let list = new(ids);
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(map_of(&list))));
    let ended = run(&stage, &server.url()).args(arguments).end().expect(0);
    let found = all_ids(&server);
    let unique: BTreeSet<&String> = found.iter().collect();
    assert_eq!(unique.len(), found.len(), "none twice");
    assert!(list.iter().all(|id| unique.contains(id)), "none missing");
    let extra = found.iter().filter(|id| !list.contains(id));
    assert!(extra.into_iter().all(|id| before.contains(id)));
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap();
    if label["list_changed"] == true {
        assert_eq!(count("published") + count("suppressed"), list.len() as u64);
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

#[test]
fn a_list_that_changed_between_a_kill_and_the_next_run() {
    changed(|ids| ids.into_iter().rev().collect(), &[]);
    changed(
        |mut ids| {
            ids.insert(0, "new@c.us".to_owned());
            ids
        },
        &[],
    );
    changed(|ids| ids.into_iter().skip(10).collect(), &[]);
    changed(|ids| ids[..100].to_vec(), &[]);
    changed(
        |mut ids| {
            ids.push("new@c.us".to_owned());
            ids
        },
        &[],
    );
    let packed = ["--ids-per-message", "7"];
    changed(|ids| ids.into_iter().rev().collect(), &packed);
}

#[test]
fn a_changed_list_whose_run_is_killed_once_more() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let half = |text: &str| Bytes::copy_from_slice(&text.as_bytes()[..text.len() / 2]);
    let turned: Vec<String> = ids.iter().rev().cloned().collect();
    let turned_body = map_of(&turned);
    stage
        .mock
        .script("1", Reply::pieces([Piece::Bytes(half(&body)), Piece::Hold]));
    let process = run(&stage, &server.url()).spawn();
    wait_until("it is at it", || length(&mut connection, STREAM) > 2500);
    kill(process);
    run_out(&mut connection);
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(turned_body.clone())));
    // The first fetch shows that the list has changed, and the second is held.
    stage.mock.script("1", Reply::json(turned_body.clone()));
    let most = Bytes::copy_from_slice(&turned_body.as_bytes()[..turned_body.len() * 3 / 10]);
    stage
        .mock
        .script("1", Reply::pieces([Piece::Bytes(most), Piece::Hold]));
    let process = run(&stage, &server.url()).spawn();
    wait_until("it is at it again", || {
        length(&mut connection, STREAM) > 4000
    });
    kill(process);
    run_out(&mut connection);
    run(&stage, &server.url()).end().expect(0);
    let found = chat_ids(&mut connection, STREAM);
    let unique: BTreeSet<&String> = found.iter().collect();
    assert_eq!((found.len(), unique.len()), (6000, 6000));
}

#[test]
fn partitions_go_on_each_from_its_own_place() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let mut numbers = Numbers(3);
    let (ids, body) = small_list(20_000);
    for _ in 0..8 {
        let stage = Stage::with_body(&body);
        let arguments = ["--partitions", "3"];
        let process = run(&stage, &server.url()).args(arguments).spawn();
        let moment = numbers.below(6000) as usize;
        wait_until("the moment has come", || {
            length(&mut connection, "labelcast:1:{1}") >= moment
        });
        let _ = std::process::Command::new("kill")
            .args(["-9", &process.id().to_string()])
            .status();
        process.end();
        run_out(&mut connection);
        run(&stage, &server.url()).args(arguments).end().expect(0);
        let mut found = Vec::new();
        for partition in 0..3 {
            found.extend(chat_ids(
                &mut connection,
                &format!("{STREAM}:{{{partition}}}"),
            ));
        }
        if found.len() == 20_000 {
            found.sort();
            let mut expected = ids.clone();
            expected.sort();
            assert!(found == expected);
        } else {
            assert_eq!(found.len(), 40_000, "two whole runs");
        }
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    }
}
