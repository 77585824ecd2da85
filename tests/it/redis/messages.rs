//! The stream, and the keys beside it.

use labelcast::mock::Chats;
use redis::Commands;
use serde_json::{Value, json};

use super::{STREAM, holds, run};
use crate::support::redis::{Server, chat_ids, entries, field, length};
use crate::support::{Running, Stage, map_of, small_list, wait_until};

fn data(server: &Server) -> Vec<Value> {
    let entries = entries(&mut server.connection(), STREAM);
    let data = entries.iter().map(|entry| field(entry, "data").unwrap());
    data.map(|data| serde_json::from_str(&data).unwrap())
        .collect()
}

#[test]
fn fields_is_the_default_format() {
    let server = Server::start(&[]);
    let stage = Stage::with_body(r#"[{"id":"1@c.us","name":"A"},{"id":"2@lid"}]"#);
    let ended = run(&stage, &server.url()).end().expect(0);
    let run_id = ended.label()["run_id"].as_str().unwrap();
    let expected = |id: &str| {
        [("chat_id", id), ("label_id", "1"), ("run_id", run_id)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    };
    let found = entries(&mut server.connection(), STREAM);
    assert_eq!(found, [expected("1@c.us"), expected("2@lid")]);
    assert_eq!(ended.label()["messages"], 2);
    assert_eq!(ended.label()["published"], 2);
}

#[test]
fn fields_can_have_names_and_packed_ids() {
    let server = Server::start(&[]);
    let body = r#"[{"id":"1@c.us","name":"Zoë"},{"id":"2@lid"},{"id":"3@c.us","name":"C"}]"#;
    let stage = Stage::with_body(body);
    run(&stage, &server.url())
        .args(["--include-names"])
        .end()
        .expect(0);
    let packed = ["--include-names", "--ids-per-message", "2"];
    run(&stage, &server.url()).args(packed).end().expect(0);
    let found = entries(&mut server.connection(), STREAM);
    let names: Vec<_> = found.iter().map(|entry| field(entry, "name")).collect();
    assert_eq!(
        names[..3],
        [Some("Zoë".to_owned()), None, Some("C".to_owned())]
    );
    assert_eq!(
        field(&found[3], "chat_ids").unwrap(),
        r#"["1@c.us","2@lid"]"#
    );
    assert_eq!(field(&found[3], "names").unwrap(), r#"["Zoë",null]"#);
    assert_eq!(field(&found[4], "chat_ids").unwrap(), r#"["3@c.us"]"#);
}

#[test]
fn json_and_events_are_in_one_field() {
    for format in ["json", "cloudevents"] {
        let server = Server::start(&[]);
        let stage = Stage::with_body(r#"[{"id":"1@c.us"}]"#);
        let arguments = ["--format", format];
        let ended = run(&stage, &server.url()).args(arguments).end().expect(0);
        let found = data(&server);
        let run_id = &ended.label()["run_id"];
        let message = json!({"chat_id": "1@c.us", "label_id": "1", "run_id": run_id});
        if format == "json" {
            assert_eq!(found, [message]);
        } else {
            assert_eq!(found[0]["data"], message);
            assert_eq!(found[0]["specversion"], "1.0");
        }
    }
}

#[test]
fn a_manifest_tells_when_a_run_is_complete() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(body);
    let ended = run(&stage, &server.url()).end().expect(0);
    let run_id = ended.label()["run_id"].as_str().unwrap();
    let mut connection = server.connection();
    let key = format!("labelcast:run:{{{STREAM}}}:{run_id}");
    let manifest: std::collections::HashMap<String, String> = connection.hgetall(&key).unwrap();
    assert_eq!(manifest["status"], "complete");
    assert_eq!(manifest["chats"], "3000");
    assert_eq!(manifest["queue"], STREAM);
    assert_eq!(manifest["label_id"], "1");
    assert_eq!(
        manifest["digest"],
        ended.label()["digest"].as_str().unwrap()
    );
    let first: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
        .arg(&[STREAM, &manifest["first_id"], &manifest["last_id"]])
        .query(&mut connection)
        .unwrap();
    assert_eq!(first.len(), ids.len());
    let keeps: i64 = connection.ttl(&key).unwrap();
    assert!((600_000..=604_800).contains(&keeps), "{keeps}");
    let locks: Vec<String> = connection.keys("labelcast:lock:*").unwrap();
    assert!(locks.is_empty(), "{locks:?}");
}

#[test]
fn a_manifest_of_a_partial_run_counts_published_chats() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body[..body.len() / 2]);
    let arguments = ["--retries", "0"];
    let ended = run(&stage, &server.url()).args(arguments).end().expect(69);
    let label = ended.label();
    let mut connection = server.connection();
    let there = chat_ids(&mut connection, STREAM);
    assert!(there.len() > 1000 && there == ids[..there.len()]);
    let run_id = label["run_id"].as_str().unwrap();
    let key = format!("labelcast:run:{{{STREAM}}}:{run_id}");
    let manifest: std::collections::HashMap<String, String> = connection.hgetall(&key).unwrap();
    assert_eq!(manifest["status"], "partial");
    assert_eq!(manifest["chats"], there.len().to_string());
}

#[test]
fn keys_beside_a_stream_expire_even_if_nothing_was_published() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(10);
    let arguments = ["--min-chats", "11", "--partitions", "3"];
    run(&stage, &server.url()).args(arguments).end().expect(80);
    let mut connection = server.connection();
    let keys: Vec<String> = connection.keys("*").unwrap();
    assert!(!keys.is_empty());
    for key in keys {
        let keeps: i64 = connection.ttl(&key).unwrap();
        assert!((600_000..=604_800).contains(&keeps), "{key}: {keeps}");
    }
}

#[test]
fn markers_surround_the_chats_of_a_run() {
    for format in ["fields", "json", "cloudevents"] {
        let server = Server::start(&[]);
        let (_, body) = small_list(10);
        let stage = Stage::with_body(body);
        let arguments = ["--marker", "--format", format];
        let ended = run(&stage, &server.url()).args(arguments).end().expect(0);
        let found = entries(&mut server.connection(), STREAM);
        assert_eq!(found.len(), 12);
        assert_eq!(field(&found[0], "event").unwrap(), "run.started");
        assert_eq!(field(&found[11], "event").unwrap(), "run.completed");
        assert!(
            found[1..11]
                .iter()
                .all(|entry| field(entry, "event").is_none())
        );
        assert_eq!(ended.label()["messages"], 10);
    }
}

#[test]
fn old_entries_are_trimmed() {
    let server = Server::start(&["--stream-node-max-entries", "10"]);
    let mut connection = server.connection();
    for id in 1..=100 {
        let _: () = redis::cmd("XADD")
            .arg(STREAM)
            .arg(format!("{id}-0"))
            .arg(&["a", "b"])
            .exec(&mut connection)
            .unwrap();
    }
    let (ids, body) = small_list(10);
    let stage = Stage::with_body(body);
    run(&stage, &server.url())
        .args(["--retain", "forever"])
        .end()
        .expect(0);
    assert_eq!(entries(&mut connection, STREAM).len(), 110);
    run(&stage, &server.url())
        .args(["--retain", "1h"])
        .end()
        .expect(0);
    assert_eq!(
        chat_ids(&mut connection, STREAM),
        [ids.clone(), ids].concat()
    );
    assert_eq!(entries(&mut connection, STREAM).len(), 20);
}

#[test]
fn chats_are_spread_over_partitions_by_their_ids() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(4000);
    let stage = Stage::with_body(body);
    let arguments = ["--partitions", "4"];
    let ended = run(&stage, &server.url()).args(arguments).end().expect(0);
    assert_eq!(ended.label()["published"], 4000);
    let mut connection = server.connection();
    for partition in 0..4 {
        let stream = format!("{STREAM}:{{{partition}}}");
        let found = chat_ids(&mut connection, &stream);
        let expected: Vec<_> = ids
            .iter()
            .filter(|id| labelcast::broker::partition_of(id.as_bytes(), 4) == partition)
            .cloned()
            .collect();
        assert!(expected.len() > 500, "chats are spread evenly");
        assert_eq!(found, expected);
    }
}

#[test]
fn keys_beside_each_partition_are_kept_while_a_run_waits() {
    let server = Server::start(&[]);
    let (_, body) = small_list(1000);
    let stage = Stage::with_body(body);
    let arguments = ["--partitions", "2", "--max-pending", "50"];
    let process = run(&stage, &server.url()).args(arguments).spawn();
    let mut connection = server.connection();
    for partition in ["labelcast:1:{0}", "labelcast:1:{1}"] {
        wait_until("the partition is full", || {
            length(&mut connection, partition) >= 50
        });
    }
    let checkpoints: Vec<String> = connection.keys("labelcast:checkpoint:*").unwrap();
    assert_eq!(checkpoints.len(), 2);
    for key in checkpoints {
        let mut before: i64 = i64::MAX;
        wait_until("a heartbeat has extended the lock", || {
            let now: i64 = connection.pttl(&key).unwrap();
            let is_longer = now > before;
            before = now;
            is_longer
        });
    }
    process.signal("TERM");
    process.end().expect(75);
}

#[test]
fn a_full_stream_is_waited_for() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(1000);
    let stage = Stage::with_body(body);
    let process = run(&stage, &server.url())
        .args(["--max-pending", "50"])
        .spawn();
    let mut connection = server.connection();
    let mut found = Vec::new();
    wait_until("all data has arrived", || {
        let length: usize = redis::cmd("XLEN")
            .arg(STREAM)
            .query(&mut connection)
            .unwrap();
        assert!(length <= 60, "{length} entries are pending");
        let ids: Vec<(String, Vec<String>)> = redis::cmd("XRANGE")
            .arg(&[STREAM, "-", "+", "COUNT", "20"])
            .query(&mut connection)
            .unwrap();
        for (id, fields) in ids {
            found.push(fields[1].clone());
            let _: () = redis::cmd("XDEL")
                .arg(&[STREAM, &id])
                .exec(&mut connection)
                .unwrap();
        }
        found.len() == 1000
    });
    process.end().expect(0);
    assert_eq!(found, ids);
}

#[test]
fn waiting_for_consumers_ends_with_the_deadline() {
    let server = Server::start(&[]);
    let stage = Stage::with_labels(vec![("1", Chats::Generated(1000))]);
    let arguments = ["--max-pending", "10", "--deadline", "4s"];
    let ended = run(&stage, &server.url()).args(arguments).end().expect(75);
    let published = ended.label()["published"].as_u64().unwrap();
    assert!((10..=20).contains(&published), "{published}");
    assert!(ended.stderr.contains("waiting for consumers"));
}

#[test]
fn max_pending_uses_the_lag_of_consumer_groups() {
    let server = Server::start(&[]);
    let (_, body) = small_list(200);
    let stage = Stage::with_body(body);
    let mut connection = server.connection();
    run(&stage, &server.url()).end().expect(0);
    let _: () = redis::cmd("XGROUP")
        .arg(&["CREATE", STREAM, "workers", "0"])
        .exec(&mut connection)
        .unwrap();
    let _: redis::Value = redis::cmd("XREADGROUP")
        .arg(&[
            "GROUP", "workers", "one", "COUNT", "1000", "STREAMS", STREAM, ">",
        ])
        .query(&mut connection)
        .unwrap();
    // All entries were read, so nothing is pending although none was deleted.
    let arguments = ["--max-pending", "300"];
    run(&stage, &server.url()).args(arguments).end().expect(0);
    assert_eq!(chat_ids(&mut connection, STREAM).len(), 400);
    // The group of `tail` reads one entry only. The rest of its entries does not count as pending.
    let look = ["--queue", STREAM, "--sink", &server.url(), "--count", "1"];
    Running::new("tail").args(look).end().expect(0);
    let _: redis::Value = redis::cmd("XREADGROUP")
        .arg(&[
            "GROUP", "workers", "one", "COUNT", "1000", "STREAMS", STREAM, ">",
        ])
        .query(&mut connection)
        .unwrap();
    let arguments = ["--max-pending", "300", "--deadline", "20s"];
    run(&stage, &server.url()).args(arguments).end().expect(0);
}

#[test]
fn a_chat_that_the_list_names_twice_is_published_twice() {
    let server = Server::start(&[]);
    let (mut ids, _) = small_list(3);
    ids.push(ids[0].clone());
    let stage = Stage::with_body(map_of(&ids));
    let ended = run(&stage, &server.url()).end().expect(0);
    assert_eq!(ended.label()["published"], 4);
    holds(&server, &ids);
}

#[test]
fn min_replicas_waits_for_a_replica() {
    let master = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(body);
    let arguments = ["--min-replicas", "1"];
    let alone = ["--retries", "0"];
    let ended = run(&stage, &master.url())
        .args(arguments)
        .args(alone)
        .end()
        .expect(69);
    assert!(
        ended.label()["error"]
            .as_str()
            .unwrap()
            .contains("replicas")
    );
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    crate::support::redis::expire_locks(&mut master.connection());
    run(&stage, &master.url()).args(arguments).end().expect(0);
    holds(&master, &ids);
    holds(&replica, &ids);
}
