//! `--only-new`, `--removed`, `--min-age`, `--track` and `--baseline`: who is in a label is known
//! between runs.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use labelcast::mock::Chats;
use redis::Commands as _;
use serde_json::Value;

use super::cluster::{cluster, holder};
use super::{STREAM, run};
use crate::support::redis::{Entry, Server, chat_ids, entries, field, kill_run, length};
use crate::support::{Ended, Running, Stage, held_after, map_of, small_list, wait_until};

pub(super) const REMOVED: &str = "{labelcast:1}:removed";
pub(super) const MEMBERS: &str = "labelcast:members:{labelcast:1}:labelcast:1:inst-1:1";
pub(super) const NOTE: &str = "labelcast:membership:{labelcast:1}:labelcast:1:inst-1:1";
pub(super) const CHECKPOINT: &str = "labelcast:checkpoint:{labelcast:1}:labelcast:1:inst-1:1";

pub(super) fn only_new(stage: &Stage, server: &Server) -> Running {
    run(stage, &server.url()).args(["--only-new"])
}

pub(super) fn set_list(stage: &Stage, ids: &[String]) {
    let body = Chats::Body(Bytes::from(map_of(ids)));
    stage.mock.set_chats("1", &body);
}

/// Checks how many chats were published, known and removed, and the sum that a report promises.
#[track_caller]
pub(super) fn counts(ended: &Ended, published: usize, known: usize, removed: usize) {
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap();
    let found = ["published", "known", "removed"].map(count);
    assert_eq!(
        found,
        [published, known, removed].map(|n| n as u64),
        "{label}"
    );
    let parts = ["published", "resumed", "suppressed", "known", "invalid"].map(count);
    assert_eq!(count("read"), parts.iter().sum::<u64>(), "{label}");
}

/// Returns the members, by their records.
pub(super) fn members(server: &Server) -> BTreeSet<String> {
    let records: BTreeMap<String, String> = server.connection().hgetall(MEMBERS).unwrap();
    let is_member = |record: &str| record.starts_with(['m', 'n']);
    let members = records.into_iter().filter(|(_, record)| is_member(record));
    members.map(|(id, _)| id).collect()
}

pub(super) fn set_of(ids: &[String]) -> BTreeSet<String> {
    ids.iter().cloned().collect()
}

#[test]
fn only_chats_that_the_list_turns_into_members_are_published() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(5200);
    let stage = Stage::with_body(map_of(&ids[..5000]));
    // At first, everything is new.
    counts(&only_new(&stage, &server).end().expect(0), 5000, 0, 0);
    counts(&only_new(&stage, &server).end().expect(0), 0, 5000, 0);

    let next: Vec<String> = ids[100..].iter().rev().cloned().collect();
    set_list(&stage, &next);
    counts(&only_new(&stage, &server).end().expect(0), 200, 4900, 100);
    assert_eq!(members(&server), set_of(&next));

    // A chat that comes back is new again.
    set_list(&stage, &ids);
    counts(&only_new(&stage, &server).end().expect(0), 100, 5100, 0);
    let mut connection = server.connection();
    assert_eq!(length(&mut connection, STREAM), 5300);
    assert!(!connection.exists::<_, bool>(REMOVED).unwrap());
}

#[test]
fn a_chat_that_is_in_the_list_twice_is_published_once() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(10);
    let stage = Stage::with_body(map_of(&[&ids[..], &ids[..]].concat()));
    let ended = only_new(&stage, &server).end().expect(0);
    counts(&ended, 10, 0, 0);
    assert_eq!(ended.label()["suppressed"], 10);
    let ended = only_new(&stage, &server).end().expect(0);
    counts(&ended, 0, 20, 0);
}

#[test]
fn chats_that_left_go_to_a_queue_of_their_own_in_every_format() {
    for format in ["fields", "json", "cloudevents"] {
        let server = Server::start(&[]);
        let odd = "a\"b\\c/d@c.us".to_owned();
        let (mut ids, _) = small_list(40);
        ids.push(odd.clone());
        let json: Vec<Value> = ids.iter().map(|id| serde_json::json!({"id": id})).collect();
        let stage = Stage::with_body(Value::from(json).to_string());
        let run = || only_new(&stage, &server).args(["--removed", "--format", format]);
        run().end().expect(0);
        set_list(&stage, &ids[2..40]);
        let ended = run().end().expect(0);
        counts(&ended, 0, 38, 3);
        let run_id = ended.label()["run_id"].as_str().unwrap().to_owned();

        let found = entries(&mut server.connection(), REMOVED);
        let left: BTreeSet<String> = found
            .iter()
            .map(|it| left_by(it, format, &run_id))
            .collect();
        assert_eq!(left, [ids[0].clone(), ids[1].clone(), odd].into());
        assert_eq!(found.len(), 3);
        // Nobody leaves twice.
        counts(&run().end().expect(0), 0, 38, 0);
        assert_eq!(length(&mut server.connection(), REMOVED), 3);
    }
}

/// Checks an entry of a chat that left, and returns the chat.
fn left_by(entry: &Entry, format: &str, run_id: &str) -> String {
    assert_eq!(field(entry, "event").as_deref(), Some("label.chat.deleted"));
    if format == "fields" {
        assert_eq!(field(entry, "label_id").as_deref(), Some("1"));
        assert_eq!(field(entry, "run_id").as_deref(), Some(run_id));
        return field(entry, "chat_id").unwrap();
    }
    let mut data: Value = serde_json::from_str(&field(entry, "data").unwrap()).unwrap();
    if format == "cloudevents" {
        assert_eq!(data["type"], "net.wawp.label.chat.deleted");
        let id = data["id"].as_str().unwrap().to_owned();
        data = data["data"].take();
        let chat_id = data["chat_id"].as_str().unwrap();
        assert!(id.contains(run_id) && id.contains(chat_id), "{id}");
    }
    assert_eq!(data["event"], "label.chat.deleted");
    assert_eq!(data["label_id"], "1");
    assert_eq!(data["run_id"], run_id);
    data["chat_id"].as_str().unwrap().to_owned()
}

#[test]
fn a_baseline_publishes_nothing_and_makes_the_list_known() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(3100);
    let stage = Stage::with_body(map_of(&ids[..3000]));
    let baseline = || run(&stage, &server.url()).args(["--baseline", "--marker"]);
    counts(&baseline().end().expect(0), 0, 3000, 0);
    assert!(chat_ids(&mut server.connection(), STREAM).is_empty());
    set_list(&stage, &ids);
    counts(&only_new(&stage, &server).end().expect(0), 100, 3000, 0);
    // It also says who is not a member any more.
    set_list(&stage, &ids[3050..]);
    counts(&baseline().end().expect(0), 0, 50, 3050);
    assert_eq!(members(&server), set_of(&ids[3050..]));
}

#[test]
fn a_baseline_counts_as_a_publication_for_a_time() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(600);
    let stage = Stage::with_body(map_of(&ids[..500]));
    let suppress = |more: &[&str]| {
        let run = run(&stage, &server.url()).args(["--suppress-for", "1d"]);
        run.args(more).end().expect(0)
    };
    counts(&suppress(&["--baseline"]), 0, 500, 0);
    set_list(&stage, &ids);
    let ended = suppress(&[]);
    counts(&ended, 100, 0, 0);
    assert_eq!(ended.label()["suppressed"], 500);
}

#[test]
fn without_its_members_a_label_has_no_new_chats_until_a_baseline() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(3100);
    let stage = Stage::with_body(map_of(&ids[..3000]));
    only_new(&stage, &server).end().expect(0);
    let mut connection = server.connection();
    let check = stage.program("check").args(["--label", "1", "--only-new"]);
    check.args(["--sink", &server.url()]).end().expect(0);
    for lost in ["the whole set", "a set that an event began again"] {
        let _: () = connection.del(MEMBERS).unwrap();
        if lost != "the whole set" {
            let record = "me1764209000.000:1764209000:0:0";
            let _: () = connection.hset(MEMBERS, &ids[0], record).unwrap();
        }
        let ended = only_new(&stage, &server).end().expect(80);
        assert!(ended.stderr.contains("--baseline"), "{}", ended.stderr);
        assert_eq!(ended.label()["status"], "guarded");
        let check = stage.program("check").args(["--label", "1", "--only-new"]);
        let ended = check.args(["--sink", &server.url()]).end().expect(80);
        assert!(
            ended.stdout.contains("FAIL  sink: the recorded members"),
            "{}",
            ended.stdout
        );
        // A baseline that was cut short is not enough.
        stage.mock.script("1", held_after(&map_of(&ids), 2000));
        let process = run(&stage, &server.url()).args(["--baseline"]).spawn();
        wait_until("the baseline is on its way", || {
            let size: usize = redis::cmd("HLEN")
                .arg(MEMBERS)
                .query(&mut connection)
                .unwrap();
            size > 1000
        });
        kill_run(process, &mut connection);
        only_new(&stage, &server).end().expect(80);
        let baseline = run(&stage, &server.url()).args(["--baseline"]);
        counts(&baseline.end().expect(0), 0, 3000, 0);
        counts(&only_new(&stage, &server).end().expect(0), 0, 3000, 0);
    }
    assert_eq!(length(&mut connection, STREAM), 3000);
}

#[test]
fn a_set_that_is_lost_while_a_run_publishes_ends_the_run() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..3000]));
    only_new(&stage, &server).end().expect(0);
    let (reply, gate) = crate::support::gated_after(&body, 4500);
    stage.mock.script("1", reply);
    let process = only_new(&stage, &server).spawn();
    let mut connection = server.connection();
    wait_until("new chats are published", || {
        length(&mut connection, STREAM) > 4000
    });
    let _: () = connection.del(MEMBERS).unwrap();
    gate.cancel();
    process.end().expect(80);
    assert!(length(&mut connection, STREAM) <= 4500);
}

#[test]
fn a_list_that_would_remove_too_many_removes_nobody() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(101);
    let stage = Stage::with_body(map_of(&ids[..100]));
    let removed = || only_new(&stage, &server).args(["--removed"]);
    removed().end().expect(0);
    // 51 of 100 have left, and one is new.
    set_list(&stage, &ids[51..]);
    let ended = removed().end().expect(80);
    assert!(ended.stderr.contains("--max-change"), "{}", ended.stderr);
    counts(&ended, 1, 49, 0);
    assert_eq!(members(&server), set_of(&ids));
    assert_eq!(length(&mut server.connection(), REMOVED), 0);
    // Nor does it pass when it comes again, although its new chat is a member by now.
    for _ in 0..3 {
        removed().end().expect(80);
    }
    assert_eq!(members(&server), set_of(&ids));
    // The guard counts members before the list.
    set_list(&stage, &ids[50..]);
    counts(&removed().end().expect(0), 0, 51, 50);
    set_list(&stage, &ids[90..]);
    removed().end().expect(80);
    counts(
        &removed().args(["--max-change", "100"]).end().expect(0),
        0,
        11,
        40,
    );
    // Fewer than 20 members are not guarded.
    set_list(&stage, &ids[100..]);
    counts(&removed().end().expect(0), 0, 1, 10);
    assert_eq!(length(&mut server.connection(), REMOVED), 100);
}

#[test]
fn a_run_that_is_cut_short_or_refused_removes_nobody() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(1000);
    let stage = Stage::with_body(map_of(&ids));
    only_new(&stage, &server).end().expect(0);
    let shorter = map_of(&ids[10..]);
    stage.mock.script(
        "1",
        crate::support::part_of(&shorter, 0.5, labelcast::mock::Piece::Cut),
    );
    only_new(&stage, &server)
        .args(["--retries", "0"])
        .end()
        .expect(69);
    assert_eq!(members(&server).len(), 1000);
    let invalid = format!(
        "[{{\"id\":7}},{}",
        &serde_json::json!([{"id": ids[0]}]).to_string()[1..]
    );
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(invalid)));
    only_new(&stage, &server)
        .args(["--max-change", "100"])
        .end()
        .expect(65);
    assert_eq!(members(&server).len(), 1000);
    set_list(&stage, &ids[10..]);
    only_new(&stage, &server)
        .args(["--min-chats", "991"])
        .end()
        .expect(80);
    assert_eq!(members(&server).len(), 1000);
    counts(&only_new(&stage, &server).end().expect(0), 0, 990, 10);
}

#[test]
fn a_chat_is_published_when_it_has_been_a_member_long_enough() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(300);
    let stage = Stage::with_body(map_of(&ids));
    let mut connection = server.connection();
    for (with, first) in [("--only-new", 100), ("--suppress-for=7d", 200)] {
        let aged = || run(&stage, &server.url()).args(["--min-age", "1h", with]);
        let ended = aged().end().expect(0);
        counts(&ended, 0, 0, 0);
        let records: BTreeMap<String, String> = connection.hgetall(MEMBERS).unwrap();
        // The first ones joined two hours ago.
        for id in &ids[..first] {
            let (state, rest) = records[id].split_once(':').unwrap();
            let (since, rest) = rest.split_once(':').unwrap();
            let since = since.parse::<u64>().unwrap() - 7200;
            let _: () = connection
                .hset(MEMBERS, id, format!("{state}:{since}:{rest}"))
                .unwrap();
        }
        aged().end().expect(0);
        assert_eq!(chat_ids(&mut connection, STREAM), ids[..first]);
        aged().end().expect(0);
        assert_eq!(length(&mut connection, STREAM), first);
        let _: () = connection.del(STREAM).unwrap();
        let _: () = connection.del(&[MEMBERS, NOTE, CHECKPOINT]).unwrap();
    }
}

#[test]
fn a_plain_run_stores_no_ids_and_track_publishes_all() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(2000);
    let stage = Stage::with_body(map_of(&ids));
    run(&stage, &server.url()).end().expect(0);
    let mut connection = server.connection();
    assert!(!connection.exists::<_, bool>(MEMBERS).unwrap());
    assert!(!connection.exists::<_, bool>(NOTE).unwrap());
    let track = run(&stage, &server.url()).args(["--track", "--retain", "2d"]);
    counts(&track.end().expect(0), 2000, 0, 0);
    assert_eq!(members(&server), set_of(&ids));
    let lasts: i64 = connection.ttl(MEMBERS).unwrap();
    assert!((24 * 3600..=2 * 24 * 3600).contains(&lasts), "{lasts}");
    assert_eq!(connection.ttl::<_, i64>(NOTE).unwrap(), -1);
    counts(&only_new(&stage, &server).end().expect(0), 0, 2000, 0);
    assert_eq!(length(&mut connection, STREAM), 4000);
}

#[test]
fn a_run_to_a_tracked_queue_tracks() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(100);
    let stage = Stage::with_body(map_of(&ids));
    let mut connection = server.connection();
    let _: () = connection.hset(CHECKPOINT, "tracked", "1").unwrap();
    counts(&run(&stage, &server.url()).end().expect(0), 100, 0, 0);
    assert_eq!(members(&server), set_of(&ids));
    let packed = run(&stage, &server.url()).args(["--ids-per-message", "2"]);
    let ended = packed.end().expect(78);
    assert!(
        ended.stderr.contains("--ids-per-message"),
        "{}",
        ended.stderr
    );
}

#[test]
fn another_number_of_partitions_is_an_error_until_a_baseline() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(2100);
    let stage = Stage::with_body(map_of(&ids[..2000]));
    let with = |more: &[&str]| only_new(&stage, &server).args(more).end();
    let mut before: &[&str] = &[];
    counts(&with(before).expect(0), 2000, 0, 0);
    for other in [
        &["--partitions", "3"][..],
        &["--partitions", "5"],
        &["--partitions", "2"],
        &[],
    ] {
        let ended = with(other).expect(78);
        assert!(ended.stderr.contains("--baseline"), "{}", ended.stderr);
        let check = stage.program("check").args(["--label", "1", "--only-new"]);
        let check = check.args(["--sink", &server.url()]).args(other);
        check.end().expect(78);
        counts(&with(before).expect(0), 0, 2000, 0);
        let baseline = run(&stage, &server.url()).args(["--baseline"]).args(other);
        counts(&baseline.end().expect(0), 0, 2000, 0);
        counts(&with(other).expect(0), 0, 2000, 0);
        with(before).expect(78);
        before = other;
    }
    // What was known in other partitions is not kept.
    let keys: Vec<String> = server.connection().keys("labelcast:members:*").unwrap();
    assert_eq!(keys, [MEMBERS]);
}

#[test]
fn suppression_stays_with_its_number_of_partitions_too() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(500);
    let with = |more: &[&str]| {
        let run = run(&stage, &server.url()).args(["--suppress-for", "1d"]);
        run.args(more).end()
    };
    with(&[]).expect(0);
    with(&["--partitions", "2"]).expect(78);
    counts(
        &with(&["--partitions", "2", "--baseline"]).expect(0),
        0,
        500,
        0,
    );
    assert_eq!(
        with(&["--partitions", "2"]).expect(0).label()["suppressed"],
        500
    );
    with(&[]).expect(78);
}

#[test]
fn a_run_of_another_kind_is_not_resumed() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    let mut connection = server.connection();
    stage.mock.script("1", held_after(&body, 3000));
    let process = run(&stage, &server.url()).args(["--baseline"]).spawn();
    wait_until("the baseline is on its way", || {
        let position: Option<u64> = connection.hget(CHECKPOINT, "position").unwrap();
        position.unwrap_or(0) > 1000
    });
    kill_run(process, &mut connection);
    // The rest of a baseline is not a list to publish.
    let ended = run(&stage, &server.url()).end().expect(0);
    counts(&ended, 4000, 0, 0);
    assert_eq!(ended.label()["resumed"], 0);
    assert_eq!(chat_ids(&mut connection, STREAM), ids);
}

#[test]
fn a_stream_that_was_deleted_gets_the_new_chats_again_and_no_known_ones() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(6000);
    let stage = Stage::with_body(map_of(&ids[..3000]));
    only_new(&stage, &server).end().expect(0);
    let (reply, gate) = crate::support::gated_after(&body, 5000);
    stage.mock.script("1", reply);
    set_list(&stage, &ids);
    let process = only_new(&stage, &server).spawn();
    let mut connection = server.connection();
    wait_until("new chats are published", || {
        length(&mut connection, STREAM) > 4000
    });
    let _: () = connection.del(STREAM).unwrap();
    gate.cancel();
    let ended = process.end().expect(0);
    assert_eq!(ended.label()["known"], 3000);
    assert_eq!(chat_ids(&mut connection, STREAM), ids[3000..]);
}

#[test]
fn a_resumed_run_confirms_the_start_of_the_list_again() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(4000);
    let stage = Stage::with_body(&body);
    only_new(&stage, &server).end().expect(0);
    // An event of the time between two processes says that a chat has left; the second one, which
    // asks later, knows better.
    let (reply, gate) = crate::support::gated_after(&body, 3000);
    stage.mock.script("1", reply);
    let mut connection = server.connection();
    let process = only_new(&stage, &server).spawn();
    wait_until("a part is confirmed", || {
        let fields = ["status", "position"];
        let (status, position): (String, u64) = connection.hmget(CHECKPOINT, &fields).unwrap();
        status == "running" && position > 1000
    });
    let record: String = connection.hget(MEMBERS, &ids[0]).unwrap();
    let as_of: f64 = record[2..].split(':').next().unwrap().parse().unwrap();
    let removed = format!("re{:.3}:1:1:1", as_of - 1000.0);
    let _: () = connection.hset(MEMBERS, &ids[0], removed).unwrap();
    let _: () = connection.hincr(NOTE, "members", -1).unwrap();
    let _: () = connection.hincr(NOTE, "removed", 1).unwrap();
    process.kill();
    gate.cancel();
    crate::support::redis::expire_locks(&mut connection);
    let ended = only_new(&stage, &server).end().expect(0);
    assert_eq!(ended.label()["attempts"], 1);
    let record: String = connection.hget(MEMBERS, &ids[0]).unwrap();
    assert!(record.starts_with("nl"), "{record}");
    assert!(members(&server).contains(&ids[0]));
}

#[test]
fn only_new_removed_and_suppression_go_together() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(300);
    let stage = Stage::with_body(map_of(&ids[..200]));
    let all = || only_new(&stage, &server).args(["--removed", "--suppress-for", "1d"]);
    counts(&all().end().expect(0), 200, 0, 0);
    set_list(&stage, &ids[50..]);
    counts(&all().end().expect(0), 100, 150, 50);
    // They come back: members again, but published within the time.
    set_list(&stage, &ids);
    let ended = all().end().expect(0);
    counts(&ended, 0, 250, 0);
    assert_eq!(ended.label()["suppressed"], 50);
    assert_eq!(members(&server), set_of(&ids));
}

#[test]
fn a_cluster_keeps_the_members_of_each_partition_with_its_stream() {
    let nodes = cluster();
    let seeds: Vec<String> = nodes
        .iter()
        .map(|node| format!("127.0.0.1:{}", node.port))
        .collect();
    let url = format!("redis+cluster://{}", seeds.join(","));
    let (ids, _) = small_list(1100);
    let stage = Stage::with_body(map_of(&ids[..1000]));
    let with = || {
        let run = run(&stage, &url).args(["--only-new", "--removed"]);
        run.args(["--partitions", "4"])
    };
    counts(&with().end().expect(0), 1000, 0, 0);
    set_list(&stage, &ids[100..]);
    counts(&with().end().expect(0), 100, 900, 100);
    let removed: usize = (0..4)
        .map(|partition| {
            let stream = format!("labelcast:1:{{{partition}}}:removed");
            length(&mut holder(&nodes, &stream).connection(), &stream)
        })
        .sum();
    assert_eq!(removed, 100);
}

#[test]
fn what_goes_with_packed_messages_or_no_state_is_an_error() {
    let stage = Stage::with_chats(1);
    let redis = "redis://127.0.0.1:1";
    for flag in [
        "--only-new",
        "--removed",
        "--track",
        "--baseline",
        "--min-age=1h",
    ] {
        for (more, problem) in [
            (vec!["--sink", "-"], "--state"),
            (vec!["--sink", "file:/tmp/x"], "--state"),
            (vec!["--sink", "amqp://localhost"], "--state"),
            (
                vec!["--sink", redis, "--ids-per-message", "2"],
                "--ids-per-message",
            ),
        ] {
            let run = stage
                .program("run")
                .args(["--label", "1", flag])
                .args(&more);
            let ended = run.end().expect(78);
            assert!(ended.stderr.contains(problem), "{flag}: {}", ended.stderr);
        }
    }
}
