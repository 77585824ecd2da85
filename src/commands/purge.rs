//! `labelcast purge`: deletes what is stored about chats.

use super::{fail, init_log, listen, load, logged, print};
use crate::broker::factory::Broker;
use crate::broker::{Purge, Purged};
use crate::cli::PurgeFlags;
use crate::config::ConfigSources;
use crate::error::Error;
use crate::exit::Exit;
use crate::progress::{Progress, ProgressMode};
use crate::retry::RetryPolicy;

pub(super) async fn purge(sources: ConfigSources, flags: PurgeFlags) -> Exit {
    let settings = load(sources, |sources| {
        let (account, labels) = (sources.account(), sources.purged_labels());
        let (sink, log) = (sources.sink(), sources.log());
        Some((account?, labels?, sink?, log?))
    });
    let ((instance_id, retries), labels, sink, log) = match settings {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    init_log(&log, &Progress::new(ProgressMode::Never, true));
    let purge = Purge {
        queue: sink.queue,
        instance_id,
        labels,
        selection: flags.selection,
        dry_run: flags.dry_run,
    };
    let ended = run(&sink.broker, &purge, retries, flags.json).await;
    ended.unwrap_or_else(|error| logged(&error))
}

async fn run(broker: &Broker, purge: &Purge, retries: usize, json: bool) -> Result<Exit, Error> {
    let (shutdown, _listener) = listen(None)?;
    let retry = RetryPolicy::new(retries, shutdown);
    let outcome = broker.purge(purge, &retry).await;
    let mut exit = Exit::Complete;
    for error in outcome.errors {
        exit = exit.heavier(logged(&error.into()));
    }
    print(&if json {
        line(&outcome.purged, purge.dry_run)
    } else {
        table(&outcome.purged, purge.dry_run)
    })?;
    Ok(exit)
}

fn line(purged: &Purged, dry_run: bool) -> String {
    let mut line = serde_json::json!(purged);
    line["dry_run"] = dry_run.into();
    format!("{line}\n")
}

fn table(purged: &Purged, dry_run: bool) -> String {
    let rows = [
        ("messages", purged.messages),
        ("messages about removals", purged.removed_messages),
        ("members", purged.members),
        ("times of publication", purged.publication_times),
        ("dedup sets", purged.dedup_sets),
        ("event ids", purged.events),
        ("checkpoints", purged.checkpoints),
        ("manifests", purged.manifests),
        ("counts", purged.counts),
    ];
    let title = if dry_run {
        "WOULD BE DELETED"
    } else {
        "DELETED"
    };
    let width = title.len();
    let mut table = format!("{:24}{title}\n", "");
    for (name, number) in rows {
        table.push_str(&format!("{name:24}{number:>width$}\n"));
    }
    table
}
