//! A batch: consecutive list entries on their way from the decoder to a sink.
//!
//! The chat ids of a batch lie in one arena, in exactly the form that the [`Digest`] covers, so
//! that decoding allocates nothing per chat and hashing is one call per batch. An arena is reused
//! after the sink has encoded its batch.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use xxhash_rust::xxh3::Xxh3;

/// The maximum length of a chat id, in bytes of UTF-8.
///
/// `WhatsApp` ids are under 40 bytes. The limit keeps `<run id>:<chat id>` short and makes the
/// check cheap.
pub const MAX_ID_BYTES: usize = 512;

/// A special length that marks an entry without a valid chat id. Such an entry still has a position
/// in the list.
const INVALID: u16 = u16::MAX;
/// A special length that marks a chat without a name.
const NO_NAME: u32 = u32::MAX;

/// A position in the list: the number of entries, valid or not, before it.
pub type Position = u64;

/// An XXH3-128 hash over the entries from the start of the list to a position.
///
/// A valid entry is hashed as its id's length (two bytes, little endian) and its id in UTF-8, an
/// invalid one as the two bytes `ff ff`. Two lists with the same digest at the same position start
/// with the same chats in the same order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest(u128);

impl Digest {
    /// Returns the digest at position 0.
    pub fn of_nothing() -> Self {
        DigestState::default().digest()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error for a text that is not 32 hexadecimal digits.
#[derive(Debug, thiserror::Error)]
#[error("a digest is 32 hexadecimal digits")]
pub struct NotADigest;

impl std::str::FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        if text.len() != 32 {
            return Err(NotADigest);
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| NotADigest)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// The running hash, updated by whole batches.
#[derive(Default)]
pub(crate) struct DigestState(Xxh3);

impl DigestState {
    pub(crate) fn update(&mut self, batch: &Batch) {
        self.0.update(&batch.arena);
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.0.digest128())
    }
}

/// A run of consecutive list entries.
pub struct Batch {
    /// The position of the first entry.
    first: Position,
    /// Entries, valid or not.
    entries: u32,
    /// Valid entries.
    chats: u32,
    /// For each entry its length and that many bytes, as [`Digest`] describes.
    arena: Vec<u8>,
    /// For each valid entry the name's length (four bytes, little endian) and that many bytes.
    /// Empty if names are not requested.
    names: Vec<u8>,
    /// The digest from the start of the list to the end of this batch.
    digest: Digest,
    /// The end of the last complete message: entries, chats, and the lengths of the arenas.
    whole: (u32, u32, usize, usize),
    /// Whether the last message ended early because of its size.
    is_cut: bool,
}

/// One chat of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chat<'a> {
    /// The position in the list, from 0.
    pub position: Position,
    /// The chat id, in UTF-8.
    pub id: &'a [u8],
    /// The name, in UTF-8, if names are requested and the chat has one.
    pub name: Option<&'a [u8]>,
}

impl Batch {
    /// Creates an empty batch. The arenas grow once, to the size that is needed.
    pub fn new() -> Self {
        Self {
            first: 0,
            entries: 0,
            chats: 0,
            arena: Vec::new(),
            names: Vec::new(),
            digest: Digest(0),
            whole: (0, 0, 0, 0),
            is_cut: false,
        }
    }

    /// Returns the position of the first entry.
    pub fn first(&self) -> Position {
        self.first
    }

    /// Returns the position after the last entry.
    pub fn end(&self) -> Position {
        self.first + u64::from(self.entries)
    }

    /// Returns the digest from the start of the list to [`Batch::end`].
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Returns the number of valid entries.
    pub fn chats(&self) -> u32 {
        self.chats
    }

    /// Returns the number of entries, valid or not.
    pub fn entries(&self) -> u32 {
        self.entries
    }

    /// Returns the number of bytes in the arenas.
    pub fn bytes(&self) -> usize {
        self.arena.len() + self.names.len()
    }

    /// Iterates over the valid entries in the order of the list.
    pub fn iter(&self) -> Chats<'_> {
        Chats {
            position: self.first,
            arena: &self.arena,
            names: &self.names,
        }
    }

    /// Clears the batch for the entries from `first` on. The arenas keep their memory.
    pub(crate) fn restart(&mut self, first: Position) {
        self.first = first;
        self.entries = 0;
        self.chats = 0;
        self.arena.clear();
        self.names.clear();
        self.is_cut = false;
        self.mark_message_end();
    }

    /// Marks the end of a message.
    pub(crate) fn mark_message_end(&mut self) {
        self.whole = (self.entries, self.chats, self.arena.len(), self.names.len());
    }

    /// Returns the number of chats and bytes since the last complete message.
    pub(crate) fn since_message_end(&self) -> (u32, usize) {
        let (_, chats, arena, names) = self.whole;
        (self.chats - chats, self.bytes() - arena - names)
    }

    /// Records that the last message ended early because of its size and has fewer chats than
    /// others.
    pub(crate) fn mark_cut(&mut self) {
        self.is_cut = true;
    }

    /// Returns whether the last message ended early because of its size.
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Drops the entries after the last complete message.
    pub(crate) fn drop_partial_message(&mut self) {
        let (entries, chats, arena, names) = self.whole;
        (self.entries, self.chats) = (entries, chats);
        self.arena.truncate(arena);
        self.names.truncate(names);
    }

    /// Adds a chat. `id` must be at most [`MAX_ID_BYTES`] long.
    ///
    /// `name` is `None` if names are not requested, else the name or its absence.
    pub(crate) fn push(&mut self, id: &[u8], name: Option<Option<&[u8]>>) {
        debug_assert!(id.len() <= MAX_ID_BYTES);
        #[expect(clippy::cast_possible_truncation, reason = "at most MAX_ID_BYTES")]
        let length = id.len() as u16;
        self.arena.extend_from_slice(&length.to_le_bytes());
        self.arena.extend_from_slice(id);
        if let Some(name) = name {
            let length = name.map_or(NO_NAME, |name| u32::try_from(name.len()).unwrap_or(NO_NAME));
            self.names.extend_from_slice(&length.to_le_bytes());
            self.names.extend_from_slice(name.unwrap_or_default());
        }
        self.entries += 1;
        self.chats += 1;
    }

    /// Adds an entry without a valid chat id.
    pub(crate) fn push_invalid(&mut self) {
        self.arena.extend_from_slice(&INVALID.to_le_bytes());
        self.entries += 1;
    }

    /// Copies another batch into this one. The arenas keep their memory.
    pub(crate) fn copy_from(&mut self, other: &Self) {
        self.first = other.first;
        self.entries = other.entries;
        self.chats = other.chats;
        self.arena.clone_from(&other.arena);
        self.names.clone_from(&other.names);
        self.digest = other.digest;
        self.whole = other.whole;
        self.is_cut = other.is_cut;
    }

    /// Adds the entries of the batch that follows this one in the list. An empty batch becomes a copy.
    pub(crate) fn append(&mut self, next: &Self) {
        if self.entries == 0 {
            self.copy_from(next);
            return;
        }
        debug_assert_eq!(self.end(), next.first);
        let (entries, chats, arena, names) = next.whole;
        self.whole = (
            self.entries + entries,
            self.chats + chats,
            self.arena.len() + arena,
            self.names.len() + names,
        );
        self.entries += next.entries;
        self.chats += next.chats;
        self.arena.extend_from_slice(&next.arena);
        self.names.extend_from_slice(&next.names);
        self.digest = next.digest;
        self.is_cut = next.is_cut;
    }

    /// Copies another batch into this one, of its chats only those that `keep` selects. An entry of
    /// any other chat stays, without a chat, so that positions and the digest are the same.
    pub(crate) fn copy_some_from(&mut self, other: &Self, mut keep: impl FnMut(&Chat<'_>) -> bool) {
        self.restart(other.first);
        let has_names = !other.names.is_empty();
        for chat in other.iter() {
            self.push_invalid_up_to(chat.position);
            match keep(&chat) {
                true => self.push(chat.id, has_names.then_some(chat.name)),
                false => self.push_invalid(),
            }
        }
        self.push_invalid_up_to(other.end());
        self.mark_message_end();
        self.seal(other.digest);
    }

    fn push_invalid_up_to(&mut self, position: Position) {
        while self.end() < position {
            self.push_invalid();
        }
    }

    pub(crate) fn seal(&mut self, digest: Digest) {
        self.digest = digest;
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows sizes only, because chat ids must not be logged.
impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("first", &self.first)
            .field("entries", &self.entries)
            .field("chats", &self.chats)
            .finish_non_exhaustive()
    }
}

/// An iterator over the valid entries of a [`Batch`].
#[derive(Clone)]
pub struct Chats<'a> {
    position: Position,
    arena: &'a [u8],
    names: &'a [u8],
}

impl<'a> Iterator for Chats<'a> {
    type Item = Chat<'a>;

    fn next(&mut self) -> Option<Chat<'a>> {
        loop {
            let (length, rest) = self.arena.split_first_chunk::<2>()?;
            let position = self.position;
            self.position += 1;
            let length = u16::from_le_bytes(*length);
            if length == INVALID {
                self.arena = rest;
                continue;
            }
            let (id, rest) = rest.split_at_checked(usize::from(length))?;
            self.arena = rest;
            let name = self.next_name();
            return Some(Chat { position, id, name });
        }
    }
}

impl<'a> Chats<'a> {
    fn next_name(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.names.split_first_chunk::<4>()?;
        self.names = rest;
        let length = u32::from_le_bytes(*length);
        if length == NO_NAME {
            return None;
        }
        let (name, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        self.names = rest;
        Some(name)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn chats_are_returned_with_their_positions_and_names() {
        let mut batch = Batch::new();
        batch.restart(7);
        batch.push(b"a@c.us", Some(Some("Zoë".as_bytes())));
        batch.push_invalid();
        batch.push(b"b@lid", Some(None));
        batch.push(b"c", Some(Some(b"")));
        let chats: Vec<_> = batch.iter().map(|c| (c.position, c.id, c.name)).collect();
        assert_eq!(
            chats,
            [
                (7, &b"a@c.us"[..], Some("Zoë".as_bytes())),
                (9, b"b@lid", None),
                (10, b"c", Some(b"")),
            ]
        );
        assert_eq!((batch.chats(), batch.end()), (3, 11));
        assert!(!format!("{batch:?}").contains("c.us"));
    }

    #[test]
    fn chats_that_are_left_out_keep_their_positions() {
        let mut batch = Batch::new();
        batch.restart(7);
        batch.push_invalid();
        batch.push(b"a@c.us", Some(Some(b"A")));
        batch.push(b"b@c.us", Some(None));
        batch.push(b"c@c.us", Some(Some(b"C")));
        batch.push_invalid();
        batch.seal(Digest(5));
        let mut some = Batch::new();
        some.push(b"of an earlier batch", None);
        some.copy_some_from(&batch, |chat| chat.id != b"b@c.us");
        let chats: Vec<_> = some.iter().map(|c| (c.position, c.id, c.name)).collect();
        assert_eq!(
            chats,
            [
                (8, &b"a@c.us"[..], Some(&b"A"[..])),
                (10, b"c@c.us", Some(b"C"))
            ]
        );
        let extent = |batch: &Batch| (batch.first(), batch.end(), batch.digest());
        assert_eq!(extent(&some), extent(&batch));
        assert_eq!(some.chats(), 2);
        some.copy_some_from(&batch, |_| false);
        assert_eq!((some.chats(), some.entries()), (0, 5));
    }

    #[test]
    fn a_digest_depends_on_the_split_of_ids_and_on_invalid_entries() {
        let of = |ids: &[Option<&str>]| {
            let mut batch = Batch::new();
            for id in ids {
                match id {
                    Some(id) => batch.push(id.as_bytes(), None),
                    None => batch.push_invalid(),
                }
            }
            let mut state = DigestState::default();
            state.update(&batch);
            state.digest()
        };
        let plain = of(&[Some("ab"), Some("c")]);
        assert_ne!(plain, of(&[Some("a"), Some("bc")]));
        assert_ne!(plain, of(&[Some("c"), Some("ab")]));
        assert_ne!(plain, of(&[Some("ab"), None, Some("c")]));
        assert_eq!(plain.to_string().parse::<Digest>().unwrap(), plain);
    }

    #[test]
    fn the_digest_of_nothing_is_the_published_value_of_the_hash() {
        // XXH3-128 of the empty input, seed 0, from the test vectors of the reference code.
        assert_eq!(
            Digest::of_nothing().to_string(),
            "99aa06d3014798d86001c324468d497f"
        );
    }
}
