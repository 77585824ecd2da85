//! `labelcast run`: the batch job.

use std::time::SystemTime;

use tracing::{info, warn};

use super::{
    check_report_path, init_log, listen, load, logged, report_config_errors, several_at_once,
    write_report,
};
use crate::api::{ApiError, ApiSettings, Client, Label, LabelList};
use crate::broker::Target;
use crate::broker::factory::SinkSettings;
use crate::config::{ConfigSources, RunMode};
use crate::error::{Error, Guard};
use crate::exit::Exit;
use crate::pipeline::{self, Context, Labels, RunSettings};
use crate::progress::Progress;
use crate::report::{LabelReport, Report, ReportSettings};
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;
use crate::telemetry::LogSettings;

/// All settings of a run.
pub(super) struct Settings {
    pub(super) api: ApiSettings,
    pub(super) run: RunSettings,
    pub(super) sink: SinkSettings,
    pub(super) report: ReportSettings,
    pub(super) log: LogSettings,
}

impl Settings {
    /// Reads all settings even after an error, so that all errors are found.
    pub(super) fn read(sources: &mut ConfigSources, mode: RunMode) -> Option<Self> {
        let report = sources.report().ok();
        Self::read_with(sources, report, mode)
    }

    fn read_with(
        sources: &mut ConfigSources,
        report: Option<ReportSettings>,
        mode: RunMode,
    ) -> Option<Self> {
        let (api, run) = (sources.api(), sources.run(mode));
        let (sink, log) = (sources.sink(), sources.log());
        sources.check_combinations(mode);
        Some(Self {
            api: api?,
            run: run?,
            sink: sink?,
            report: report?,
            log: log?,
        })
    }
}

pub(super) async fn run(mut sources: ConfigSources, mode: RunMode) -> Exit {
    let report = sources.report();
    let settings = load(sources, |sources| {
        Settings::read_with(sources, report.clone().ok(), mode)
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
    let (mut report_settings, report_path_check) =
        (settings.report.clone(), check_report_path(&settings.report));
    if report_path_check.is_err() {
        // Writing the report there would fail too.
        report_settings.file = None;
    }
    // Signals are handled until the report is written, because writing can block too.
    let (published, _listener) = match listen(settings.run.deadline) {
        Ok((shutdown, listener)) => {
            let published = match report_path_check {
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
    let exit = write_report(
        &(&report).into(),
        exit,
        &report_settings,
        settings.log.quiet,
    );
    // After the report, since a gateway can be slow, and the time after a stop is limited.
    if !settings.run.dry_run {
        write_metrics(&report, settings).await;
    }
    exit
}

/// Writes the requested metrics. A failure does not change the exit code, because a retry would
/// publish the list again.
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
    let retry = RetryPolicy::new(settings.api.retries, shutdown.clone());
    let context = Context {
        client: &client,
        retry: &retry,
        run: &settings.run,
        layout: &settings.sink.layout,
        batch_entries: settings.sink.batch_entries(),
    };
    let labels = match (labels(&context).await, &settings.run.labels) {
        (Ok(labels), _) => labels,
        (Err(error), Labels::All) => return Err(error),
        (Err(error), Labels::These(ids)) => {
            let not_tried = |id: &String| {
                pipeline::not_tried(label_without_name(id), &target(settings, id), &error)
            };
            let ours = ids.iter().filter(|id| settings.run.is_for(id));
            return Ok(ours.map(not_tried).collect());
        }
    };
    let context = &context;
    let publishing = labels.into_iter().map(|(label, found)| async move {
        let target = target(settings, &label.id);
        // Checked when it is the label's turn, because a stop may have been requested
        // meanwhile.
        match (found, shutdown.cause()) {
            (Err(error), _) => pipeline::not_tried(label, &target, &error),
            (Ok(()), Some(cause)) => {
                pipeline::not_tried(label, &target, &Error::Interrupted(cause))
            }
            (Ok(()), None) => publish_label(context, settings, progress, &label, &target).await,
        }
    });
    Ok(several_at_once(publishing, labels_at_once(settings)).await)
}

/// Returns the number of labels to publish at once: the setting, limited by the sink.
fn labels_at_once(settings: &Settings) -> usize {
    let asked = settings.run.concurrency;
    let shares_times = settings.sink.broker.state.is_some()
        && settings.run.selection.suppress_for.is_some()
        && !settings.sink.queue.contains("{label_id}");
    if shares_times && asked > 1 && !settings.run.dry_run {
        warn!("labels of one queue share their times of publication; one label after the other");
        return 1;
    }
    let limit = match settings.run.dry_run {
        true => asked,
        false => settings.sink.broker.address.sessions_at_once(),
    };
    if asked > limit {
        warn!(concurrency = limit, "sink takes one label after the other");
    }
    asked.min(limit)
}

async fn publish_label(
    context: &Context<'_>,
    settings: &Settings,
    progress: &Progress,
    label: &Label,
    target: &Target,
) -> LabelReport {
    info!(label_id = label.id, queue = target.queue, "publishing");
    let line = progress.line(&format!("label {}", label.id));
    let report = pipeline::run_label(context, &settings.sink, label, target, &line).await;
    line.end();
    report
}

fn target(settings: &Settings, label_id: &str) -> Target {
    settings.sink.target(label_id, &settings.api.instance_id)
}

/// Returns a label of which only the id is known.
fn label_without_name(id: &str) -> Label {
    Label {
        id: id.to_owned(),
        name: None,
        color: None,
    }
}

/// Returns the labels to publish, each with the error that prevents its run, if there is one.
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
        return Ok(wanted
            .into_iter()
            .map(|id| (label_without_name(id), Ok(())))
            .collect());
    }
    let known = known_labels(context).await?;
    let find = |id: &String| match known.find(id).map_err(ApiError::labels) {
        Ok(Some(label)) => (label.clone(), Ok(())),
        Ok(None) => (
            label_without_name(id),
            Err(Guard::LabelGone(id.clone()).into()),
        ),
        Err(error) => (label_without_name(id), Err(error.into())),
    };
    Ok(wanted.into_iter().map(find).collect())
}

async fn known_labels(context: &Context<'_>) -> Result<LabelList, Error> {
    pipeline::fetch_labels(context.client, context.retry).await
}
