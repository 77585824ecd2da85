//! `--suppress-for`: a chat that was published to the queue recently is not published again.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use labelcast::mock::Chats;
use redis::Commands as _;

use super::kill_somewhere;
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::{Server, entries, field, length};
use crate::support::{Ended, Numbers, Running, Stage, held_after, map_of, small_list};

const STREAM: &str = "labelcast:1";
const PUBLISHED: &str = "labelcast:published:{labelcast:1}:labelcast:1";

fn run(stage: &Stage, sink: &str) -> Running {
    let run = stage.program("run").args(["--label", "1", "--sink", sink]);
    run.args(["--suppress-for", "1d"])
}

/// Checks the sum that a report promises, and what was left out.
#[track_caller]
fn counts(ended: &Ended, published: usize, suppressed: usize) {
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap();
    assert_eq!(count("published"), published as u64, "{label}");
    assert_eq!(count("suppressed"), suppressed as u64, "{label}");
    let parts = ["published", "resumed", "suppressed", "invalid"].map(count);
    assert_eq!(count("read"), parts.iter().sum::<u64>(), "{label}");
}

fn set_list(stage: &Stage, ids: &[String]) {
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(map_of(ids))));
}

/// How often each chat is on the streams.
fn times_published(server: &Server, streams: &[String]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for stream in streams {
        for entry in entries(&mut server.connection(), stream) {
            *times.entry(field(&entry, "chat_id").unwrap()).or_default() += 1;
        }
    }
    times
}

#[track_caller]
fn each_once(server: &Server, streams: &[String], ids: &[String]) {
    let times = times_published(server, streams);
    let repeated: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
    assert!(repeated.is_empty(), "{} chats came twice", repeated.len());
    let found: BTreeSet<_> = times.into_keys().collect();
    assert_eq!(found, ids.iter().cloned().collect());
}

#[test]
fn the_next_run_publishes_only_what_was_not_published_recently() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(5000);
    let stage = Stage::with_body(&body);
    counts(&run(&stage, &server.url()).end().expect(0), 5000, 0);
    counts(&run(&stage, &server.url()).end().expect(0), 0, 5000);

    // Some left the label, some are new, and the order is another one.
    let (more, _) = small_list(5200);
    let next: Vec<String> = more[100..].iter().rev().cloned().collect();
    set_list(&stage, &next);
    counts(&run(&stage, &server.url()).end().expect(0), 200, 4900);
    each_once(&server, &[STREAM.to_owned()], &more);
    assert_eq!(ids.len(), 5000);
}

#[test]
fn a_chat_is_published_again_after_that_time() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    run(&stage, &server.url()).end().expect(0);
    let mut connection = server.connection();
    let at: u64 = connection.hget(PUBLISHED, &ids[0]).unwrap();
    let (second, day) = (1, 24 * 3600);
    let times = [
        (&ids[0], at - day - second),
        (&ids[1], at - day + 600 * second),
    ];
    let _: () = connection.hset_multiple(PUBLISHED, &times).unwrap();
    counts(&run(&stage, &server.url()).end().expect(0), 1, 2999);
    let times = times_published(&server, &[STREAM.to_owned()]);
    assert_eq!((times[&ids[0]], times[&ids[1]]), (2, 1));
}

#[test]
fn a_chat_in_two_labels_of_one_queue_is_published_once() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(3000);
    let body = |range: std::ops::Range<usize>| Chats::Body(Bytes::from(map_of(&ids[range])));
    let stage = Stage::with_labels(vec![("1", body(0..2000)), ("2", body(1000..3000))]);
    let all = stage.program("run").args(["--all-labels", "--queue", "q"]);
    let all = all.args(["--suppress-for", "1h", "--concurrency", "2"]);
    let ended = all.args(["--sink", &server.url()]).end().expect(0);
    assert_eq!(ended.report["totals"]["published"], 3000);
    assert_eq!(ended.report["totals"]["suppressed"], 1000);
    each_once(&server, &["q".to_owned()], &ids);
}

#[test]
fn a_chat_that_is_in_the_list_twice_is_published_once() {
    let server = Server::start(&[]);
    let (ids, _) = small_list(10);
    let twice = [ids.clone(), ids.clone()].concat();
    let stage = Stage::with_body(map_of(&twice));
    counts(&run(&stage, &server.url()).end().expect(0), 10, 10);
    each_once(&server, &[STREAM.to_owned()], &ids);
}

#[test]
fn every_format_and_partitions_leave_out_the_same_chats() {
    for arguments in [
        vec!["--format", "json"],
        vec!["--format", "cloudevents", "--include-names"],
        vec!["--include-names"],
        vec!["--partitions", "3"],
    ] {
        let server = Server::start(&[]);
        let (_, body) = small_list(3000);
        let stage = Stage::with_body(&body);
        let run = || run(&stage, &server.url()).args(&arguments);
        counts(&run().end().expect(0), 3000, 0);
        let (more, _) = small_list(3100);
        set_list(&stage, &more);
        counts(&run().end().expect(0), 100, 3000);
        let mut connection = server.connection();
        let streams = [
            "labelcast:1:{0}",
            "labelcast:1:{1}",
            "labelcast:1:{2}",
            STREAM,
        ];
        let lengths = streams.map(|stream| length(&mut connection, stream));
        assert_eq!(lengths.iter().sum::<usize>(), 3100, "{arguments:?}");
    }
}

#[test]
fn no_chat_comes_twice_whatever_kills_and_changes_there_are() {
    let server = Server::start(&[]);
    let mut numbers = Numbers(11);
    let (all, _) = small_list(4000);
    let stage = Stage::with_body(map_of(&all));
    let mut connection = server.connection();
    for round in 0..50 {
        // Another part of the chats, in another order.
        let start = numbers.below(1000) as usize;
        let mut list = all[start..start + 3000].to_vec();
        if round % 2 == 1 {
            list.reverse();
        }
        set_list(&stage, &list);
        let cut = 200 + numbers.below(2500) as usize;
        stage.mock.script("1", held_after(&map_of(&list), cut));
        let with = run(&stage, &server.url());
        kill_somewhere(&stage, with, &mut numbers, &mut connection);
    }
    set_list(&stage, &all);
    let ended = run(&stage, &server.url()).end().expect(0);
    assert_eq!(ended.label()["read"], 4000);
    each_once(&server, &[STREAM.to_owned()], &all);
}

#[test]
fn counts_are_right_although_replies_were_lost() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let (_, body) = small_list(10_000);
    let stage = Stage::with_body(&body);
    let mut numbers = Numbers(3);
    let mut published = 0;
    for round in 1..=12 {
        let (list, _) = small_list(10_000 + 50 * round);
        set_list(&stage, &list);
        proxy.cut_after(numbers.below(900) as i64, Direction::ToClient);
        let ended = run(&stage, &proxy.url()).end().expect(0);
        assert!(!proxy.is_armed(), "the connection was cut");
        counts(&ended, list.len() - published, published);
        published = list.len();
        assert_eq!(length(&mut server.connection(), STREAM), published);
    }
}

#[test]
fn nothing_is_stored_unless_asked_for_and_old_entries_go() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    let plain = stage.program("run").args(["--label", "1"]);
    plain.args(["--sink", &server.url()]).end().expect(0);
    let mut connection = server.connection();
    assert!(!connection.exists::<_, bool>(PUBLISHED).unwrap());

    let kept = || run(&stage, &server.url()).args(["--retain", "2d"]);
    kept().end().expect(0);
    assert!(connection.ttl::<_, i64>(PUBLISHED).unwrap() > 24 * 3600);
    let at: u64 = connection.hget(PUBLISHED, &ids[0]).unwrap();
    let gone: Vec<(String, u64)> = (0..1500)
        .map(|number| (format!("{number}@gone"), at - 3 * 24 * 3600))
        .collect();
    let _: () = connection.hset_multiple(PUBLISHED, &gone).unwrap();
    // The next sweep is due an eighth of that time after the last one.
    let checkpoint = "labelcast:checkpoint:{labelcast:1}:labelcast:1:inst-1:1";
    let _: () = connection.hset(checkpoint, "swept", at - 6 * 3600).unwrap();
    kept().end().expect(0);
    // And two fields about all of them.
    assert_eq!(
        connection.hlen::<_, usize>(PUBLISHED).unwrap(),
        ids.len() + 2
    );
}

#[test]
fn what_cannot_be_suppressed_is_an_error() {
    let stage = Stage::with_chats(1);
    let redis = "redis://127.0.0.1:1";
    for (arguments, problem) in [
        (vec!["--sink", "-"], "needs to know what earlier runs did"),
        (
            vec!["--sink", "file:/tmp/x"],
            "needs to know what earlier runs did",
        ),
        (
            vec!["--sink", "amqp://localhost"],
            "needs to know what earlier runs did",
        ),
        (
            vec!["--sink", redis, "--ids-per-message", "2"],
            "where some chats are left out",
        ),
        (
            vec!["--sink", redis, "--retain", "1h"],
            "longer than --retain",
        ),
    ] {
        let run = stage.program("run").args(["--label", "1"]).args(&arguments);
        let ended = run.args(["--suppress-for", "1d"]).end().expect(78);
        assert!(ended.stderr.contains(problem), "{}", ended.stderr);
    }
}
