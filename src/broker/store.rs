//! A store beside the broker: who is in a label, and when chats were published.
//!
//! A store only keeps what it is given. `tracked` decides, so that all stores follow the same rules.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::BrokerError;
use crate::batch::Position;
use crate::state::record::{Record, Source, State};

/// The state of one queue, label and account, held by one run at a time.
#[async_trait]
pub(super) trait StateStore: Send {
    /// Takes hold of the state, and returns what is known besides the chats. What is older than the
    /// time that it is kept counts as unknown.
    ///
    /// # Errors
    ///
    /// [`BrokerError::Locked`] if another process holds it.
    async fn open(&mut self) -> Result<Stored, BrokerError>;

    /// Returns what is known of chats, in their order.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn read(&mut self, chats: Vec<String>) -> Result<Vec<Known>, BrokerError>;

    /// Writes all of the changes, durably for a process that is killed, or none.
    ///
    /// # Errors
    ///
    /// If the store fails. After a lost connection, the changes may be there.
    async fn write(&mut self, changes: Changes) -> Result<(), BrokerError>;

    /// Returns some of the records that a pass has not confirmed, and of those that it has only the
    /// number of members.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn unseen(&mut self, pass: u64, from: Cursor) -> Result<Page, BrokerError>;

    /// Deletes what is older than the time that it is kept, of all queues and labels.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn sweep(&mut self) -> Result<(), BrokerError>;

    /// Releases the state.
    async fn close(&mut self);
}

/// What is known of a label besides its chats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) note: Note,
    /// Token of the set of members that exists, if it is one of those in the note.
    pub(super) set: Option<String>,
}

/// A note without ids, which outlives the set of members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Note {
    /// Token of the set of members that is known to be whole.
    pub(super) trusted: Option<String>,
    /// Token of the set of members that becomes whole with the next whole list.
    pub(super) building: Option<String>,
    /// Passes over lists so far.
    pub(super) passes: u64,
    /// Members now.
    pub(super) members: u64,
    /// Members before a list that would have removed too many of them. The same list must not pass
    /// later only because its new chats are members by then.
    pub(super) guarded: Option<u64>,
    /// The run that is unfinished, or was when its process ended.
    pub(super) run: Option<RunNote>,
}

/// A run, as the note describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RunNote {
    pub(super) run_id: Uuid,
    /// What the run publishes. A run of another mode does not resume it.
    pub(super) mode: String,
    /// Its first pass.
    pub(super) first_pass: u64,
    /// The first pass whose publications are still on the queue.
    pub(super) published_from: u64,
    /// Position up to which the queue was known to have the run's chats.
    pub(super) reached: Position,
    /// Members before its last list.
    #[serde(default)]
    pub(super) members_before: u64,
    /// When it began, in seconds since 1970.
    #[serde(default)]
    pub(super) began_at: u64,
    /// When the queue last lost chats that were recorded as published, in seconds since 1970; 0 for
    /// never. Times of publication since the start of the run up to then do not count.
    #[serde(default)]
    pub(super) lost_at: u64,
    /// Decisions that are not recorded with the chats yet.
    #[serde(default)]
    pub(super) decisions: Decisions,
}

/// Which chats of consecutive entries were handed to the queue: a bit for each entry, four in a
/// hexadecimal digit, the first entry in the highest.
///
/// It is written before the chats are handed over. So if the process is killed, the next one knows
/// which of the chats before the queue's checkpoint are there, and records them as published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Decisions {
    first: Position,
    entries: u64,
    bits: String,
}

/// What is known of one chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) chat_id: String,
    pub(super) record: Option<Record>,
    /// When it was last published to the queue, by the run of any label, in seconds since 1970.
    pub(super) published_at: Option<u64>,
}

/// Changes that are written together.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) note: Note,
    /// Token of a new set of members, which replaces the one that there is.
    pub(super) new_set: Option<String>,
    /// Records of chats. Without a record, only the time of publication changes.
    pub(super) records: Vec<(String, Record)>,
    /// Chats that were published at `published_at`.
    pub(super) published: Vec<String>,
    pub(super) published_at: u64,
    /// Chats whose records are deleted.
    pub(super) forgotten: Vec<String>,
}

/// Where a scan continues; 0 for its start.
pub(super) type Cursor = u64;

/// Part of a scan.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Records that the pass has not confirmed.
    pub(super) unseen: Vec<(String, Record)>,
    /// Members in this part, confirmed or not.
    pub(super) members: u64,
    /// Where the scan continues; `None` at its end.
    pub(super) next: Option<Cursor>,
}

/// Token of a set that nobody has, in place of a note that cannot be read.
const UNREADABLE: &str = "unreadable";

impl Note {
    /// Parses a note. One that cannot be read says that a set is to be built, because an empty one
    /// would say that all chats are new.
    pub(super) fn parse(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_else(|_| Self {
            building: Some(UNREADABLE.to_owned()),
            ..Self::default()
        })
    }

    /// Whether the note could not be read, and no set was built since.
    pub(super) fn is_unreadable(&self) -> bool {
        self.trusted.is_none() && self.building.as_deref() == Some(UNREADABLE)
    }

    /// Returns the JSON that is stored.
    pub(super) fn to_json(&self) -> String {
        // Texts and numbers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Parses the record of a chat. One that cannot be read is that of a member: the chat is no news.
pub(super) fn parse_record(text: &str) -> Record {
    text.parse().unwrap_or(Record {
        state: State::Member,
        source: Source::List,
        as_of: 0,
        since: 0,
        seen: 0,
        published: 0,
    })
}

impl Decisions {
    /// Number of entries that are covered.
    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds the entries from `first` on, as many as there are decisions. Entries from there on that
    /// were added before are dropped, and all of them if there is a gap.
    pub(super) fn add(&mut self, first: Position, is_published: impl Iterator<Item = bool>) {
        let kept = first
            .checked_sub(self.first)
            .filter(|kept| *kept <= self.entries);
        match kept {
            Some(kept) if kept > 0 => self.truncate(kept),
            _ => {
                *self = Self {
                    first,
                    ..Self::default()
                };
            }
        }
        let mut digit = match self.entries % 4 {
            0 => 0,
            _ => self
                .bits
                .pop()
                .and_then(|digit| digit.to_digit(16))
                .unwrap_or(0),
        };
        for bit in is_published {
            digit |= u32::from(bit) << (3 - self.entries % 4);
            self.entries += 1;
            if self.entries.is_multiple_of(4) {
                self.push(digit);
                digit = 0;
            }
        }
        if !self.entries.is_multiple_of(4) {
            self.push(digit);
        }
    }

    fn push(&mut self, digit: u32) {
        self.bits.extend(char::from_digit(digit, 16));
    }

    fn truncate(&mut self, entries: u64) {
        self.entries = entries;
        let digits = usize::try_from(entries.div_ceil(4)).unwrap_or(usize::MAX);
        self.bits.truncate(digits);
        let spare = digits as u64 * 4 - entries;
        if let Some(last) = self.bits.pop().and_then(|digit| digit.to_digit(16)) {
            self.push(last >> spare << spare);
        }
    }

    /// Whether the chat at a position was handed to the queue; `None` if that is not known.
    pub(super) fn get(&self, position: Position) -> Option<bool> {
        let entry = position
            .checked_sub(self.first)
            .filter(|entry| *entry < self.entries)?;
        let digit = self.bits.as_bytes().get(usize::try_from(entry / 4).ok()?)?;
        let digit = char::from(*digit).to_digit(16)?;
        Some(digit >> (3 - entry % 4) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_found_by_position() {
        let mut numbers = 1_u64;
        let mut random = || {
            numbers = numbers
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            numbers >> 33
        };
        let mut decisions = Decisions::default();
        let mut expected: Vec<bool> = Vec::new();
        let first = 1001;
        decisions.add(first, std::iter::empty());
        for _ in 0..200 {
            // Goes on behind the last entry, or back to an earlier one.
            let keep = match random() % 4 {
                0 => 1 + random() % (expected.len() as u64 + 1),
                _ => expected.len() as u64,
            };
            let keep = keep.min(expected.len() as u64);
            expected.truncate(usize::try_from(keep).unwrap_or(0));
            let more: Vec<bool> = (0..random() % 11).map(|_| random() % 2 == 0).collect();
            decisions.add(first + keep, more.iter().copied());
            expected.extend(more);
            let count = expected.len() as u64;
            let found: Vec<_> = (0..count)
                .filter_map(|at| decisions.get(first + at))
                .collect();
            assert_eq!(found, expected);
            assert_eq!(decisions.get(first + count), None);
            assert_eq!(decisions.get(first - 1), None);
        }
        decisions.add(5, [true].into_iter());
        assert_eq!((decisions.get(5), decisions.get(first)), (Some(true), None));
    }
}
