//! `labelcast run`: the batch job.

use std::time::SystemTime;

use tracing::{info, warn};

use super::{
    check_report_path, init_log, listen, load, logged, report_config_errors, write_report,
};
use crate::api::{ApiError, ApiSettings, Client, Label, LabelList};
use crate::broker::blackhole::Blackhole;
use crate::broker::lines::Lines;
use crate::broker::rabbitmq::{BATCH_MESSAGES, RabbitMq};
use crate::broker::redis::{BATCH_CHATS, Redis};
use crate::broker::retry_policy::RetryPolicy;
use crate::broker::{Destination, SinkSettings, Target};
use crate::config::ConfigSources;
use crate::error::{Error, Guard};
use crate::exit::Exit;
use crate::pipeline::{self, Context, Labels, RunSettings};
use crate::progress::Progress;
use crate::report::{LabelReport, Report, ReportSettings};
use crate::retry::Retries;
use crate::shutdown::Shutdown;
use crate::telemetry::LogSettings;

/// All that a run needs to know.
pub(super) struct Settings {
    pub(super) api: ApiSettings,
    pub(super) run: RunSettings,
    pub(super) sink: SinkSettings,
    pub(super) report: ReportSettings,
    pub(super) log: LogSettings,
}

impl Settings {
    /// Reads them all, so that all errors are found.
    pub(super) fn read(sources: &mut ConfigSources, dry_run: bool) -> Option<Self> {
        let report = sources.report().ok();
        Self::read_with(sources, report, dry_run)
    }

    fn read_with(
        sources: &mut ConfigSources,
        report: Option<ReportSettings>,
        dry_run: bool,
    ) -> Option<Self> {
        let (api, run) = (sources.api(), sources.run(dry_run));
        let (sink, log) = (sources.sink(), sources.log());
        sources.together(dry_run);
        Some(Self {
            api: api?,
            run: run?,
            sink: sink?,
            report: report?,
            log: log?,
        })
    }
}

pub(super) async fn run(mut sources: ConfigSources, dry_run: bool) -> Exit {
    let report = sources.report();
    let settings = load(sources, |sources| {
        Settings::read_with(sources, report.clone().ok(), dry_run)
    });
    match (settings, report) {
        (Ok(settings), _) => run_with(&settings).await,
        (Err(error), report) => {
            report_config_errors(&error, &report.unwrap_or_else(|report| *report))
        }
    }
}

/// A whole run, from settings to report.
pub(super) async fn run_with(settings: &Settings) -> Exit {
    let started_at = SystemTime::now();
    let progress = Progress::new(settings.report.progress, settings.log.quiet);
    init_log(&settings.log, &progress);
    let (mut reports_to, writable) = (settings.report.clone(), check_report_path(&settings.report));
    if writable.is_err() {
        // There it would fail once more.
        reports_to.file = None;
    }
    // The listener lives until the report is given: that can get stuck too.
    let (published, _listener) = match listen(settings.run.deadline) {
        Ok((shutdown, listener)) => {
            let published = match writable {
                Ok(()) => publish(settings, &shutdown, &progress).await,
                Err(error) => Err(error),
            };
            (published, Some(listener))
        }
        Err(error) => (Err(error), None),
    };
    let (labels, error) = match published {
        Ok(labels) => (labels, None),
        Err(error) => {
            logged(&error);
            (Vec::new(), Some(error))
        }
    };
    let (report, exit) = Report::new(started_at, labels, error.as_ref());
    let report = report.of_dry_run(settings.run.dry_run);
    let exit = write_report(&report, exit, &reports_to, settings.log.quiet);
    // After the report, since a gateway can take its time, and there may be none left after a stop.
    if !settings.run.dry_run {
        write_metrics(&report, settings).await;
    }
    exit
}

/// Gives metrics where they were asked for. A run is no worse for metrics that could not be given,
/// and is not to be run again over them.
async fn write_metrics(report: &Report, settings: &Settings) {
    let (instance_id, shard) = (&settings.api.instance_id, settings.run.shard);
    if let Some(path) = &settings.report.metrics_file
        && let Err(error) = report.write_metrics(path, instance_id, shard)
    {
        let path = path.display();
        warn!("cannot write metrics to {path}: {error}");
    }
    if let Some(gateway) = &settings.report.metrics_push {
        let proxies = &settings.api.proxies;
        let pushing = report.push_metrics(gateway, instance_id, shard, proxies);
        for problem in pushing.await {
            warn!("cannot push metrics: {problem}");
        }
    }
}

async fn publish(
    settings: &Settings,
    shutdown: &Shutdown,
    progress: &Progress,
) -> Result<Vec<LabelReport>, Error> {
    let client = Client::new(&settings.api)?;
    let context = Context {
        client: &client,
        retries: settings.api.retries,
        run: &settings.run,
        layout: &settings.sink.layout,
        batch_entries: batch_entries(&settings.sink),
        shutdown,
        progress,
    };
    let mut reports = Vec::new();
    let labels = match (labels(&context).await, &settings.run.labels) {
        (Ok(labels), _) => labels,
        (Err(error), Labels::All) => return Err(error),
        (Err(error), Labels::These(ids)) => {
            let told = |id: &String| pipeline::not_tried(bare(id), &target(settings, id), &error);
            let ours = ids.iter().filter(|id| settings.run.is_for(id));
            return Ok(ours.map(told).collect());
        }
    };
    for (label, found) in labels {
        let target = target(settings, &label.id);
        let report = match (found, shutdown.cause()) {
            (Err(error), _) => pipeline::not_tried(label, &target, &error),
            (Ok(()), Some(cause)) => {
                pipeline::not_tried(label, &target, &Error::Interrupted(cause))
            }
            (Ok(()), None) => publish_label(&context, settings, &label, &target).await,
        };
        reports.push(report);
    }
    Ok(reports)
}

/// Batches are as large as the sink allows; where `--max-pending` limits the queue,
/// they are small enough to keep to that within a tenth.
fn batch_entries(sink: &SinkSettings) -> u32 {
    const MOST: u32 = 2048;
    let (most, max_pending) = match &sink.destination {
        Destination::Redis(redis) => {
            let most = BATCH_CHATS.saturating_mul(redis.partitions.unwrap_or(1));
            (most.min(MOST), redis.max_pending)
        }
        Destination::RabbitMq(rabbitmq) => (BATCH_MESSAGES, rabbitmq.max_pending),
        Destination::Lines(_) => (MOST, None),
    };
    let pending = max_pending.map_or(most, |max| u32::try_from(max / 10).unwrap_or(most));
    pending
        .clamp(1, most)
        .saturating_mul(sink.layout.ids_per_message)
        .min(MOST)
}

async fn publish_label(
    context: &Context<'_>,
    settings: &Settings,
    label: &Label,
    target: &Target,
) -> LabelReport {
    info!(label_id = label.id, queue = target.queue, "publishing");
    if settings.run.dry_run {
        return pipeline::publish_label(context, label, target, Blackhole).await;
    }
    let layout = settings.sink.layout.clone();
    let retry_policy = RetryPolicy::new(context.retries, context.shutdown.clone());
    let progress = context.progress.clone();
    match settings.sink.destination.clone() {
        Destination::Lines(destination) => {
            let sink = Lines::new(destination, target.clone(), layout);
            pipeline::publish_label(context, label, target, sink).await
        }
        Destination::Redis(redis) => {
            let sink = Redis::new(*redis, target.clone(), layout, retry_policy, progress);
            pipeline::publish_label(context, label, target, sink).await
        }
        Destination::RabbitMq(rabbitmq) => {
            let sink = RabbitMq::new(*rabbitmq, target.clone(), layout, retry_policy, progress);
            pipeline::publish_label(context, label, target, sink).await
        }
    }
}

pub(super) fn target(settings: &Settings, label_id: &str) -> Target {
    let instance_id = &settings.api.instance_id;
    Target {
        queue: settings.sink.queue_for(label_id, instance_id),
        label_id: label_id.to_owned(),
        instance_id: instance_id.clone(),
    }
}

/// A label of which only the id is known.
fn bare(id: &str) -> Label {
    Label {
        id: id.to_owned(),
        name: None,
        color: None,
    }
}

/// The labels to publish, each with what speaks against it.
async fn labels(context: &Context<'_>) -> Result<Vec<(Label, Result<(), Error>)>, Error> {
    let wanted = match &context.run.labels {
        Labels::All => {
            let known = known_labels(context).await?;
            let known = known.whole().map_err(ApiError::labels)?;
            if known.is_empty() {
                return Err(Guard::NoLabels.into());
            }
            let mut labels: Vec<(Label, Result<(), Error>)> = Vec::new();
            for label in known
                .into_iter()
                .filter(|label| context.run.is_for(&label.id))
            {
                if !labels.iter().any(|(before, _)| before.id == label.id) {
                    labels.push((label, Ok(())));
                }
            }
            return Ok(labels);
        }
        Labels::These(wanted) => {
            let ours = wanted.iter().filter(|id| context.run.is_for(id));
            ours.collect::<Vec<_>>()
        }
    };
    if !context.run.check_label {
        return Ok(wanted.into_iter().map(|id| (bare(id), Ok(()))).collect());
    }
    let known = known_labels(context).await?;
    let find = |id: &String| match known.find(id).map_err(ApiError::labels) {
        Ok(Some(label)) => (label.clone(), Ok(())),
        Ok(None) => (bare(id), Err(Guard::LabelGone(id.clone()).into())),
        Err(error) => (bare(id), Err(error.into())),
    };
    Ok(wanted.into_iter().map(find).collect())
}

async fn known_labels(context: &Context<'_>) -> Result<LabelList, Error> {
    let mut retries = Retries::new(context.retries);
    pipeline::fetch_labels(context.client, &mut retries, context.shutdown).await
}
