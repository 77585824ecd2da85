//! One run at a time: which run may write.

use redis::Commands;

use super::{half_way, holds, run};
use crate::support::redis::{Server, expire_locks, keep_locks};
use crate::support::{Process, Stage, small_list, wait_until};

#[test]
fn a_suspended_worker_cannot_write_after_a_takeover() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    let (process, gate) = half_way(&stage, &server, &body);
    process.signal("STOP");
    expire_locks(&mut server.connection());
    run(&stage, &server.url()).end().expect(0);
    holds(&server, &ids);
    process.signal("CONT");
    gate.cancel();
    process.end().expect(81);
    holds(&server, &ids);
}

/// A second run that has found the lock taken by the first and has seen no heartbeat since. Both
/// are stopped by SIGSTOP when this returns, and the lock does not expire.
fn waiting_second_run(stage: &Stage, server: &Server, first: &Process) -> Process {
    let mut connection = server.connection();
    first.signal("STOP");
    keep_locks(&mut connection);
    let second = run(stage, &server.url()).spawn();
    wait_until("the run has found the lock", || {
        has_checked_locks(&mut connection)
    });
    second.signal("STOP");
    second
}

/// Returns whether a script of another process has read how long a lock still holds.
fn has_checked_locks(connection: &mut redis::Connection) -> bool {
    let info: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(connection)
        .unwrap();
    info.contains("cmdstat_pttl")
}

#[test]
fn a_second_run_does_not_resume_a_run_that_was_alive() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let (first, gate) = half_way(&stage, &server, &body);
    let second = waiting_second_run(&stage, &server, &first);
    gate.cancel();
    first.signal("CONT");
    first.end().expect(0);
    // The lock is free when the second run checks again.
    second.signal("CONT");
    let second = second.end().expect(81);
    assert_eq!(second.label()["published"], 0);
    holds(&server, &ids);
}

#[test]
fn a_second_run_resumes_a_first_run_without_a_heartbeat() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let (first, _gate) = half_way(&stage, &server, &body);
    let second = waiting_second_run(&stage, &server, &first);
    first.signal("TERM");
    first.signal("CONT");
    let first = first.end().expect(75);
    // The lock is free when the second run checks again.
    second.signal("CONT");
    let second = second.end().expect(0);
    let (first, second) = (first.label(), second.label());
    assert_eq!(second["run_id"], first["run_id"]);
    assert_eq!(second["resumed"], first["published"]);
    holds(&server, &ids);
}

#[test]
fn a_second_run_ends_when_the_first_sends_a_heartbeat() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let (first, _gate) = half_way(&stage, &server, &body);
    // The run waits for the rest of its list until it is told to stop, so only a heartbeat can
    // reveal it.
    let second = run(&stage, &server.url()).end().expect(81);
    assert_eq!(second.label()["published"], 0);
    first.signal("TERM");
    let first = first.end().expect(75);
    let third = run(&stage, &server.url()).end().expect(0);
    assert_eq!(third.label()["run_id"], first.label()["run_id"]);
    assert_eq!(third.label()["resumed"], first.label()["published"]);
    holds(&server, &ids);
}

#[test]
fn a_lock_that_never_expires_is_not_taken_over() {
    let server = Server::start(&[]);
    let (_, body) = small_list(10);
    let stage = Stage::with_body(&body);
    run(&stage, &server.url()).end().expect(0);
    let mut connection = server.connection();
    let checkpoint: Vec<String> = connection.keys("labelcast:checkpoint:*").unwrap();
    let lock = checkpoint[0].replace(":checkpoint:", ":lock:");
    let _: () = connection.set(&lock, "somebody").unwrap();
    run(&stage, &server.url()).end().expect(81);
    expire_locks(&mut connection);
    run(&stage, &server.url()).end().expect(0);
}
