//! The guards on a list's length: nothing is published before they are satisfied.
//!
//! The length of a list is known only at its end, and the list may not fit into memory. So batches
//! are held back up to a limit. Beyond the limit, the list is only counted, and fetched again if it
//! is long enough.

use super::RunSettings;
use crate::batch::Batch;
use crate::error::Guard;

/// Bytes of batches that are held back: about 10,000 chats, fewer in small batches.
const MAX_HELD_BYTES: usize = 256 * 1024;

/// Holds batches back until there are enough chats.
pub(super) struct Guards {
    min_chats: u64,
    shrink: Option<Shrink>,
    /// Chats so far, until the guards open.
    chats: u64,
    state: State,
    /// Whether an earlier attempt has counted enough chats.
    counted: bool,
}

enum State {
    /// There are enough chats: batches are published.
    Open,
    /// Batches are held back.
    Holding(Held),
    /// There were too many to hold: batches are only counted.
    Counting,
}

#[derive(Default)]
struct Held {
    batches: Vec<Batch>,
    bytes: usize,
}

impl Held {
    /// Adds a batch, and returns whether there are too many now.
    fn add(&mut self, batch: Batch) -> bool {
        self.bytes += batch.bytes() + size_of::<Batch>();
        self.batches.push(batch);
        self.bytes > MAX_HELD_BYTES
    }
}

#[derive(Clone, Copy)]
struct Shrink {
    last: u64,
    percent: u8,
}

impl Shrink {
    /// Returns the lowest number of chats that satisfies the guard.
    fn required_chats(self) -> u64 {
        let keep = u128::from(100 - self.percent.min(100));
        let least = (u128::from(self.last) * keep).div_ceil(100);
        u64::try_from(least).unwrap_or(u64::MAX)
    }
}

/// How to proceed with a batch.
pub(super) enum Decision {
    /// Publish it.
    Publish(Batch),
    /// Do nothing: it is held back, or was only counted.
    Hold,
    /// Publish all batches that were held back, in order.
    PublishHeld(Vec<Batch>),
    /// There are enough chats, but not all of them could be held back: fetch the list again.
    Refetch,
}

impl Guards {
    /// The guards of a run.
    pub(super) fn new(run: &RunSettings, last_complete: Option<u64>) -> Self {
        let shrink = run.max_shrink.zip(last_complete);
        Self {
            min_chats: run.min_chats,
            shrink: shrink.map(|(percent, last)| Shrink { last, percent }),
            chats: 0,
            state: State::Holding(Held::default()),
            counted: false,
        }
    }

    fn required_chats(&self) -> u64 {
        self.min_chats
            .max(self.shrink.map_or(0, |shrink| shrink.required_chats()))
    }

    /// Begins an attempt after `chats` chats, which are already on the queue. Drops batches that
    /// were held back in the last attempt, but keeps the result of a count.
    pub(super) fn begin_attempt(&mut self, chats: u64) {
        self.chats = chats;
        self.state = match chats >= self.required_chats() {
            true => State::Open,
            false => State::Holding(Held::default()),
        };
    }

    /// Takes a batch, and decides how to proceed with it.
    pub(super) fn decide(&mut self, batch: Batch) -> Decision {
        let chats = u64::from(batch.chats());
        match &mut self.state {
            State::Open => return Decision::Publish(batch),
            State::Counting => {}
            State::Holding(held) => {
                let is_over_limit = held.add(batch);
                if is_over_limit && self.counted {
                    // The previous attempt has counted enough chats.
                    return self.open();
                }
                if is_over_limit {
                    self.state = State::Counting;
                }
            }
        }
        self.chats += chats;
        match self.chats < self.required_chats() {
            true => Decision::Hold,
            false => self.open(),
        }
    }

    /// Decides at the end of a list that is long enough. Batches are still held back if there were
    /// more chats before the first batch than the checkpoint counted.
    pub(super) fn open_at_end(&mut self) -> Decision {
        match self.state {
            State::Open => Decision::Hold,
            State::Holding(_) | State::Counting => self.open(),
        }
    }

    /// Opens the guards, if all batches before were held back.
    fn open(&mut self) -> Decision {
        match std::mem::replace(&mut self.state, State::Open) {
            State::Holding(held) => Decision::PublishHeld(held.batches),
            State::Open => Decision::PublishHeld(Vec::new()),
            State::Counting => {
                self.state = State::Counting;
                self.counted = true;
                Decision::Refetch
            }
        }
    }

    /// Checks the length of a whole list.
    ///
    /// # Errors
    ///
    /// The guard that is not satisfied.
    pub(super) fn check_length(&self, chats: u64) -> Result<(), Guard> {
        if chats < self.min_chats {
            return Err(Guard::TooFew {
                chats,
                min: self.min_chats,
            });
        }
        match self.shrink {
            Some(shrink) if chats < shrink.required_chats() => Err(Guard::Shrank {
                chats,
                last: shrink.last,
                percent: shrink.percent,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guards(min_chats: u64, shrink: Option<(u64, u8)>) -> Guards {
        Guards {
            min_chats,
            shrink: shrink.map(|(last, percent)| Shrink { last, percent }),
            chats: 0,
            state: State::Holding(Held::default()),
            counted: false,
        }
    }

    fn batch(chats: usize) -> Batch {
        let mut batch = Batch::new();
        batch.restart(0);
        for _ in 0..chats {
            batch.push(b"1@c.us", None);
        }
        batch
    }

    /// Passes batches of these lengths, and returns a letter for each decision: `p` to publish the
    /// batch, `h` to hold it, `a` to publish all held batches, `f` to fetch the list again.
    fn decisions(guards: &mut Guards, batches: &[usize]) -> String {
        let decide = |chats: &usize| match guards.decide(batch(*chats)) {
            Decision::Publish(_) => 'p',
            Decision::Hold => 'h',
            Decision::PublishHeld(held) => {
                assert!(!held.is_empty());
                'a'
            }
            Decision::Refetch => 'f',
        };
        batches.iter().map(decide).collect()
    }

    #[test]
    fn batches_are_held_until_there_are_enough_chats() {
        const MANY: usize = 40_000;
        let cases: [(Guards, u64, &[usize], &str); 7] = [
            // guards, chats before the first batch, batches, decisions
            (guards(0, None), 0, &[10, 10], "pp"),
            (guards(25, None), 0, &[10, 10, 10, 10], "hhap"),
            (guards(25, None), 20, &[10, 10], "ap"),
            (guards(25, None), 25, &[10, 10], "pp"),
            (guards(0, Some((30, 50))), 0, &[10, 10, 10], "hap"),
            // The stricter of two guards counts.
            (guards(25, Some((30, 50))), 0, &[10, 10, 10], "hha"),
            // More than can be held: the list is fetched again once there are enough.
            (guards(80_000, None), 0, &[MANY, MANY], "hf"),
        ];
        for (mut guards, before, batches, expected) in cases {
            guards.begin_attempt(before);
            assert_eq!(decisions(&mut guards, batches), expected, "{batches:?}");
        }
    }

    #[test]
    fn a_list_that_was_counted_is_published_without_holding_all_of_it() {
        const MANY: usize = 40_000;
        let mut guards = guards(80_000, None);
        guards.begin_attempt(0);
        assert_eq!(decisions(&mut guards, &[MANY, MANY]), "hf");
        guards.begin_attempt(0);
        assert_eq!(decisions(&mut guards, &[MANY, MANY]), "ap");
    }

    #[test]
    fn a_whole_list_that_is_too_short_names_its_guard() {
        assert_eq!(guards(2, Some((10, 50))).check_length(5), Ok(()));
        let too_few = guards(6, Some((10, 50))).check_length(5);
        assert_eq!(too_few, Err(Guard::TooFew { chats: 5, min: 6 }));
        let shrank = guards(2, Some((10, 50))).check_length(4);
        let expected = Guard::Shrank {
            chats: 4,
            last: 10,
            percent: 50,
        };
        assert_eq!(shrank, Err(expected));
    }

    #[test]
    fn a_list_may_shrink_by_just_the_percentage() {
        let required_chats = |last, percent| Shrink { last, percent }.required_chats();
        assert_eq!(required_chats(1000, 10), 900);
        assert_eq!(required_chats(3, 50), 2);
        assert_eq!(required_chats(1000, 0), 1000);
        assert_eq!(required_chats(1000, 100), 0);
        assert_eq!(required_chats(u64::MAX, 1), 18_262_276_632_972_456_099);
    }
}
