//! The guards on a list's length: nothing is published before they are satisfied.
//!
//! The length of a list is known at its end only, and a list does not fit into memory. So batches are held
//! back up to a limit; beyond it the rest is only counted, and the list is fetched again.

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
    /// The fewest chats that satisfy the guard.
    fn least(self) -> u64 {
        let keep = u128::from(100 - self.percent.min(100));
        let least = (u128::from(self.last) * keep).div_ceil(100);
        u64::try_from(least).unwrap_or(u64::MAX)
    }
}

/// How to proceed with a batch.
pub(super) enum Decision {
    /// Publish it.
    Publish(Batch),
    /// Nothing: it is held, or was only counted.
    Hold,
    /// Publish all that was held, in order.
    PublishHeld(Vec<Batch>),
    /// There are enough chats, but the first of them were not kept: fetch the list again.
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

    fn least(&self) -> u64 {
        self.min_chats
            .max(self.shrink.map_or(0, |shrink| shrink.least()))
    }

    /// A new attempt begins after `chats` chats, which the list is proven to begin with: what was
    /// held from the last attempt is dropped. The result of a count is kept.
    pub(super) fn begin(&mut self, chats: u64) {
        self.chats = chats;
        self.state = match chats >= self.least() {
            true => State::Open,
            false => State::Holding(Held::default()),
        };
    }

    /// Takes a batch, and decides.
    pub(super) fn pass(&mut self, batch: Batch) -> Decision {
        let chats = u64::from(batch.chats());
        match &mut self.state {
            State::Open => return Decision::Publish(batch),
            State::Counting => {}
            State::Holding(held) => {
                let are_too_many = held.add(batch);
                if are_too_many && self.counted {
                    // An attempt just before has counted enough chats.
                    return self.open();
                }
                if are_too_many {
                    self.state = State::Counting;
                }
            }
        }
        self.chats += chats;
        match self.chats < self.least() {
            true => Decision::Hold,
            false => self.open(),
        }
    }

    /// Decides at the end of a list that is long enough, where batches are still held: more chats lay before
    /// the first batch than the checkpoint counted.
    pub(super) fn open_at_end(&mut self) -> Decision {
        match self.state {
            State::Open => Decision::Hold,
            State::Holding(_) | State::Counting => self.open(),
        }
    }

    /// Opens for a list that is long enough, if what came before was kept.
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
    pub(super) fn end(&self, chats: u64) -> Result<(), Guard> {
        if chats < self.min_chats {
            return Err(Guard::TooFew {
                chats,
                min: self.min_chats,
            });
        }
        match self.shrink {
            Some(shrink) if chats < shrink.least() => Err(Guard::Shrank {
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

    /// The decisions on batches of so many chats, by a letter each: publish, hold, all that is held,
    /// fetch again.
    fn decisions(guards: &mut Guards, batches: &[usize]) -> String {
        let decide = |chats: &usize| match guards.pass(batch(*chats)) {
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
            guards.begin(before);
            assert_eq!(decisions(&mut guards, batches), expected, "{batches:?}");
        }
    }

    #[test]
    fn a_list_that_was_counted_is_published_without_holding_all_of_it() {
        const MANY: usize = 40_000;
        let mut guards = guards(80_000, None);
        guards.begin(0);
        assert_eq!(decisions(&mut guards, &[MANY, MANY]), "hf");
        guards.begin(0);
        assert_eq!(decisions(&mut guards, &[MANY, MANY]), "ap");
    }

    #[test]
    fn a_whole_list_that_is_too_short_names_its_guard() {
        assert_eq!(guards(2, Some((10, 50))).end(5), Ok(()));
        let too_few = guards(6, Some((10, 50))).end(5);
        assert_eq!(too_few, Err(Guard::TooFew { chats: 5, min: 6 }));
        let shrank = guards(2, Some((10, 50))).end(4);
        let expected = Guard::Shrank {
            chats: 4,
            last: 10,
            percent: 50,
        };
        assert_eq!(shrank, Err(expected));
    }

    #[test]
    fn a_list_may_shrink_by_just_the_percentage() {
        let least = |last, percent| Shrink { last, percent }.least();
        assert_eq!(least(1000, 10), 900);
        assert_eq!(least(3, 50), 2);
        assert_eq!(least(1000, 0), 1000);
        assert_eq!(least(1000, 100), 0);
        assert_eq!(least(u64::MAX, 1), 18_262_276_632_972_456_099);
    }
}
