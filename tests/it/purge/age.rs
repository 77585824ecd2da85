//! What is deleted by age.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redis::{Commands as _, Connection};
use serde_json::json;

use super::redis::{STREAM, add};
use super::{purge, said};
use crate::support::redis::{Server, chat_ids};
use crate::support::{INSTANCE, Stage};

const DAY: u64 = 24 * 3600;

/// The time some days ago, in seconds since 1970.
fn days_ago(days: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() - days * DAY
}

fn rfc3339(seconds: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_millis(at).to_string()
}

fn add_at(connection: &mut Connection, stream: &str, seconds: u64, chat: &str, label: &str) {
    let fields = [("chat_id", chat), ("label_id", label), ("run_id", "r")];
    let id = format!("{}-*", seconds * 1000);
    add(connection, stream, &id, &fields);
}

fn key(kind: &str) -> String {
    format!("labelcast:{kind}:{{{STREAM}}}:{STREAM}:{INSTANCE}:1")
}

#[test]
fn only_what_is_older_is_deleted() {
    for whole in [false, true] {
        let (server, stage) = (Server::start(&[]), Stage::with_chats(3));
        let mut connection = server.connection();
        let removed = format!("{{{STREAM}}}:removed");
        for stream in [STREAM, &removed] {
            for number in 0..250 {
                add_at(
                    &mut connection,
                    stream,
                    days_ago(40),
                    &format!("{number}@old"),
                    "1",
                );
            }
            add_at(&mut connection, stream, days_ago(20), "a@new", "1");
        }
        let run = stage
            .program("run")
            .args(["--label", "1", "--retain", "forever"]);
        let run = run.args(["--sink", &server.url(), "--suppress-for", "60d"]);
        run.end().expect(0);
        let members = [
            (":", "token".to_owned()),
            ("a@old", format!("ml{}:1:1:1", days_ago(40))),
            ("b@old", format!("re{}.999:1:1:1", days_ago(31))),
            ("c@new", format!("me{}.001:1:1:1", days_ago(29))),
            ("d@new", format!("nl{}:{}:1:1", days_ago(1), days_ago(90))),
        ];
        let _: () = connection.hset_multiple(key("members"), &members).unwrap();
        let published = format!("labelcast:published:{{{STREAM}}}:{STREAM}");
        let times = [("a@old", days_ago(40)), ("b@new", days_ago(29))];
        let _: () = connection.hset_multiple(&published, &times).unwrap();
        let manifest = |number: u32, at: Option<u64>| {
            let key =
                format!("labelcast:run:{{{STREAM}}}:019ac1d4-0000-7000-8000-00000000000{number}");
            let mut fields = vec![("queue", STREAM.to_owned()), ("label_id", "1".to_owned())];
            fields.push(("started_at", rfc3339(days_ago(40))));
            fields.extend(at.map(|at| ("finished_at", rfc3339(at))));
            (key, fields)
        };
        for (key, fields) in [
            manifest(1, Some(days_ago(39))),
            manifest(2, None),
            manifest(3, Some(days_ago(20))),
        ] {
            let _: () = connection.hset_multiple(key, &fields).unwrap();
        }
        let count =
            |at: u64| json!({"name": "n", "color": null, "chats": 7, "counted_at": rfc3339(at)});
        let counts = "labelcast:labels:{inst-1}";
        let _: () = connection
            .hset(counts, "8", count(days_ago(40)).to_string())
            .unwrap();
        let _: () = connection
            .hset(counts, "9", count(days_ago(3)).to_string())
            .unwrap();

        let expected = json!({"messages": 250, "removed_messages": 250, "members": 2,
            "publication_times": 1, "manifests": 2});
        let mut all = expected.clone();
        all["counts"] = json!(1);
        let arguments = if whole {
            ["--queue", STREAM]
        } else {
            ["--label", "1"]
        };
        for more in [&["--dry-run"][..], &[]] {
            let purge = purge(&server.url()).args(["--older-than", "30d"]);
            let ended = purge.args(arguments).args(more).end().expect(0);
            assert_eq!(said(&ended), if whole { &all } else { &expected }.clone());
        }
        assert_eq!(chat_ids(&mut connection, STREAM).len(), 1 + 3);
        assert_eq!(chat_ids(&mut connection, &removed), ["a@new"]);
        let mut left: Vec<String> = connection.hkeys(key("members")).unwrap();
        left.sort();
        assert_eq!(left, ["c@new", "d@new"], "the set is not whole any more");
        let left: Vec<String> = connection.hkeys(&published).unwrap();
        assert_eq!(left.len(), 1 + 3 + 2, "and two fields about all of them");
        assert!(connection.exists::<_, bool>(key("checkpoint")).unwrap());
        let purge = purge(&server.url()).args(["--older-than", "12h", "--label", "1"]);
        let ended = purge.end().expect(0);
        assert_eq!(said(&ended)["members"], 2);
        assert!(!connection.exists::<_, bool>(key("members")).unwrap());
    }
}

#[test]
fn keys_beside_a_stream_are_as_old_as_their_last_use() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let expiring = |connection: &mut Connection, key: &str, seconds: i64| {
        let _: () = connection.expire(key, seconds).unwrap();
    };
    let old_event = key("event") + ":old";
    let new_event = key("event") + ":new";
    for event in [&old_event, &new_event] {
        let _: () = connection.set(event, "1").unwrap();
    }
    expiring(&mut connection, &old_event, 3600);
    expiring(&mut connection, &new_event, 24 * 3600 - 600);
    let _: () = connection.sadd(key("seen"), "1@c.us").unwrap();
    expiring(&mut connection, &key("seen"), 1800);
    let fence = days_ago(1) * 1_000_000;
    let _: () = connection.hset(key("checkpoint"), "fence", fence).unwrap();
    for (age, expected) in [
        ("25h", json!({})),
        ("24h1m", json!({})),
        ("23h59m", json!({"checkpoints": 1})),
        ("2h", json!({"events": 1})),
        ("31m", json!({})),
        ("29m", json!({"dedup_sets": 1})),
    ] {
        let purge = purge(&server.url()).args(["--label", "1", "--older-than", age]);
        let ended = purge.end().expect(0);
        assert_eq!(said(&ended), expected, "{age}");
    }
    assert!(connection.exists::<_, bool>(new_event).unwrap());
    let at = rfc3339(days_ago(3));
    let _: () = connection.hset(key("checkpoint"), "at", at).unwrap();
    let _: () = connection.hset(key("checkpoint"), "fence", fence).unwrap();
    let purge = purge(&server.url()).args(["--label", "1", "--older-than", "2d"]);
    assert_eq!(said(&purge.end().expect(0)), json!({"checkpoints": 1}));
}

#[test]
fn the_token_of_members_goes_with_the_first_of_them() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let purge = |age: &str| {
        let purge = purge(&server.url()).args(["--label", "1", "--older-than", age]);
        said(&purge.end().expect(0))
    };
    // The set of a label that has no members.
    let _: () = connection.hset(key("members"), ":", "token").unwrap();
    assert_eq!(purge("1d"), json!({}));
    let token: String = connection.hget(key("members"), ":").unwrap();
    assert_eq!(token, "token");
    let left = format!("re{}.000:1:1:1", days_ago(2));
    let both = [
        ("1@c.us", left),
        ("2@c.us", format!("ml{}:1:1:1", days_ago(0))),
    ];
    let _: () = connection.hset_multiple(key("members"), &both).unwrap();
    assert_eq!(purge("1d"), json!({"members": 1}));
    assert!(
        connection
            .hexists::<_, _, bool>(key("members"), ":")
            .unwrap()
    );
    assert_eq!(purge("0s"), json!({"members": 1}));
    let _: () = connection.hset(key("members"), ":", "token").unwrap();
    // More than one page.
    let old = format!("ml{}:1:1:1", days_ago(2));
    let members: Vec<(String, &String)> = (0..2000).map(|i| (format!("{i}@c.us"), &old)).collect();
    let _: () = connection.hset_multiple(key("members"), &members).unwrap();
    assert_eq!(purge("1d"), json!({"members": 2000}));
    assert!(!connection.exists::<_, bool>(key("members")).unwrap());
    let _: () = connection.hset(key("members"), ":", "token").unwrap();
    assert_eq!(purge("0s"), json!({}));
    assert!(!connection.exists::<_, bool>(key("members")).unwrap());
}
