//! One label's run: attempts, resume, guards, and an orderly end.
//!
//! An attempt fetches the list once and publishes the entries after the checkpoint. After a
//! transient error the next attempt resumes there, if the digest shows that the list up to that
//! position is unchanged.

mod attempt;
mod count;
mod guards;
mod job;
mod settings;

use std::time::{Duration, Instant, SystemTime};

use tracing::{error, info, warn};
use uuid::Uuid;

use self::attempt::Attempted;
pub use self::count::count_chats;
use self::guards::Guards;
pub use self::job::{count_of, remove_members, run_label};
pub use self::settings::{Labels, RunSettings};
use crate::api::{ApiError, Client, Label, LabelList};
use crate::broker::{
    BrokerError, Outcome, Recovered, SnapshotSession, SnapshotSink, Start, Target, Unfinished,
    Written,
};
use crate::error::{Error, Guard};
use crate::exit::Exit;
use crate::message::Layout;
use crate::progress::LabelLine;
use crate::report::{Counts, History, LabelReport, Status};
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;
use crate::state::Removal;

/// Rewinds in one run after which the queue counts as unreliable.
const MAX_REWINDS: u32 = 20;

/// Shared by all labels of a run.
pub struct Context<'a> {
    /// The API.
    pub client: &'a Client,
    /// Retries after transient errors of the API, until a stop or the deadline.
    pub retry: &'a RetryPolicy,
    /// The settings of the run.
    pub run: &'a RunSettings,
    /// The layout of messages.
    pub layout: &'a Layout,
    /// Maximum number of entries in a batch.
    pub batch_entries: u32,
}

impl Context<'_> {
    fn shutdown(&self) -> &Shutdown {
        self.retry.shutdown()
    }
}

/// The state of a label's run, for its report.
pub(crate) struct Tally {
    began: Instant,
    run_id: Uuid,
    history: History,
    counts: Counts,
}

impl Tally {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            run_id: Uuid::now_v7(),
            history: History::default(),
            counts: Counts::default(),
        }
    }
}

/// How publishing ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Published {
    /// The whole list is on the queue, with this many chats.
    Whole(u64),
    /// Part of the list was written to stdout, whose reader has gone. This is intended, as in
    /// `labelcast run | head`.
    ReaderGone,
}

/// Publishes the chats of one label, and returns its report.
pub async fn publish_label(
    context: &Context<'_>,
    label: &Label,
    target: &Target,
    sink: Box<dyn SnapshotSink>,
    line: &LabelLine,
) -> LabelReport {
    let mut tally = Tally::new();
    let result = run(context, target, sink, line, &mut tally).await;
    report(label.clone(), target, &tally, result.as_ref())
}

/// Returns the report of a label whose run did not start.
pub fn not_tried(label: Label, target: &Target, error: &Error) -> LabelReport {
    report(label, target, &Tally::new(), Err(error))
}

fn report(
    label: Label,
    target: &Target,
    tally: &Tally,
    result: Result<&Published, &Error>,
) -> LabelReport {
    let exit = result.map_or_else(Error::exit, |_| Exit::Complete);
    let counts = tally.counts;
    let on_queue = counts.published + counts.resumed + counts.suppressed + counts.known > 0;
    let status = match (result, exit) {
        (Ok(Published::Whole(_)), _) => Status::Complete,
        (Ok(Published::ReaderGone), _) => Status::Partial,
        (Err(_), Exit::Guarded) => Status::Guarded,
        (Err(_), Exit::Locked) => Status::Locked,
        (Err(_), Exit::Interrupted) => Status::Partial,
        (Err(_), Exit::Unavailable | Exit::File) if on_queue => Status::Partial,
        (Err(_), _) => Status::Failed,
    };
    let error = result.err();
    log(&label.id, target, tally, status, error);
    LabelReport {
        label_id: label.id,
        label_name: label.name,
        queue: target.queue.clone(),
        run_id: tally.run_id,
        status,
        counts,
        history: tally.history,
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

async fn run(
    context: &Context<'_>,
    target: &Target,
    sink: Box<dyn SnapshotSink>,
    line: &LabelLine,
    tally: &mut Tally,
) -> Result<Published, Error> {
    let (recovered, mut session) = until_drained(context.shutdown(), sink.open()).await?;
    let last_complete = recovered.last_complete;
    let start = match resumable(recovered, context.run.resume_window) {
        Some(unfinished) => {
            tally.run_id = unfinished.resume_point.at.run_id;
            tally.counts.resumed = unfinished.resume_point.at.chats;
            tally.history.list_changed = unfinished.list_changed;
            Start::Resumed(unfinished)
        }
        None => Start::New(tally.run_id),
    };
    let published = match until_drained(context.shutdown(), session.start(start)).await {
        Ok(()) => {
            let mut publishing = Publishing {
                context,
                label_id: &target.label_id,
                session: &mut *session,
                guards: Guards::new(context.run, last_complete),
                tally,
                line,
            };
            publishing.publish().await
        }
        Err(error) => Err(error),
    };
    conclude(context, session, tally, published).await
}

/// Returns the unfinished run, if it is to be resumed.
fn resumable(recovered: Recovered, window: Option<Duration>) -> Option<Unfinished> {
    let (unfinished, window) = recovered.unfinished.zip(window)?;
    let at = unfinished.resume_point.at;
    let age = SystemTime::now().duration_since(unfinished.updated_at);
    if age.unwrap_or_default() > window {
        info!(run_id = %at.run_id, "unfinished run is older than --resume-window; starting a new run");
        return None;
    }
    let position = at.position;
    info!(run_id = %at.run_id, position, "resuming an unfinished run");
    Some(unfinished)
}

/// A run that has started, with its context.
struct Publishing<'a, 'c> {
    context: &'a Context<'c>,
    label_id: &'a str,
    session: &'a mut dyn SnapshotSession,
    guards: Guards,
    tally: &'a mut Tally,
    line: &'a LabelLine,
}

impl Publishing<'_, '_> {
    /// Makes attempts until the whole list is durable.
    async fn publish(&mut self) -> Result<Published, Error> {
        let mut retries = self.context.retry.retries();
        loop {
            self.tally.history.attempts += 1;
            let attempted = match self.attempt().await {
                Ok(Attempted::Whole(chats)) => self.flush(chats).await,
                attempted => attempted,
            };
            match attempted {
                Ok(Attempted::Whole(chats)) => {
                    self.check_invalid()?;
                    if chats == 0 && self.context.run.check_label {
                        check_still_exists(self.context, self.label_id).await?;
                    }
                    self.remove_absent().await?;
                    return Ok(Published::Whole(chats));
                }
                Ok(Attempted::ReaderGone) => return Ok(Published::ReaderGone),
                Ok(Attempted::Refetch) => {}
                Ok(Attempted::ListChanged) => self.restart().await?,
                Ok(Attempted::Rewound) => self.note_rewind()?,
                // The broker has its own retries.
                Err(error @ Error::Broker(_)) => return Err(error),
                Err(error) => retries.pause(error).await?,
            }
        }
    }

    /// Makes a whole list of `chats` chats durable. This may show that entries were lost.
    async fn flush(&mut self, chats: u64) -> Result<Attempted, Error> {
        let flushed = until_drained(self.context.shutdown(), self.session.flush()).await?;
        Ok(match flushed {
            Written::Done => Attempted::Whole(chats),
            Written::Rewound => Attempted::Rewound,
            Written::ReaderGone => Attempted::ReaderGone,
        })
    }

    /// Checks the number of invalid entries, once all others are durable.
    fn check_invalid(&self) -> Result<(), Error> {
        let (invalid, allowed) = (self.tally.counts.invalid, self.context.run.max_invalid);
        if invalid > allowed {
            return Err(Error::TooManyInvalid { invalid, allowed });
        }
        Ok(())
    }

    /// Removes the members that the whole list does not contain, unless they are too many.
    async fn remove_absent(&mut self) -> Result<(), Error> {
        let removing = self.session.remove_absent();
        match until_drained(self.context.shutdown(), removing).await? {
            Removal::Removed => Ok(()),
            Removal::TooMany { absent, members } => {
                let percent = self.context.run.selection.max_change;
                Err(Guard::ChangedTooMuch {
                    absent,
                    members,
                    percent,
                }
                .into())
            }
        }
    }

    /// Publishes the list from its start, because it has changed.
    async fn restart(&mut self) -> Result<(), Error> {
        let position = self.session.resume_point().at.position;
        warn!(position, "list changed; publishing it from the start");
        self.tally.history.list_changed = true;
        self.tally.counts.resumed = 0;
        until_drained(self.context.shutdown(), self.session.restart()).await
    }

    fn note_rewind(&mut self) -> Result<(), Error> {
        if self.tally.history.rewinds >= MAX_REWINDS {
            return Err(BrokerError::LosesEntries.into());
        }
        let at = self.session.resume_point().at;
        warn!(
            position = at.position,
            "queue lost confirmed entries; publishing them again"
        );
        self.tally.history.rewinds += 1;
        self.tally.counts.resumed = self.tally.counts.resumed.min(at.chats);
        Ok(())
    }
}

/// Fetches the account's labels, and retries transient errors.
///
/// # Errors
///
/// The error of [`Client::labels`] after the last retry, or [`Error::Interrupted`].
pub async fn fetch_labels(client: &Client, retry: &RetryPolicy) -> Result<LabelList, Error> {
    let mut retries = retry.retries();
    loop {
        let labels = tokio::select! {
            biased;
            cause = retry.shutdown().stopped() => return Err(Error::Interrupted(cause)),
            labels = client.labels() => labels,
        };
        match labels {
            Ok(labels) => return Ok(labels),
            Err(error) => retries.pause(Error::from(error)).await?,
        }
    }
}

/// Checks again that the label exists, because the list of a deleted label is empty.
async fn check_still_exists(context: &Context<'_>, label_id: &str) -> Result<(), Error> {
    let labels = fetch_labels(context.client, context.retry).await?;
    match labels.find(label_id).map_err(ApiError::labels)? {
        Some(_) => Ok(()),
        None => Err(Guard::LabelWent(label_id.to_owned()).into()),
    }
}

/// Makes durable what was accepted, records the outcome, and releases the lock.
async fn conclude(
    context: &Context<'_>,
    mut session: Box<dyn SnapshotSession>,
    tally: &mut Tally,
    published: Result<Published, Error>,
) -> Result<Published, Error> {
    let outcome = match &published {
        Ok(Published::Whole(chats)) => Outcome::Complete { chats: *chats },
        Err(Error::TooManyInvalid { .. } | Error::Guarded(Guard::ChangedTooMuch { .. })) => {
            Outcome::Rejected
        }
        Ok(Published::ReaderGone) | Err(_) => Outcome::Unfinished,
    };
    if outcome == Outcome::Unfinished {
        // The error that ended the run is the one to report.
        let _ = until_drained(context.shutdown(), session.flush()).await;
    }
    let delivered = session.delivered();
    tally.counts.published = delivered.chats;
    tally.counts.messages = delivered.messages;
    tally.counts.suppressed = delivered.suppressed;
    tally.counts.known = delivered.known;
    tally.counts.removed = delivered.removed;
    let finished = until_drained(context.shutdown(), session.finish(outcome)).await;
    let published = published?;
    finished.map(|()| published)
}

/// Waits for an operation of the broker; after a stop, only until the time for draining is over.
pub(crate) async fn until_drained<T>(
    shutdown: &Shutdown,
    work: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        result = work => result.map_err(Error::from),
        cause = shutdown.drained() => Err(Error::Interrupted(cause)),
    }
}
