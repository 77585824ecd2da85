//! Publishing ids of the stream protocol: which run, and which entry of its list.
//!
//! The broker drops a message whose id is not higher than the last one that it has. It looks at ids only,
//! never at contents. So ids grow over all runs of a label, and a list that may have changed gets ids of
//! its own: a higher base.

use crate::batch::Position;

/// Bits of an id for the position; the rest is the base.
const POSITION_BITS: u32 = 31;
/// Instead of a position: the marker of the end of a run.
pub(super) const COMPLETED: Position = (1 << POSITION_BITS) - 1;

/// Returns the id of a message whose last chat is the last one of the first `entries` of the list. 0 is
/// for the marker of the start.
pub(super) fn id(base: u64, entries: Position) -> u64 {
    (base << POSITION_BITS) | entries.min(COMPLETED)
}

/// Returns how many entries of a list with this base the broker has, if the last id is of this base.
pub(super) fn stored(base: u64, last_id: u64) -> Position {
    match last_id >> POSITION_BITS == base {
        true => last_id & COMPLETED,
        false => 0,
    }
}

/// What is known of the base of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// It was recorded for the list that is published now.
    Recorded(u64),
    /// There is none yet. Lower ones may have been used for another list, whose messages may still be on
    /// their way.
    AtLeast(u64),
}

impl Base {
    /// Forgets the base, because the list may be another one.
    pub(super) fn forget(self) -> Self {
        match self {
            Self::Recorded(base) => Self::AtLeast(base + 1),
            Self::AtLeast(base) => Self::AtLeast(base),
        }
    }

    /// Returns the base that was recorded.
    pub(super) fn recorded(self) -> Option<u64> {
        match self {
            Self::Recorded(base) => Some(base),
            Self::AtLeast(_) => None,
        }
    }

    /// Chooses the base of what is published from now on.
    ///
    /// A base that was recorded stays, if all that the broker has of it is of a list that is proven: of
    /// its first `proven` entries, or whole. Otherwise there is a new one, from the time at which the run
    /// started, in seconds since 1970, and higher than that of any message on the stream: a clock may
    /// have gone back.
    pub(super) fn choose(self, last_id: u64, proven: Position, started: u64) -> u64 {
        let last = last_id >> POSITION_BITS;
        match self {
            Self::Recorded(base) if base > last => base,
            Self::Recorded(base) if base == last => match stored(base, last_id) {
                COMPLETED => base,
                entries if entries <= proven => base,
                _ => last + 1,
            },
            Self::Recorded(_) => started.max(last + 1),
            Self::AtLeast(base) => started.max(last + 1).max(base),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_with_positions_and_bases() {
        let ids = [id(5, 0), id(5, 1), id(5, 9), id(5, COMPLETED), id(6, 0)];
        assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
        assert_eq!(stored(5, id(5, 9)), 9);
        assert_eq!(stored(6, id(5, 9)), 0);
    }

    #[test]
    fn a_base_stays_while_everything_of_it_is_proven() {
        for (recorded, last_id, proven, expected) in [
            // A new run: its time, or above what is there if the clock went back.
            (Base::AtLeast(0), 0, 0, 100),
            (Base::AtLeast(0), id(99, 7), 0, 100),
            (Base::AtLeast(0), id(100, 7), 0, 101),
            (Base::AtLeast(0), id(200, COMPLETED), 0, 201),
            // A list that has changed, of which the broker has nothing yet.
            (Base::Recorded(100).forget(), 0, 0, 101),
            // A run that goes on.
            (Base::Recorded(100), 0, 0, 100),
            (Base::Recorded(100), id(100, 7), 7, 100),
            (Base::Recorded(100), id(100, 7), 9, 100),
            (Base::Recorded(100), id(100, COMPLETED), 9, 100),
            (Base::Recorded(100), id(99, 7), 0, 100),
            // The broker has more than is proven, or something newer.
            (Base::Recorded(100), id(100, 8), 7, 101),
            (Base::Recorded(100), id(150, 1), 7, 151),
        ] {
            let found = recorded.choose(last_id, proven, 100);
            assert_eq!(found, expected, "{recorded:?} {last_id} {proven}");
        }
    }
}
