//! Which chats of a batch are handed to the queue.

use serde::{Deserialize, Serialize};

use crate::batch::Position;

/// Which chats of consecutive entries were handed to the queue: a bit for each entry, four in a
/// hexadecimal digit, the first entry in the highest.
///
/// It is written before the chats are handed over. So if the process is killed, the next one knows
/// which of the chats before the queue's checkpoint are there, and records them as published.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::broker) struct Decisions {
    first: Position,
    entries: u64,
    bits: String,
}

impl Decisions {
    /// Number of entries that are covered.
    pub(in crate::broker) fn entries(&self) -> u64 {
        self.entries
    }

    /// Adds the entries from `first` on, as many as there are decisions. Entries from there on that
    /// were added before are dropped, and all of them if there is a gap.
    pub(in crate::broker) fn add(
        &mut self,
        first: Position,
        is_published: impl Iterator<Item = bool>,
    ) {
        let kept = first
            .checked_sub(self.first)
            .filter(|kept| *kept <= self.entries);
        match kept {
            Some(kept) if kept > 0 => self.truncate(kept),
            _ => {
                *self = Self {
                    first,
                    ..Self::default()
                };
            }
        }
        let mut digit = match self.entries % 4 {
            0 => 0,
            _ => self
                .bits
                .pop()
                .and_then(|digit| digit.to_digit(16))
                .unwrap_or(0),
        };
        for bit in is_published {
            digit |= u32::from(bit) << (3 - self.entries % 4);
            self.entries += 1;
            if self.entries.is_multiple_of(4) {
                self.push(digit);
                digit = 0;
            }
        }
        if !self.entries.is_multiple_of(4) {
            self.push(digit);
        }
    }

    fn push(&mut self, digit: u32) {
        self.bits.extend(char::from_digit(digit, 16));
    }

    fn truncate(&mut self, entries: u64) {
        self.entries = entries;
        let digits = usize::try_from(entries.div_ceil(4)).unwrap_or(usize::MAX);
        self.bits.truncate(digits);
        let spare = digits as u64 * 4 - entries;
        if let Some(last) = self.bits.pop().and_then(|digit| digit.to_digit(16)) {
            self.push(last >> spare << spare);
        }
    }

    /// Whether the chat at a position was handed to the queue; `None` if that is not known.
    pub(in crate::broker) fn get(&self, position: Position) -> Option<bool> {
        let entry = position
            .checked_sub(self.first)
            .filter(|entry| *entry < self.entries)?;
        let digit = self.bits.as_bytes().get(usize::try_from(entry / 4).ok()?)?;
        let digit = char::from(*digit).to_digit(16)?;
        Some(digit >> (3 - entry % 4) & 1 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_found_by_position() {
        let mut numbers = 1_u64;
        let mut random = || {
            numbers = numbers
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            numbers >> 33
        };
        let mut decisions = Decisions::default();
        let mut expected: Vec<bool> = Vec::new();
        let first = 1001;
        decisions.add(first, std::iter::empty());
        for _ in 0..200 {
            // Goes on behind the last entry, or back to an earlier one.
            let keep = match random() % 4 {
                0 => 1 + random() % (expected.len() as u64 + 1),
                _ => expected.len() as u64,
            };
            let keep = keep.min(expected.len() as u64);
            expected.truncate(usize::try_from(keep).unwrap_or(0));
            let more: Vec<bool> = (0..random() % 11).map(|_| random() % 2 == 0).collect();
            decisions.add(first + keep, more.iter().copied());
            expected.extend(more);
            let count = expected.len() as u64;
            let found: Vec<_> = (0..count)
                .filter_map(|at| decisions.get(first + at))
                .collect();
            assert_eq!(found, expected);
            assert_eq!(decisions.get(first + count), None);
            assert_eq!(decisions.get(first - 1), None);
        }
        decisions.add(5, [true].into_iter());
        assert_eq!((decisions.get(5), decisions.get(first)), (Some(true), None));
    }
}
