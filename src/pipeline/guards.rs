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
    is_open: bool,
    chats: u64,
    held: Vec<Batch>,
    held_bytes: usize,
    overflowed: bool,
    /// Whether an earlier attempt has counted enough chats.
    counted: bool,
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
    /// Publish all that is held.
    PublishHeld,
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
            is_open: false,
            chats: 0,
            held: Vec::new(),
            held_bytes: 0,
            overflowed: false,
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
        self.is_open = chats >= self.least();
        self.held.clear();
        self.held_bytes = 0;
        self.overflowed = false;
    }

    /// Takes a batch, and decides.
    pub(super) fn pass(&mut self, batch: Batch) -> Decision {
        if self.is_open {
            return Decision::Publish(batch);
        }
        self.chats += u64::from(batch.chats());
        if !self.overflowed {
            self.held_bytes += batch.bytes() + size_of::<Batch>();
            self.held.push(batch);
            self.overflowed = self.held_bytes > MAX_HELD_BYTES;
        }
        if self.overflowed && self.counted {
            // An attempt just before has counted enough chats.
            self.is_open = true;
            return Decision::PublishHeld;
        }
        if self.overflowed {
            self.held = Vec::new();
        }
        if self.chats < self.least() {
            return Decision::Hold;
        }
        self.open()
    }

    /// Decides at the end of a list that is long enough, where batches are still held: more chats lay before
    /// the first batch than the checkpoint counted.
    pub(super) fn open_at_end(&mut self) -> Decision {
        if self.is_open {
            return Decision::Hold;
        }
        self.open()
    }

    /// Opens for a list that is long enough, if what came before was kept.
    fn open(&mut self) -> Decision {
        if self.overflowed {
            self.counted = true;
            return Decision::Refetch;
        }
        self.is_open = true;
        Decision::PublishHeld
    }

    /// Takes the held batches, in order.
    pub(super) fn take_held(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.held)
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
