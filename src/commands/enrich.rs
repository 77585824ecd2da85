//! `labelcast enrich`: takes chat ids from a queue, looks up the contacts, and publishes records.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::listen::cannot_bind;
use super::{
    ReportTexts, check_report_path, fail, init_log, listen as listen_for_signals, load, logged,
    write_report,
};
use crate::config::ConfigSources;
use crate::enrich::metrics::{Metrics, Totals};
use crate::enrich::report::EnrichReport;
use crate::enrich::worker::Ending;
use crate::enrich::{self, EnrichSettings, Queues};
use crate::error::Error;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::report::ReportSettings;
use crate::server::{self, http};
use crate::shutdown::Shutdown;
use crate::telemetry::LogSettings;

/// How often the progress is updated.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

/// All settings of the command.
struct Settings {
    enrich: EnrichSettings,
    metrics_bind: Option<SocketAddr>,
    report: ReportSettings,
    log: LogSettings,
}

pub(super) async fn enrich(mut sources: ConfigSources) -> Exit {
    let report = sources.report();
    let named = Queues {
        from: sources.text("enrich.from"),
        to: sources.text("enrich.to"),
        group: sources.text("enrich.group"),
    };
    let settings = load(sources, |sources| {
        let (enrich, log) = (sources.enrich(), sources.log());
        let (enrich, metrics_bind) = enrich?;
        Some(Settings {
            enrich,
            metrics_bind,
            report: report.clone().ok()?,
            log: log?,
        })
    });
    match settings {
        Ok(settings) => enrich_with(&settings).await,
        Err(error) => {
            fail(&error);
            let settings = report.unwrap_or_else(|report| *report);
            let (now, none) = (SystemTime::now(), Totals::default());
            let report = EnrichReport::new(now, &named, none, false, &Err(error));
            // As text, the errors were listed already.
            give(report, &settings, true)
        }
    }
}

async fn enrich_with(settings: &Settings) -> Exit {
    let started_at = SystemTime::now();
    let progress = Progress::new(settings.report.progress, settings.log.quiet);
    init_log(&settings.log, &progress);
    let metrics = Arc::new(Metrics::new());
    let mut report_settings = settings.report.clone();
    // Signals are handled until the report is written, because writing can block too.
    let (ended, _listener) = match (
        check_report_path(&settings.report),
        listen_for_signals(None),
    ) {
        (Ok(()), Ok((shutdown, listener))) => {
            let ended = work(settings, &metrics, &progress, &shutdown).await;
            (ended, Some(listener))
        }
        (Err(error), _) => {
            // Writing the report there would fail too.
            report_settings.file = None;
            (Err(error), None)
        }
        (_, Err(error)) => (Err(error), None),
    };
    if let Err(error) = &ended {
        logged(error);
    }
    let EnrichSettings { queues, drain, .. } = &settings.enrich;
    let report = EnrichReport::new(started_at, queues, metrics.totals(), *drain, &ended);
    give(report, &report_settings, settings.log.quiet)
}

/// Gives the report where it was asked for.
fn give((report, exit): (EnrichReport, Exit), settings: &ReportSettings, quiet: bool) -> Exit {
    let texts = ReportTexts {
        json: report.json() + "\n",
        text: report.text(),
    };
    write_report(&texts, exit, settings, quiet)
}

/// Works, serves the metrics and shows the progress meanwhile.
async fn work(
    settings: &Settings,
    metrics: &Arc<Metrics>,
    progress: &Progress,
    shutdown: &Shutdown,
) -> Result<Ending, Error> {
    let worker = enrich::worker(&settings.enrich, metrics, shutdown)?;
    let stop = CancellationToken::new();
    let serving = match settings.metrics_bind {
        Some(address) => Some(serve(address, metrics, &stop).await?),
        None => None,
    };
    info!(
        from = settings.enrich.queues.from,
        to = settings.enrich.queues.to,
        "enriching"
    );
    let ended = tokio::select! {
        ended = worker.run(shutdown) => ended,
        never = show(metrics, progress) => match never {},
    };
    stop.cancel();
    if let Some(serving) = serving {
        serving.abort();
    }
    ended
}

/// Serves the metrics in the background.
async fn serve(
    address: SocketAddr,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Result<tokio::task::JoinHandle<()>, Error> {
    let listener = TcpListener::bind(address).await;
    let listener = listener.map_err(|error| cannot_bind("enrich.metrics_bind", address, &error))?;
    let address = listener.local_addr().unwrap_or(address);
    info!(%address, "serving metrics");
    let routes = server::worker_routes(Arc::clone(metrics));
    Ok(tokio::spawn(http::serve(listener, routes, stop.clone())))
}

/// Shows the number of records, for ever.
async fn show(metrics: &Metrics, progress: &Progress) -> Infallible {
    let line = progress.line("enriched");
    let mut shown = 0;
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        let records = metrics.totals().records();
        line.add(records - shown);
        shown = records;
    }
}
