//! Decisions about checkpoints, without I/O: what earlier runs left, where streams resume, and
//! whether this process still owns them.

use std::time::SystemTime;

use tracing::{info, warn};
use uuid::Uuid;

use super::link::StoredState;
use super::stream::Lease;
use crate::broker::{Checkpoint, Recovered, ResumePoint, Unfinished};

/// Returns what earlier runs left on the streams of a queue, for a run that selects its chats
/// in this mode.
pub(super) fn recovered(stored: &[StoredState], mode: &str) -> Recovered {
    let Some(first) = stored.first() else {
        return Recovered::default();
    };
    let mut recovered = Recovered {
        unfinished: None,
        last_complete: first.last_complete,
    };
    let Some(run) = first.checkpoint else {
        return recovered;
    };
    if stored.iter().all(|stored| stored.is_over) {
        return recovered;
    }
    if first.partitions != Some(stored.len()) {
        warn!(run_id = %run.run_id, "unfinished run has another number of --partitions; starting a new run");
        return recovered;
    }
    if first.selection.mode != mode {
        info!(run_id = %run.run_id, "unfinished run selects its chats in another way; starting a new run");
        return recovered;
    }
    let found = stored.iter().map(|stored| stored.checkpoint_of(run.run_id));
    let is_incomplete =
        |stored: &StoredState| stored.suppress || stored.checkpoint_of(run.run_id).is_none();
    let updated_at = stored.iter().filter_map(|stored| stored.at).max();
    recovered.unfinished = Some(Unfinished {
        resume_point: resume_point_of(run.run_id, found),
        updated_at: updated_at.unwrap_or(SystemTime::UNIX_EPOCH),
        list_changed: stored.iter().any(is_incomplete),
    });
    recovered
}

/// Returns where to resume if streams have reached different positions: at the lowest one. The
/// other positions become expected digests. A stream without a checkpoint is at the start.
pub(super) fn resume_point_of(
    run_id: Uuid,
    found: impl Iterator<Item = Option<Checkpoint>>,
) -> ResumePoint {
    let mut found: Vec<Checkpoint> = found
        .map(|at| at.unwrap_or_else(|| Checkpoint::start_of(run_id)))
        .collect();
    found.sort_by_key(|at| at.position);
    let lowest = found.first().copied();
    let lowest = lowest.unwrap_or_else(|| Checkpoint::start_of(run_id));
    let mut expected_digests: Vec<_> = found
        .iter()
        .filter(|at| at.position > lowest.position)
        .map(|at| (at.position, at.digest))
        .collect();
    expected_digests.dedup();
    ResumePoint {
        at: Checkpoint {
            chats: found.iter().map(|at| at.chats).sum(),
            ..lowest
        },
        expected_digests,
    }
}

/// Whether this process still owns a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// The fencing token is ours.
    Kept,
    /// A token was issued to this process, but the reply was lost.
    Renewed(String),
    /// Another run has taken over.
    TakenOver,
    /// The server has lost the token, with its data. The lock must be acquired again.
    Unknown,
}

/// Decides by the stored fencing token whether this process still owns the stream.
pub(super) fn ownership(ours: &Lease, stored: &StoredState) -> Ownership {
    let Some(token) = &stored.fence.token else {
        return Ownership::Unknown;
    };
    if *token == ours.fencing_token {
        return Ownership::Kept;
    }
    if stored.fence.owner.as_ref() == Some(&ours.owner) {
        return Ownership::Renewed(token.clone());
    }
    let number = |token: &str| token.parse::<u64>().unwrap_or(0);
    if number(token) > number(&ours.fencing_token) {
        return Ownership::TakenOver;
    }
    Ownership::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Digest, Position};
    use crate::broker::redis::link::{Fence, StoredSelection, StreamState};

    fn digest(of: u8) -> Digest {
        format!("{of:032x}").parse().unwrap_or(Digest::of_nothing())
    }

    fn at(position: Position, of: u8, chats: u64) -> Checkpoint {
        Checkpoint {
            run_id: Uuid::nil(),
            position,
            digest: digest(of),
            chats,
        }
    }

    #[test]
    fn streams_resume_at_the_lowest_position_and_expect_the_other_digests() {
        let found = [Some(at(30, 3, 7)), Some(at(10, 1, 2)), Some(at(30, 3, 5))];
        let resume = resume_point_of(Uuid::nil(), found.into_iter());
        assert_eq!(resume.at, at(10, 1, 14));
        assert_eq!(resume.expected_digests, [(30, digest(3))]);
        let resume = resume_point_of(Uuid::nil(), [Some(at(30, 3, 7)), None].into_iter());
        let start = Checkpoint::start_of(Uuid::nil());
        assert_eq!(resume.at, Checkpoint { chats: 7, ..start });
        assert_eq!(resume.expected_digests, [(30, digest(3))]);
    }

    fn stored(checkpoint: Option<Checkpoint>) -> StoredState {
        StoredState {
            checkpoint,
            partitions: Some(2),
            ..StoredState::default()
        }
    }

    #[test]
    fn only_a_run_that_is_not_over_on_all_streams_is_unfinished() {
        let run = Some(at(10, 1, 4));
        let over = StoredState {
            is_over: true,
            ..stored(run)
        };
        let gone = StoredState {
            stream: StreamState::Deleted,
            ..stored(run)
        };
        let other = |partitions| StoredState {
            partitions,
            ..stored(run)
        };
        let in_mode = |mode: &str| StoredState {
            selection: StoredSelection {
                mode: mode.to_owned(),
                ..StoredSelection::default()
            },
            ..stored(run)
        };
        let position = |stored: &[StoredState]| {
            let unfinished = recovered(stored, "").unfinished?;
            Some((unfinished.resume_point.at.position, unfinished.list_changed))
        };
        let cases = [
            (vec![], None),
            (vec![stored(None), stored(None)], None),
            (vec![over.clone(), over.clone()], None),
            (vec![over, stored(run)], Some((10, false))),
            (vec![stored(run), stored(run)], Some((10, false))),
            (vec![stored(run), stored(None)], Some((0, true))),
            (vec![stored(run), gone], Some((0, true))),
            (vec![other(Some(3)), other(Some(3))], None),
            (vec![other(None), other(None)], None),
            (vec![in_mode("new"), in_mode("new")], None),
        ];
        for (stored, expected) in cases {
            assert_eq!(position(&stored), expected, "{stored:?}");
        }
    }

    #[test]
    fn a_higher_token_of_another_owner_is_a_takeover() {
        let ours = Lease {
            owner: "us".to_owned(),
            fencing_token: "100".to_owned(),
            keep_ms: "0".to_owned(),
        };
        let stored = |token: Option<&str>, owner: &str| StoredState {
            fence: Fence {
                token: token.map(str::to_owned),
                owner: Some(owner.to_owned()),
            },
            ..StoredState::default()
        };
        let cases = [
            (stored(Some("100"), "us"), Ownership::Kept),
            (
                stored(Some("101"), "us"),
                Ownership::Renewed("101".to_owned()),
            ),
            (stored(Some("101"), "them"), Ownership::TakenOver),
            (stored(Some("99"), "them"), Ownership::Unknown),
            (stored(None, "them"), Ownership::Unknown),
        ];
        for (stored, expected) in cases {
            assert_eq!(ownership(&ours, &stored), expected, "{stored:?}");
        }
    }
}
