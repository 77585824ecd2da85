//! What a run finds in the note and what it leaves there, without I/O.

use uuid::Uuid;

use crate::batch::Position;
use crate::broker::BrokerError;
use crate::broker::store::{Decisions, Note, RunNote, Stored, is_begun_by_events};
use crate::state::Publish;
use crate::state::record::ListPass;

/// Checks that a run that publishes new members knows the others: the set is whole, or there never
/// was one.
///
/// # Errors
///
/// [`BrokerError::MembersLost`].
pub(super) fn check_set(stored: &Stored, publish: Publish) -> Result<(), BrokerError> {
    let Stored { note, set, .. } = stored;
    let problem = match (&note.trusted, &note.building) {
        _ if publish != Publish::New => return Ok(()),
        _ if note.is_unreadable() => "the note cannot be read",
        (None, None) => return Ok(()),
        (Some(trusted), _) if set.as_ref() == Some(trusted) => return Ok(()),
        (Some(_), _) => "they have expired or were deleted",
        (None, Some(_)) => "no whole list was recorded since",
    };
    Err(BrokerError::MembersLost(problem.to_owned()))
}

/// Enters in the note which set a pass works on. Returns the token of a new set, if the pass begins
/// one.
pub(super) fn begin_set(
    note: &mut Note,
    set: Option<&str>,
    publish: Publish,
    new_token: impl FnOnce() -> String,
) -> Option<String> {
    let existing = set.filter(|set| {
        let tokens = [&note.trusted, &note.building];
        // Events may have begun one since the note was read.
        is_begun_by_events(set) || tokens.into_iter().flatten().any(|token| token == set)
    });
    let is_new = existing.is_none();
    let is_first = note.trusted.is_none() && note.building.is_none();
    let token = existing.map_or_else(new_token, str::to_owned);
    let is_trusted = match publish {
        // On first use, an empty set is whole, and so is one with the chats that events announced.
        Publish::New | Publish::All => is_first || note.trusted.as_ref() == Some(&token),
        // A baseline over a whole set only adds to it.
        Publish::Nothing => note.trusted.as_ref() == Some(&token),
    };
    (note.trusted, note.building) = match is_trusted {
        true => (Some(token.clone()), None),
        false => (None, Some(token.clone())),
    };
    is_new.then_some(token)
}

/// What begins a pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) run_id: Uuid,
    pub(super) mode: &'static str,
    /// Position up to which the queue has the run's chats.
    pub(super) durable: Position,
    /// Members now.
    pub(super) members: u64,
    /// The time that the list is current as of, in seconds since 1970.
    pub(super) as_of: u64,
    /// The time, in seconds since 1970.
    pub(super) now: u64,
}

/// Enters a new pass in the note.
pub(super) fn begin_pass(note: &mut Note, beginning: &Beginning) -> ListPass {
    note.passes += 1;
    let pass = note.passes;
    let same_run = note.run.take().filter(|run| run.run_id == beginning.run_id);
    let mut run = same_run.unwrap_or_else(|| RunNote {
        run_id: beginning.run_id,
        mode: beginning.mode.to_owned(),
        first_pass: pass,
        published_from: pass,
        reached: 0,
        members_before: beginning.members,
        began_at: beginning.now,
        lost_at: 0,
        decisions: Decisions::default(),
    });
    if beginning.durable < run.reached {
        // The queue has lost chats that are recorded as published.
        run.published_from = pass;
        run.lost_at = beginning.now;
        run.reached = beginning.durable;
    }
    run.members_before = note
        .guarded
        .map_or(beginning.members, |before| before.min(beginning.members));
    let list = ListPass {
        as_of: beginning.as_of,
        pass,
        first_pass: run.first_pass,
        published_from: run.published_from,
    };
    note.run = Some(run);
    list
}

/// Enters in the note that a list is whole and past the guards. From here on, an older event about
/// a chat without a record is no news.
pub(super) fn accept_list(note: &mut Note, list: &ListPass) {
    note.listed_at = note.listed_at.max(Some(list.as_of));
    note.guarded = None;
}

/// Enters in the note that all members are those of a whole list: its set is whole.
pub(super) fn end_list(note: &mut Note) {
    if let Some(building) = note.building.take() {
        note.trusted = Some(building);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn note(trusted: &str, building: &str) -> Note {
        let token = |token: &str| (!token.is_empty()).then(|| token.to_owned());
        Note {
            trusted: token(trusted),
            building: token(building),
            ..Note::default()
        }
    }

    #[test]
    fn new_members_are_published_only_if_the_others_are_known() {
        for (trusted, building, set, is_known) in [
            ("", "", None, true),
            ("a", "", Some("a"), true),
            ("a", "", None, false),
            ("", "b", Some("b"), false),
            ("", "b", None, false),
        ] {
            let stored = Stored {
                note: note(trusted, building),
                set: set.map(str::to_owned),
                ..Stored::default()
            };
            let checked = check_set(&stored, Publish::New);
            assert_eq!(checked.is_ok(), is_known, "{stored:?}");
            assert!(check_set(&stored, Publish::All).is_ok());
            assert!(check_set(&stored, Publish::Nothing).is_ok());
        }
    }

    #[test]
    fn a_pass_goes_on_with_the_set_or_begins_one() {
        use Publish::{All, New, Nothing};
        for (trusted, building, set, publish, trusted_then, building_then, is_new) in [
            ("", "", None, New, "n", "", true),
            ("", "", None, All, "n", "", true),
            ("", "", None, Nothing, "", "n", true),
            ("a", "", Some("a"), New, "a", "", false),
            ("a", "", Some("a"), All, "a", "", false),
            // A baseline adds to what is trusted.
            ("a", "", Some("a"), Nothing, "a", "", false),
            ("a", "", None, All, "", "n", true),
            ("a", "", None, Nothing, "", "n", true),
            ("", "b", Some("b"), All, "", "b", false),
            ("", "b", Some("b"), Nothing, "", "b", false),
            ("", "b", None, Nothing, "", "n", true),
            // Events have begun a set.
            ("", "", Some("events:e"), New, "events:e", "", false),
            ("", "", Some("events:e"), All, "events:e", "", false),
            ("", "", Some("events:e"), Nothing, "", "events:e", false),
            ("a", "", Some("events:e"), All, "", "events:e", false),
        ] {
            let mut note = note(trusted, building);
            let new = begin_set(&mut note, set, publish, || "n".to_owned());
            let token = |token: &Option<String>| token.clone().unwrap_or_default();
            let case = format!("{trusted} {building} {set:?} {publish:?}");
            assert_eq!(token(&note.trusted), trusted_then, "{case}");
            assert_eq!(token(&note.building), building_then, "{case}");
            assert_eq!(new.is_some(), is_new, "{case}");
            end_list(&mut note);
            assert_eq!(note.building, None, "{case}");
            assert!(note.trusted.is_some(), "{case}");
        }
    }

    #[test]
    fn a_run_keeps_its_passes_apart_from_those_of_others() {
        let beginning = |run: u128, durable, now| Beginning {
            run_id: Uuid::from_u128(run),
            mode: "all",
            durable,
            members: if now == 1000 { 5 } else { 9 },
            as_of: 900,
            now,
        };
        let mut note = note("a", "");
        let passes = |list: ListPass| (list.pass, list.first_pass, list.published_from);
        assert_eq!(
            passes(begin_pass(&mut note, &beginning(1, 0, 1000))),
            (1, 1, 1)
        );
        note.run.as_mut().unwrap().reached = 50;
        assert_eq!(
            passes(begin_pass(&mut note, &beginning(1, 60, 1001))),
            (2, 1, 1)
        );
        // The queue has lost chats.
        assert_eq!(
            passes(begin_pass(&mut note, &beginning(1, 40, 1002))),
            (3, 1, 3)
        );
        assert_eq!(
            passes(begin_pass(&mut note, &beginning(1, 40, 1003))),
            (4, 1, 3)
        );
        let run = note.run.clone().unwrap();
        assert_eq!((run.began_at, run.lost_at, run.reached), (1000, 1002, 40));
        // Members before the last pass.
        assert_eq!(run.members_before, 9);
        // Another run.
        assert_eq!(
            passes(begin_pass(&mut note, &beginning(2, 0, 1004))),
            (5, 5, 5)
        );
        assert_eq!(note.run.unwrap().members_before, 9);
    }
}
