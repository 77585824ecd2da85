//! Batches behind the checkpoint that may have been sent before a crash and are not verified yet.
//!
//! The checkpoint records how far messages of several chats may have been sent, and the digest
//! there. These messages are identified by their positions, so a repeated message must contain the
//! same chats. They are sent again only after the list is verified to be the same up to that
//! position.

use crate::batch::{Batch, Position};
use crate::broker::ResumePoint;

/// Batches held until they are verified. They are no more than can be in flight at once.
#[derive(Default)]
pub(super) struct Unverified {
    until: Option<Position>,
    held: Vec<Batch>,
}

impl Unverified {
    /// Reads from the resume point how far the list must be verified.
    pub(super) fn of(resume_point: &ResumePoint) -> Self {
        Self {
            until: resume_point
                .expected_digests
                .last()
                .map(|(position, _)| *position),
            held: Vec::new(),
        }
    }

    /// Holds a copy of a batch and returns `true` if the batch is not verified yet. The decoder
    /// stops at a digest that does not match, so a batch that ends at the position or later
    /// verifies the batches before it.
    pub(super) fn hold_if_unverified(&mut self, batch: &Batch) -> bool {
        let is_unverified = self.until.is_some_and(|until| batch.end() < until);
        if is_unverified {
            let mut copy = Batch::new();
            copy.copy_from(batch);
            self.held.push(copy);
        } else {
            self.until = None;
        }
        is_unverified
    }

    /// Removes and returns the held batches.
    pub(super) fn take(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.held)
    }
}
