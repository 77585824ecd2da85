//! The result does not depend on where the network splits a body.

use std::io::Read;

use bytes::Bytes;
use labelcast::batch::{Batch, Digest};
use labelcast::decode::{DecodeError, Plan, Seen, Source, decode};
use labelcast::mock::{Piece, Reply};
use proptest::prelude::*;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::{Stage, wait_until};

const BODY: &str = "\u{feff} {\"0\":{\"id\":\"4915112345678@c.us\",\"name\":\"Zoë 🐈 \\ud83d\\ude00 \\ud83d\"},\"1\":{\"name\":null,\"id\":{\"user\":\"x\",\"_serialized\":\"2@lid\"}},\"2\":{\"id\":7},\"3\":{\"id\":\"\\u0033@g.us\",\"x\":[{\"y\":\"\\\\\\\"\"}]}}\n";

/// The chats in [`BODY`]: positions, ids and names.
fn chats_of_body() -> Vec<Chat> {
    let name = "Zoë 🐈 😀 \u{fffd}".as_bytes().to_vec();
    let chats = [
        (0, "4915112345678@c.us", Some(name)),
        (1, "2@lid", None),
        (3, "3@g.us", None),
    ];
    chats
        .map(|(position, id, name)| (position, id.as_bytes().to_vec(), name))
        .to_vec()
}

#[test]
fn a_body_may_be_split_at_every_byte() {
    let plan = Plan {
        include_names: true,
        ..plan(512)
    };
    let (whole, chats, end) = decode_with_names(BODY.as_bytes(), vec![usize::MAX], &plan);
    assert!(end.is_ok(), "{end:?}");
    assert_eq!(chats, chats_of_body());
    for at in 1..BODY.len() {
        let lengths = vec![at, BODY.len() - at];
        let (seen, chats, end) = decode_with_names(BODY.as_bytes(), lengths, &plan);
        assert!(end.is_ok(), "split at {at}: {end:?}");
        assert_eq!(chats, chats_of_body(), "split at {at}");
        assert_eq!((seen.entries, seen.invalid), (4, 1), "split at {at}");
        assert_eq!(seen.digest, whole.digest, "split at {at}");
    }
}

#[test]
fn a_body_may_be_split_over_http() {
    // The end of the first chunk: before the text, and after this many bytes of it.
    let splits = [
        ("in the byte-order mark", "\u{feff}", 1),
        ("in the key of an entry", "\"0\":", 1),
        ("in a member name", "\"name\":\"Zoë", 3),
        ("in an id", "4915112345678", 5),
        ("in a character of two bytes", "ë", 1),
        ("in a character of four bytes", "🐈", 2),
        ("between surrogate halves", "\\ude00", 0),
        ("in an escape", "\\u0033", 3),
        ("in a literal", "null", 2),
        ("in a number", "77}", 1),
        ("before the closing bracket", "}\n", 0),
    ];
    // As in `BODY`, with a two-digit number.
    let body = BODY.replace("\"id\":7}", "\"id\":77}");
    for (place, text, bytes) in splits {
        let at = body.find(text).unwrap() + bytes;
        let stage = Stage::with_body("[]");
        let (start, end) = body.as_bytes().split_at(at);
        let [start, end] = [start, end].map(|part| Piece::Bytes(Bytes::copy_from_slice(part)));
        // Sent with a pause, so that the network does not join the chunks.
        let gate = CancellationToken::new();
        let reply = Reply::pieces([start, Piece::Until(gate.clone()), end]);
        stage.mock.script("1", reply);
        let arguments = ["--max-invalid", "1", "--include-names"];
        let process = stage.run().args(arguments).spawn();
        wait_until("the list was requested", || {
            stage.mock.requests().len() == 2
        });
        gate.cancel();
        process.end().expect(0);
        assert_eq!(
            stage.ids(),
            ["4915112345678@c.us", "2@lid", "3@g.us"],
            "{place}"
        );
        let names: Vec<_> = stage
            .messages()
            .iter()
            .map(|message| message["name"].clone())
            .collect();
        let expected = ["Zoë 🐈 😀 \u{fffd}".into(), Value::Null, Value::Null];
        assert_eq!(names, expected, "{place}");
    }
}

/// A source that returns its content in parts of the given lengths, repeatedly.
struct Parts<'a> {
    rest: &'a [u8],
    lengths: Vec<usize>,
    next: usize,
}

impl Read for Parts<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let length = self.lengths[self.next % self.lengths.len()];
        self.next += 1;
        let count = length.min(buf.len()).min(self.rest.len());
        buf[..count].copy_from_slice(&self.rest[..count]);
        self.rest = &self.rest[count..];
        Ok(count)
    }
}

impl Source for Parts<'_> {
    fn would_wait(&mut self) -> bool {
        self.next % 2 == 1
    }
}

type Decoded = (Seen, Vec<(u64, Vec<u8>)>, Result<(), DecodeError>);

/// A position, an id and a name.
type Chat = (u64, Vec<u8>, Option<Vec<u8>>);

fn decode_parts(body: &[u8], lengths: Vec<usize>, plan: &Plan) -> Decoded {
    let (seen, chats, end) = decode_with_names(body, lengths, plan);
    let without_names = chats.into_iter().map(|(position, id, _)| (position, id));
    (seen, without_names.collect(), end)
}

fn decode_with_names(
    body: &[u8],
    lengths: Vec<usize>,
    plan: &Plan,
) -> (Seen, Vec<Chat>, Result<(), DecodeError>) {
    let parts = Parts {
        rest: body,
        lengths,
        next: 0,
    };
    let mut chats = Vec::new();
    let (seen, end) = decode(parts, plan, |batch: Batch| {
        let owned = |name: &[u8]| name.to_vec();
        let with_names = |chat: labelcast::batch::Chat<'_>| {
            (chat.position, chat.id.to_vec(), chat.name.map(owned))
        };
        chats.extend(batch.iter().map(with_names));
        Some(Batch::new())
    });
    (seen, chats, end)
}

fn plan(batch_entries: u32) -> Plan {
    Plan {
        batch_entries,
        ..Plan::whole_list()
    }
}

/// A JSON entry of some kind, and the id in it.
fn entry() -> impl Strategy<Value = (String, Option<String>)> {
    let id = "[0-9]{1,15}@(c\\.us|lid|g\\.us)";
    let name = "\\PC{0,20}";
    prop_oneof![
        (id, name).prop_map(|(id, name)| {
            let json = serde_json::json!({"id": id, "name": name, "extra": [name]});
            (json.to_string(), Some(id))
        }),
        (id, name).prop_map(|(id, name)| {
            let json = serde_json::json!({"a": name, "id": {"server": "c.us", "_serialized": id}});
            (json.to_string(), Some(id))
        }),
        id.prop_map(|id| (format!("{{\"id\" :\t\"{id}\" }}"), Some(id))),
        Just(("{\"id\":null}".to_owned(), None)),
        Just(("[[]]".to_owned(), None)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// However the body is split and batches are cut, the chats, positions and digests are the
    /// same, and decoding can resume at every position.
    #[test]
    fn results_do_not_depend_on_chunks_batches_or_resumption(
        entries in prop::collection::vec(entry(), 0..30),
        as_map: bool,
        lengths in prop::collection::vec(1_usize..40, 1..8),
        batch_entries in 1_u32..10,
        from in 0_usize..30,
    ) {
        let jsons = entries.iter().enumerate().map(|(i, (json, _))| match as_map {
            true => format!("\"{i}\": {json}"),
            false => json.clone(),
        });
        let inside = jsons.collect::<Vec<_>>().join(",");
        let body = if as_map { format!("{{{inside}}}") } else { format!("[{inside}]") };
        let expected: Vec<(u64, Vec<u8>)> = entries
            .iter()
            .zip(0..)
            .filter_map(|((_, id), i)| Some((i, id.clone()?.into_bytes())))
            .collect();

        let (seen, chats, end) = decode_parts(body.as_bytes(), lengths.clone(), &plan(batch_entries));
        prop_assert!(end.is_ok(), "{end:?}");
        prop_assert_eq!(&chats, &expected);
        prop_assert_eq!(seen.entries, entries.len() as u64);
        prop_assert_eq!(seen.chats(), expected.len() as u64);
        let (whole, _, _) = decode_parts(body.as_bytes(), vec![usize::MAX], &plan(512));
        prop_assert_eq!(whole.digest, seen.digest);

        let from = from.min(entries.len());
        let prefix = decode_prefix(body.as_bytes(), from as u64);
        let resumed = Plan { from: from as u64, digest: prefix, ..plan(batch_entries) };
        let (seen, chats, end) = decode_parts(body.as_bytes(), lengths, &resumed);
        prop_assert!(end.is_ok(), "{end:?}");
        let rest: Vec<_> = expected.iter().filter(|(i, _)| *i >= from as u64).cloned().collect();
        prop_assert_eq!(seen.skipped as usize, expected.len() - rest.len());
        prop_assert_eq!(chats, rest);
        prop_assert_eq!(seen.digest, whole.digest);
    }
}

#[test]
fn a_member_name_may_arrive_byte_by_byte() {
    let (name, number) = ("m".repeat(2000), "2".repeat(200));
    let body =
        |code: &str| format!("{{\"{name}\":{number},\"code\":{code},\"0\":{{\"id\":\"1@c.us\"}}}}");
    for lengths in [vec![1], vec![usize::MAX]] {
        let (_, chats, end) = decode_parts(body("404").as_bytes(), lengths.clone(), &plan(10));
        assert!(matches!(end, Err(DecodeError::Answered(_))), "{end:?}");
        assert!(chats.is_empty());
        let (_, chats, end) = decode_parts(body(&number).as_bytes(), lengths, &plan(10));
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(chats.len(), 1);
    }
}

#[test]
fn a_partial_message_of_a_cut_body_is_not_counted() {
    let body = r#"[{"id":"1@c.us"},{"id":"2@c.us"},{"id":null},{"id":"3@c.us"},{"id":null},{"i"#;
    let packed = Plan {
        ids_per_message: 2,
        ..plan(10)
    };
    let (seen, chats, end) = decode_parts(body.as_bytes(), vec![usize::MAX], &packed);
    assert!(matches!(end, Err(DecodeError::Truncated { .. })), "{end:?}");
    assert_eq!((seen.entries, seen.invalid, seen.chats()), (3, 1, 2));
    assert_eq!(chats.len(), 2);
}

/// Returns the digest at a position, which is that of the batch that ends there.
fn decode_prefix(body: &[u8], position: u64) -> Digest {
    let mut digest = Digest::of_nothing();
    let _ = decode(body, &plan(1), |batch| {
        if batch.end() <= position {
            digest = batch.digest();
        }
        Some(batch)
    });
    digest
}
