//! The decision about each chat of a batch, without I/O.

use std::collections::HashMap;
use std::time::Duration;

use crate::batch::Position;
use crate::broker::store::{Known, RunNote};
use crate::state::record::{ListPass, Record, State, Verdict, confirm, judge};
use crate::state::{Membership, Selection};

/// What decides about the chats of a list.
pub(super) struct Rules<'a> {
    pub(super) membership: Option<&'a Membership>,
    pub(super) suppress_for: Option<Duration>,
    pub(super) list: &'a ListPass,
    pub(super) run: &'a RunNote,
    /// The time, in seconds since 1970.
    pub(super) now: u64,
}

impl<'a> Rules<'a> {
    pub(super) fn new(
        selection: &'a Selection,
        list: &'a ListPass,
        run: &'a RunNote,
        now: u64,
    ) -> Self {
        Self {
            membership: selection.membership.as_ref(),
            suppress_for: selection.suppress_for,
            list,
            run,
            now,
        }
    }
}

/// A chat that is handed to the queue, and recorded when its message is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Publication {
    pub(super) position: Position,
    /// The record when it is published.
    pub(super) record: Option<Record>,
    /// Whether it becomes a member.
    pub(super) joins: bool,
}

/// Chats that were handed to the queue, and are not known to be durable.
pub(super) type Pending = HashMap<String, Publication>;

/// The decisions about a batch.
#[derive(Debug, Default)]
pub(super) struct Decided {
    /// Records to write at once.
    pub(super) records: Vec<(String, Record)>,
    /// How many of them become members.
    pub(super) joined: u64,
    /// Chats that are handed to the queue, or were, in order.
    pub(super) publish: Vec<(String, Publication)>,
    /// Chats that are left out because they were members before.
    pub(super) known: u64,
}

/// Decides about chats at their positions. Where the run has handed over its chats already, those
/// that it is known to have handed over are published, and nothing else is.
pub(super) fn decide(
    rules: &Rules<'_>,
    chats: impl Iterator<Item = (Position, Known)>,
    pending: &Pending,
    is_handed: bool,
) -> Decided {
    let mut decided = Decided::default();
    // What was decided about the chats of this batch, because a list may contain one twice.
    let mut before: HashMap<String, Option<Record>> = HashMap::new();
    for (position, mut known) in chats {
        if let Some(pending) = pending.get(&known.chat_id) {
            known.record = pending.record;
            decided.leave_out(rules, known, true);
            continue;
        }
        let repeated = before.get(&known.chat_id);
        if let Some(record) = repeated {
            known.record = *record;
        }
        let is_repeated = repeated.is_some();
        let chat_id = known.chat_id.clone();
        let was_handed = is_handed.then(|| rules.run.decisions.get(position));
        let record = decided.decide(rules, position, known, is_repeated, was_handed);
        before.insert(chat_id, record);
    }
    decided
}

impl Decided {
    /// Decides about a chat. Returns the record that it gets. `was_handed` tells where the run has
    /// handed over its chats already, and then whether it is known to have handed over this one.
    fn decide(
        &mut self,
        rules: &Rules<'_>,
        position: Position,
        known: Known,
        is_repeated: bool,
        was_handed: Option<Option<bool>>,
    ) -> Option<Record> {
        let is_published = match was_handed {
            // Without a note, the chat may be on the queue, or was left out. A later run may repeat
            // it, and none loses it.
            Some(noted) => noted == Some(true),
            None => !is_repeated && verdict(rules, &known) == Verdict::Publish,
        };
        if !is_published {
            return self.leave_out(rules, known, is_repeated);
        }
        let confirmed = confirmed(rules, &known);
        let record = confirmed.map(|confirmed| confirmed.published_in(rules.list.pass));
        let publication = Publication {
            position,
            record,
            joins: joins(&known, record),
        };
        self.publish.push((known.chat_id, publication));
        record
    }

    /// Leaves a chat out. Returns the record that it gets.
    fn leave_out(&mut self, rules: &Rules<'_>, known: Known, is_repeated: bool) -> Option<Record> {
        let verdict = verdict(rules, &known);
        self.known += u64::from(verdict == Verdict::Known);
        let confirmed = confirmed(rules, &known)?;
        let record = match verdict {
            Verdict::Known => confirmed.known(),
            Verdict::Publish | Verdict::Suppress => confirmed,
        };
        if !is_repeated {
            self.write(&known, record);
        }
        Some(record)
    }

    fn write(&mut self, known: &Known, record: Record) {
        self.joined += u64::from(joins(known, Some(record)));
        self.records.push((known.chat_id.clone(), record));
    }
}

fn joins(known: &Known, record: Option<Record>) -> bool {
    let is_member = |record: Option<Record>| record.is_some_and(|it| it.state != State::Removed);
    is_member(record) && !is_member(known.record)
}

fn confirmed(rules: &Rules<'_>, known: &Known) -> Option<Record> {
    rules.membership.map(|_| confirm(known.record, rules.list))
}

fn verdict(rules: &Rules<'_>, known: &Known) -> Verdict {
    let verdict = match (rules.membership, confirmed(rules, known)) {
        (Some(membership), Some(confirmed)) => judge(&confirmed, rules.list, membership),
        _ => Verdict::Publish,
    };
    match verdict {
        Verdict::Publish if is_recent(rules, known) => Verdict::Suppress,
        verdict => verdict,
    }
}

/// Whether a chat was published to the queue recently, by the run of any label, and the queue has
/// not lost it since.
fn is_recent(rules: &Rules<'_>, known: &Known) -> bool {
    let (Some(window), Some(at)) = (rules.suppress_for, known.published_at) else {
        return false;
    };
    let is_lost = (rules.run.began_at..=rules.run.lost_at).contains(&at);
    !is_lost && at + window.as_secs() > rules.now
}
