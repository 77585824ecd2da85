//! A queue and label that a run holds is left alone.

use labelcast::mock::Chats;
use redis::Commands as _;
use serde_json::json;

use super::redis::{STREAM, dump};
use super::{purge, said};
use crate::support::redis::{Server, length};
use crate::support::{Process, Stage, gated, small_list, wait_until};

const ALL: [&str; 2] = ["--older-than", "0s"];
const LOCK: &str = "labelcast:lock:{labelcast:1}:labelcast:1:inst-1:1";

/// A run that waits for the rest of its list, and the reply that ends it.
fn waiting(stage: &Stage, server: &Server, arguments: &[&str]) -> Process {
    let (_, body) = small_list(1000);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    // Kept open until the stage is dropped.
    std::mem::forget(gate);
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &server.url()]);
    let process = run.args(arguments).spawn();
    let mut connection = server.connection();
    wait_until("the run holds its lock", || {
        !connection
            .keys::<_, Vec<String>>("labelcast:lock:*")
            .unwrap()
            .is_empty()
    });
    process
}

#[test]
fn a_label_that_a_run_holds_is_left_alone() {
    for (of_run, of_purge) in [
        (vec![], vec!["--label", "1"]),
        (vec![], vec!["--label", "1", "--dry-run"]),
        (vec!["--queue", "q"], vec!["--queue", "q"]),
        (
            vec!["--partitions", "2"],
            vec!["--partitions", "2", "--label", "1"],
        ),
    ] {
        let (server, stage) = (Server::start(&[]), Stage::with_chats(1));
        let process = waiting(&stage, &server, &of_run);
        let ended = purge(&server.url())
            .args(ALL)
            .args(&of_purge)
            .end()
            .expect(81);
        assert_eq!(said(&ended), json!({}), "{of_purge:?}");
        process.signal("TERM");
        process.end().expect(75);
        let resumed = stage
            .program("run")
            .args(["--label", "1", "--sink", &server.url()]);
        resumed.args(&of_run).end().expect(0);
    }
}

#[test]
fn the_run_of_another_account_holds_a_whole_queue() {
    let server = Server::start(&[]);
    let (_, body) = small_list(10);
    let stage = Stage::with_account("inst-2", &body);
    let process = waiting(&stage, &server, &["--queue", "q"]);
    let ended = purge(&server.url())
        .args(ALL)
        .args(["--queue", "q"])
        .end()
        .expect(81);
    assert_eq!(said(&ended), json!({}));
    process.signal("TERM");
    process.end().expect(75);
}

#[test]
fn other_labels_are_purged_nevertheless() {
    let server = Server::start(&[]);
    let stage = Stage::with_labels(vec![
        ("1", Chats::Generated(5)),
        ("2", Chats::Generated(6)),
        ("3", Chats::Generated(7)),
    ]);
    let run = stage
        .program("run")
        .args(["--label", "2,3", "--sink", &server.url()]);
    run.end().expect(0);
    let process = waiting(&stage, &server, &[]);
    let purge = purge(&server.url()).args(ALL).args(["--label", "2,1,3"]);
    let ended = purge.end().expect(81);
    assert_eq!(said(&ended)["messages"], 13);
    assert!(ended.stderr.contains("labelcast:1"), "{}", ended.stderr);
    process.signal("KILL");
}

#[test]
fn the_lock_of_a_dead_run_expires() {
    let (server, stage) = (Server::start(&[]), Stage::with_chats(10));
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &server.url()]);
    run.end().expect(0);
    let mut connection = server.connection();
    for more in [&["--dry-run"][..], &[]] {
        let _: () = connection.pset_ex(LOCK, "dead", 1200).unwrap();
        let ended = purge(&server.url())
            .args(ALL)
            .args(["--label", "1"])
            .args(more);
        assert_eq!(said(&ended.end().expect(0))["messages"], 10);
    }
    assert_eq!(length(&mut connection, STREAM), 0);
}

/// A purge that was stopped by SIGSTOP while it deletes.
fn half_way(server: &Server) -> Process {
    let mut connection = server.connection();
    let fill = "for i = 1, 100000 do
        redis.call('XADD', KEYS[1], '*', 'chat_id', i .. '@c.us', 'label_id', '1', 'run_id', 'r')
      end";
    let fill = redis::cmd("EVAL")
        .arg(&[fill, "1", STREAM])
        .exec(&mut connection);
    fill.unwrap();
    let process = purge(&server.url())
        .args(ALL)
        .args(["--label", "1"])
        .spawn();
    wait_until("entries are deleted", || {
        length(&mut connection, STREAM) < 100_000
    });
    process.signal("STOP");
    let left = length(&mut connection, STREAM);
    assert!(left > 0, "it was stopped before the end");
    let holder: String = connection.get(LOCK).unwrap();
    assert!(holder.starts_with("purge:"), "{holder}");
    process
}

#[test]
fn a_purge_holds_the_lock_while_it_deletes() {
    let server = Server::start(&[]);
    let process = half_way(&server);
    process.signal("CONT");
    assert_eq!(said(&process.end().expect(0)), json!({"messages": 100_000}));
    let left: Vec<String> = dump(&mut server.connection()).into_keys().collect();
    assert_eq!(left, [STREAM], "the lock is released");
}

#[test]
fn a_purge_that_has_lost_its_lock_stops() {
    let server = Server::start(&[]);
    let process = half_way(&server);
    let mut connection = server.connection();
    let _: () = connection.pset_ex(LOCK, "a run", 60_000).unwrap();
    // After this time the lock is renewed before the next page.
    std::thread::sleep(std::time::Duration::from_millis(2600));
    process.signal("CONT");
    let ended = process.end().expect(81);
    assert!(said(&ended)["messages"].as_u64() < Some(100_000));
    assert!(length(&mut connection, STREAM) > 0);
    let holder: String = connection.get(LOCK).unwrap();
    assert_eq!(holder, "a run");
}

#[test]
fn a_run_takes_over_the_lock_of_a_purge_that_was_killed() {
    let (server, stage) = (Server::start(&[]), Stage::with_chats(10));
    let process = half_way(&server);
    process.signal("KILL");
    drop(process);
    let mut connection = server.connection();
    let _: () = connection.pexpire(LOCK, 700).unwrap();
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &server.url()]);
    run.end().expect(0);
    let ended = purge(&server.url()).args(ALL).args(["--label", "1"]).end();
    assert!(said(&ended.expect(0))["messages"].as_u64() > Some(10));
}
