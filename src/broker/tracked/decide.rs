//! The decision about each chat of a batch, without I/O.

use std::collections::HashMap;
use std::time::Duration;

use crate::batch::Position;
use crate::broker::store::{Known, RunNote};
use crate::state::record::{ListPass, Record, State, Verdict, confirm, judge};
use crate::state::{Membership, Publish, Selection};

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

    /// Whether a chat that is left out counts as published now: a baseline with `--suppress-for`
    /// records the list as published.
    fn counts_as_published(&self) -> bool {
        let is_baseline = self
            .membership
            .is_some_and(|it| it.publish == Publish::Nothing);
        is_baseline && self.suppress_for.is_some()
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
    /// Chats that are left out, and count as published now.
    pub(super) times: Vec<String>,
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
        // Without a note, the chat may be on the queue, or was left out. A later run may repeat it,
        // and none loses it.
        let noted = is_handed.then(|| rules.run.decisions.get(position) == Some(true));
        let record = decided.decide(rules, position, known, is_repeated, noted);
        before.insert(chat_id, record);
    }
    decided
}

impl Decided {
    /// Decides about a chat, unless it is noted whether it was published. Returns the record that it
    /// gets.
    fn decide(
        &mut self,
        rules: &Rules<'_>,
        position: Position,
        known: Known,
        is_repeated: bool,
        noted: Option<bool>,
    ) -> Option<Record> {
        let is_published =
            noted.unwrap_or_else(|| !is_repeated && verdict(rules, &known) == Verdict::Publish);
        if !is_published {
            return self.leave_out(rules, known, is_repeated);
        }
        let publication = publish(rules, &known, position);
        let record = publication.record;
        self.publish.push((known.chat_id, publication));
        record
    }

    /// Leaves a chat out. Returns the record that it gets.
    fn leave_out(&mut self, rules: &Rules<'_>, known: Known, is_repeated: bool) -> Option<Record> {
        let judged = by_membership(rules, &known);
        self.known += u64::from(judged == Verdict::Known);
        let confirmed = confirmed(rules, &known)?;
        let record = match judged {
            Verdict::Known => confirmed.known(),
            // Consumers know it from the run of another label.
            Verdict::Publish if is_recent(rules, &known) => confirmed.known(),
            Verdict::Publish | Verdict::Suppress => confirmed,
        };
        if !is_repeated {
            if rules.counts_as_published() {
                self.times.push(known.chat_id.clone());
            }
            self.write(known, record);
        }
        Some(record)
    }

    fn write(&mut self, known: Known, record: Record) {
        self.joined += u64::from(joins(&known, Some(record)));
        self.records.push((known.chat_id, record));
    }
}

/// Returns what is recorded about a chat when its message is durable.
pub(super) fn publish(rules: &Rules<'_>, known: &Known, position: Position) -> Publication {
    let confirmed = confirmed(rules, known);
    let record = confirmed.map(|confirmed| confirmed.published_in(rules.list.pass));
    Publication {
        position,
        record,
        joins: joins(known, record),
    }
}

fn joins(known: &Known, record: Option<Record>) -> bool {
    let is_member = |record: Option<Record>| record.is_some_and(|it| it.state != State::Removed);
    is_member(record) && !is_member(known.record)
}

fn confirmed(rules: &Rules<'_>, known: &Known) -> Option<Record> {
    rules.membership.map(|_| confirm(known.record, rules.list))
}

/// The verdict about a chat, whenever it was last published.
fn by_membership(rules: &Rules<'_>, known: &Known) -> Verdict {
    match (rules.membership, confirmed(rules, known)) {
        (Some(membership), Some(confirmed)) => judge(&confirmed, rules.list, membership),
        _ => Verdict::Publish,
    }
}

fn verdict(rules: &Rules<'_>, known: &Known) -> Verdict {
    match by_membership(rules, known) {
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

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::broker::store::Decisions;

    /// The second pass of a run that began with pass 7.
    const LIST: ListPass = ListPass {
        as_of: 1000,
        pass: 8,
        first_pass: 7,
        published_from: 7,
    };

    fn run(decisions: Decisions, lost_at: u64) -> RunNote {
        RunNote {
            run_id: Uuid::nil(),
            mode: String::new(),
            first_pass: 7,
            published_from: 7,
            reached: 0,
            members_before: 0,
            began_at: 2000,
            lost_at,
            decisions,
        }
    }

    fn selection(publish: Publish, suppress_for: Option<u64>) -> Selection {
        Selection {
            suppress_for: suppress_for.map(Duration::from_secs),
            membership: Some(Membership {
                publish,
                removed: false,
                min_age: None,
                max_change: 50,
            }),
            ..Selection::default()
        }
    }

    /// Chats at the positions from 0 on: an id, its record, and when it was published.
    fn chats(list: &[(&str, &str, u64)]) -> Vec<(Position, Known)> {
        let known = |(chat_id, record, at): &(&str, &str, u64)| Known {
            chat_id: (*chat_id).to_owned(),
            record: record.parse().ok(),
            published_at: (*at > 0).then_some(*at),
        };
        (0..).zip(list.iter().map(known)).collect()
    }

    /// What is decided, as text: chats that are published, and records that are written at once.
    fn texts(decided: &Decided) -> (Vec<String>, Vec<String>) {
        let record = |record: Option<Record>| record.map_or_else(String::new, |it| it.to_string());
        let published = decided.publish.iter().map(|(id, publication)| {
            let joins = if publication.joins { "+" } else { "" };
            format!(
                "{}{joins} {id} {}",
                publication.position,
                record(publication.record)
            )
        });
        let written = decided.records.iter();
        let written = written.map(|(id, it)| format!("{id} {it}"));
        (published.collect(), written.collect())
    }

    #[test]
    fn new_chats_are_published_and_recorded_later_and_known_ones_at_once() {
        let (selection, run) = (selection(Publish::New, None), run(Decisions::default(), 0));
        let rules = Rules::new(&selection, &LIST, &run, 3000);
        let list = chats(&[
            ("new", "", 0),
            ("known", "ml900:500:6:3", 0),
            ("new", "", 0),
            ("known", "ml900:500:6:3", 0),
            ("published", "ml900:900:7:7", 0),
            ("pending", "", 0),
            ("back", "rl900:500:6:3", 0),
        ]);
        let publication = Publication {
            position: 0,
            record: Some("ml1000:1000:8:8".parse().unwrap()),
            joins: true,
        };
        let pending = Pending::from([("pending".to_owned(), publication)]);
        let decided = decide(&rules, list.into_iter(), &pending, false);
        let (published, written) = texts(&decided);
        assert_eq!(
            published,
            ["0+ new ml1000:1000:8:8", "6+ back ml1000:1000:8:8"]
        );
        assert_eq!(
            written,
            ["known ml1000:500:8:3", "published ml1000:900:8:7"]
        );
        assert_eq!((decided.known, decided.joined), (2, 0));
    }

    #[test]
    fn a_baseline_makes_chats_known() {
        let (selection, run) = (
            selection(Publish::Nothing, None),
            run(Decisions::default(), 0),
        );
        let rules = Rules::new(&selection, &LIST, &run, 3000);
        let list = chats(&[("new", "", 0), ("left", "rl900:500:6:3", 0), ("new", "", 0)]);
        let decided = decide(&rules, list.into_iter(), &Pending::new(), false);
        let (published, written) = texts(&decided);
        assert!(published.is_empty());
        assert_eq!(written, ["new ml1000:1000:8:0", "left ml1000:1000:8:3"]);
        assert_eq!((decided.known, decided.joined), (3, 2));
    }

    #[test]
    fn a_baseline_counts_as_published_where_times_are_kept() {
        for (suppress_for, expected) in [(None, &[][..]), (Some(100), &["new", "known"])] {
            let (selection, run) = (
                selection(Publish::Nothing, suppress_for),
                run(Decisions::default(), 0),
            );
            let rules = Rules::new(&selection, &LIST, &run, 3000);
            let list = chats(&[
                ("new", "", 0),
                ("known", "ml900:500:6:3", 0),
                ("new", "", 0),
            ]);
            let decided = decide(&rules, list.into_iter(), &Pending::new(), false);
            assert_eq!(decided.times, expected);
            assert!(decided.publish.is_empty());
        }
    }

    #[test]
    fn a_chat_that_another_label_published_becomes_known() {
        let mut selection = selection(Publish::New, Some(100));
        let run = run(Decisions::default(), 0);
        for (min_age, expected) in [
            (None, "a ml1000:1000:8:0"),
            // It is still to be published, when it has been a member for long enough.
            (Some(60), "a nl1000:1000:8:0"),
        ] {
            if let Some(membership) = &mut selection.membership {
                membership.min_age = min_age.map(Duration::from_secs);
            }
            let rules = Rules::new(&selection, &LIST, &run, 3000);
            let list = chats(&[("a", "", 2950)]);
            let decided = decide(&rules, list.into_iter(), &Pending::new(), false);
            assert_eq!(texts(&decided), (vec![], vec![expected.to_owned()]));
            assert!(decided.times.is_empty());
        }
    }

    #[test]
    fn recently_published_chats_are_left_out_unless_the_queue_has_lost_them() {
        for (published_at, lost_at, is_published) in [
            (0, 0, true),
            (2900, 0, true),
            (2901, 0, false),
            // Published by this run, and lost since.
            (2950, 2960, true),
            (2970, 2960, false),
            // Published before this run.
            (1999, 2960, true),
        ] {
            let (selection, run) = (
                selection(Publish::All, Some(100)),
                run(Decisions::default(), lost_at),
            );
            let rules = Rules::new(&selection, &LIST, &run, 3000);
            let list = chats(&[("a", "ml900:500:6:3", published_at)]);
            let decided = decide(&rules, list.into_iter(), &Pending::new(), false);
            assert_eq!(
                decided.publish.len() == 1,
                is_published,
                "{published_at} {lost_at}"
            );
            assert_eq!(decided.records.len() == 1, !is_published);
        }
    }

    #[test]
    fn where_chats_were_handed_over_the_note_tells_which() {
        let mut decisions = Decisions::default();
        decisions.add(1, [true, false].into_iter());
        let (selection, run) = (selection(Publish::New, None), run(decisions, 0));
        let rules = Rules::new(&selection, &LIST, &run, 3000);
        let list = chats(&[
            // Not noted: it may be on the queue or not, and stays new.
            ("a", "", 0),
            ("b", "", 0),
            ("c", "", 0),
            ("d", "ml900:900:7:7", 0),
        ]);
        let decided = decide(&rules, list.into_iter(), &Pending::new(), true);
        let (published, written) = texts(&decided);
        assert_eq!(published, ["1+ b ml1000:1000:8:8"]);
        let expected = ["a nl1000:1000:8:0", "c nl1000:1000:8:0", "d ml1000:900:8:7"];
        assert_eq!(written, expected);
    }

    #[test]
    fn without_membership_only_times_of_publication_count() {
        let selection = Selection {
            suppress_for: Some(Duration::from_secs(100)),
            ..Selection::default()
        };
        let run = run(Decisions::default(), 0);
        let rules = Rules::new(&selection, &LIST, &run, 3000);
        let list = chats(&[("a", "", 2950), ("b", "", 1), ("b", "", 1)]);
        let decided = decide(&rules, list.into_iter(), &Pending::new(), false);
        assert_eq!(texts(&decided).0, ["1 b "]);
        assert!(decided.records.is_empty() && decided.known == 0);
    }
}
