//! The decoder: reads the bytes of a body and emits batches of chat ids, at constant memory.
//!
//! It runs on a thread of its own, because struson reads from a blocking [`Read`]. `input` lies
//! between the two: it knows whether the bytes ended, the source failed, or the JSON is malformed.
//! The shapes of a body are in `list`, those of an entry in `chat` and `label`. `envelope`
//! evaluates the members beside a list: errors (`answer`), statements that the list is one page of
//! several (`paging`), and anything that makes an empty list untrustworthy.

mod answer;
mod chat;
mod chunks;
mod complaint;
mod contact;
mod envelope;
mod input;
mod label;
mod list;
mod members;
mod paging;
mod parse;
mod place;
mod refusal;
mod surrogates;
mod words;

use std::cell::RefCell;
use std::io::Read;

pub use self::answer::{Answer, Doubt};
use self::chat::ChatEntries;
pub use self::chunks::{ChunkReader, ChunkSender, chunks};
pub use self::complaint::Complaint;
pub use self::contact::{LookupError, about, chat_of_lid, contact, number_exists, picture_url};
use self::envelope::Envelope;
use self::input::Input;
pub use self::label::{Label, LabelList, labels};
pub use self::paging::Paging;
pub(crate) use self::paging::{PagingMember, Scalar, is_next};
pub use self::refusal::refusal;
pub(crate) use self::surrogates::replace_lone as replace_lone_surrogates;
use crate::batch::{Batch, Digest, DigestState, MAX_ID_BYTES, Position};

/// The maximum nesting of arrays and objects. Deeper nesting is refused, because the parser needs a
/// byte of memory for each level.
pub const MAX_NESTING: u32 = 64 * 1024;

/// Returns whether a text is a chat id that can be published: `user@server` without white space, of
/// at most 512 bytes.
pub(crate) fn is_chat_id(id: &str) -> bool {
    id.len() <= MAX_ID_BYTES && chat::is_chat_id(id.as_bytes())
}

/// Checks on the API's answer that the user has turned off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// Accept an empty list whatever stands beside it.
    pub accept_empty: bool,
    /// Accept a list that says that it is one page of several.
    pub ignore_paging: bool,
}

/// Settings of one decoding pass.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The position to start from. Entries before it are verified by `digest` and skipped.
    pub from: Position,
    /// The expected digest at `from`.
    pub digest: Digest,
    /// Expected digests at positions after `from`, in ascending order.
    pub expected_digests: Vec<(Position, Digest)>,
    /// Whether to keep names.
    pub include_names: bool,
    /// A batch with this many entries is closed at the next end of a message.
    pub batch_entries: u32,
    /// A batch with this many bytes is closed at the next end of a message. A message with this
    /// many bytes is closed too.
    pub batch_bytes: usize,
    /// The number of chats per message. Batches end where messages end or where a digest is
    /// compared.
    pub ids_per_message: u32,
    /// Checks that are turned off.
    pub trust: Trust,
    /// Statements about pages in the headers of the response.
    pub paging: Paging,
}

impl Plan {
    /// Decodes from the start, without names, in batches of the usual size.
    pub fn whole_list() -> Self {
        Self {
            from: 0,
            digest: Digest::of_nothing(),
            expected_digests: Vec::new(),
            include_names: false,
            batch_entries: 512,
            batch_bytes: 64 * 1024,
            ids_per_message: 1,
            trust: Trust::default(),
            paging: Paging::default(),
        }
    }
}

/// Counts of what was read of a body, complete or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Entries, valid or not.
    pub entries: Position,
    /// Entries without a valid chat id.
    pub invalid: u64,
    /// Valid entries that were skipped, before [`Plan::from`].
    pub skipped: u64,
    /// The digest over all entries up to the end of the last batch.
    pub digest: Digest,
}

impl Seen {
    /// Returns the number of valid entries.
    pub fn chats(&self) -> u64 {
        self.entries - self.invalid
    }
}

/// Reasons why a body could not be decoded to its end.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// No content under status 200.
    #[error("the body is empty")]
    Empty,
    /// HTML, XML, plain text or a bare JSON scalar.
    #[error("the body is not a JSON list: it begins with {0}")]
    NotAList(String),
    /// A JSON error under status 200.
    #[error("the API answered with an error under status 200: {0}")]
    Answered(Box<Answer>),
    /// An empty list beside which something stands that is not known to be harmless.
    #[error("the list is empty, but the API also says: {0}")]
    UntrustedEmpty(Box<Answer>),
    /// A list that says that it is one page of several.
    #[error("the list is one page of several: {0}")]
    Page(String),
    /// JSON of an unknown shape.
    #[error("the body has an unknown shape at byte {at}: {what}")]
    Shape {
        /// Uncompressed bytes before the error.
        at: u64,
        /// The problem.
        what: &'static str,
    },
    /// Malformed JSON.
    #[error("the body is malformed JSON at byte {at}: {what}")]
    Malformed {
        /// Uncompressed bytes before the error.
        at: u64,
        /// The problem.
        what: String,
    },
    /// The bytes ended before the JSON did.
    #[error("the body was cut off after {at} bytes, before the end of the list")]
    Truncated {
        /// Uncompressed bytes that arrived.
        at: u64,
    },
    /// The source of the bytes failed.
    #[error("reading the body failed after {at} bytes: {error}")]
    Input {
        /// Uncompressed bytes that arrived.
        at: u64,
        /// The source's error.
        error: std::io::Error,
    },
    /// The start of the list does not match an expected digest.
    #[error("the list changed before position {0}")]
    ListChanged(Position),
    /// The receiver of the batches has stopped.
    #[error("decoding was stopped")]
    Stopped,
}

/// A source of a body's bytes.
pub trait Source: Read {
    /// Returns whether the next read would block. If so, the decoder first emits what it has.
    fn would_wait(&mut self) -> bool {
        false
    }
}

impl Source for &[u8] {}

/// Decodes a body and passes each batch to `emit`, which returns an empty batch for reuse, or
/// `None` to stop.
///
/// All valid entries before an error are emitted before the error is returned. At most one batch,
/// one entry's id and name, and a few KiB of input are held at any time.
pub fn decode(
    mut source: impl Source,
    plan: &Plan,
    mut emit: impl FnMut(Batch) -> Option<Batch>,
) -> (Seen, Result<(), DecodeError>) {
    // Both are passed by reference so that the parser's code is compiled once. The optimiser treats
    // copies for different sources very differently, and some were 40 % slower.
    let out = RefCell::new(Output::new(plan, &mut emit));
    let end = read_chats(&mut source, plan, &out);
    let mut out = out.into_inner();
    let end = match end {
        Ok(()) => out.end_of_list(),
        Err(error @ (DecodeError::Stopped | DecodeError::ListChanged(_))) => Err(error),
        // Entries before the error are valid and are published. A partial message is dropped,
        // because the next attempt would send a different message in its place.
        Err(error) => {
            out.drop_partial_message();
            out.close_batch().and(Err(error))
        }
    };
    (out.seen(), end)
}

/// Adds what a JSON value that is not a list says about pages.
pub(crate) fn paging_in_json(json: &[u8], known: Paging) -> Paging {
    Envelope::of_json(json, known).paging
}

fn read_chats(source: &mut dyn Source, plan: &Plan, out: &Out<'_>) -> Result<(), DecodeError> {
    let on_stall = || out.borrow_mut().on_stall();
    let mut input = Input::new(source, &on_stall);
    let mut chats = ChatEntries::new(plan.include_names, out);
    list::read_body(&mut input, &mut chats, plan.trust, plan.paging.clone()).map(drop)
}

/// The output that entries are added to.
type Out<'p> = RefCell<Output<'p>>;

/// Collects entries in a batch and passes full batches to `emit`.
struct Output<'a> {
    plan: &'a Plan,
    emit: &'a mut dyn FnMut(Batch) -> Option<Batch>,
    batch: Batch,
    digest: DigestState,
    invalid: u64,
    skipped: u64,
    /// Whether the input stalled while a message was incomplete.
    flush_is_due: bool,
    /// The positions at which the digest is compared, and how many comparisons are done.
    expected_digests: Vec<(Position, Digest)>,
    verified: usize,
}

impl<'a> Output<'a> {
    fn new(plan: &'a Plan, emit: &'a mut dyn FnMut(Batch) -> Option<Batch>) -> Self {
        let mut expected_digests = vec![(plan.from, plan.digest)];
        expected_digests.extend_from_slice(&plan.expected_digests);
        Self {
            plan,
            emit,
            batch: Batch::new(),
            digest: DigestState::default(),
            invalid: 0,
            skipped: 0,
            flush_is_due: false,
            verified: usize::from(plan.from == 0),
            expected_digests,
        }
    }

    fn seen(&self) -> Seen {
        Seen {
            entries: self.batch.end(),
            invalid: self.invalid,
            skipped: self.skipped,
            digest: self.digest.digest(),
        }
    }

    #[inline]
    fn chat(&mut self, id: &[u8], name: Option<Option<&[u8]>>) -> Result<(), DecodeError> {
        self.batch.push(id, name);
        self.after_entry()
    }

    fn invalid(&mut self) -> Result<(), DecodeError> {
        self.invalid += 1;
        self.batch.push_invalid();
        self.after_entry()
    }

    #[inline]
    fn after_entry(&mut self) -> Result<(), DecodeError> {
        if self.plan.ids_per_message > 1 {
            return self.after_packed_entry();
        }
        if self.is_full() || self.batch.end() == self.next_expected() || self.flush_is_due {
            self.close_batch()?;
        }
        Ok(())
    }

    /// The ends of messages with several chats depend on the list alone, not on how it arrives,
    /// because a repeated message must contain the same chats. So batches end where messages end.
    fn after_packed_entry(&mut self) -> Result<(), DecodeError> {
        let (chats, bytes) = self.batch.since_message_end();
        let is_too_large = chats > 0 && bytes >= self.plan.batch_bytes;
        if chats == 0 || chats == self.plan.ids_per_message || is_too_large {
            self.batch.mark_message_end();
        }
        if is_too_large && chats < self.plan.ids_per_message {
            self.batch.mark_cut();
            return self.close_batch();
        }
        let may_end = self.is_between_messages() && (self.is_full() || self.flush_is_due);
        if may_end || self.batch.end() == self.next_expected() {
            self.close_batch()?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.batch.entries() >= self.plan.batch_entries
            || self.batch.bytes() >= self.plan.batch_bytes
    }

    /// Returns the position at which the next batch must end because the digest is compared there.
    #[inline]
    fn next_expected(&self) -> Position {
        self.expected_digests
            .get(self.verified)
            .map_or(Position::MAX, |(position, _)| *position)
    }

    /// Flushes what was read when the input stalls, so that it does not wait for more input.
    fn on_stall(&mut self) -> Result<(), DecodeError> {
        if self.is_between_messages() {
            self.close_batch()
        } else {
            self.flush_is_due = true;
            Ok(())
        }
    }

    fn is_between_messages(&self) -> bool {
        self.plan.ids_per_message == 1 || self.batch.since_message_end().0 == 0
    }

    /// Removes the entries of an incomplete message.
    fn drop_partial_message(&mut self) {
        if self.is_between_messages() {
            return;
        }
        let invalid = |batch: &Batch| batch.entries() - batch.chats();
        let before = invalid(&self.batch);
        self.batch.drop_partial_message();
        self.invalid -= u64::from(before - invalid(&self.batch));
    }

    /// Closes the batch and starts the next. A batch of skipped entries is not emitted.
    fn close_batch(&mut self) -> Result<(), DecodeError> {
        if self.batch.entries() == 0 {
            return Ok(());
        }
        self.flush_is_due = false;
        self.digest.update(&self.batch);
        let end = self.batch.end();
        if let Some((_, digest)) = self.expected_digests.get(self.verified)
            && end == self.next_expected()
        {
            if *digest != self.digest.digest() {
                self.batch.restart(end);
                return Err(DecodeError::ListChanged(end));
            }
            self.verified += 1;
        }
        if end > self.plan.from {
            self.batch.seal(self.digest.digest());
            let full = std::mem::take(&mut self.batch);
            match (self.emit)(full) {
                Some(empty) => self.batch = empty,
                None => {
                    self.batch.restart(end);
                    return Err(DecodeError::Stopped);
                }
            }
        } else {
            self.skipped += u64::from(self.batch.chats());
        }
        self.batch.restart(end);
        Ok(())
    }

    fn end_of_list(&mut self) -> Result<(), DecodeError> {
        self.close_batch()?;
        if self.verified < self.expected_digests.len() {
            return Err(DecodeError::ListChanged(self.batch.end()));
        }
        Ok(())
    }
}
