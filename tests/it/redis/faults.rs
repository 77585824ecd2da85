//! Whatever fails in between: none missing, none twice, and in the list's order.

use bytes::Bytes;
use labelcast::mock::{Piece, Reply};

use super::{STREAM, holds, run};
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::{Server, chat_ids, length, run_out};
use crate::support::{Numbers, Stage, part_of, small_list, wait_until};

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
        process.kill();
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
