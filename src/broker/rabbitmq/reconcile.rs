//! Decisions about checkpoints, without I/O: what earlier runs left, and whether the checkpoint
//! that is found after a reconnect is the expected one.

use uuid::Uuid;

use super::checkpoint::Record;
use crate::batch::Position;
use crate::broker::record::State;
use crate::broker::{Recovered, ResumePoint, Unfinished};

/// Returns what the checkpoint says about earlier runs. `is_queue_gone` tells that the queue was
/// deleted, with the messages of an unfinished run.
pub(super) fn recovered(found: Option<&Record>, is_queue_gone: bool) -> Recovered {
    let Some(found) = found else {
        return Recovered::default();
    };
    let is_unfinished = found.state == State::Running || !found.settled;
    let resume_point = if is_queue_gone {
        ResumePoint::start_of(found.checkpoint.run_id)
    } else {
        found.resume_point()
    };
    Recovered {
        unfinished: is_unfinished.then_some(Unfinished {
            resume_point,
            updated_at: found.at,
            list_changed: found.list_changed,
        }),
        last_complete: found.last_complete,
    }
}

/// The checkpoint that a session expects to find.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expected<'a> {
    /// Any: the session has just begun to open.
    Any,
    /// The one that was found when the session was opened. The session has not written its own yet,
    /// or is about to go back.
    Unchanged(Option<&'a Record>),
    /// One that this session wrote for this run, at this position or a later one.
    Own { run_id: Uuid, durable: Position },
}

/// What follows from the checkpoint that was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Go on.
    Continue,
    /// Another run has written its own checkpoint since.
    TakenOver {
        /// The other run.
        by: Uuid,
    },
    /// The checkpoint is lost or older: publish again from here.
    Rewind(ResumePoint),
}

/// Compares the checkpoint that was found with the expected one. `owner` is this process.
pub(super) fn reconcile(found: Option<&Record>, expected: Expected<'_>, owner: Uuid) -> Decision {
    let of_another = found.filter(|found| found.owner != owner);
    match (expected, of_another) {
        (Expected::Any, _) | (Expected::Unchanged(_), None) => Decision::Continue,
        (Expected::Unchanged(before), Some(other))
            if before.is_some_and(|it| it.is_same(other)) =>
        {
            Decision::Continue
        }
        (Expected::Unchanged(_) | Expected::Own { .. }, Some(other)) => Decision::TakenOver {
            by: other.checkpoint.run_id,
        },
        (Expected::Own { run_id, durable }, None) => {
            match found.filter(|found| found.checkpoint.run_id == run_id) {
                None => Decision::Rewind(ResumePoint::start_of(run_id)),
                Some(found) if found.checkpoint.position < durable => {
                    Decision::Rewind(found.resume_point())
                }
                Some(_) => Decision::Continue,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::batch::Digest;
    use crate::broker::Checkpoint;

    const US: Uuid = Uuid::from_u128(1);
    const THEM: Uuid = Uuid::from_u128(2);
    const RUN: Uuid = Uuid::from_u128(3);
    const OTHER_RUN: Uuid = Uuid::from_u128(4);

    fn record(owner: Uuid, run_id: Uuid, position: Position) -> Record {
        Record {
            state: State::Running,
            owner,
            mode: String::new(),
            checkpoint: Checkpoint {
                position,
                chats: position,
                ..Checkpoint::start_of(run_id)
            },
            list_changed: false,
            ahead: None,
            id_base: None,
            last_id: 0,
            ids_per_message: 1,
            repacked: false,
            settled: false,
            last_complete: Some(7),
            at: SystemTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn only_the_own_checkpoint_lets_a_session_go_on() {
        let own = Expected::Own {
            run_id: RUN,
            durable: 100,
        };
        let ours = |position| record(US, RUN, position);
        let cases = [
            (Some(ours(100)), Decision::Continue),
            (Some(ours(150)), Decision::Continue),
            (Some(ours(50)), Decision::Rewind(ours(50).resume_point())),
            (None, Decision::Rewind(ResumePoint::start_of(RUN))),
            (
                Some(record(US, OTHER_RUN, 150)),
                Decision::Rewind(ResumePoint::start_of(RUN)),
            ),
            (
                Some(record(THEM, OTHER_RUN, 150)),
                Decision::TakenOver { by: OTHER_RUN },
            ),
            (
                Some(record(THEM, RUN, 150)),
                Decision::TakenOver { by: RUN },
            ),
        ];
        for (found, expected) in cases {
            assert_eq!(reconcile(found.as_ref(), own, US), expected, "{found:?}");
        }
    }

    #[test]
    fn before_its_own_checkpoint_a_session_expects_the_one_it_found() {
        let (before, moved) = (record(THEM, RUN, 10), record(THEM, RUN, 20));
        let taken_over = Decision::TakenOver { by: RUN };
        let cases = [
            (Expected::Any, Some(&moved), Decision::Continue),
            (Expected::Unchanged(None), None, Decision::Continue),
            (Expected::Unchanged(None), Some(&before), taken_over),
            (
                Expected::Unchanged(Some(&before)),
                Some(&before),
                Decision::Continue,
            ),
            (Expected::Unchanged(Some(&before)), None, Decision::Continue),
            (
                Expected::Unchanged(Some(&before)),
                Some(&moved),
                Decision::TakenOver { by: RUN },
            ),
        ];
        for (expected, found, decision) in cases {
            assert_eq!(reconcile(found, expected, US), decision, "{expected:?}");
        }
        let ours = record(US, RUN, 20);
        let expected = Expected::Unchanged(Some(&before));
        assert_eq!(reconcile(Some(&ours), expected, US), Decision::Continue);
    }

    #[test]
    fn a_run_is_unfinished_until_its_process_knows_the_end() {
        let ended = |state, settled| Record {
            state,
            settled,
            ..record(THEM, RUN, 30)
        };
        let cases = [
            (ended(State::Running, false), false, Some(30)),
            (ended(State::Complete, false), false, Some(30)),
            (ended(State::Complete, true), false, None),
            (ended(State::Rejected, true), false, None),
            (ended(State::Running, false), true, Some(0)),
        ];
        for (found, is_queue_gone, position) in cases {
            let recovered = recovered(Some(&found), is_queue_gone);
            let unfinished = recovered.unfinished;
            let resume_at = unfinished.map(|unfinished| unfinished.resume_point.at.position);
            assert_eq!(resume_at, position, "{found:?}");
            assert_eq!(recovered.last_complete, Some(7));
        }
        assert_eq!(recovered(None, false), Recovered::default());
    }

    #[test]
    fn messages_ahead_of_the_checkpoint_are_expected_in_the_list() {
        let digest = Digest::of_nothing();
        let ahead = |position| Record {
            ahead: Some((position, digest)),
            ..record(US, RUN, 30)
        };
        assert_eq!(ahead(40).resume_point().expected_digests, [(40, digest)]);
        assert!(ahead(30).resume_point().expected_digests.is_empty());
    }
}
