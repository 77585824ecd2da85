//! What a batch of events does, without I/O.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, UNIX_EPOCH};

use crate::broker::EventOutcome;
use crate::broker::store::{EventChanges, Found};
use crate::message::LabelEvent;
use crate::state::record::{Applied, Record, State, apply};

/// What decides about events.
#[derive(Clone, Copy, Debug)]
pub(super) struct EventRules {
    /// Time since the last publication in which a chat is not published to the queue again.
    pub(super) suppress_for: Option<Duration>,
    /// Whether chats that leave are published.
    pub(super) publishes_removals: bool,
    /// The time, in seconds since 1970.
    pub(super) now: u64,
}

/// The decisions about a batch of events.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AppliedEvents {
    /// One for each event.
    pub(super) outcomes: Vec<EventOutcome>,
    /// Events for the queue, in their order.
    pub(super) added: Vec<LabelEvent>,
    /// Events for the queue of chats that have left, in their order.
    pub(super) removed: Vec<LabelEvent>,
    /// What is recorded when these messages are confirmed.
    pub(super) changes: EventChanges,
}

/// Applies events in their order to what is known before them. Each meets the effects of those
/// before it.
pub(super) fn apply_all(rules: EventRules, events: &[LabelEvent], found: &Found) -> AppliedEvents {
    let mut batch = Batch::new(rules, found);
    let mut applied = AppliedEvents::default();
    for (event, is_known) in events.iter().zip(&found.is_known) {
        let outcome = match *is_known || !batch.ids.insert(event.id.clone()) {
            true => EventOutcome::Duplicate,
            false => {
                applied.changes.ids.push(event.id.clone());
                batch.apply(event, &mut applied)
            }
        };
        applied.outcomes.push(outcome);
    }
    applied.changes.published_at = rules.now;
    applied.changes.records = batch.changed_records();
    applied
}

/// What is known while a batch is applied.
struct Batch<'a> {
    rules: EventRules,
    listed_at: Option<u64>,
    has_times: bool,
    records: HashMap<&'a str, Option<Record>>,
    published_at: HashMap<&'a str, u64>,
    ids: HashSet<String>,
    /// Chats whose records change, in the order of their first change.
    changed: Vec<String>,
}

impl<'a> Batch<'a> {
    fn new(rules: EventRules, found: &'a Found) -> Self {
        let chats = || found.chats.iter();
        let time = |chat: &'a crate::broker::store::Known| {
            Some((chat.chat_id.as_str(), chat.published_at?))
        };
        Self {
            rules,
            listed_at: found.listed_at,
            has_times: found.has_times || rules.suppress_for.is_some(),
            records: chats()
                .map(|chat| (chat.chat_id.as_str(), chat.record))
                .collect(),
            published_at: chats().filter_map(time).collect(),
            ids: HashSet::new(),
            changed: Vec::new(),
        }
    }

    fn apply(&mut self, event: &LabelEvent, applied: &mut AppliedEvents) -> EventOutcome {
        let Some(record) = self.records.get_mut(event.chat_id.as_str()) else {
            // The store returns all chats that it is asked for.
            return EventOutcome::Stale;
        };
        let before = *record;
        let (outcome, after) = match apply(before, event.change, millis(event), self.listed_at) {
            Applied::Stale => return EventOutcome::Stale,
            Applied::Unchanged(after) => (EventOutcome::Unchanged, after),
            Applied::Joined(after) => (EventOutcome::Published, after),
            Applied::Left(after) => (EventOutcome::Recorded, after),
        };
        *record = Some(after);
        if !self.changed.contains(&event.chat_id) {
            self.changed.push(event.chat_id.clone());
        }
        match outcome {
            EventOutcome::Published => self.join(event, applied),
            EventOutcome::Recorded => self.leave(event, before, applied),
            unchanged => unchanged,
        }
    }

    fn join(&mut self, event: &LabelEvent, applied: &mut AppliedEvents) -> EventOutcome {
        applied.changes.joined += 1;
        applied.changes.changes += 1;
        let published_at = self.published_at.get(event.chat_id.as_str());
        let window = self.rules.suppress_for;
        let is_recent = |at: &u64| window.is_some_and(|it| at + it.as_secs() > self.rules.now);
        if published_at.is_some_and(is_recent) {
            return EventOutcome::Suppressed;
        }
        if self.has_times {
            if let Some((chat_id, _)) = self.records.get_key_value(event.chat_id.as_str()) {
                self.published_at.insert(chat_id, self.rules.now);
            }
            applied.changes.published.push(event.chat_id.clone());
        }
        applied.added.push(event.clone());
        EventOutcome::Published
    }

    fn leave(
        &self,
        event: &LabelEvent,
        before: Option<Record>,
        applied: &mut AppliedEvents,
    ) -> EventOutcome {
        applied.changes.joined -= 1;
        applied.changes.changes += 1;
        // Consumers were not told of a chat that is still new.
        let is_announced = before.is_some_and(|it| it.state == State::Member);
        if !(self.rules.publishes_removals && is_announced) {
            return EventOutcome::Recorded;
        }
        applied.removed.push(event.clone());
        EventOutcome::Published
    }

    fn changed_records(&self) -> Vec<(String, Record)> {
        let record = |chat_id: &String| {
            let record = self.records.get(chat_id.as_str()).copied().flatten()?;
            Some((chat_id.clone(), record))
        };
        self.changed.iter().filter_map(record).collect()
    }
}

/// The time of an event, in milliseconds since 1970.
fn millis(event: &LabelEvent) -> u64 {
    let since = event.occurred_at.duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::broker::store::Known;
    use crate::message::Change;

    /// Events as text: an id, `+` or `-`, a chat, and a time in seconds.
    fn events(texts: &str) -> Vec<LabelEvent> {
        let event = |text: &str| {
            let mut parts = text.split(':');
            let mut part = || parts.next().unwrap().to_owned();
            LabelEvent {
                id: part(),
                change: match part().as_str() {
                    "+" => Change::Added,
                    _ => Change::Deleted,
                },
                chat_id: part(),
                occurred_at: UNIX_EPOCH + Duration::from_secs(part().parse().unwrap()),
                listed_by: None,
            }
        };
        texts.split_whitespace().map(event).collect()
    }

    /// Records as text: a chat, its record, and when it was published.
    fn found(events: &[LabelEvent], records: &[(&str, &str, u64)], known: &[&str]) -> Found {
        let chat = |event: &LabelEvent| {
            let record = records.iter().find(|(chat, ..)| *chat == event.chat_id);
            Known {
                chat_id: event.chat_id.clone(),
                record: record.and_then(|(_, record, _)| record.parse().ok()),
                published_at: record.map(|(.., at)| *at).filter(|at| *at > 0),
            }
        };
        Found {
            chats: events.iter().map(chat).collect(),
            is_known: events
                .iter()
                .map(|event| known.contains(&event.id.as_str()))
                .collect(),
            listed_at: Some(500),
            has_times: false,
            turn: None,
        }
    }

    /// Outcomes by their first letters, messages to either queue, and records.
    fn applied(
        texts: &str,
        records: &[(&str, &str, u64)],
        suppress_for: Option<u64>,
    ) -> (String, String, String) {
        let events = events(texts);
        let rules = EventRules {
            suppress_for: suppress_for.map(Duration::from_secs),
            publishes_removals: true,
            now: 3000,
        };
        let applied = apply_all(rules, &events, &found(&events, records, &["seen"]));
        let letter = |outcome: &EventOutcome| format!("{outcome:?}")[..2].to_owned();
        let outcomes: Vec<String> = applied.outcomes.iter().map(letter).collect();
        let ids = |sign: &str, events: &[LabelEvent]| -> Vec<String> {
            let ids = events.iter().map(|event| format!("{sign}{}", event.id));
            ids.collect()
        };
        let messages = [ids("+", &applied.added), ids("-", &applied.removed)].concat();
        let changes = &applied.changes;
        let records = changes.records.iter();
        let records: Vec<String> = records.map(|(chat, it)| format!("{chat} {it}")).collect();
        let counts = format!("{:+}/{}", changes.joined, changes.changes);
        (
            outcomes.join(" "),
            messages.join(" "),
            [vec![counts], records].concat().join(", "),
        )
    }

    #[test]
    fn each_event_meets_the_effects_of_those_before() {
        let member = [("m", "ml900:900:3:3", 0), ("n", "nl900:900:3:0", 0)];
        for (texts, outcomes, messages, records) in [
            ("1:+:a:600", "Pu", "+1", "+1/1, a me600.000:600:0:0"),
            (
                "1:+:a:600 1:+:a:600",
                "Pu Du",
                "+1",
                "+1/1, a me600.000:600:0:0",
            ),
            ("seen:+:a:600", "Du", "", "+0/0"),
            ("1:+:a:400", "St", "", "+0/0"),
            ("1:-:a:600", "Un", "", "+0/0, a re600.000:600:0:0"),
            (
                "1:+:a:600 2:-:a:601 3:+:a:602",
                "Pu Pu Pu",
                "+1 +3 -2",
                "+1/3, a me602.000:602:0:0",
            ),
            (
                "2:-:a:601 1:+:a:600",
                "Un St",
                "",
                "+0/0, a re601.000:601:0:0",
            ),
            ("1:-:m:950", "Pu", "-1", "-1/1, m re950.000:900:3:3"),
            ("1:-:n:950", "Re", "", "-1/1, n re950.000:900:3:0"),
            ("1:+:m:950", "Un", "", "+0/0, m me950.000:900:3:3"),
            ("1:-:m:800", "St", "", "+0/0"),
        ] {
            let found = applied(texts, &member, None);
            let expected = (outcomes.into(), messages.into(), records.into());
            assert_eq!(found, expected, "{texts}");
        }
    }

    #[test]
    fn a_chat_that_was_published_recently_joins_without_a_message() {
        let published = |at| [("a", "", at)];
        for (at, window, texts, outcomes) in [
            (2950, Some(100), "1:+:a:600", "Su"),
            (2900, Some(100), "1:+:a:600", "Pu"),
            (2950, None, "1:+:a:600", "Pu"),
            (0, Some(100), "1:+:a:600 2:-:a:601 3:+:a:602", "Pu Pu Su"),
        ] {
            let found = applied(texts, &published(at), window);
            assert_eq!(found.0, outcomes, "{at} {window:?}");
            assert!(found.2.starts_with("+1/"));
        }
    }
}
