//! The record of a chat in a label: a register in which the last writer wins, by the time that a
//! list or an event is current as of.
//!
//! `WhatsApp`'s events come in any order, twice or not at all, so neither the time of arrival nor a
//! position orders them. Lists are ordered among themselves by their pass, because the lock lets
//! them come one after the other.
//!
//! The functions here decide; the scripts of the Redis sink decide in the same way, in one step
//! with the append.

use std::fmt;
use std::str::FromStr;

use super::{Membership, Publish};
use crate::message::Change;

/// How long a removal is remembered, in milliseconds, counted in the time of later lists. An older
/// event is not taken for news.
pub const REMOVAL_REMEMBERED_MS: u64 = 3600 * 1000;

/// What is known of a chat in a label.
///
/// As text `<state><source><as of>:<since>:<seen>:<published>`, for example
/// `ml1764209000:1764209000:17:3`; times are in seconds since 1970, with three decimals if an event
/// set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whether it is a member.
    pub state: State,
    /// What `as_of` comes from.
    pub source: Source,
    /// The time that the state is current as of, in milliseconds since 1970. Whole seconds for a
    /// list.
    pub as_of: u64,
    /// When the membership began, in seconds since 1970.
    pub since: u64,
    /// The last pass whose list contained the chat; 0 for none.
    pub seen: u64,
    /// The last pass in which the chat was published; 0 for none.
    pub published: u64,
}

/// Whether a chat is a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is, and consumers were told, or it is recorded as known.
    Member,
    /// It is, because a list contains it, and it was not published since.
    New,
    /// It was, and is remembered so that an old event does not revive it.
    Removed,
}

/// The source of a record's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A list.
    List,
    /// An event.
    Event,
}

/// A pass over a label's list: from the start of a run, or from where it is published again from
/// position 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListPass {
    /// The time that the list is current as of, in seconds since 1970.
    pub as_of: u64,
    /// The number of the pass, counted over all runs.
    pub pass: u64,
    /// The first pass of the run.
    pub first_pass: u64,
    /// The first pass whose publications are still on the queue.
    pub published_from: u64,
}

/// What is done with a chat of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is published.
    Publish,
    /// It is known, and left out.
    Known,
    /// It was published by this run, or is not a member for long enough yet, and is left out.
    Suppress,
}

/// Returns the record of a chat that a list contains.
pub fn confirm(found: Option<Record>, list: &ListPass) -> Record {
    let list_ms = list.as_of * 1000;
    let joined = Record {
        state: State::New,
        source: Source::List,
        as_of: list_ms,
        since: list.as_of,
        seen: list.pass,
        published: found.map_or(0, |found| found.published),
    };
    let Some(found) = found else {
        return joined;
    };
    let list_wins = found.source == Source::List || found.as_of < list_ms;
    match (list_wins, found.state) {
        // The event is newer.
        (false, _) => Record {
            seen: list.pass,
            ..found
        },
        (true, State::Removed) => joined,
        (true, State::Member | State::New) => Record {
            source: Source::List,
            as_of: list_ms,
            seen: list.pass,
            ..found
        },
    }
}

/// Decides about a chat of a list by its confirmed record. Whether it was published recently, by
/// the run of any label, is not decided here.
pub fn judge(confirmed: &Record, list: &ListPass, rules: &Membership) -> Verdict {
    if confirmed.published >= list.published_from {
        return Verdict::Suppress;
    }
    if confirmed.published >= list.first_pass {
        // This run has published it, and the queue has lost it since.
        return Verdict::Publish;
    }
    let min_age = rules.min_age.map_or(0, |age| age.as_secs());
    let age = list.as_of.saturating_sub(confirmed.since);
    match rules.publish {
        Publish::Nothing => Verdict::Known,
        Publish::New if confirmed.state != State::New => Verdict::Known,
        _ if min_age > 0 && (confirmed.state == State::Removed || age < min_age) => {
            Verdict::Suppress
        }
        Publish::All | Publish::New => Verdict::Publish,
    }
}

/// What an event does to the record of a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// The chat becomes a member.
    Joined(Record),
    /// The chat is not a member any more.
    Left(Record),
    /// The chat stays what it was, as of a later time.
    Unchanged(Record),
    /// A list or an event of a later time is known.
    Stale,
}

/// Applies an event of a time in milliseconds since 1970. `last_list` is the time that the last
/// whole list was current as of, in seconds: a chat without a record, or one that was removed before,
/// was not in it.
///
/// An event of the same time as a list beats the list, and of two events the deletion counts.
pub fn apply(found: Option<Record>, change: Change, as_of: u64, last_list: Option<u64>) -> Applied {
    let Some(found) = found else {
        let joined = Record {
            state: State::Member,
            source: Source::Event,
            as_of,
            since: as_of / 1000,
            seen: 0,
            published: 0,
        };
        return match (last_list.is_some_and(|list| as_of < list * 1000), change) {
            (true, _) => Applied::Stale,
            (false, Change::Added) => Applied::Joined(joined),
            (false, Change::Deleted) => Applied::Unchanged(Record {
                state: State::Removed,
                ..joined
            }),
        };
    };
    let found = match last_list {
        Some(list) if found.state == State::Removed && found.as_of < list * 1000 => Record {
            source: Source::List,
            as_of: list * 1000,
            ..found
        },
        _ => found,
    };
    let wins_tie = found.source == Source::List || change == Change::Deleted;
    if as_of < found.as_of || (as_of == found.as_of && !wins_tie) {
        return Applied::Stale;
    }
    let later = Record {
        source: Source::Event,
        as_of,
        ..found
    };
    match (found.state, change) {
        (State::Removed, Change::Added) => Applied::Joined(Record {
            state: State::Member,
            since: as_of / 1000,
            ..later
        }),
        (State::Member | State::New, Change::Deleted) => Applied::Left(Record {
            state: State::Removed,
            ..later
        }),
        _ => Applied::Unchanged(later),
    }
}

impl Record {
    /// Returns the record after the chat was published in a pass.
    #[must_use]
    pub fn published_in(self, pass: u64) -> Self {
        Self {
            published: pass,
            ..self.known()
        }
    }

    /// Returns the record of a chat whose membership is not news any more.
    #[must_use]
    pub fn known(self) -> Self {
        match self.state {
            State::New => Self {
                state: State::Member,
                ..self
            },
            State::Member | State::Removed => self,
        }
    }

    /// Whether the chat is a member that a whole list does not contain, and that no newer event
    /// added.
    pub fn is_absent_from(&self, list: &ListPass) -> bool {
        let list_wins = self.source == Source::List || self.as_of < list.as_of * 1000;
        self.state != State::Removed && self.seen != list.pass && list_wins
    }

    /// Returns the record after a whole list removed the chat.
    #[must_use]
    pub fn removed_by(self, list: &ListPass) -> Self {
        Self {
            state: State::Removed,
            source: Source::List,
            as_of: list.as_of * 1000,
            ..self
        }
    }

    /// Whether a whole list is so much younger than the removal that the record is deleted.
    pub fn is_outlived_by(&self, list: &ListPass) -> bool {
        self.state == State::Removed && self.as_of + REMOVAL_REMEMBERED_MS < list.as_of * 1000
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Member => 'm',
            State::New => 'n',
            State::Removed => 'r',
        };
        let Self {
            since,
            seen,
            published,
            ..
        } = self;
        let (seconds, millis) = (self.as_of / 1000, self.as_of % 1000);
        match self.source {
            Source::List => write!(f, "{state}l{seconds}:{since}:{seen}:{published}"),
            Source::Event => {
                write!(
                    f,
                    "{state}e{seconds}.{millis:03}:{since}:{seen}:{published}"
                )
            }
        }
    }
}

/// The error for a text that is no record.
#[derive(Debug, thiserror::Error)]
#[error("is not the record of a chat")]
pub struct NotARecord;

impl FromStr for Record {
    type Err = NotARecord;

    fn from_str(text: &str) -> Result<Self, NotARecord> {
        parse(text).ok_or(NotARecord)
    }
}

fn parse(text: &str) -> Option<Record> {
    let (kind, rest) = text.split_at_checked(2)?;
    let (state, source) = match kind {
        "ml" => (State::Member, Source::List),
        "nl" => (State::New, Source::List),
        "rl" => (State::Removed, Source::List),
        "me" => (State::Member, Source::Event),
        "ne" => (State::New, Source::Event),
        "re" => (State::Removed, Source::Event),
        _ => return None,
    };
    let mut parts = rest.split(':');
    let as_of = parts.next()?;
    let (seconds, millis) = as_of.split_once('.').unwrap_or((as_of, "0"));
    let mut number = || parts.next()?.parse::<u64>().ok();
    Some(Record {
        state,
        source,
        as_of: seconds.parse::<u64>().ok()?.checked_mul(1000)? + millis.parse::<u64>().ok()?,
        since: number()?,
        seen: number()?,
        published: number()?,
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests;
