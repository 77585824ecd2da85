//! One label's run with its sink, and the records about it: the count of its chats, and how it
//! ended.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tracing::warn;

use uuid::Uuid;

use super::{Context, publish_label, until_drained};
use crate::api::Label;
use crate::broker::factory::{SinkSettings, blackhole};
use crate::broker::{
    BrokerError, CountStore, Outcome, SessionContext, SnapshotSession, SnapshotSink, Start, Target,
};
use crate::error::Error;
use crate::progress::LabelLine;
use crate::report::{LabelReport, Status};
use crate::state::counts::LabelCount;
use crate::state::runs::{LastRun, RunStatus};

/// Runs a label, and records its count and its end. A failure to record them does not change the
/// outcome, because a retry would publish the list again.
pub async fn run_label(
    context: &Context<'_>,
    sink: &SinkSettings,
    label: &Label,
    target: &Target,
    line: &LabelLine,
) -> LabelReport {
    let began = SystemTime::now();
    let to = match context.run.dry_run {
        true => blackhole(),
        false => snapshot_sink(context, sink, target, line),
    };
    let report = publish_label(context, label, target, to, line).await;
    if !context.run.dry_run
        && let Some(mut store) = sink.broker.count_store(&target.instance_id)
    {
        record(&mut *store, label, &report, began).await;
    }
    report
}

/// Removes all members of a label that was deleted, except those that an event added after `as_of`.
/// They are published only with `--removed`, and the queue stays. Returns how many were removed.
///
/// # Errors
///
/// [`BrokerError::Locked`] if a run is alive, and what a run could end with.
pub async fn remove_members(
    context: &Context<'_>,
    sink: &SinkSettings,
    target: &Target,
    as_of: SystemTime,
    line: &LabelLine,
) -> Result<u64, Error> {
    let shutdown = context.shutdown();
    let to = snapshot_sink(context, sink, target, line);
    let (_, mut session) = until_drained(shutdown, to.open()).await?;
    let removing = remove_all(&mut *session, as_of);
    let (outcome, removed) = match until_drained(shutdown, removing).await {
        Ok(()) => (
            Outcome::Complete { chats: 0 },
            Ok(session.delivered().removed),
        ),
        Err(error) => (Outcome::Unfinished, Err(error)),
    };
    let finished = until_drained(shutdown, session.finish(outcome)).await;
    removed.and_then(|removed| finished.map(|()| removed))
}

/// Publishes an empty list.
async fn remove_all(
    session: &mut dyn SnapshotSession,
    as_of: SystemTime,
) -> Result<(), BrokerError> {
    // Times of lists are whole seconds, and an event of the same second may be older.
    let as_of = as_of + Duration::from_millis(999);
    session.start(Start::New(Uuid::now_v7())).await?;
    // An empty list has nothing to go back to.
    let _ = session.begin_list(as_of).await?;
    let _ = session.flush().await?;
    session.remove_absent().await?;
    Ok(())
}

fn snapshot_sink(
    context: &Context<'_>,
    sink: &SinkSettings,
    target: &Target,
    line: &LabelLine,
) -> Box<dyn SnapshotSink> {
    sink.broker.sink(SessionContext {
        target: target.clone(),
        layout: sink.layout.clone(),
        retry: context.retry.clone(),
        selection: context.run.selection.clone(),
        pauses: Arc::new(line.clone()),
    })
}

async fn record(
    store: &mut dyn CountStore,
    label: &Label,
    report: &LabelReport,
    began: SystemTime,
) {
    let now = SystemTime::now();
    if report.status == Status::Complete {
        let chats = report.counts.read - report.counts.invalid;
        if let Err(error) = store.record(&[count_of(label, chats, now)]).await {
            warn!(label_id = label.id, "cannot store the count: {error}");
        }
    }
    let elapsed = now.duration_since(began).unwrap_or_default();
    if let Some(run) = last_run(report, now, elapsed)
        && let Err(error) = store.record_run(&run).await
    {
        warn!(
            label_id = label.id,
            "cannot store the end of the run: {error}"
        );
    }
}

/// Returns the count of a label, to store it.
pub fn count_of(label: &Label, chats: u64, counted_at: SystemTime) -> LabelCount {
    LabelCount {
        label_id: label.id.clone(),
        label_name: label.name.clone(),
        color_hex: label.color.clone(),
        chats: Some(chats),
        counted_at,
        deleted_at: None,
    }
}

/// Returns how a run ended, to store it; `None` if another run holds the label, which records its
/// own end.
fn last_run(report: &LabelReport, finished_at: SystemTime, elapsed: Duration) -> Option<LastRun> {
    let status = match report.status {
        Status::Complete => RunStatus::Complete,
        Status::Partial => RunStatus::Partial,
        Status::Failed => RunStatus::Failed,
        Status::Guarded => RunStatus::Guarded,
        Status::Locked => return None,
    };
    Some(LastRun {
        label_id: report.label_id.clone(),
        run_id: report.run_id.to_string(),
        status,
        chats: report.counts.read - report.counts.invalid,
        published: report.counts.published + report.counts.resumed,
        finished_at,
        elapsed,
        error: report.error.clone(),
    })
}
