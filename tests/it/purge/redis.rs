//! Everything that Redis stores about a label.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use labelcast::mock::Chats;
use redis::{Commands as _, Connection};
use serde_json::{Value, json};

use super::{purge, said};
use crate::support::proxy::{Direction, Proxy};
use crate::support::redis::{Server, chat_ids, entries, field, length};
use crate::support::{INSTANCE, Numbers, Running, Stage, map_of, small_list, wait_until};

pub(super) const STREAM: &str = "labelcast:1";
const ALL: [&str; 2] = ["--older-than", "0s"];

/// The contents of all keys. The order in which a hash or a set is dumped may change.
pub(super) fn dump(connection: &mut Connection) -> BTreeMap<String, Vec<u8>> {
    let keys: Vec<String> = connection.keys("*").unwrap();
    let dumped = keys.into_iter().map(|key| {
        let kind: String = redis::cmd("TYPE").arg(&key).query(connection).unwrap();
        let bytes: Vec<u8> = match kind.as_str() {
            "hash" => {
                let fields: BTreeMap<String, Vec<u8>> = connection.hgetall(&key).unwrap();
                format!("{fields:?}").into_bytes()
            }
            "set" => {
                let members: BTreeSet<String> = connection.smembers(&key).unwrap();
                format!("{members:?}").into_bytes()
            }
            _ => redis::cmd("DUMP").arg(&key).query(connection).unwrap(),
        };
        (key, bytes)
    });
    dumped.collect()
}

/// Appends an entry.
pub(super) fn add(connection: &mut Connection, stream: &str, id: &str, fields: &[(&str, &str)]) {
    let mut add = redis::cmd("XADD");
    add.arg(stream).arg(id).arg(fields);
    add.exec(connection).unwrap();
}

/// Adds what runs and `listen` keep beside a stream, as if they had kept members.
pub(super) fn seed(connection: &mut Connection, stream: &str, tag: &str, label: &str) {
    let beside = |kind: &str| format!("labelcast:{kind}:{{{tag}}}:{stream}:{INSTANCE}:{label}");
    let members = [
        (":", "token"),
        ("1@c.us", "ml1764209000:1764209000:17:3"),
        ("2@c.us", "re1764209000.123:1764209000:0:0"),
    ];
    let _: () = connection
        .hset_multiple(beside("members"), &members)
        .unwrap();
    let _: () = connection.hset(beside("membership"), "pass", "1").unwrap();
    let seen = beside("seen");
    let _: () = connection.sadd(&seen, "1@c.us").unwrap();
    let _: () = connection.expire(&seen, 3600).unwrap();
    let event = beside("event") + ":evt_1";
    let _: () = connection.set_ex(event, "1", 24 * 3600).unwrap();
    let removed = if stream.contains('{') {
        format!("{stream}:removed")
    } else {
        format!("{{{stream}}}:removed")
    };
    let left = [("event", "label.chat.deleted"), ("chat_id", "2@c.us")];
    let left = [&left[..], &[("label_id", label), ("run_id", "r")]].concat();
    add(connection, &removed, "*", &left);
}

fn run(stage: &Stage, server: &Server) -> Running {
    let run = stage.program("run").args(["--label", "1"]);
    run.args(["--sink", &server.url()])
}

#[test]
fn everything_about_a_label_is_deleted_in_every_format() {
    for arguments in [
        vec![],
        vec!["--format", "json", "--marker"],
        vec!["--format", "cloudevents"],
        vec!["--queue", "a{x}b"],
    ] {
        let (server, stage) = (Server::start(&[]), Stage::with_chats(3000));
        let kept = ["--suppress-for", "1h"];
        run(&stage, &server)
            .args(kept)
            .args(&arguments)
            .end()
            .expect(0);
        let mut connection = server.connection();
        let (stream, tag) = match arguments.as_slice() {
            ["--queue", queue] => (*queue, "x"),
            _ => (STREAM, STREAM),
        };
        seed(&mut connection, stream, tag, "1");
        // A marker is a message too.
        let markers = if arguments.contains(&"--marker") {
            2
        } else {
            0
        };
        let purge = |more: &[&str]| {
            let queue = if stream == STREAM {
                &[]
            } else {
                &arguments[..]
            };
            let purge = purge(&server.url()).args(ALL).args(queue);
            let purge = if queue.is_empty() {
                purge.args(["--label", "1"])
            } else {
                purge
            };
            said(&purge.args(more).end().expect(0))
        };
        let all = json!({"messages": 3000 + markers, "removed_messages": 1, "members": 2,
            "publication_times": 3000, "dedup_sets": 1, "events": 1, "checkpoints": 1,
            "manifests": 1, "counts": 1});
        let before = dump(&mut connection);
        assert_eq!(purge(&["--dry-run"]), all);
        assert!(dump(&mut connection) == before, "{arguments:?}");
        assert_eq!(purge(&[]), all, "{arguments:?}");
        let left: Vec<String> = dump(&mut connection).into_keys().collect();
        let note = format!("labelcast:membership:{{{tag}}}:{stream}:{INSTANCE}:1");
        let streams = [
            stream.to_owned(),
            if tag == "x" {
                "a{x}b:removed".to_owned()
            } else {
                format!("{{{STREAM}}}:removed")
            },
        ];
        for key in &left {
            assert!(streams.contains(key) || *key == note, "{key}");
        }
        assert_eq!(left.len(), 3);
        assert!(streams.iter().all(|it| length(&mut connection, it) == 0));
        assert_eq!(purge(&[]), json!({}));
        // The next run begins anew.
        run(&stage, &server)
            .args(kept)
            .args(&arguments)
            .end()
            .expect(0);
        assert_eq!(length(&mut connection, stream), 3000 + markers);
    }
}

#[test]
fn all_partitions_are_purged() {
    let (server, stage) = (Server::start(&[]), Stage::with_chats(3000));
    let partitions = ["--partitions", "3"];
    let kept = ["--suppress-for", "1h", "--ids-per-message", "1"];
    run(&stage, &server)
        .args(partitions)
        .args(kept)
        .end()
        .expect(0);
    let mut connection = server.connection();
    for index in 0..3 {
        let stream = format!("{STREAM}:{{{index}}}");
        seed(&mut connection, &stream, &index.to_string(), "1");
    }
    // A manifest of another queue in the same slot.
    let other = "labelcast:run:{1}:019ac1d4-0000-7000-8000-000000000000";
    let fields = [("queue", "other:{1}"), ("label_id", "1")];
    let _: () = connection.hset_multiple(other, &fields).unwrap();
    let before = dump(&mut connection);
    let all = json!({"messages": 3000, "removed_messages": 3, "members": 6,
        "publication_times": 3000, "dedup_sets": 3, "events": 3, "checkpoints": 3,
        "manifests": 3, "counts": 1});
    for (label, dry) in [(true, true), (false, true), (true, false)] {
        let purge = purge(&server.url()).args(ALL).args(partitions);
        let purge = if label {
            purge.args(["--label", "1"])
        } else {
            purge
        };
        let purge = if dry {
            purge.args(["--dry-run"])
        } else {
            purge
        };
        assert_eq!(said(&purge.end().expect(0)), all, "{label} {dry}");
        if dry {
            assert!(dump(&mut connection) == before, "{label}");
        }
    }
    assert!(connection.exists::<_, bool>(other).unwrap());
    for index in 0..3 {
        assert_eq!(length(&mut connection, &format!("{STREAM}:{{{index}}}")), 0);
    }
}

/// A queue with the chats of two labels.
fn shared(server: &Server, arguments: &[&str]) -> Stage {
    let (ids, _) = small_list(900);
    let body = |range: std::ops::Range<usize>| Chats::Body(Bytes::from(map_of(&ids[range])));
    let stage = Stage::with_labels(vec![("1", body(0..600)), ("2", body(600..900))]);
    let run = stage.program("run").args(["--all-labels", "--queue", "q"]);
    let run = run.args(["--sink", &server.url()]).args(arguments);
    run.end().expect(0);
    stage
}

#[test]
fn other_labels_of_a_queue_keep_their_messages() {
    for arguments in [
        vec!["--suppress-for", "1h"],
        vec!["--format", "json", "--ids-per-message", "7"],
        vec!["--format", "cloudevents", "--suppress-for", "1h"],
        vec!["--ids-per-message", "7", "--include-names"],
    ] {
        let server = Server::start(&[]);
        let _stage = shared(&server, &arguments);
        let mut connection = server.connection();
        for label in ["1", "2"] {
            seed(&mut connection, "q", "q", label);
        }
        let packed = arguments.contains(&"7");
        let messages = if packed { 600_u64.div_ceil(7) } else { 600 };
        let expected = json!({"messages": messages, "removed_messages": 1, "members": 2,
            "dedup_sets": 1, "events": 1, "checkpoints": 1, "manifests": 1, "counts": 1});
        let purge = purge(&server.url())
            .args(ALL)
            .args(["--queue", "q", "--label", "1"]);
        let ended = purge.end().expect(0);
        assert_eq!(said(&ended), expected, "{arguments:?}");
        assert!(ended.stderr.contains("times of publication are kept"));
        let left = if packed { 300_usize.div_ceil(7) } else { 300 };
        assert_eq!(length(&mut connection, "q"), left);
        for entry in entries(&mut connection, "q") {
            let label = field(&entry, "label_id").unwrap_or_else(|| {
                let data: Value = serde_json::from_str(&field(&entry, "data").unwrap()).unwrap();
                let data = data.get("data").unwrap_or(&data);
                data["label_id"].as_str().unwrap().to_owned()
            });
            assert_eq!(label, "2");
        }
        let times: usize = connection.hlen("labelcast:published:{q}:q").unwrap();
        // And two fields about all of them.
        assert_eq!(times, if packed { 0 } else { 902 });
        let members: usize = connection
            .hlen(format!("labelcast:members:{{q}}:q:{INSTANCE}:2"))
            .unwrap();
        assert_eq!(members, 3);
    }
}

#[test]
fn a_whole_queue_is_purged_without_a_label() {
    let server = Server::start(&[]);
    let stage = shared(&server, &["--suppress-for", "1h"]);
    stage
        .program("run")
        .args(["--label", "1", "--sink", &server.url()])
        .end()
        .expect(0);
    let mut connection = server.connection();
    let others = length(&mut connection, STREAM);
    for label in ["1", "2"] {
        seed(&mut connection, "q", "q", label);
    }
    let expected = json!({"messages": 900, "removed_messages": 2, "members": 4,
        "publication_times": 900, "dedup_sets": 2, "events": 2, "checkpoints": 2,
        "manifests": 2, "counts": 2});
    for more in [&["--dry-run"][..], &[]] {
        let purge = purge(&server.url()).args(ALL).args(["--queue", "q"]);
        assert_eq!(
            said(&purge.args(more).end().expect(0)),
            expected,
            "{more:?}"
        );
    }
    assert_eq!(length(&mut connection, "q"), 0);
    assert_eq!(length(&mut connection, STREAM), others);
}

#[test]
fn consumer_groups_outlive_a_purge() {
    let (server, stage) = (Server::start(&[]), Stage::with_chats(10));
    run(&stage, &server).end().expect(0);
    let mut connection = server.connection();
    let group = ["CREATE", STREAM, "workers", "0"];
    redis::cmd("XGROUP")
        .arg(&group)
        .exec(&mut connection)
        .unwrap();
    let purge = purge(&server.url()).args(ALL).args(["--label", "1"]);
    purge.end().expect(0);
    let groups: Vec<redis::Value> = redis::cmd("XINFO")
        .arg(&["GROUPS", STREAM])
        .query(&mut connection)
        .unwrap();
    assert_eq!(groups.len(), 1);
}

#[test]
fn a_label_that_is_unfinished_is_published_again_as_a_whole() {
    let (server, stage) = (Server::start(&[]), Stage::with_chats(0));
    let (ids, body) = small_list(2000);
    let (reply, _gate) = crate::support::gated(&body);
    stage.mock.script("1", reply);
    let process = run(&stage, &server).spawn();
    let mut connection = server.connection();
    wait_until("something is published", || {
        length(&mut connection, STREAM) > 500
    });
    process.signal("TERM");
    process.end().expect(75);
    let purge = purge(&server.url()).args(ALL).args(["--label", "1"]);
    purge.end().expect(0);
    stage.mock.set_chats("1", &Chats::Body(Bytes::from(body)));
    let ended = run(&stage, &server).end().expect(0);
    assert_eq!(ended.label()["resumed"], 0);
    assert_eq!(chat_ids(&mut connection, STREAM), ids);
}

#[test]
fn lost_replies_leave_nothing_behind() {
    let server = Server::start(&[]);
    let proxy = Proxy::start(server.port);
    let mut numbers = Numbers(5);
    for round in 0..6 {
        let stage = Stage::with_chats(4000);
        let kept = ["--suppress-for", "1h", "--no-resume"];
        run(&stage, &server).args(kept).end().expect(0);
        let mut connection = server.connection();
        seed(&mut connection, STREAM, STREAM, "1");
        proxy.cut_after(200 + numbers.below(1500) as i64, Direction::ToClient);
        let label = if round % 2 == 0 { "1" } else { "" };
        let queue = ["--queue", STREAM];
        let purge = purge(&proxy.url()).args(ALL).args(queue);
        let purge = if label.is_empty() {
            purge
        } else {
            purge.args(["--label", label])
        };
        purge.end().expect(0);
        assert!(!proxy.is_armed(), "the connection was cut");
        assert_eq!(length(&mut connection, STREAM), 0);
        let mut left: Vec<String> = connection.keys("labelcast:*").unwrap();
        left.retain(|key| !key.contains(":published:"));
        left.sort();
        let note = format!("labelcast:membership:{{{STREAM}}}:{STREAM}:{INSTANCE}:1");
        assert_eq!(left, [STREAM.to_owned(), note]);
        let _: () = connection
            .del(format!("labelcast:published:{{{STREAM}}}:{STREAM}"))
            .unwrap();
    }
}

#[test]
fn a_purge_ends_at_a_signal() {
    let (server, stage) = (Server::start(&[]), Stage::with_chats(10));
    run(&stage, &server).end().expect(0);
    let mut connection = server.connection();
    let _: () = redis::cmd("CLIENT")
        .arg(&["PAUSE", "600000", "WRITE"])
        .query(&mut connection)
        .unwrap();
    let process = purge(&server.url())
        .args(ALL)
        .args(["--label", "1"])
        .spawn();
    wait_until("the purge waits for the server", || {
        let clients: String = redis::cmd("CLIENT")
            .arg("LIST")
            .query(&mut connection)
            .unwrap();
        clients.lines().any(|line| line.contains("cmd=set "))
    });
    process.signal("TERM");
    process.end().expect(75);
    let _: () = redis::cmd("CLIENT")
        .arg("UNPAUSE")
        .query(&mut connection)
        .unwrap();
    assert_eq!(length(&mut connection, STREAM), 10);
}

#[test]
fn large_keys_take_no_more_memory_and_no_long_command() {
    let server = Server::start(&["--slowlog-log-slower-than", "100000"]);
    let mut connection = server.connection();
    let beside = |kind: &str| format!("labelcast:{kind}:{{{STREAM}}}:{STREAM}");
    let fill = "for i = 1, 150000 do
        redis.call('XADD', KEYS[1], '*', 'chat_id', i .. '@c.us', 'label_id', '1', 'run_id', 'r')
        redis.call('HSET', KEYS[2], i .. '@c.us', 'ml1000:1000:1:1')
        redis.call('HSET', KEYS[3], i .. '@c.us', '1000')
      end";
    let members = format!("{}:{INSTANCE}:1", beside("members"));
    let _: () = redis::cmd("EVAL")
        .arg(fill)
        .arg(3)
        .arg(&[STREAM, &members, &beside("published")])
        .query(&mut connection)
        .unwrap();
    let _: () = redis::cmd("SLOWLOG")
        .arg("RESET")
        .query(&mut connection)
        .unwrap();
    let purge = || purge(&server.url()).args(["--label", "1"]);
    let small = purge().args(["--older-than", "100y"]).end().expect(0);
    assert_eq!(said(&small), json!({}));
    let aged = ["--older-than", "1d"];
    let ended = purge().args(aged).end().expect(0);
    assert_eq!(
        said(&ended),
        json!({"members": 150_000, "publication_times": 150_000})
    );
    let ended = purge().args(ALL).end().expect(0);
    assert_eq!(said(&ended), json!({"messages": 150_000}));
    let slow: Vec<redis::Value> = redis::cmd("SLOWLOG")
        .arg("GET")
        .query(&mut connection)
        .unwrap();
    assert!(slow.is_empty(), "{slow:?}");
}
