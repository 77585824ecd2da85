//! Fuzzes the decoder with any bytes as a body: it must not panic and must keep its guarantees.
//!
//! The first two bytes of an input decide how the rest, the body, is read. Each check is a
//! function. Run it with `cargo +nightly fuzz run decode`.

#![no_main]

use std::io::{self, Read};

use labelcast::batch::{Batch, Digest, MAX_ID_BYTES, Position};
use labelcast::decode::{DecodeError, Plan, Seen, Source, decode};
use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;

const MARK: &[u8] = b"\xef\xbb\xbf";
/// The maximum length of a chat's name, in bytes.
const MAX_NAME_BYTES: usize = 64 * 1024;

fuzz_target!(|input: &[u8]| {
    let Some(([how, sizes], body)) = input.split_first_chunk() else {
        return;
    };
    let plan = Plan {
        include_names: how & 8 != 0,
        ..Plan::whole_list()
    };
    let small_batches = Plan {
        batch_entries: 1 + u32::from(sizes & 7),
        batch_bytes: if sizes & 8 == 0 { 50 } else { 64 * 1024 },
        ids_per_message: 1 + u32::from(sizes >> 4 & 3),
        ..plan.clone()
    };
    let at = body.len() * usize::from(*sizes) / 256;

    let whole = Outcome::of(body, &plan);
    pieces_make_no_difference(&whole, Pieces::new(*how, body), &small_batches);
    accepted_bodies_are_json(&whole, body);
    if whole.end.is_ok() {
        a_cut_body_is_truncated(&whole, &plan, &body[..at], &body[at..]);
        an_input_error_is_reported(&whole, &plan, Pieces::failing(*how, &body[..at]));
    }
    resuming_yields_the_rest(body, &small_batches, usize::from(*sizes));
});

fn pieces_make_no_difference(whole: &Outcome, pieces: Pieces<'_>, plan: &Plan) {
    let other = Outcome::of(pieces, plan);
    assert_eq!(other.ending(), whole.ending());
    if whole.end.is_ok() || plan.ids_per_message == 1 {
        assert_eq!(other.chats, whole.chats);
        assert_eq!(other.seen, whole.seen);
    } else {
        // If the list does not end properly, an incomplete message is not emitted.
        assert!(whole.chats.starts_with(&other.chats));
        let held_back = whole.chats.len() - other.chats.len();
        assert!(held_back < plan.ids_per_message as usize);
    }
}

/// The decoder accepts no more than serde_json, and never reports valid JSON as malformed.
fn accepted_bodies_are_json(whole: &Outcome, body: &[u8]) {
    let json = without_mark(body);
    match &whole.end {
        Ok(()) => {
            // Ignored values have no limit on nesting or on numbers.
            let text = str::from_utf8(json).unwrap();
            serde_json::from_str::<IgnoredAny>(text).unwrap();
            if let Ok(entries) = serde_json::from_str::<Vec<IgnoredAny>>(text) {
                assert_eq!(whole.seen.entries, entries.len() as u64);
            }
        }
        Err(DecodeError::Empty | DecodeError::Malformed { .. } | DecodeError::Truncated { .. }) => {
            assert!(serde_json::from_slice::<Value>(json).is_err());
        }
        Err(DecodeError::NotAList(_)) => {
            let value = serde_json::from_slice::<Value>(json);
            assert!(!value.is_ok_and(|value| value.is_array() || value.is_object()));
        }
        Err(
            DecodeError::Answered(_)
            | DecodeError::UntrustedEmpty(_)
            | DecodeError::Page(_)
            | DecodeError::Shape { .. },
        ) => {}
        Err(other) => panic!("an error that these bytes alone cannot cause: {other}"),
    }
}

/// Removes leading white space and a byte-order mark, which serde_json does not accept.
fn without_mark(body: &[u8]) -> &[u8] {
    let body = without_space(body);
    body.strip_prefix(MARK).unwrap_or(body)
}

fn without_space(body: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| b" \t\n\r".contains(byte);
    &body[body.iter().take_while(|byte| is_space(byte)).count()..]
}

/// A prefix of a complete body is truncated, unless only white space follows it.
fn a_cut_body_is_truncated(whole: &Outcome, plan: &Plan, before: &[u8], after: &[u8]) {
    let cut = Outcome::of(before, plan);
    assert!(whole.chats.starts_with(&cut.chats));
    match cut.end {
        Ok(()) => assert!(after.trim_ascii().is_empty()),
        Err(DecodeError::Truncated { .. }) => {}
        Err(DecodeError::Empty) => {
            assert!(
                MARK.starts_with(without_space(before))
                    || without_mark(before).trim_ascii().is_empty()
            );
        }
        Err(other) => panic!("a cut body is reported as invalid: {other}"),
    }
}

/// A body is complete only if its end was read.
fn an_input_error_is_reported(whole: &Outcome, plan: &Plan, pieces: Pieces<'_>) {
    let failed = Outcome::of(pieces, plan);
    assert!(whole.chats.starts_with(&failed.chats));
    assert!(matches!(failed.end, Err(DecodeError::Input { .. })));
}

/// Resuming from a batch's end and digest yields exactly the rest.
fn resuming_yields_the_rest(body: &[u8], plan: &Plan, choice: usize) {
    let whole = Outcome::of(body, plan);
    let Some(&(from, digest)) = whole.ends.get(choice % whole.ends.len().max(1)) else {
        return;
    };
    let resumed = Plan {
        from,
        digest,
        batch_entries: 3,
        ..plan.clone()
    };
    let rest = Outcome::of(body, &resumed);
    let before = whole.chats.partition_point(|chat| chat.0 < from);
    assert_eq!(rest.chats, whole.chats[before..]);
    assert_eq!(rest.seen.skipped, before as u64);
    assert_eq!(
        Seen {
            skipped: 0,
            ..rest.seen
        },
        whole.seen
    );
    assert_eq!(rest.ending(), whole.ending());

    let of_another_list = Plan {
        digest: Digest::of_nothing(),
        ..resumed
    };
    let refused = Outcome::of(body, &of_another_list);
    assert!(matches!(refused.end, Err(DecodeError::ListChanged(at)) if at == from));
    assert!(refused.chats.is_empty());
}

/// A chat: its position, id and name.
type Chat = (Position, Vec<u8>, Option<Vec<u8>>);

/// The result of decoding a body.
struct Outcome {
    chats: Vec<Chat>,
    /// The end of each batch and the digest there.
    ends: Vec<(Position, Digest)>,
    seen: Seen,
    end: Result<(), DecodeError>,
}

impl Outcome {
    /// Decodes a body and checks each batch.
    fn of(source: impl Source, plan: &Plan) -> Self {
        let (mut chats, mut ends) = (Vec::new(), Vec::new());
        let mut position = plan.from;
        let mut may_follow = true;
        let (seen, end) = decode(source, plan, |batch| {
            assert!(may_follow, "only the last batch may end within a message");
            assert_eq!(batch.first(), position);
            position = batch.end();
            may_follow = batch.is_cut() || batch.chats().is_multiple_of(plan.ids_per_message);
            chats.extend(chats_of(&batch, plan));
            ends.push((batch.end(), batch.digest()));
            Some(batch)
        });
        // Chats before a digest that does not match are neither skipped nor emitted.
        if !matches!(end, Err(DecodeError::ListChanged(_))) {
            assert_eq!(seen.chats(), seen.skipped + chats.len() as u64);
        }
        if let Some(last) = ends.last() {
            assert_eq!(*last, (seen.entries, seen.digest));
        }
        Self {
            chats,
            ends,
            seen,
            end,
        }
    }

    /// Returns a description of how decoding ended, with the position.
    fn ending(&self) -> String {
        match &self.end {
            Ok(()) => "whole".to_owned(),
            Err(error) => format!("{error:?}"),
        }
    }
}

fn chats_of(batch: &Batch, plan: &Plan) -> Vec<Chat> {
    assert!(batch.entries() > 0);
    assert!(plan.ids_per_message > 1 || batch.entries() <= plan.batch_entries);
    assert!(batch.chats() <= batch.entries());
    // A nearly full batch and the message that fills it.
    assert!(batch.bytes() <= 2 * (plan.batch_bytes + MAX_ID_BYTES + MAX_NAME_BYTES));
    let chats: Vec<_> = batch
        .iter()
        .map(|chat| {
            (
                chat.position,
                chat.id.to_vec(),
                chat.name.map(<[u8]>::to_vec),
            )
        })
        .collect();
    assert_eq!(chats.len(), batch.chats() as usize);
    assert!(chats.is_sorted_by(|one, next| one.0 < next.0));
    for (position, id, name) in &chats {
        assert!((batch.first()..batch.end()).contains(position));
        assert!((1..=MAX_ID_BYTES).contains(&id.len()));
        assert!(str::from_utf8(id).is_ok());
        assert!(name.is_none() || plan.include_names);
        assert!(
            name.as_ref()
                .is_none_or(|name| str::from_utf8(name).is_ok())
        );
    }
    chats
}

/// A body that arrives in pieces of varying length, sometimes with pauses.
struct Pieces<'a> {
    body: &'a [u8],
    /// The maximum length of a piece.
    longest: usize,
    /// Whether every third read is interrupted.
    is_interrupted: bool,
    /// Whether the body is followed by an error instead of its end.
    fails: bool,
    reads: usize,
}

impl<'a> Pieces<'a> {
    fn new(how: u8, body: &'a [u8]) -> Self {
        Self {
            body,
            longest: [1, 2, 3, 5, 16, 60, 500, 4000][usize::from(how & 7)],
            is_interrupted: how & 16 != 0,
            fails: false,
            reads: 0,
        }
    }

    fn failing(how: u8, body: &'a [u8]) -> Self {
        Self {
            fails: true,
            ..Self::new(how, body)
        }
    }
}

impl Source for Pieces<'_> {
    fn would_wait(&mut self) -> bool {
        self.reads.is_multiple_of(2)
    }
}

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reads += 1;
        if self.is_interrupted && self.reads.is_multiple_of(3) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if self.body.is_empty() && self.fails {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let length = 1 + (self.reads * 7) % self.longest;
        let length = length.min(buf.len());
        self.body.read(&mut buf[..length])
    }
}
