//! `--acknowledged`: what every consumer group has acknowledged.

use redis::{Connection, Value};
use serde_json::json;

use super::redis::{STREAM, dump};
use super::{purge, said};
use crate::support::redis::{Server, chat_ids};
use crate::support::{Stage, small_list};

/// Reads entries as a consumer of a group, and acknowledges some of them by their position.
fn consume(connection: &mut Connection, group: &str, count: usize, acked: &[(usize, usize)]) {
    let create = ["CREATE", STREAM, group, "0"];
    redis::cmd("XGROUP").arg(&create).exec(connection).unwrap();
    let mut read = redis::cmd("XREADGROUP");
    read.arg(&["GROUP", group, "c", "COUNT"]).arg(count);
    read.arg(&["STREAMS", STREAM, ">"]);
    read.exec(connection).unwrap();
    let entries: Vec<(String, Value)> = redis::cmd("XRANGE")
        .arg(&[STREAM, "-", "+"])
        .query(connection)
        .unwrap();
    for (start, end) in acked {
        let ids: Vec<&String> = entries[*start..*end].iter().map(|(id, _)| id).collect();
        let mut ack = redis::cmd("XACK");
        ack.arg(STREAM)
            .arg(group)
            .arg(ids)
            .exec(connection)
            .unwrap();
    }
}

/// A group: its name, the number of entries that were delivered, and ranges that were acknowledged.
type Group<'a> = (&'a str, usize, &'a [(usize, usize)]);

#[test]
fn entries_stay_until_every_group_has_acknowledged_them() {
    let cases: &[(&[Group<'_>], usize)] = &[
        // Groups, with the entries that were delivered and acknowledged; deleted entries.
        (&[], 0),
        (&[("a", 1000, &[(0, 600), (700, 1000)])], 600),
        (&[("a", 1000, &[(0, 1000)])], 1000),
        (&[("a", 1000, &[(0, 1000)]), ("b", 400, &[(0, 400)])], 400),
        (&[("a", 500, &[(0, 500)]), ("b", 1000, &[(0, 1000)])], 500),
        (
            &[
                ("a", 1000, &[(0, 900)]),
                ("b", 800, &[(0, 300), (301, 800)]),
            ],
            300,
        ),
        (&[("a", 1000, &[(0, 1000)]), ("b", 1000, &[(1, 1000)])], 0),
    ];
    for (groups, deleted) in cases {
        for label in [None, Some("1")] {
            let server = Server::start(&[]);
            let (ids, body) = small_list(1000);
            let stage = Stage::with_body(&body);
            let run = stage
                .program("run")
                .args(["--label", "1", "--sink", &server.url()]);
            run.end().expect(0);
            let mut connection = server.connection();
            for (group, count, acked) in *groups {
                consume(&mut connection, group, *count, acked);
            }
            let keys = dump(&mut connection).len();
            let purge = |more: &[&str]| {
                let purge = purge(&server.url()).args(["--acknowledged"]).args(more);
                let purge = match label {
                    Some(label) => purge.args(["--label", label]),
                    None => purge.args(["--queue", STREAM]),
                };
                said(&purge.end().expect(0))
            };
            let expected = match deleted {
                0 => json!({}),
                deleted => json!({"messages": deleted}),
            };
            let before = dump(&mut connection);
            assert_eq!(purge(&["--dry-run"]), expected, "{groups:?}");
            assert!(dump(&mut connection) == before, "{groups:?}");
            // These entries are younger.
            assert_eq!(purge(&["--older-than", "1h"]), json!({}));
            assert_eq!(purge(&[]), expected, "{groups:?}");
            assert_eq!(chat_ids(&mut connection, STREAM), ids[*deleted..]);
            assert_eq!(dump(&mut connection).len(), keys, "nothing else is deleted");
        }
    }
}
