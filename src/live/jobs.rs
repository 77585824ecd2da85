//! The batch jobs of a process that listens: baselines, reconciliations, and the removal of the
//! members of deleted labels. Each takes the same lock as `labelcast run`.

use std::sync::Arc;
use std::time::SystemTime;

use tracing::{info, warn};

use super::intake::SinkOfLabel;

use crate::api::{Client, Label, LabelList};
use crate::broker::factory::SinkSettings;
use crate::error::Error;
use crate::exit::Exit;
use crate::pipeline::{self, Context, RunSettings};
use crate::progress::{Progress, ProgressMode};
use crate::retry::RetryPolicy;
use crate::state::{Membership, Publish, Selection};

/// A job for one label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Record the list as known, and publish nothing.
    Baseline,
    /// Publish the chats that the list turns into members: what events did not report.
    Reconcile,
    /// Remove the members of a label that was deleted then.
    RemoveMembers(SystemTime),
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It is done.
    Done,
    /// Another run holds the label, which does as well for a reconciliation.
    Locked,
    /// It failed, and is logged.
    Failed,
}

/// Performs jobs.
pub struct Jobs {
    client: Client,
    retry: RetryPolicy,
    run: RunSettings,
    sink: SinkSettings,
    /// The sinks for events of labels.
    events: Arc<SinkOfLabel>,
    /// The sink of baselines, which publish nothing.
    baseline_sink: SinkSettings,
    instance_id: String,
}

impl Jobs {
    /// Takes the settings of a run, which all jobs follow.
    pub fn new(
        client: Client,
        retry: RetryPolicy,
        run: RunSettings,
        sink: SinkSettings,
        events: Arc<SinkOfLabel>,
        instance_id: String,
    ) -> Self {
        Self {
            client,
            retry,
            run,
            baseline_sink: SinkSettings {
                broker: sink.broker.without_file(),
                ..sink.clone()
            },
            sink,
            events,
            instance_id,
        }
    }

    /// Jobs that may be done at once.
    pub fn at_once(&self) -> usize {
        let limit = self.sink.broker.address.sessions_at_once();
        self.run.concurrency.min(limit)
    }

    /// Fetches the account's labels, with retries.
    ///
    /// # Errors
    ///
    /// The error after the last retry.
    pub async fn labels(&self) -> Result<LabelList, Error> {
        pipeline::fetch_labels(&self.client, &self.retry).await
    }

    /// Does a job.
    pub async fn perform(&self, job: Job, label: &Label) -> JobEnd {
        let target = self.sink.target(&label.id, &self.instance_id);
        let line = Progress::new(ProgressMode::Never, true).line(&format!("label {}", label.id));
        let run = RunSettings {
            selection: self.selection(job),
            ..self.run.clone()
        };
        let context = Context {
            client: &self.client,
            retry: &self.retry,
            run: &run,
            layout: &self.sink.layout,
            batch_entries: self.sink.batch_entries(),
        };
        let exit = match job {
            Job::Baseline | Job::Reconcile => {
                info!(label_id = label.id, "{}", job.name());
                let sink = match job {
                    Job::Baseline => &self.baseline_sink,
                    Job::Reconcile | Job::RemoveMembers(_) => &self.sink,
                };
                let running = pipeline::run_label(&context, sink, label, &target, &line);
                running.await.exit
            }
            Job::RemoveMembers(as_of) => {
                let removing =
                    pipeline::remove_members(&context, &self.sink, &target, as_of, &line);
                match removing.await {
                    Ok(removed) => {
                        info!(
                            label_id = label.id,
                            removed, "members of a deleted label removed"
                        );
                        Exit::Complete
                    }
                    Err(error) => {
                        let hint = error.hint().unwrap_or_default();
                        warn!(label_id = label.id, hint, "members not removed: {error}");
                        error.exit()
                    }
                }
            }
        };
        if (job, exit) == (Job::Baseline, Exit::Complete)
            && let Err(error) = (self.events)(&label.id).mark_tracked().await
        {
            // The first event does it as well.
            warn!(label_id = label.id, "label not marked as tracked: {error}");
        }
        match exit {
            Exit::Complete => JobEnd::Done,
            Exit::Locked => JobEnd::Locked,
            _ => JobEnd::Failed,
        }
    }

    fn selection(&self, job: Job) -> Selection {
        let settings = &self.run.selection;
        let usual = membership(settings);
        let membership = match job {
            Job::Baseline => Membership {
                publish: Publish::Nothing,
                ..usual
            },
            Job::Reconcile => Membership {
                publish: Publish::New,
                ..usual
            },
            Job::RemoveMembers(_) => Membership {
                max_change: 100,
                ..usual
            },
        };
        Selection {
            membership: Some(membership),
            ..settings.clone()
        }
    }
}

/// How the membership of followed labels is kept, by the settings.
pub(super) fn membership(settings: &Selection) -> Membership {
    Membership {
        removed: settings.membership.is_some_and(|it| it.removed),
        ..Membership::recorded_only(settings.max_change)
    }
}

impl Job {
    fn name(self) -> &'static str {
        match self {
            Self::Baseline => "taking a baseline",
            Self::Reconcile => "reconciling",
            Self::RemoveMembers(_) => "removing members",
        }
    }
}
