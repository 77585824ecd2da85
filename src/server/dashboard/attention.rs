//! What needs a supervisor's attention.

use std::time::{Duration, SystemTime};

use crate::live::overview::{LabelView, Overview, RunStatus};

/// Without `--reconcile`, runs are expected once a day. A run may be an hour late.
const DAILY: Duration = Duration::from_secs(25 * 60 * 60);
/// The smallest number of chats from which a label is watched for falling. Small numbers halve by
/// chance.
const MIN_FALL: u64 = 10;

/// One thing that needs attention.
#[derive(Debug, PartialEq)]
pub(super) struct Attention<'a> {
    /// The label, unless it is about all of them.
    pub(super) label: Option<&'a LabelView>,
    pub(super) reason: Reason<'a>,
}

/// Why it needs attention, the most urgent first.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reason<'a> {
    /// The broker or the state cannot be read.
    Unreadable(&'a str),
    /// The last run failed, with its error.
    Failed(Option<&'a str>),
    /// A guard stopped the last run, with its error.
    Guarded(Option<&'a str>),
    /// The label was deleted at the API.
    Deleted,
    /// The number of chats fell to half or less within the trend.
    Fell { from: u64, to: u64 },
    /// The last run ended too long ago.
    Overdue(SystemTime),
    /// There was no whole list yet, or events may be missing since.
    NotExact,
}

/// How urgent a reason is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Severity {
    /// Something failed.
    Error,
    /// Something is unusual.
    Warning,
    /// Something is not complete yet.
    Note,
}

impl Reason<'_> {
    pub(super) fn severity(&self) -> Severity {
        match self {
            Self::Unreadable(_) | Self::Failed(_) | Self::Guarded(_) => Severity::Error,
            Self::Deleted | Self::Fell { .. } | Self::Overdue(_) => Severity::Warning,
            Self::NotExact => Severity::Note,
        }
    }
}

/// Returns everything that needs attention, the most urgent first.
pub(super) fn attention(overview: &Overview, now: SystemTime) -> Vec<Attention<'_>> {
    let limit = overview.reconcile_every.map_or(DAILY, |every| every * 2);
    let unreadable = overview.error.as_deref().map(|error| Attention {
        label: None,
        reason: Reason::Unreadable(error),
    });
    let labels = overview.labels.iter().flat_map(|label| {
        let reasons = reasons(label, now, limit).into_iter();
        reasons.map(move |reason| Attention {
            label: Some(label),
            reason,
        })
    });
    let mut all: Vec<_> = unreadable.into_iter().chain(labels).collect();
    // The sort is stable: labels stay in order.
    all.sort_by_key(|attention| rank(&attention.reason));
    all
}

fn rank(reason: &Reason<'_>) -> u8 {
    match reason {
        Reason::Unreadable(_) => 0,
        Reason::Failed(_) => 1,
        Reason::Guarded(_) => 2,
        Reason::Deleted => 3,
        Reason::Fell { .. } => 4,
        Reason::Overdue(_) => 5,
        Reason::NotExact => 6,
    }
}

/// A deleted label has no further runs, so nothing else is said about it.
fn reasons(label: &LabelView, now: SystemTime, limit: Duration) -> Vec<Reason<'_>> {
    if label.is_deleted {
        return vec![Reason::Deleted];
    }
    let run = label.last_run.as_ref();
    let ended = run.and_then(|run| match run.status {
        RunStatus::Failed => Some(Reason::Failed(run.error.as_deref())),
        RunStatus::Guarded => Some(Reason::Guarded(run.error.as_deref())),
        RunStatus::Complete | RunStatus::Partial => None,
    });
    let overdue = run.map(|run| run.finished_at).filter(|finished_at| {
        let age = now.duration_since(*finished_at).unwrap_or_default();
        age > limit
    });
    ended
        .into_iter()
        .chain(fall(label))
        .chain(overdue.map(Reason::Overdue))
        .chain((!label.is_exact).then_some(Reason::NotExact))
        .collect()
}

fn fall(label: &LabelView) -> Option<Reason<'static>> {
    let from = label.trend.iter().map(|sample| sample.chats).max()?;
    let to = label.chats?;
    let has_fallen = from >= MIN_FALL && to <= from / 2;
    has_fallen.then_some(Reason::Fell { from, to })
}

#[cfg(test)]
#[path = "attention/tests.rs"]
mod tests;
