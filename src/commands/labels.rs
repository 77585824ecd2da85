//! `labelcast labels`: the account's labels as a table or as JSON lines, and with `--counts` the
//! number of chats of each, or with `--cached` the stored numbers.

mod cached;
mod chart;
mod counts;

use std::io::IsTerminal as _;

use tracing::warn;

use self::counts::Counted;
use super::{fail, init_log, listen, load, logged, print};
use crate::api::{ApiError, ApiSettings, Client, Label, LabelList};
use crate::broker::factory::Broker;
use crate::cli::LabelsFlags;
use crate::config::ConfigSources;
use crate::error::Error;
use crate::exit::Exit;
use crate::pipeline;
use crate::progress::{Progress, ProgressMode};
use crate::report::{printable, replace_or_write};
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;
use crate::telemetry::LogSettings;

pub(super) async fn labels(sources: ConfigSources, flags: LabelsFlags) -> Exit {
    if flags.cached {
        return cached::counts(sources, &flags).await;
    }
    let settings = load(sources, |sources| {
        let (api, log) = (sources.api(), sources.log());
        let broker = match flags.counts {
            true => Some(sources.counts()?),
            false => None,
        };
        Some((api?, log?, broker))
    });
    let ended = match settings {
        Ok((api, log, Some(broker))) => count(&api, log, &broker, &flags).await,
        Ok((api, log, None)) => list(&api, &log, &flags).await,
        Err(error) => return fail(&error),
    };
    ended.unwrap_or_else(|error| logged(&error))
}

async fn list(api: &ApiSettings, log: &LogSettings, flags: &LabelsFlags) -> Result<Exit, Error> {
    init_log(log, &Progress::new(ProgressMode::Never, true));
    let (shutdown, _listener) = listen(None)?;
    let labels = fetch_labels(api, &shutdown).await?;
    let labels = labels.whole().map_err(ApiError::labels)?;
    print(&if flags.json {
        lines(&labels)
    } else {
        table(&labels)
    })?;
    Ok(Exit::Complete)
}

async fn count(
    api: &ApiSettings,
    log: LogSettings,
    broker: &Broker,
    flags: &LabelsFlags,
) -> Result<Exit, Error> {
    let progress = Progress::new(ProgressMode::Auto, log.quiet);
    // The log message for each finished list is not needed, because its count is shown.
    let level = log.level.min(tracing::Level::WARN);
    let log = match log.level {
        tracing::Level::INFO => LogSettings { level, ..log },
        _ => log,
    };
    init_log(&log, &progress);
    let (shutdown, _listener) = listen(None)?;
    let labels = fetch_labels(api, &shutdown).await?;
    let labels = labels.whole().map_err(ApiError::labels)?;
    let counted = counts::count(api, &shutdown, &labels, &progress).await?;
    if let Some(mut store) = broker.count_store(&api.instance_id) {
        let ids: Vec<&str> = labels.iter().map(|label| label.id.as_str()).collect();
        let stored = store.replace(&counts::known(&counted), &ids).await;
        stored.unwrap_or_else(|error| warn!("cannot store the counts: {error}"));
    }
    show(&counted, flags)?;
    let exits = counted.iter().map(|counted| counted.exit);
    Ok(exits.fold(Exit::Complete, Exit::heavier))
}

/// Draws and prints counts.
fn show(counted: &[Counted], flags: &LabelsFlags) -> Result<(), Error> {
    // The picture first: stdout may be closed.
    if let Some(path) = &flags.svg {
        let drawn = chart::svg(counted);
        replace_or_write(path, drawn.as_bytes()).map_err(|error| Error::File {
            what: "could not write the chart to",
            path: path.clone(),
            error,
        })?;
    }
    print(&if flags.json {
        counts::lines(counted)
    } else {
        let is_coloured = std::io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        chart::text(counted, is_coloured, flags.cached)
    })
}

/// Fetches the labels, with retries, unless a signal arrives.
pub(super) async fn fetch_labels(
    settings: &ApiSettings,
    shutdown: &Shutdown,
) -> Result<LabelList, Error> {
    let client = Client::new(settings)?;
    let retry = RetryPolicy::new(settings.retries, shutdown.clone());
    pipeline::fetch_labels(&client, &retry).await
}

fn lines(labels: &[Label]) -> String {
    let line = |label: &Label| {
        let Label { id, name, color } = label;
        serde_json::json!({"label_id": id, "label_name": name, "color_hex": color}).to_string()
            + "\n"
    };
    labels.iter().map(line).collect()
}

fn table(labels: &[Label]) -> String {
    let longest = labels.iter().map(|label| label.id.chars().count()).max();
    let width = longest.unwrap_or(0).max("LABEL".len());
    let mut table = format!("{:width$}  NAME\n", "LABEL");
    for label in labels {
        let name = printable(label.name.as_deref().unwrap_or_default());
        table.push_str(&format!("{:width$}  {name}\n", printable(&label.id)));
    }
    table
}
