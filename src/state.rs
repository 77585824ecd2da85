//! What is known between runs: who is in a label, when chats were last published, and how many
//! chats a label had.

pub mod counts;
pub mod record;
pub mod runs;

use std::time::Duration;

/// Which chats of a list are published, and what is recorded about the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Time since the last publication in which a chat is not published to the queue again.
    pub suppress_for: Option<Duration>,
    /// How the membership of the label is kept; `None` to keep none.
    pub membership: Option<Membership>,
    /// Percentage of members that one list may remove, also at a queue that is tracked although the
    /// settings do not say so.
    pub max_change: u8,
}

impl Default for Selection {
    fn default() -> Self {
        Self {
            suppress_for: None,
            membership: None,
            max_change: DEFAULT_MAX_CHANGE,
        }
    }
}

impl Selection {
    /// Whether chats are left out, or anything is recorded about them.
    pub fn is_active(&self) -> bool {
        self.suppress_for.is_some() || self.membership.is_some()
    }

    /// Returns the name of what a run publishes; empty for all chats. A run of another mode does
    /// not resume it: what that one has left out, this one may not leave out.
    pub fn mode(&self) -> &'static str {
        let publish = self.membership.map(|membership| membership.publish);
        let is_aged = self.membership.is_some_and(|it| it.min_age.is_some());
        match (publish, is_aged, self.suppress_for.is_some()) {
            (None, _, false) => "",
            (None, _, true) => "suppressing",
            (Some(Publish::All), false, false) => "all-members",
            (Some(Publish::All), false, true) => "all-members, suppressing",
            (Some(Publish::All), true, false) => "old members",
            (Some(Publish::All), true, true) => "old members, suppressing",
            (Some(Publish::New), false, false) => "only-new",
            (Some(Publish::New), false, true) => "only-new, suppressing",
            (Some(Publish::New), true, false) => "only-new, old",
            (Some(Publish::New), true, true) => "only-new, old, suppressing",
            (Some(Publish::Nothing), _, _) => "baseline",
        }
    }
}

/// How the membership of a label is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The members that are published.
    pub publish: Publish,
    /// Whether members that have left are published, to a queue of their own.
    pub removed: bool,
    /// Time since which a chat must have been a member to be published.
    pub min_age: Option<Duration>,
    /// Percentage of members that one list may remove.
    pub max_change: u8,
}

/// The members that a list publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publish {
    /// All.
    All,
    /// Those that the list turns into members.
    New,
    /// None: the list is recorded as known.
    Nothing,
}

/// Percentage of members that one list may remove, if a run has no setting for it.
const DEFAULT_MAX_CHANGE: u8 = 50;

/// Number of members from which on a list must not remove too many of them.
pub const GUARDED_MEMBERS: u64 = 20;

impl Membership {
    /// Records the members, and publishes all of a list.
    pub fn recorded_only(max_change: u8) -> Self {
        Self {
            publish: Publish::All,
            removed: false,
            min_age: None,
            max_change,
        }
    }

    /// Whether a list that removes this many members removes too many.
    pub fn is_too_many(&self, absent: u64, members: u64) -> bool {
        self.publish != Publish::Nothing
            && members >= GUARDED_MEMBERS
            && u128::from(absent) * 100 > u128::from(members) * u128::from(self.max_change)
    }
}

/// What a whole list did to the members that it does not contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They were removed.
    Removed,
    /// None was removed, because there are too many of them.
    TooMany {
        /// Members that the list does not contain.
        absent: u64,
        /// Members before the list.
        members: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_remove_the_percentage_and_no_more() {
        let is_too_many = |percent, absent, members| {
            let membership = Membership {
                publish: Publish::New,
                removed: false,
                min_age: None,
                max_change: percent,
            };
            membership.is_too_many(absent, members)
        };
        let cases = [
            // percent, absent, members, too many
            (50, 10, 20, false),
            (50, 11, 20, true),
            (50, 19, 19, false),
            (0, 1, 20, true),
            (0, 0, 20, false),
            (100, 20, 20, false),
        ];
        for (percent, absent, members, expected) in cases {
            let found = is_too_many(percent, absent, members);
            assert_eq!(found, expected, "{percent} {absent} {members}");
        }
    }
}
