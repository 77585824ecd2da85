//! The commands `tail` and `check`.

use redis::Commands;
use serde_json::Value;

use super::{STREAM, run};
use crate::support::redis::{Server, length};
use crate::support::{Ended, Running, Stage, wait_until};

fn tail(server: &Server, arguments: &[&str]) -> Running {
    let url = server.url();
    Running::new("tail")
        .args(["--sink", &url, "--queue", STREAM])
        .args(arguments)
}

fn lines(ended: &Ended) -> Vec<Value> {
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn published(count: u64) -> Server {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(count);
    run(&stage, &server.url()).end().expect(0);
    server
}

#[test]
fn tail_prints_each_message_as_a_line() {
    let server = published(250);
    let first = tail(&server, &[]).end().expect(0);
    let found = lines(&first);
    assert_eq!(found.len(), 250);
    assert_eq!(found[0]["chat_id"], "4900000000000@lid");
    assert_eq!(found[0]["label_id"], "1");
    assert!(found[0]["entry_id"].is_string());
    // Without --ack all messages are still pending.
    let again = tail(&server, &["--count", "7"]).end().expect(0);
    assert_eq!(lines(&again), found[..7]);
}

#[test]
fn acknowledged_messages_are_not_delivered_again() {
    let server = published(20);
    assert_eq!(
        lines(&tail(&server, &["--ack", "--count", "15"]).end().expect(0)).len(),
        15
    );
    assert_eq!(lines(&tail(&server, &["--ack"]).end().expect(0)).len(), 5);
    assert!(lines(&tail(&server, &["--ack"]).end().expect(0)).is_empty());
    // Another group has its own position.
    let arguments = ["--group", "other", "--delete"];
    assert_eq!(lines(&tail(&server, &arguments).end().expect(0)).len(), 20);
    assert_eq!(length(&mut server.connection(), STREAM), 0);
}

#[test]
fn tail_prints_packed_ids_and_data_as_json() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(4);
    let packed = ["--ids-per-message", "4"];
    run(&stage, &server.url()).args(packed).end().expect(0);
    run(&stage, &server.url())
        .args(["--format", "json"])
        .end()
        .expect(0);
    let found = lines(&tail(&server, &[]).end().expect(0));
    assert_eq!(found[0]["chat_ids"].as_array().unwrap().len(), 4);
    assert_eq!(found[1]["data"]["chat_id"], "4900000000000@lid");
}

fn groups(server: &Server) -> usize {
    let groups: redis::RedisResult<Vec<redis::Value>> = redis::cmd("XINFO")
        .arg(&["GROUPS", STREAM])
        .query(&mut server.connection());
    groups.map_or(0, |groups| groups.len())
}

#[test]
fn tail_follow_reads_later_messages() {
    let server = Server::start(&[]);
    let process = tail(&server, &["--follow", "--ack", "--count", "30"]).spawn();
    wait_until("tail is reading", || groups(&server) == 1);
    let stage = Stage::with_chats(30);
    run(&stage, &server.url()).end().expect(0);
    assert_eq!(lines(&process.end()).len(), 30);

    let process = tail(&server, &["--follow", "--group", "late"]).spawn();
    wait_until("tail is reading", || groups(&server) == 2);
    process.signal("TERM");
    assert_eq!(process.end().code, Some(0));
}

#[test]
fn tail_refuses_a_queue_with_a_placeholder() {
    let server = Server::start(&[]);
    let ended = Running::new("tail").args(["--sink", &server.url()]).end();
    assert_eq!(ended.code, Some(78), "{ended:?}");
    assert!(ended.stderr.contains("whole name"), "{}", ended.stderr);
    let ended = Running::new("tail").args(["--queue", "q"]).end();
    assert_eq!(ended.code, Some(78), "{ended:?}");
}

fn check(stage: &Stage, url: &str) -> Ended {
    stage
        .program("check")
        .args(["--label", "1", "--sink", url])
        .end()
}

#[test]
fn check_leaves_nothing_behind() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(3);
    let ended = check(&stage, &server.url()).expect(0);
    assert!(
        ended
            .stdout
            .contains("ok    sink: labelcast:1 can be appended to"),
        "{}",
        ended.stdout
    );
    assert!(!ended.stdout.contains("warn"), "{}", ended.stdout);
    let keys: Vec<String> = server.connection().keys("*").unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[test]
fn check_finds_problems_of_a_run() {
    let stage = Stage::with_chats(3);
    let evicting = Server::start(&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"]);
    let ended = check(&stage, &evicting.url()).expect(0);
    assert!(
        ended
            .stdout
            .contains("warn  sink: maxmemory-policy is allkeys-lru"),
        "{}",
        ended.stdout
    );

    let _: () = evicting.connection().set(STREAM, "text").unwrap();
    let ended = check(&stage, &evicting.url()).expect(78);
    assert!(
        ended.stdout.contains("is a string, and no stream"),
        "{}",
        ended.stdout
    );

    let locked = Server::with_password("right");
    let url = locked.url().replace("right", "wrong");
    check(&stage, &url).expect(77);

    // A user with read access only.
    let mut connection = locked.connection();
    redis::cmd("ACL")
        .arg(&[
            "SETUSER",
            "reader",
            "on",
            ">pw",
            "~*",
            "+@read",
            "+@connection",
            "+info",
            "+role",
        ])
        .exec(&mut connection)
        .unwrap();
    let url = format!("redis://reader:pw@127.0.0.1:{}", locked.port);
    check(&stage, &url).expect(77);
    // Permissions that only the check needs may be missing. Those that a run needs may not.
    let seen = "warn  sink: this user may not ask";
    for (rules, code, says) in [
        (&["~*", "+@all", "-@dangerous"][..], 0, seen),
        (&["~*", "+@all", "-role", "-info", "-type"], 0, seen),
        (&["~*", "+@all", "-sadd"], 77, "FAIL"),
        (&["~labelcast:1", "~labelcast:[cls]*", "+@all"], 77, "FAIL"),
        (
            &["%R~labelcast:1", "~labelcast:[clsr]*", "+@all"],
            77,
            "FAIL",
        ),
        (&["~labelcast:1", "~labelcast:[clsr]*", "+@all"], 0, "ok"),
    ] {
        redis::cmd("ACL")
            .arg(&["SETUSER", "other", "reset", "on", ">pw"])
            .arg(rules)
            .exec(&mut connection)
            .unwrap();
        let url = format!("redis://other:pw@127.0.0.1:{}", locked.port);
        let ended = check(&stage, &url).expect(code);
        assert!(ended.stdout.contains(says), "{rules:?}: {}", ended.stdout);
        run(&stage, &url)
            .end()
            .expect(if rules.contains(&"-sadd") { 0 } else { code });
    }

    let master = Server::start(&[]);
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    check(&stage, &replica.url()).expect(69);
}
