//! Decision after a lost reply or a rejected batch, for brokers that write batch and checkpoint in
//! one step.

use uuid::Uuid;

use super::{Checkpoint, ResumePoint};
use crate::batch::{Digest, Position};

/// Extent of a batch in flight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// Position of its first entry.
    pub(super) first: Position,
    /// Position after its last entry.
    pub(super) end: Position,
    /// Digest at `end`.
    pub(super) digest: Digest,
}

/// What follows from the checkpoint that was found after a reply was lost or a batch was rejected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reconciled {
    /// Number of batches, the oldest ones, that were applied.
    pub(super) applied: usize,
    /// What to do then.
    pub(super) next: Next,
}

/// How a stream continues.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Send the batches that were not applied again.
    Resend,
    /// Publish again from this point, because the stream has lost entries or batches in flight are
    /// no longer valid.
    Rewind(ResumePoint),
}

/// Compares the checkpoint that was found with the batches in flight, oldest first. `next` is the
/// position after the last batch that was sent, and `same_token` tells whether these batches
/// contain the current fencing token.
pub(super) fn reconcile(
    run_id: Uuid,
    found: Option<Checkpoint>,
    in_flight: &[Extent],
    next: Position,
    same_token: bool,
) -> Reconciled {
    let Some(found) = found else {
        return Reconciled {
            applied: 0,
            next: Next::Rewind(ResumePoint::start_of(run_id)),
        };
    };
    let is_applied = |batch: &&Extent| {
        // The batch applied there must be this one, and not one of an earlier list.
        batch.end < found.position || (batch.end == found.position && batch.digest == found.digest)
    };
    let applied = in_flight.iter().take_while(is_applied).count();
    let expected = in_flight.get(applied).map_or(next, |batch| batch.first);
    let is_valid = found.position == expected && same_token;
    Reconciled {
        applied,
        next: if is_valid {
            Next::Resend
        } else {
            Next::Rewind(ResumePoint::from(found))
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(of: u8) -> Digest {
        format!("{of:032x}").parse().unwrap_or(Digest::of_nothing())
    }

    fn at(position: Position, of: u8) -> Checkpoint {
        Checkpoint {
            run_id: Uuid::nil(),
            position,
            digest: digest(of),
            chats: 0,
        }
    }

    fn batch(first: Position, end: Position, of: u8) -> Extent {
        Extent {
            first,
            end,
            digest: digest(of),
        }
    }

    #[test]
    fn the_checkpoint_decides_which_batches_were_applied() {
        let in_flight = [batch(10, 20, 2), batch(20, 30, 3)];
        let back_to = |at| Next::Rewind(ResumePoint::from(at));
        let cases = [
            // found, same token, applied, next
            (Some(at(10, 1)), true, 0, Next::Resend),
            (Some(at(20, 2)), true, 1, Next::Resend),
            (Some(at(30, 3)), true, 2, Next::Resend),
            // Lost entries that were confirmed.
            (Some(at(5, 1)), true, 0, back_to(at(5, 1))),
            // Another list was published up to the same position.
            (Some(at(20, 9)), true, 0, back_to(at(20, 9))),
            // Further than anything that was sent.
            (Some(at(40, 4)), true, 2, back_to(at(40, 4))),
            // What is in flight contains an old token.
            (Some(at(20, 2)), false, 1, back_to(at(20, 2))),
            // The checkpoint or the stream is gone.
            (
                None,
                true,
                0,
                Next::Rewind(ResumePoint::start_of(Uuid::nil())),
            ),
        ];
        for (found, same_token, applied, next) in cases {
            let reconciled = reconcile(Uuid::nil(), found, &in_flight, 30, same_token);
            assert_eq!(reconciled, Reconciled { applied, next }, "{found:?}");
        }
        let idle = reconcile(Uuid::nil(), Some(at(30, 3)), &[], 30, true);
        assert_eq!(idle.next, Next::Resend);
    }
}
