//! One label's run: attempts, resume, guards, and an orderly end.
//!
//! An attempt fetches the list once and publishes the entries after the checkpoint. After a transient
//! error the next attempt resumes there, once the digest has proven that the list up to that position is
//! unchanged.

mod attempt;
mod count;
mod guards;
mod settings;

use std::time::{Duration, Instant, SystemTime};

use tracing::{error, info, warn};
use uuid::Uuid;

use self::attempt::Attempt;
pub use self::count::count_chats;
use self::guards::Guards;
pub use self::settings::{Labels, RunSettings};
use crate::api::{ApiError, Client, Label, LabelList};
use crate::batch::Digest;
use crate::broker::{BrokerError, Outcome, Recovered, Sink, Start, Target, Unfinished};
use crate::decode::DecodeError;
use crate::error::{Error, Guard};
use crate::exit::Exit;
use crate::message::Layout;
use crate::progress::Progress;
use crate::report::{Counts, LabelReport, Status};
use crate::retry::Retries;
use crate::shutdown::Shutdown;

/// Rewinds in one run after which the queue counts as unreliable.
const MAX_REWINDS: u32 = 20;

/// Shared by all labels of a run.
pub struct Context<'a> {
    /// The API.
    pub client: &'a Client,
    /// Retries after a transient error.
    pub retries: usize,
    /// The settings of the run.
    pub run: &'a RunSettings,
    /// The layout of messages.
    pub layout: &'a Layout,
    /// The most entries in a batch.
    pub batch_entries: u32,
    /// Stop signal and deadline.
    pub shutdown: &'a Shutdown,
    /// The progress line.
    pub progress: &'a Progress,
}

/// The state of a label's run, for its report.
pub(crate) struct Tally {
    began: Instant,
    run_id: Uuid,
    attempts: u32,
    list_changed: bool,
    rewinds: u32,
    digest: Digest,
    counts: Counts,
}

impl Tally {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            run_id: Uuid::now_v7(),
            attempts: 0,
            list_changed: false,
            rewinds: 0,
            digest: Digest::of_nothing(),
            counts: Counts::default(),
        }
    }
}

/// Publishes the chats of one label, and returns its report.
pub async fn publish_label<S: Sink>(
    context: &Context<'_>,
    label: &Label,
    target: &Target,
    mut sink: S,
) -> LabelReport {
    let mut tally = Tally::new();
    context.progress.begin(&label.id);
    let result = run(context, target, &mut sink, &mut tally).await;
    context.progress.end();
    let delivered = sink.delivered();
    tally.counts.published = delivered.chats;
    tally.counts.messages = delivered.messages;
    tally.counts.suppressed = delivered.suppressed;
    report(label.clone(), target, &tally, result.err().as_ref())
}

/// The report of a label whose run did not start.
pub fn not_tried(label: Label, target: &Target, error: &Error) -> LabelReport {
    report(label, target, &Tally::new(), Some(error))
}

fn report(label: Label, target: &Target, tally: &Tally, error: Option<&Error>) -> LabelReport {
    let exit = error.map_or(Exit::Complete, Error::exit);
    let counts = tally.counts;
    let on_queue = counts.published + counts.resumed + counts.suppressed > 0;
    let status = match (error, exit) {
        (None, _) => Status::Complete,
        (_, Exit::Guarded) => Status::Guarded,
        (_, Exit::Locked) => Status::Locked,
        (_, Exit::Interrupted | Exit::Complete) => Status::Partial,
        (_, Exit::Unavailable | Exit::File) if on_queue => Status::Partial,
        _ => Status::Failed,
    };
    let quiet_end = exit == Exit::Complete;
    let error = error.filter(|_| !quiet_end);
    log(&label.id, target, tally, status, error);
    LabelReport {
        label_id: label.id,
        label_name: label.name,
        queue: target.queue.clone(),
        run_id: tally.run_id,
        status,
        counts,
        attempts: tally.attempts,
        digest: tally.digest,
        list_changed: tally.list_changed,
        rewinds: tally.rewinds,
        error: error.map(Error::to_string),
        elapsed: tally.began.elapsed(),
        exit,
    }
}

fn log(label_id: &str, target: &Target, tally: &Tally, status: Status, error: Option<&Error>) {
    let Tally { run_id, counts, .. } = tally;
    let Counts {
        read, published, ..
    } = counts;
    let (queue, status) = (&target.queue, status.name());
    match error {
        None => {
            info!(label_id, queue, %run_id, status, read, published, "label run finished");
        }
        Some(error) => {
            let exit_code = error.exit().code();
            let hint = error.hint().unwrap_or_default();
            error!(label_id, queue, %run_id, status, exit_code, hint, "{error}");
        }
    }
}

async fn run<S: Sink>(
    context: &Context<'_>,
    target: &Target,
    sink: &mut S,
    tally: &mut Tally,
) -> Result<(), Error> {
    let past = within(context.shutdown, sink.open()).await?;
    let resumed = to_resume(&past, context.run.resume_window);
    if let Some(unfinished) = &resumed {
        tally.run_id = unfinished.from.run_id;
        tally.counts.resumed = unfinished.from.chats;
    }
    let start = match &resumed {
        Some(unfinished) => Start::Resumed(unfinished),
        None => Start::New(tally.run_id),
    };
    let published = match within(context.shutdown, sink.start(start)).await {
        Ok(from) => {
            tally.list_changed = from.list_changed;
            let mut guards = Guards::new(context.run, past.last_complete);
            attempts(context, target, sink, tally, &mut guards, from).await
        }
        Err(error) => Err(error),
    };
    conclude(context, sink, published).await
}

/// The unfinished run, if it is to be resumed.
fn to_resume(past: &Recovered, window: Option<Duration>) -> Option<Unfinished> {
    let (unfinished, window) = past.unfinished.as_ref().zip(window)?;
    let run_id = unfinished.from.run_id;
    let age = SystemTime::now().duration_since(unfinished.at);
    if age.unwrap_or_default() > window {
        info!(%run_id, "unfinished run is older than --resume-window; starting a new run");
        return None;
    }
    let position = unfinished.from.position;
    info!(%run_id, position, "resuming an unfinished run");
    Some(unfinished.clone())
}

/// Makes attempts until the whole list was published. Returns the number of its chats.
async fn attempts<S: Sink>(
    context: &Context<'_>,
    target: &Target,
    sink: &mut S,
    tally: &mut Tally,
    guards: &mut Guards,
    mut from: Unfinished,
) -> Result<u64, Error> {
    let mut retries = Retries::new(context.retries);
    loop {
        tally.attempts += 1;
        let attempt = Attempt {
            context,
            label_id: &target.label_id,
            sink: &mut *sink,
            guards: &mut *guards,
            tally: &mut *tally,
        };
        let ended = match attempt.run(&mut from).await {
            // Flushing may still find that entries were lost.
            Ok(chats) => within(context.shutdown, sink.flush()).await.map(|()| chats),
            Err(attempt::End::Failed(error @ Error::TooManyInvalid { .. })) => {
                let flushed = within(context.shutdown, sink.flush()).await;
                flushed.and(Err(error))
            }
            Err(attempt::End::Failed(error)) => Err(error),
            Err(attempt::End::Refetch) => continue,
        };
        let error = match ended {
            Ok(0) if context.run.check_label => {
                return still_exists(context, &target.label_id).await.map(|()| 0);
            }
            Ok(chats) => return Ok(chats),
            Err(error) => error,
        };
        match error {
            Error::Decode(DecodeError::ListChanged(position)) => {
                warn!(position, "list changed; publishing it from the start");
                tally.list_changed = true;
                tally.counts.resumed = 0;
                match within(context.shutdown, sink.flush()).await {
                    // A loss is found by the restart below.
                    Ok(()) | Err(Error::Broker(BrokerError::Rewound(_))) => {}
                    Err(error) => return Err(error),
                }
                let again = sink.start(Start::Again(tally.run_id));
                from = within(context.shutdown, again).await?;
            }
            Error::Broker(BrokerError::Rewound(to)) if tally.rewinds < MAX_REWINDS => {
                warn!(
                    position = to.from.position,
                    "queue lost confirmed entries; publishing them again"
                );
                tally.rewinds += 1;
                from = within(context.shutdown, sink.start(Start::Resumed(&to))).await?;
                tally.counts.resumed = tally.counts.resumed.min(from.from.chats);
            }
            // The sink has its own retries.
            error @ Error::Broker(_) => return Err(error),
            error => retries.pause(error, context.shutdown).await?,
        }
    }
}

/// Fetches the account's labels, and retries transient errors.
///
/// # Errors
///
/// As [`Client::labels`], when no try is left; or that a stop came first.
pub async fn fetch_labels(
    client: &Client,
    retries: &mut Retries,
    shutdown: &Shutdown,
) -> Result<LabelList, Error> {
    loop {
        let labels = tokio::select! {
            biased;
            cause = shutdown.stopped() => return Err(Error::Interrupted(cause)),
            labels = client.labels() => labels,
        };
        match labels {
            Ok(labels) => return Ok(labels),
            Err(error) => retries.pause(Error::from(error), shutdown).await?,
        }
    }
}

/// Checks the label again: an empty list may be that of a label that was just deleted.
async fn still_exists(context: &Context<'_>, label_id: &str) -> Result<(), Error> {
    let mut retries = Retries::new(context.retries);
    let labels = fetch_labels(context.client, &mut retries, context.shutdown);
    match labels.await?.find(label_id).map_err(ApiError::labels)? {
        Some(_) => Ok(()),
        None => Err(Guard::LabelWent(label_id.to_owned()).into()),
    }
}

/// Flushes the sink, whatever happened, and records the outcome.
async fn conclude<S: Sink>(
    context: &Context<'_>,
    sink: &mut S,
    published: Result<u64, Error>,
) -> Result<(), Error> {
    let flushed = within(context.shutdown, sink.flush()).await;
    // The first error is the one to report.
    let ended = published.and_then(|chats| flushed.map(|()| chats));
    let outcome = match &ended {
        Ok(chats) => Outcome::Complete { chats: *chats },
        Err(Error::TooManyInvalid { .. }) => Outcome::Rejected,
        Err(_) => Outcome::Unfinished,
    };
    let finished = within(context.shutdown, sink.finish(outcome)).await;
    ended.and(finished)
}

/// Waits for the sink, after a stop only for a limited time.
pub(crate) async fn within<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        result = work => result.map_err(Error::from),
        cause = shutdown.drained() => Err(Error::Interrupted(cause)),
    }
}
