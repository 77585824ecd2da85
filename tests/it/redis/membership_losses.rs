//! Members whose keys, or the keys beside them, are lost: nobody is taken for new, and no chat is
//! lost or published twice.

use redis::{Commands as _, Connection};

use super::membership::{
    CHECKPOINT, MEMBERS, NOTE, REMOVED, counts, members, only_new, set_list, set_of,
};
use super::{STREAM, run};
use crate::support::redis::{Server, chat_ids, expire_locks, kill_run, length};
use crate::support::{
    Process, Running, Stage, gated_after, held_after, map_of, small_list, wait_until,
};

/// Records that a chat was added, as an event does that arrives when there is no set.
fn add_by_event(connection: &mut Connection, chat: &str) {
    let script = include_str!("../../../src/broker/redis/event_member.lua");
    let mut call = redis::Script::new(script);
    let mut call = call_keys(&mut call);
    let now: Vec<u64> = redis::cmd("TIME").query(connection).unwrap();
    call.arg("1000").arg("0").arg(chat).arg("added");
    call.arg(format!("{}.000", now[0]))
        .arg("0")
        .arg("token-of-an-event")
        .arg("0")
        .arg("1");
    call.arg("chat_id").arg(chat);
    call.invoke::<()>(connection).unwrap();
}

fn call_keys(script: &mut redis::Script) -> redis::ScriptInvocation<'_> {
    let mut call = script.prepare_invoke();
    let event = "labelcast:event:{labelcast:1}:x";
    let published = "labelcast:published:{labelcast:1}:labelcast:1";
    for key in [STREAM, event, MEMBERS, NOTE, REMOVED, published, CHECKPOINT] {
        call.key(key);
    }
    call
}

/// Starts a run over a list that stays open after `entries` entries, and waits until the stream has
/// this many.
fn stopped_at(
    stage: &Stage,
    server: &Server,
    run: Running,
    body: &str,
    on_stream: usize,
) -> Process {
    stage.mock.script("1", held_after(body, on_stream));
    let process = run.spawn();
    let mut connection = server.connection();
    wait_until("the chats are on the stream", || {
        length(&mut connection, STREAM) >= on_stream
    });
    process
}

#[test]
fn without_its_note_a_set_is_not_taken_for_a_first_use() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    only_new(&stage, &server).end().expect(0);
    let mut connection = server.connection();
    let _: () = connection.del(NOTE).unwrap();
    only_new(&stage, &server).end().expect(80);
    run(&stage, &server.url())
        .args(["--baseline"])
        .end()
        .expect(0);
    counts(&only_new(&stage, &server).end().expect(0), 0, 300, 0);
    assert_eq!(chat_ids(&mut connection, STREAM), ids);
}

#[test]
fn a_record_of_another_form_is_a_known_member() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    only_new(&stage, &server).end().expect(0);
    let _: () = server
        .connection()
        .hset(MEMBERS, &ids[7], "v9:what")
        .unwrap();
    counts(&only_new(&stage, &server).end().expect(0), 0, 300, 0);
    assert_eq!(members(&server), set_of(&ids));
}

#[test]
fn a_resumed_run_does_not_accept_a_set_that_an_event_has_begun() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..5000]));
    run(&stage, &server.url())
        .args(["--baseline"])
        .end()
        .expect(0);
    let mut connection = server.connection();
    // The new ones come first.
    let list = [&ids[5000..], &ids[..5000]].concat();
    let process = stopped_at(
        &stage,
        &server,
        only_new(&stage, &server),
        &map_of(&list),
        500,
    );
    kill_run(process, &mut connection);
    let _: () = connection.del(MEMBERS).unwrap();
    add_by_event(&mut connection, &ids[0]);
    set_list(&stage, &list);
    only_new(&stage, &server).end().expect(80);
    // Those of the run, and the one of the event.
    assert_eq!(length(&mut connection, STREAM), 501);
    assert!(!body.is_empty());
}

#[test]
fn a_run_does_not_vouch_for_a_set_that_it_has_not_filled() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    only_new(&stage, &server).end().expect(0);
    let mut connection = server.connection();
    let (reply, gate) = gated_after(&body, 999);
    stage.mock.script("1", reply);
    let process = only_new(&stage, &server).spawn();
    wait_until("the list is nearly read", || {
        let fields = ["status", "position"];
        let (status, position): (String, u64) = connection.hmget(CHECKPOINT, &fields).unwrap();
        status == "running" && position == 999
    });
    let _: () = connection.del(MEMBERS).unwrap();
    add_by_event(&mut connection, &ids[0]);
    gate.cancel();
    process.end().expect(80);
    only_new(&stage, &server).end().expect(80);
    assert_eq!(length(&mut connection, STREAM), 1001);
}

#[test]
fn an_event_begins_a_set_without_what_is_left_of_another() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(100);
    let stage = Stage::with_body(&body);
    only_new(&stage, &server).end().expect(0);
    let mut connection = server.connection();
    // As a purge of a part of the members does.
    let _: () = connection.hdel(MEMBERS, ":").unwrap();
    add_by_event(&mut connection, &ids[0]);
    assert_eq!(members(&server), set_of(&ids[..1]));
    set_list(&stage, &ids[50..]);
    let baseline = run(&stage, &server.url()).args(["--baseline"]);
    baseline.end().expect(0);
    let expected = [&ids[..1], &ids[50..]].concat();
    // The event is younger than the list.
    assert_eq!(members(&server), set_of(&expected));
}

#[test]
fn a_lost_checkpoint_repeats_nobody_whose_record_remains() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated_after(&body, 4000);
    stage.mock.script("1", reply);
    let process = run(&stage, &server.url()).args(["--track"]).spawn();
    let mut connection = server.connection();
    wait_until("the start is on the stream", || {
        length(&mut connection, STREAM) == 4000
    });
    let _: () = connection.del(CHECKPOINT).unwrap();
    gate.cancel();
    let ended = process.end().expect(0);
    counts(&ended, 2000, 0, 0);
    assert_eq!(ended.label()["suppressed"], 4000);
    assert_eq!(chat_ids(&mut connection, STREAM), ids);
}

#[test]
fn a_deleted_stream_gets_its_chats_again_although_they_are_suppressed() {
    for more in [vec![], vec!["--only-new"]] {
        let server = Server::start(&[]);
        let (ids, body) = small_list(6000);
        let stage = Stage::with_body(&body);
        let (reply, gate) = gated_after(&body, 4000);
        stage.mock.script("1", reply);
        let with = || {
            let run = run(&stage, &server.url()).args(["--suppress-for", "1d"]);
            run.args(&more)
        };
        let process = with().spawn();
        let mut connection = server.connection();
        wait_until("the start is on the stream", || {
            length(&mut connection, STREAM) == 4000
        });
        let _: () = connection.del(STREAM).unwrap();
        gate.cancel();
        counts(&process.end().expect(0), 6000, 0, 0);
        assert_eq!(chat_ids(&mut connection, STREAM), ids);
        // What an earlier run has published stays suppressed.
        let ended = with().end().expect(0);
        assert_eq!(ended.label()["published"], 0);
    }
}

#[test]
fn data_that_is_lost_while_members_are_removed_ends_the_run() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    let with = || only_new(&stage, &server).args(["--removed", "--max-change", "100"]);
    with().end().expect(0);
    let (reply, gate) = gated_after(&map_of(&ids[..10]), 9);
    stage.mock.script("1", reply);
    let process = with().spawn();
    let mut connection = server.connection();
    wait_until("the list is nearly read", || {
        let fields = ["status", "position"];
        let (status, position): (String, u64) = connection.hmget(CHECKPOINT, &fields).unwrap();
        status == "running" && position == 9
    });
    // The script that removes finds neither the run nor the members.
    let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
    gate.cancel();
    let ended = process.end();
    assert!(
        [Some(0), Some(69), Some(80)].contains(&ended.code),
        "{ended:#?}"
    );
}

#[test]
fn a_tracked_queue_obeys_the_setting_for_changes() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(100);
    let stage = Stage::with_body(&body);
    let mut connection = server.connection();
    let _: () = connection.hset(CHECKPOINT, "tracked", "1").unwrap();
    let plain = || run(&stage, &server.url());
    plain().end().expect(0);
    set_list(&stage, &ids[60..]);
    let ended = plain().end().expect(80);
    assert!(ended.stderr.contains("50 %"), "{}", ended.stderr);
    counts(
        &plain().args(["--max-change", "60"]).end().expect(0),
        40,
        0,
        60,
    );
    assert_eq!(members(&server), set_of(&ids[60..]));
}

#[test]
fn a_tracked_queue_with_a_state_elsewhere_keeps_no_members_here() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(50);
    let mut connection = server.connection();
    let _: () = connection.hset(CHECKPOINT, "tracked", "1").unwrap();
    let state = format!("file:{}", stage.path("state").display());
    let with = only_new(&stage, &server).args(["--state", &state]);
    counts(&with.end().expect(0), 50, 0, 0);
    assert!(!connection.exists::<_, bool>(MEMBERS).unwrap());
}

#[test]
fn what_ages_or_suppression_left_out_is_not_left_out_by_a_run_without_them() {
    for flags in [["--min-age", "1h"], ["--suppress-for", "1d"]] {
        let server = Server::start(&[]);
        let (ids, body) = small_list(3000);
        let stage = Stage::with_body(&body);
        let track = || run(&stage, &server.url()).args(["--track"]);
        track().args(flags).end().expect(0);
        let mut connection = server.connection();
        let _: () = connection.del(STREAM).unwrap();
        stage.mock.script("1", held_after(&body, 2000));
        let process = track().args(flags).spawn();
        wait_until("a part is read", || {
            let fields = ["status", "position"];
            let (status, position): (String, u64) = connection.hmget(CHECKPOINT, &fields).unwrap();
            status == "running" && position > 1000
        });
        process.kill();
        expire_locks(&mut connection);
        counts(&track().end().expect(0), 3000, 0, 0);
        assert_eq!(chat_ids(&mut connection, STREAM), ids);
    }
}

#[test]
fn a_refused_run_leaves_no_lock() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(10);
    only_new(&stage, &server).end().expect(0);
    only_new(&stage, &server)
        .args(["--partitions", "2"])
        .end()
        .expect(78);
    let locks: Vec<String> = server.connection().keys("labelcast:lock:*").unwrap();
    assert!(locks.is_empty(), "{locks:?}");
}

#[test]
fn another_label_of_the_queue_keeps_to_the_partitions_of_its_times() {
    let server = Server::start(&[]);
    let chats = labelcast::mock::Chats::Generated(100);
    let stage = Stage::with_labels(vec![("1", chats.clone()), ("2", chats)]);
    let with = |label: &str, more: &[&str]| {
        let run = stage
            .program("run")
            .args(["--label", label, "--queue", "q"]);
        let run = run.args(["--sink", &server.url(), "--suppress-for", "1d"]);
        run.args(more).end()
    };
    with("1", &[]).expect(0);
    let ended = with("2", &["--partitions", "2"]).expect(78);
    assert!(ended.stderr.contains("no --partitions"), "{}", ended.stderr);
    assert_eq!(with("2", &[]).expect(0).label()["suppressed"], 100);
}

#[test]
fn a_run_does_not_shorten_what_others_keep() {
    let server = Server::start(&[]);
    let chats = labelcast::mock::Chats::Generated(100);
    let stage = Stage::with_labels(vec![("1", chats.clone()), ("2", chats)]);
    let with = |label: &str, more: &[&str]| {
        let run = stage
            .program("run")
            .args(["--label", label, "--queue", "q"]);
        run.args(["--sink", &server.url()])
            .args(more)
            .end()
            .expect(0)
    };
    with("1", &["--suppress-for", "30d", "--retain", "30d"]);
    let mut connection = server.connection();
    let published = "labelcast:published:{q}:q";
    let days = |connection: &mut Connection| {
        let seconds: i64 = connection.ttl(published).unwrap();
        (seconds + 3600) / (24 * 3600)
    };
    assert_eq!(days(&mut connection), 30);
    with("2", &["--only-new", "--retain", "1d"]);
    assert_eq!(days(&mut connection), 30);
    // Nor does its sweep delete what the other run still needs.
    let ids: Vec<String> = connection.hkeys(published).unwrap();
    let id = ids.iter().find(|id| !id.starts_with(':')).unwrap();
    let at: u64 = connection.hget(published, id).unwrap();
    let _: () = connection.hset(published, id, at - 20 * 24 * 3600).unwrap();
    with("2", &["--suppress-for", "1d", "--retain", "1d"]);
    let checkpoint = "labelcast:checkpoint:{q}:q:inst-1:2";
    let _: () = connection
        .hset(checkpoint, "swept", at - 24 * 3600)
        .unwrap();
    with("2", &["--suppress-for", "1d", "--retain", "1d"]);
    assert_eq!(days(&mut connection), 30);
    assert_eq!(
        with("1", &["--suppress-for", "30d", "--retain", "30d"]).label()["published"],
        0
    );
}

#[test]
fn old_messages_about_chats_that_left_are_trimmed_by_later_runs() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    let with = || only_new(&stage, &server).args(["--removed", "--retain", "1d"]);
    with().end().expect(0);
    let mut connection = server.connection();
    let now: Vec<u64> = redis::cmd("TIME").query(&mut connection).unwrap();
    let old = (now[0] - 10 * 24 * 3600) * 1000;
    for number in 0..300 {
        let id = format!("{old}-{}", number + 1);
        redis::cmd("XADD")
            .arg(&[REMOVED, &id, "chat_id", &ids[0]])
            .exec(&mut connection)
            .unwrap();
    }
    with().end().expect(0);
    // A block of a hundred entries may stay.
    assert!(length(&mut connection, REMOVED) <= 100);
}

#[test]
fn a_server_that_lost_everything_does_not_make_everybody_new_within_a_run() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[1000..]));
    run(&stage, &server.url())
        .args(["--baseline"])
        .end()
        .expect(0);
    let (reply, gate) = gated_after(&body, 2000);
    stage.mock.script("1", reply);
    set_list(&stage, &ids);
    let process = only_new(&stage, &server).spawn();
    let mut connection = server.connection();
    wait_until("new chats are published", || {
        length(&mut connection, STREAM) == 1000
    });
    redis::cmd("FLUSHALL").exec(&mut connection).unwrap();
    gate.cancel();
    process.end().expect(80);
    assert_eq!(length(&mut connection, STREAM), 0);
}

#[test]
fn a_run_that_records_all_begins_anew_if_its_members_are_lost() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let track = || run(&stage, &server.url()).args(["--track"]);
    let process = stopped_at(&stage, &server, track(), &body, 1500);
    let mut connection = server.connection();
    kill_run(process, &mut connection);
    let _: () = connection.del(MEMBERS).unwrap();
    counts(&track().end().expect(0), 3000, 0, 0);
    assert_eq!(members(&server), set_of(&ids));
    counts(&only_new(&stage, &server).end().expect(0), 0, 3000, 0);
}
