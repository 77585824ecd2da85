//! Lost keys beside the stream, and a lost stream: no chat is missing, and none is published twice.

use bytes::Bytes;
use labelcast::mock::{Chats, Piece, Reply};
use redis::Commands;
use tokio_util::sync::CancellationToken;

use super::{STREAM, delete, half_way, holds, run};
use crate::support::redis::{Server, chat_ids, entries, field, length};
use crate::support::{Stage, gated, gated_whole, map_of, part_of, small_list, wait_until};

/// Scripts the first half of a body, and at the next attempt the whole body when the token is
/// cancelled.
fn interrupted(body: &str) -> (Stage, CancellationToken) {
    interrupted_at(body, 0.5)
}

fn interrupted_at(body: &str, part: f64) -> (Stage, CancellationToken) {
    let stage = Stage::with_body(body);
    stage.mock.script("1", part_of(body, part, Piece::Cut));
    let (reply, gate) = gated_whole(body);
    stage.mock.script("1", reply);
    (stage, gate)
}

#[test]
fn a_lost_checkpoint_does_not_cause_repeats() {
    for arguments in [&["--marker"][..], &["--partitions", "2"]] {
        let server = Server::start(&[]);
        let (mut ids, body) = small_list(10_000);
        let (stage, gate) = interrupted(&body);
        let process = run(&stage, &server.url()).args(arguments).spawn();
        wait_until("the run waits", || stage.mock.requests().len() >= 3);
        delete(&server, "labelcast:checkpoint:*");
        gate.cancel();
        let ended = process.end().expect(0);
        assert!(ended.label()["rewinds"].as_u64().unwrap() >= 1);
        let mut connection = server.connection();
        if arguments.len() == 1 {
            holds(&server, &ids);
            assert_eq!(
                entries(&mut connection, STREAM).len(),
                10_002,
                "two markers"
            );
        } else {
            let mut found = chat_ids(&mut connection, "labelcast:1:{0}");
            found.extend(chat_ids(&mut connection, "labelcast:1:{1}"));
            found.sort();
            ids.sort();
            assert!(found == ids);
        }
    }
}

#[test]
fn a_lost_checkpoint_and_then_a_changed_list_cause_no_repeats() {
    for arguments in [&["--marker"][..], &["--partitions", "2"]] {
        let server = Server::start(&[]);
        let (ids, body) = small_list(10_000);
        // The whole list, whose second half comes after the loss; a part of it, which adds entries
        // behind the loss; and a list without one chat.
        let stage = Stage::with_body(&body);
        let (whole, gate) = gated(&body);
        stage.mock.script("1", whole);
        stage.mock.script("1", part_of(&body, 0.75, Piece::Cut));
        let mut changed = ids.clone();
        changed.remove(100);
        let changed = Chats::Body(Bytes::from(map_of(&changed)));
        stage.mock.set_chats("1", &changed);
        let streams = ["labelcast:1:{0}", "labelcast:1:{1}"];
        let streams = match arguments {
            ["--marker"] => &[STREAM][..],
            _ => &streams,
        };
        let process = run(&stage, &server.url()).args(arguments).spawn();
        wait_until("the first half is published", || {
            all_of(&server, streams).len() > 4000
        });
        delete(&server, "labelcast:checkpoint:*");
        gate.cancel();
        let ended = process.end().expect(0);
        assert_eq!(ended.label()["list_changed"], true);
        assert!(ended.label()["rewinds"].as_u64().unwrap() >= 1);
        let mut found = all_of(&server, streams);
        found.sort();
        let mut expected = ids;
        expected.sort();
        assert_eq!(found.len(), expected.len(), "{arguments:?}");
        assert!(found == expected);
    }
}

#[test]
fn a_server_that_lost_everything_gets_both_markers_again() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(10_000);
    let (stage, gate) = interrupted(&body);
    let process = run(&stage, &server.url()).args(["--marker"]).spawn();
    wait_until("the run waits", || stage.mock.requests().len() >= 3);
    redis::cmd("FLUSHALL")
        .exec(&mut server.connection())
        .unwrap();
    gate.cancel();
    process.end().expect(0);
    holds(&server, &ids);
    let entries = entries(&mut server.connection(), STREAM);
    let events: Vec<_> = entries.iter().filter_map(|it| field(it, "event")).collect();
    assert_eq!(events, ["run.started", "run.completed"]);
}

/// Returns the entries of all streams of a queue, in order if there is one.
fn all_of(server: &Server, streams: &[&str]) -> Vec<String> {
    let mut connection = server.connection();
    let mut found = Vec::new();
    for stream in streams {
        found.extend(chat_ids(&mut connection, stream));
    }
    if streams.len() > 1 {
        found.sort();
    }
    found
}

#[test]
fn a_deleted_stream_is_filled_again_by_the_same_process() {
    let spread = &["labelcast:1:{0}", "labelcast:1:{1}"][..];
    for (arguments, streams) in [
        (&["--marker"][..], &[STREAM][..]),
        (&["--partitions", "2"], spread),
    ] {
        let server = Server::start(&[]);
        let (mut ids, body) = small_list(10_000);
        let (stage, gate) = interrupted(&body);
        let process = run(&stage, &server.url()).args(arguments).spawn();
        wait_until("the run waits", || stage.mock.requests().len() >= 3);
        delete(&server, streams[streams.len() - 1]);
        gate.cancel();
        let ended = process.end().expect(0);
        let label = ended.label();
        assert!(label["rewinds"].as_u64().unwrap() >= 1);
        assert_eq!(label["published"], 10_000);
        if streams.len() > 1 {
            ids.sort();
        } else {
            let all = entries(&mut server.connection(), STREAM);
            assert_eq!(all.len(), 10_002, "two markers");
        }
        assert!(all_of(&server, streams) == ids);
    }
}

#[test]
fn a_deleted_stream_is_filled_again_by_the_next_process() {
    let spread = &["labelcast:1:{0}", "labelcast:1:{1}"][..];
    for (arguments, streams) in [
        (&["--marker"][..], &[STREAM][..]),
        (&["--partitions", "2"], spread),
    ] {
        let server = Server::start(&[]);
        let (mut ids, body) = small_list(10_000);
        let stage = Stage::with_body(&body);
        stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
        let first = run(&stage, &server.url()).args(arguments);
        first.args(["--retries", "0"]).end().expect(69);
        delete(&server, streams[streams.len() - 1]);
        run(&stage, &server.url()).args(arguments).end().expect(0);
        if streams.len() > 1 {
            ids.sort();
        }
        assert!(all_of(&server, streams) == ids);
    }
}

#[test]
fn a_server_that_loses_everything_before_the_last_byte_gets_the_whole_list() {
    let mut server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let (stage, gate) = interrupted_at(&body, 0.999_999);
    let process = run(&stage, &server.url()).args(["--retries", "20"]).spawn();
    wait_until("the run waits", || stage.mock.requests().len() >= 3);
    server.kill();
    server.up();
    gate.cancel();
    let ended = process.end().expect(0);
    holds(&server, &ids);
    assert_eq!(ended.label()["published"], 3000);
}

#[test]
fn flushed_scripts_are_loaded_again() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(5000);
    let (stage, gate) = interrupted(&body);
    let process = run(&stage, &server.url()).spawn();
    wait_until("the run waits", || stage.mock.requests().len() >= 3);
    redis::cmd("SCRIPT")
        .arg("FLUSH")
        .exec(&mut server.connection())
        .unwrap();
    gate.cancel();
    process.end().expect(0);
    holds(&server, &ids);
}

#[test]
fn unix_sockets_work() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let server = Server::start(&["--unixsocket", socket.to_str().unwrap()]);
    let (ids, body) = small_list(10);
    let stage = Stage::with_body(body);
    let url = format!("unix:{}", socket.display());
    run(&stage, &url).end().expect(0);
    holds(&server, &ids);
}

#[test]
fn accounts_that_share_a_queue_have_separate_checkpoints() {
    let server = Server::start(&[]);
    let (_, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let first = run(&stage, &server.url())
        .args(["--retries", "0"])
        .end()
        .expect(69);
    let other = Stage::with_account("inst-2", &body);
    let second = run(&other, &server.url()).end().expect(0);
    assert_ne!(first.label()["run_id"], second.label()["run_id"]);
    assert_eq!(second.label()["published"], 2000);
    let third = run(&stage, &server.url()).end().expect(0);
    assert_eq!(third.label()["run_id"], first.label()["run_id"]);
    assert_eq!(chat_ids(&mut server.connection(), STREAM).len(), 4000);
}

#[test]
fn a_run_that_did_not_start_leaves_nothing_on_the_stream() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(5);
    let arguments = ["--marker", "--min-chats", "10"];
    run(&stage, &server.url()).args(arguments).end().expect(80);
    stage.mock.script("1", Reply::json("no").status(400));
    run(&stage, &server.url())
        .args(["--marker"])
        .end()
        .expect(76);
    assert_eq!(length(&mut server.connection(), STREAM), 0);
    let empty = Stage::with_body("[]");
    run(&empty, &server.url())
        .args(["--marker"])
        .end()
        .expect(0);
    assert_eq!(
        length(&mut server.connection(), STREAM),
        2,
        "a start marker and an end marker"
    );
}

#[test]
fn a_complete_run_whose_process_did_not_know_it_is_not_published_again() {
    let server = Server::start(&[]);
    let (mut ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let first = run(&stage, &server.url())
        .args(["--marker"])
        .end()
        .expect(0);
    let mut connection = server.connection();
    // As if the process had been killed or cut off between recording its end and releasing the
    // lock.
    let forget = |connection: &mut redis::Connection| {
        let _: () = connection.hdel(checkpoint(&server), "settled").unwrap();
    };
    forget(&mut connection);
    let second = run(&stage, &server.url())
        .args(["--marker"])
        .end()
        .expect(0);
    assert_eq!(second.label()["run_id"], first.label()["run_id"]);
    assert_eq!(second.label()["published"], 0);
    assert_eq!(second.label()["resumed"], 3000);
    holds(&server, &ids);
    assert_eq!(length(&mut connection, STREAM), 3002, "two markers");

    // The list has one more chat, which is published.
    forget(&mut connection);
    ids.push("new@c.us".to_owned());
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(map_of(&ids))));
    let third = run(&stage, &server.url())
        .args(["--marker"])
        .end()
        .expect(0);
    assert_eq!(third.label()["run_id"], first.label()["run_id"]);
    assert_eq!(third.label()["published"], 1);
    holds(&server, &ids);
    let last: u64 = connection
        .hget(checkpoint(&server), "last_complete")
        .unwrap();
    assert_eq!(last, 3001);

    let next = run(&stage, &server.url()).end().expect(0);
    assert_ne!(next.label()["run_id"], first.label()["run_id"]);
    assert_eq!(next.label()["published"], 3001);
}

#[test]
fn a_run_that_started_and_published_nothing_is_resumed() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let full = ["--marker", "--max-pending", "1"];
    let (ids, body) = small_list(100);
    let stage = Stage::with_body(&body);
    let process = run(&stage, &server.url()).args(full).spawn();
    wait_until("the run has started and waits for room", || {
        length(&mut connection, STREAM) == 1
    });
    process.signal("TERM");
    let first = process.end().expect(75);
    let second = run(&stage, &server.url())
        .args(["--marker"])
        .end()
        .expect(0);
    assert_eq!(second.label()["run_id"], first.label()["run_id"]);
    holds(&server, &ids);
    assert_eq!(length(&mut connection, STREAM), 102, "two markers");
}

#[test]
fn a_run_that_started_on_some_partitions_is_marked_on_all() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let arguments = ["--marker", "--partitions", "2"];
    let (_, body) = small_list(100);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let first = run(&stage, &server.url()).args(arguments);
    let first = first.args(["--retries", "0"]).end().expect(69);
    // As if the process had been cut off before the second partition.
    delete(&server, "labelcast:1:{1}");
    delete(&server, "labelcast:checkpoint:{1}*");
    let key = "labelcast:checkpoint:{0}:labelcast:1:{0}:inst-1:1";
    let _: () = connection.hdel(key, "begun").unwrap();
    let second = run(&stage, &server.url()).args(arguments).end().expect(0);
    assert_eq!(second.label()["run_id"], first.label()["run_id"]);
    let mut chats = 0;
    for stream in ["labelcast:1:{0}", "labelcast:1:{1}"] {
        let all = entries(&mut connection, stream);
        let events: Vec<String> = all
            .iter()
            .filter_map(|entry| field(entry, "event"))
            .collect();
        assert_eq!(events, ["run.started", "run.completed"], "{stream}");
        chats += all.len() - 2;
    }
    assert_eq!(chats, 100);
}

/// The key of a checkpoint.
fn checkpoint(server: &Server) -> String {
    let keys: Vec<String> = server.connection().keys("labelcast:checkpoint:*").unwrap();
    keys.into_iter().next().unwrap()
}

#[test]
fn a_server_restored_to_before_the_lock_loses_nothing() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    let (process, gate) = half_way(&stage, &server, &body);
    // The same position and an earlier fencing token, as a snapshot may have them.
    let mut connection = server.connection();
    let fence = [("fence", "1"), ("fence_owner", "somebody")];
    let _: () = connection
        .hset_multiple(checkpoint(&server), &fence)
        .unwrap();
    delete(&server, "labelcast:lock:*");
    gate.cancel();
    process.end().expect(0);
    holds(&server, &ids);
}

#[test]
fn the_resume_window_counts_from_when_a_run_was_last_alive() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    for signal in ["KILL", "TERM"] {
        let (process, _gate) = half_way(&stage, &server, &body);
        let mut connection = server.connection();
        let key = checkpoint(&server);
        let long_ago = "2020-01-01T00:00:00.000Z";
        let _: () = connection.hset(&key, "at", long_ago).unwrap();
        if signal == "KILL" {
            wait_until("a heartbeat was recorded", || {
                let at: String = connection.hget(&key, "at").unwrap();
                at != long_ago
            });
        }
        process.signal(signal);
        process.end();
        let ended = run(&stage, &server.url()).end().expect(0);
        assert!(ended.label()["resumed"].as_u64().unwrap() > 0, "{signal}");
        holds(&server, &ids);
        let _: () = connection.del(STREAM).unwrap();
    }
}

#[test]
fn a_lost_count_does_not_trigger_a_guard() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    let (process, _gate) = half_way(&stage, &server, &body);
    process.signal("KILL");
    process.end();
    // As after a lost checkpoint: only entries that were added since are counted.
    let key = checkpoint(&server);
    let _: () = server.connection().hset(&key, "chats", 10).unwrap();
    let arguments = ["--min-chats", "1500"];
    run(&stage, &server.url()).args(arguments).end().expect(0);
    holds(&server, &ids);
}
