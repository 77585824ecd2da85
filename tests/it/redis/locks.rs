//! One at a time: who may write, and who may not any more.

use redis::Commands;

use super::{half_way, holds, run};
use crate::support::redis::{Server, run_out};
use crate::support::{Process, Stage, small_list, wait_until};

#[test]
fn a_worker_that_was_away_cannot_write_any_more() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    let (process, gate) = half_way(&stage, &server, &body);
    process.signal("STOP");
    run_out(&mut server.connection());
    run(&stage, &server.url()).end().expect(0);
    holds(&server, &ids);
    process.signal("CONT");
    gate.cancel();
    process.end().expect(81);
    holds(&server, &ids);
}

/// A second run, which has met the lock of the first.
fn behind(stage: &Stage, server: &Server) -> Process {
    let mut connection = server.connection();
    let second = run(stage, &server.url()).spawn();
    wait_until("it has met the lock", || looks_at_locks(&mut connection));
    second
}

/// Whether a script has looked at how long a lock still holds: that of another process.
fn looks_at_locks(connection: &mut redis::Connection) -> bool {
    let info: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(connection)
        .unwrap();
    info.contains("cmdstat_pttl")
}

#[test]
fn a_second_run_does_not_follow_on_the_first_that_was_alive() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let (first, gate) = half_way(&stage, &server, &body);
    let second = behind(&stage, &server);
    gate.cancel();
    first.end().expect(0);
    let second = second.end().expect(81);
    assert_eq!(second.label()["published"], 0);
    holds(&server, &ids);
}

#[test]
fn a_second_run_goes_on_where_the_first_stopped_while_it_waited() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let (first, _gate) = half_way(&stage, &server, &body);
    let second = behind(&stage, &server);
    first.signal("TERM");
    let first = first.end().expect(75);
    let second = second.end();
    // Where the first had time for another heartbeat, the second has seen that it lives.
    assert!(matches!(second.code, Some(0 | 81)), "{second:?}");
    if second.code == Some(81) {
        run(&stage, &server.url()).end().expect(0);
    } else {
        assert_eq!(second.label()["run_id"], first.label()["run_id"]);
    }
    holds(&server, &ids);
}

#[test]
fn a_lock_that_never_runs_out_is_another_s() {
    let server = Server::start(&[]);
    let (_, body) = small_list(10);
    let stage = Stage::with_body(&body);
    run(&stage, &server.url()).end().expect(0);
    let mut connection = server.connection();
    let checkpoint: Vec<String> = connection.keys("labelcast:checkpoint:*").unwrap();
    let lock = checkpoint[0].replace(":checkpoint:", ":lock:");
    let _: () = connection.set(&lock, "somebody").unwrap();
    run(&stage, &server.url()).end().expect(81);
    run_out(&mut connection);
    run(&stage, &server.url()).end().expect(0);
}
