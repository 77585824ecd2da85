//! The decoder: the bytes of a body in, batches of chat ids out, at constant memory.
//!
//! It runs on a thread of its own, since struson reads from a blocking [`Read`]. `input` stands
//! between the two: it knows whether bytes have run out, failed, or were simply wrong. The shapes
//! of a body are in `list`, those of an entry in `chat` and `label`. What stands beside a list is
//! judged in `envelope`: is it an error (`answer`), is the list one page of several (`paging`), and
//! can an empty list be trusted?

mod answer;
mod chat;
mod chunks;
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
use self::envelope::Envelope;
use self::input::Input;
pub use self::label::{Label, LabelList, labels};
pub use self::paging::Paging;
pub(crate) use self::paging::{PagingMember, Scalar, is_next};
pub use self::refusal::refusal;
use crate::batch::{Batch, Digest, DigestState, Position};

/// How deep arrays and objects may be nested. Deeper nesting is refused, since the parser needs a
/// byte of memory for each level.
pub const MAX_NESTING: u32 = 64 * 1024;

/// What is trusted although the API casts doubt on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trust {
    /// An empty list counts as empty, whatever stands beside it.
    pub accept_empty: bool,
    /// A list that says that it is one page of several counts as whole.
    pub ignore_paging: bool,
}

/// What the decoder is asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Entries before this position are proven by `digest` and passed over.
    pub from: Position,
    /// What the digest has to be at `from`.
    pub digest: Digest,
    /// Positions behind `from`, in ascending order, at which the digest has to be this.
    pub expected_digests: Vec<(Position, Digest)>,
    /// Whether names are kept.
    pub include_names: bool,
    /// A batch that has this many entries is closed, where a message ends.
    pub batch_entries: u32,
    /// A batch that has this many bytes is closed, where a message ends; and so is a message.
    pub batch_bytes: usize,
    /// How many chats go into a message. Batches end where messages do, or where a proof stands.
    pub ids_per_message: u32,
    /// What is trusted although the API casts doubt on it.
    pub trust: Trust,
    /// What the headers of the body say of pages.
    pub paging: Paging,
}

impl Plan {
    /// Everything from the start, without names, in batches of the usual size.
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

/// What was seen of a body, whole or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Entries, valid or not.
    pub entries: Position,
    /// Entries without a valid chat id.
    pub invalid: u64,
    /// Valid entries before [`Plan::from`].
    pub skipped: u64,
    /// The digest over all entries up to the end of the last batch.
    pub digest: Digest,
}

impl Seen {
    /// Valid entries.
    pub fn chats(&self) -> u64 {
        self.entries - self.invalid
    }
}

/// Why a body could not be decoded to its end.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Status 200, and nothing else.
    #[error("the body is empty")]
    Empty,
    /// HTML, XML, plain text or a bare JSON scalar.
    #[error("the body is not a JSON list: it begins with {0}")]
    NotAList(String),
    /// An error in JSON, under status 200.
    #[error("the API answered with an error under status 200: {0}")]
    Answered(Box<Answer>),
    /// An empty list, with something beside it that is not known to be harmless.
    #[error("the list is empty, but the API also says: {0}")]
    UntrustedEmpty(Box<Answer>),
    /// A list that says itself that it is not whole.
    #[error("the list is one page of several: {0}")]
    Page(String),
    /// JSON that is none of the known shapes.
    #[error("the body has an unknown shape at byte {at}: {what}")]
    Shape {
        /// Bytes before the place, uncompressed.
        at: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// Not JSON.
    #[error("the body is malformed JSON at byte {at}: {what}")]
    Malformed {
        /// Bytes before the place, uncompressed.
        at: u64,
        /// What is wrong there.
        what: String,
    },
    /// The bytes ended before the JSON did.
    #[error("the body was cut off after {at} bytes, before the end of the list")]
    Truncated {
        /// Bytes that came, uncompressed.
        at: u64,
    },
    /// The reader under the decoder failed.
    #[error("reading the body failed after {at} bytes: {error}")]
    Input {
        /// Bytes that came, uncompressed.
        at: u64,
        /// The reader's own error.
        error: std::io::Error,
    },
    /// The list does not begin with what [`Plan::digest`] stands for.
    #[error("the list changed before position {0}")]
    ListChanged(Position),
    /// Nobody takes the batches any more.
    #[error("decoding was stopped")]
    Stopped,
}

/// Where a body comes from.
pub trait Source: Read {
    /// Whether the next read would wait. Before it does, what was decoded is handed on.
    fn would_wait(&mut self) -> bool {
        false
    }
}

impl Source for &[u8] {}

/// Decodes a body, and hands each batch to `emit`, which gives an empty one back, or `None` to
/// stop.
///
/// Valid entries before an error are all emitted before the error is returned. At most one batch,
/// one entry's id and name, and a few KiB of input are held at any time.
pub fn decode(
    mut source: impl Source,
    plan: &Plan,
    mut emit: impl FnMut(Batch) -> Option<Batch>,
) -> (Seen, Result<(), DecodeError>) {
    // Behind pointers, so that there is one copy of the parser's code: the optimiser treats copies
    // for different sources very differently, and some were slower by 40 %.
    let out = RefCell::new(Output::new(plan, &mut emit));
    let end = read_chats(&mut source, plan, &out);
    let mut out = out.into_inner();
    let end = match end {
        Ok(()) => out.end_of_list(),
        Err(error @ (DecodeError::Stopped | DecodeError::ListChanged(_))) => Err(error),
        // Entries before the error are valid and are published; but half a message would
        // be another one than that of the next try.
        Err(error) => {
            out.drop_half_message();
            out.cut_batch().and(Err(error))
        }
    };
    (out.seen(), end)
}

/// What JSON that is no list says of pages, beside what is known of them.
pub(crate) fn paging_in_json(json: &[u8], known: Paging) -> Paging {
    Envelope::of_json(json, known).paging
}

fn read_chats(source: &mut dyn Source, plan: &Plan, out: &Out<'_>) -> Result<(), DecodeError> {
    let when_dry = || out.borrow_mut().when_dry();
    let mut input = Input::new(source, &when_dry);
    let mut chats = ChatEntries::new(plan.include_names, out);
    list::read_body(&mut input, &mut chats, plan.trust, plan.paging.clone()).map(drop)
}

/// What chats are put into.
type Out<'p> = RefCell<Output<'p>>;

/// Where entries go: into a batch, and from there to `emit`.
struct Output<'a> {
    plan: &'a Plan,
    emit: &'a mut dyn FnMut(Batch) -> Option<Batch>,
    batch: Batch,
    digest: DigestState,
    invalid: u64,
    skipped: u64,
    /// Whether the input ran dry while a message was not full.
    is_overdue: bool,
    /// Where the digest is to be compared next: the list of these, and how many are done.
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
            is_overdue: false,
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
        if self.is_full() || self.batch.end() == self.next_expected() || self.is_overdue {
            self.cut_batch()?;
        }
        Ok(())
    }

    /// Where messages of several chats end depends on the list alone, and not on how it arrives: a
    /// message that is sent again has to hold the same chats. So batches end where messages do.
    fn after_packed_entry(&mut self) -> Result<(), DecodeError> {
        let (chats, bytes) = self.batch.since_whole();
        let is_too_large = chats > 0 && bytes >= self.plan.batch_bytes;
        if chats == 0 || chats == self.plan.ids_per_message || is_too_large {
            self.batch.mark_whole();
        }
        if is_too_large && chats < self.plan.ids_per_message {
            self.batch.mark_cut();
            return self.cut_batch();
        }
        let may_end = self.is_between_messages() && (self.is_full() || self.is_overdue);
        if may_end || self.batch.end() == self.next_expected() {
            self.cut_batch()?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.batch.entries() >= self.plan.batch_entries
            || self.batch.bytes() >= self.plan.batch_bytes
    }

    /// Where the next batch has to end, since the digest has to be compared there.
    #[inline]
    fn next_expected(&self) -> Position {
        self.expected_digests
            .get(self.verified)
            .map_or(Position::MAX, |(position, _)| *position)
    }

    /// The input has run dry for now: what is here must not wait for more.
    fn when_dry(&mut self) -> Result<(), DecodeError> {
        if self.is_between_messages() {
            self.cut_batch()
        } else {
            self.is_overdue = true;
            Ok(())
        }
    }

    fn is_between_messages(&self) -> bool {
        self.plan.ids_per_message == 1 || self.batch.since_whole().0 == 0
    }

    /// Takes back what belongs to a message that did not become full.
    fn drop_half_message(&mut self) {
        if self.is_between_messages() {
            return;
        }
        let invalid = |batch: &Batch| batch.entries() - batch.chats();
        let before = invalid(&self.batch);
        self.batch.keep_whole();
        self.invalid -= u64::from(before - invalid(&self.batch));
    }

    /// Closes the batch and opens the next. One of entries that are passed over goes nowhere.
    fn cut_batch(&mut self) -> Result<(), DecodeError> {
        if self.batch.entries() == 0 {
            return Ok(());
        }
        self.is_overdue = false;
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
        self.cut_batch()?;
        if self.verified < self.expected_digests.len() {
            return Err(DecodeError::ListChanged(self.batch.end()));
        }
        Ok(())
    }
}
