//! Whatever fails: no chat is missing or published twice, and the order is that of the list.

use std::collections::BTreeSet;

use labelcast::broker::partition_of;

use super::{STREAM, holds, run};
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::{Server, entries, field, kill_run, length};
use crate::support::{Ended, Numbers, Stage, gated, held_after, small_list, wait_until};

#[test]
fn a_run_killed_at_any_moment_loses_and_repeats_nothing() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let mut numbers = Numbers(50);
    let (ids, body) = small_list(10_000);
    let mut kills = 0;
    for round in 0..50 {
        // The number of entries that the run receives. In some rounds these are all entries, and
        // only the closing bracket is missing. The run is killed at an arbitrary moment during
        // these, so never too late.
        let given = match round % 10 {
            0 => ids.len(),
            _ => 1 + numbers.below(10_000) as usize,
        };
        let moment = 1 + numbers.below(given as u64) as usize;
        let stage = Stage::with_body(&body);
        stage.mock.script("1", held_after(&body, given));
        let process = run(&stage, &server.url()).spawn();
        wait_until("the moment to kill has come", || {
            length(&mut connection, STREAM) >= moment
        });
        kill_run(process, &mut connection);
        kills += 1;
        let before = length(&mut connection, STREAM);
        assert!((moment..=given).contains(&before), "{before} of {given}");

        let ended = run(&stage, &server.url()).end().expect(0);
        resumed(&ended, before, ids.len());
        holds_one_run(&server, &ids, &ended);
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    }
    assert_eq!(kills, 50);
}

/// Checks that a run has published exactly the missing chats.
#[track_caller]
fn resumed(ended: &Ended, before: usize, chats: usize) {
    let label = ended.label();
    assert_eq!(label["resumed"], before, "{label}");
    assert_eq!(label["published"], chats - before, "{label}");
    assert_eq!(label.get("list_changed"), None, "{label}");
}

/// Checks that the stream has each chat once, in the order of the list, all under the id of this
/// run.
#[track_caller]
fn holds_one_run(server: &Server, ids: &[String], ended: &Ended) {
    holds_of_run(&mut server.connection(), STREAM, ids, ended);
}

/// Checks that a stream has these chats, once each and in this order, all under the id of this run.
#[track_caller]
fn holds_of_run(connection: &mut redis::Connection, stream: &str, ids: &[String], ended: &Ended) {
    let (found, runs): (Vec<String>, BTreeSet<String>) = entries(connection, stream)
        .iter()
        .map(|entry| ["chat_id", "run_id"].map(|name| field(entry, name).unwrap()))
        .map(Into::into)
        .unzip();
    let at = found.iter().zip(ids).position(|(a, b)| a != b);
    assert_eq!((found.len(), at), (ids.len(), None), "{stream}");
    let run_id = ended.label()["run_id"].as_str().unwrap().to_owned();
    assert_eq!(runs, BTreeSet::from([run_id]), "{stream}");
}

#[test]
fn a_run_killed_several_times_loses_and_repeats_nothing() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let (ids, body) = small_list(30_000);
    let stage = Stage::with_body(&body);
    for part in 1..=5 {
        stage.mock.script("1", held_after(&body, part * 5000));
        let process = run(&stage, &server.url()).spawn();
        wait_until("the run has sent more than the previous one", || {
            length(&mut connection, STREAM) > (part - 1) * 5000 + 1000
        });
        kill_run(process, &mut connection);
    }
    let before = length(&mut connection, STREAM);
    assert!((21_001..=25_000).contains(&before), "{before}");
    let ended = run(&stage, &server.url()).end().expect(0);
    resumed(&ended, before, ids.len());
    holds_one_run(&server, &ids, &ended);
}

#[test]
fn a_connection_cut_anywhere_loses_and_repeats_nothing() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let mut connection = server.connection();
    let mut numbers = Numbers(7);
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    let mut cuts = 0;
    for round in 0..40 {
        // A run sends more than 480,000 bytes and receives more than 1,000, so each cut takes
        // effect.
        let (direction, most) = match round % 2 {
            0 => (Direction::ToServer, 450_000),
            _ => (Direction::ToClient, 900),
        };
        proxy.cut_after(numbers.below(most) as i64, direction);
        let ended = run(&stage, &proxy.url()).end().expect(0);
        assert!(!proxy.is_armed(), "cut {direction:?} in round {round}");
        cuts += 1;
        holds(&server, &ids);
        assert_eq!(ended.label()["published"], 20_000);
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    }
    assert_eq!(cuts, 40);
}

#[test]
fn a_server_restart_loses_and_repeats_nothing() {
    let mut server = Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let process = run(&stage, &server.url()).args(["--retries", "20"]).spawn();
    wait_until("the first half is being published", || {
        length(&mut server.connection(), STREAM) > 2000
    });
    server.kill();
    server.up();
    gate.cancel();
    let ended = process.end().expect(0);
    resumed(&ended, 0, ids.len());
    holds_one_run(&server, &ids, &ended);
}

#[test]
fn a_server_restarted_without_data_gets_the_whole_list() {
    let mut server = Server::start(&[]);
    let (ids, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let process = run(&stage, &server.url()).args(["--retries", "20"]).spawn();
    wait_until("the first half is being published", || {
        length(&mut server.connection(), STREAM) > 5000
    });
    server.kill();
    server.up();
    gate.cancel();
    let ended = process.end().expect(0);
    holds_one_run(&server, &ids, &ended);
    let label = ended.label();
    assert_eq!(label["published"], 20_000);
    assert_eq!(label["messages"], 20_000);
    assert!(label["rewinds"].as_u64().unwrap() >= 1, "{label}");
}

#[test]
fn each_partition_resumes_at_its_own_position() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let mut numbers = Numbers(3);
    let (ids, body) = small_list(10_000);
    let streams = [0, 1, 2].map(|partition| format!("{STREAM}:{{{partition}}}"));
    let of_partition = |ids: &[String], partition| -> Vec<String> {
        let is_there = |id: &&String| partition_of(id.as_bytes(), 3) == partition;
        ids.iter().filter(is_there).cloned().collect()
    };
    let arguments = ["--partitions", "3"];
    let mut kills = 0;
    for round in 0..8 {
        let given = match round % 4 {
            0 => ids.len(),
            _ => 1000 + numbers.below(9000) as usize,
        };
        let in_the_middle = of_partition(&ids[..given], 1).len();
        let moment = 1 + numbers.below(in_the_middle as u64) as usize;
        let stage = Stage::with_body(&body);
        stage.mock.script("1", held_after(&body, given));
        let process = run(&stage, &server.url()).args(arguments).spawn();
        wait_until("the moment to kill has come", || {
            length(&mut connection, &streams[1]) >= moment
        });
        kill_run(process, &mut connection);
        kills += 1;
        let lengths = streams.iter().map(|stream| length(&mut connection, stream));
        let before = lengths.sum::<usize>();
        assert!((moment..=given).contains(&before), "{before} of {given}");

        let ended = run(&stage, &server.url()).args(arguments).end().expect(0);
        resumed(&ended, before, ids.len());
        for (partition, stream) in streams.iter().enumerate() {
            let expected = of_partition(&ids, partition);
            holds_of_run(&mut connection, stream, &expected, &ended);
        }
        redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    }
    assert_eq!(kills, 8);
}
