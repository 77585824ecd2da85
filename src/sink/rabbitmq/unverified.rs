//! What may have been sent before a crash, behind the checkpoint.
//!
//! The checkpoint says how far messages of several chats may have been sent, and the digest there. They
//! have the position for an id: so until the list is proven to be the same up to there, nothing of that
//! part is sent again.

use crate::batch::{Batch, Position};
use crate::sink::Unfinished;

/// Batches that wait for the proof. There are no more of them than can be on their way at once.
#[derive(Default)]
pub(super) struct Unverified {
    until: Option<Position>,
    held: Vec<Batch>,
}

impl Unverified {
    /// What has to be proven where a run goes on.
    pub(super) fn of(unfinished: &Unfinished) -> Self {
        Self {
            until: unfinished
                .expected_digests
                .last()
                .map(|(position, _)| *position),
            held: Vec::new(),
        }
    }

    /// Holds a copy of a batch, if it is not proven yet. The decoder does not get past a proof that
    /// fails: a batch that ends there, or behind it, proves those before.
    pub(super) fn holds(&mut self, batch: &Batch) -> bool {
        let is_unproven = self.until.is_some_and(|until| batch.end() < until);
        if is_unproven {
            let mut copy = Batch::new();
            copy.copy_from(batch);
            self.held.push(copy);
        } else {
            self.until = None;
        }
        is_unproven
    }

    /// What was held.
    pub(super) fn take(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.held)
    }
}
