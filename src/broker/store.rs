//! A store beside the broker: who is in a label, and when chats were published.
//!
//! A store only keeps what it is given. `tracked` decides, so that all stores follow the same rules.
//!
//! A run and events change the state of one label at the same time. Three rules keep them apart:
//!
//! 1. **One turn at a time.** A batch of a run from its reading to its writing, and a batch of events
//!    from its reading over its messages to its writing, have the turn of the list. So no decision is
//!    made on what another one is about to change.
//! 2. **Chats in flight are the run's.** A run gives its turn back while the queue confirms messages.
//!    Their chats are named as in flight until they are recorded, and events about them wait: they
//!    would publish a chat a second time, or a removal before the chat.
//! 3. **An expired turn is worth nothing.** A write in a turn that was lost is refused
//!    ([`Saved::Outdated`]), and its decisions are made again.
//!
//! Events take no lock, and a run never waits for more than one batch of events.

mod decisions;
mod events;

use std::time::{Duration, UNIX_EPOCH};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(super) use self::decisions::Decisions;
pub(super) use self::events::{EventChanges, EventStore, Found};
use super::{BrokerError, MemberCount};
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

    /// Takes the turn, and returns what is known besides the chats now.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn take_turn(&mut self) -> Result<Stored, BrokerError>;

    /// Takes the turn, and returns what is known of chats, in their order.
    ///
    /// # Errors
    ///
    /// If the store fails.
    async fn read(&mut self, chats: Vec<String>) -> Result<Vec<Known>, BrokerError>;

    /// Writes all of the changes, durably for a process that is killed, or none; and ends the turn,
    /// if it was taken.
    ///
    /// # Errors
    ///
    /// If the store fails. After a lost connection, the changes may be there.
    async fn write(&mut self, changes: Changes) -> Result<Saved, BrokerError>;

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
    /// Members now.
    pub(super) members: u64,
    /// How often events have changed the members of the set.
    pub(super) events: u64,
}

impl From<Stored> for MemberCount {
    fn from(stored: Stored) -> Self {
        let Stored {
            note, set, members, ..
        } = stored;
        let is_whole = set.is_some() && set == note.trusted;
        let listed_at = note.listed_at.filter(|_| is_whole);
        Self {
            members: if set.is_some() { members } else { 0 },
            listed_at: listed_at.map(|at| UNIX_EPOCH + Duration::from_secs(at)),
        }
    }
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Saved {
    /// All changes are written.
    Done,
    /// Nothing is written: what was read may have changed since. The decisions are to be made again.
    Outdated,
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
    /// Members, as notes of earlier versions have them. They are counted beside the note now, because
    /// only a run writes the note.
    #[serde(skip_serializing)]
    pub(super) members: u64,
    /// The time that the last whole list was current as of, in seconds since 1970.
    pub(super) listed_at: Option<u64>,
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
    /// By how much the number of members changes.
    pub(super) joined: i64,
    /// All members, as counted.
    pub(super) counted: Option<Counted>,
    /// Chats that are handed to the queue next.
    pub(super) in_flight: Vec<String>,
    /// Whether these are the records of all chats in flight, so that none is in flight any more.
    pub(super) clears_in_flight: bool,
}

/// The number of members, counted over a whole set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) members: u64,
    /// [`Stored::events`] before it was counted. If there were more since, the number is not taken.
    pub(super) events: u64,
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

/// Start of the token of a set that events began. It stands in no note, because only runs write
/// notes.
const BEGUN_BY_EVENTS: &str = "events:";
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

    /// Enters the set that exists, and returns its token if it is one of the note, or events have
    /// begun it.
    pub(super) fn adopt(&mut self, set: Option<String>) -> Option<String> {
        let set = set?;
        if is_begun_by_events(&set) && self.trusted.as_ref() != Some(&set) {
            self.building = Some(set.clone());
        }
        let tokens = [&self.trusted, &self.building];
        tokens
            .into_iter()
            .flatten()
            .any(|token| *token == set)
            .then_some(set)
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

/// Returns the token for a set that events begin.
pub(super) fn token_of_events() -> String {
    format!("{BEGUN_BY_EVENTS}{}", Uuid::now_v7())
}

/// Whether events began a set.
pub(super) fn is_begun_by_events(set: &str) -> bool {
    set.starts_with(BEGUN_BY_EVENTS)
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
