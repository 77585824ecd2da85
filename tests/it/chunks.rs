//! Where the network splits a body makes no difference.

use std::io::Read;

use bytes::Bytes;
use labelcast::batch::{Batch, Digest};
use labelcast::decode::{DecodeError, Plan, Seen, Source, decode};
use labelcast::mock::{Piece, Reply};
use proptest::prelude::*;

use crate::support::Stage;

const BODY: &str = "\u{feff} {\"0\":{\"id\":\"4915112345678@c.us\",\"name\":\"Zoë 🐈 \\ud83d\\ude00 \\ud83d\"},\"1\":{\"name\":null,\"id\":{\"user\":\"x\",\"_serialized\":\"2@lid\"}},\"2\":{\"id\":7},\"3\":{\"id\":\"\\u0033@g.us\",\"x\":[{\"y\":\"\\\\\\\"\"}]}}\n";

#[test]
fn a_body_in_two_chunks_over_http_split_at_every_byte() {
    for at in 1..BODY.len() {
        let stage = Stage::with_body("[]");
        let (start, end) = BODY.as_bytes().split_at(at);
        let pieces = [start, end].map(|part| Piece::Bytes(Bytes::copy_from_slice(part)));
        stage.mock.script("1", Reply::pieces(pieces));
        let arguments = [
            "--max-invalid",
            "1",
            "--include-names",
            "--skip-label-check",
        ];
        stage.run().args(arguments).end().expect(0);
        assert_eq!(stage.ids(), ["4915112345678@c.us", "2@lid", "3@g.us"]);
        assert_eq!(stage.messages()[0]["name"], "Zoë 🐈 😀 \u{fffd}");
    }
}

/// Gives what it has in parts of the given lengths, over and over.
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

fn decode_parts(body: &[u8], lengths: Vec<usize>, plan: &Plan) -> Decoded {
    let parts = Parts {
        rest: body,
        lengths,
        next: 0,
    };
    let mut chats = Vec::new();
    let (seen, end) = decode(parts, plan, |batch: Batch| {
        chats.extend(batch.iter().map(|chat| (chat.position, chat.id.to_vec())));
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

/// An entry of some kind, as JSON, and the id that is in it.
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

    /// However the body is split, and however batches are cut, the same chats come out, at the
    /// same places and with the same digest; and every place is one to go on from.
    #[test]
    fn chunks_batches_and_resumption_make_no_difference(
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
    let name = "m".repeat(2000);
    let body = format!(
        "{{\"{name}\":1,\"code\":{},\"0\":{{\"id\":\"1@c.us\"}}}}",
        "2".repeat(200)
    );
    for lengths in [vec![1], vec![usize::MAX]] {
        let (_, chats, end) = decode_parts(body.as_bytes(), lengths, &plan(10));
        assert!(matches!(end, Err(DecodeError::Answered(_))), "{end:?}");
        assert!(chats.is_empty());
    }
    let body = body.replace("\"code\"", "\"other\"");
    for lengths in [vec![1], vec![usize::MAX]] {
        let (_, chats, end) = decode_parts(body.as_bytes(), lengths, &plan(10));
        assert!(end.is_ok(), "{end:?}");
        assert_eq!(chats.len(), 1);
    }
}

#[test]
fn what_is_held_back_of_a_cut_body_is_not_counted() {
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

/// The digest at a position: that of the batch which ends there.
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
