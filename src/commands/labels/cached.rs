//! `labelcast labels --cached`: the stored counts, without asking the API.

use tracing::warn;

use super::show;
use crate::broker::{BrokerError, CountStore};
use crate::cli::LabelsFlags;
use crate::commands::{fail, init_log, listen, load, logged};
use crate::config::ConfigSources;
use crate::error::Error;
use crate::exit::Exit;
use crate::progress::{Progress, ProgressMode};
use crate::retry::RetryPolicy;
use crate::state::counts::LabelCount;

pub(super) async fn counts(sources: ConfigSources, flags: &LabelsFlags) -> Exit {
    let settings = load(sources, |sources| {
        let (account, broker, log) = (sources.account(), sources.counts(), sources.log());
        Some((account?, broker?, log?))
    });
    let ((instance_id, retries), broker, log) = match settings {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    let Some(mut store) = broker.count_store(&instance_id) else {
        return fail(&Error::Broker(BrokerError::Misconfigured {
            problem: "--cached needs a state with the counts of earlier runs".to_owned(),
            fix: "use a Redis sink in --sink, or --state; without --cached, the chats are counted now",
        }));
    };
    init_log(&log, &Progress::new(ProgressMode::Never, true));
    let shown = match read(&mut *store, retries).await {
        Ok(counts) => print(counts, flags),
        Err(error) => Err(error),
    };
    match shown {
        Ok(()) => Exit::Complete,
        Err(error) => logged(&error),
    }
}

/// Reads the counts, with retries, unless a signal arrives.
async fn read(store: &mut dyn CountStore, retries: usize) -> Result<Vec<LabelCount>, Error> {
    let (shutdown, _listener) = listen(None)?;
    let mut retries = RetryPolicy::new(retries, shutdown).retries();
    loop {
        match store.load().await {
            Ok(counts) => return Ok(counts),
            Err(error) => retries.pause(error).await?,
        }
    }
}

fn print(counts: Vec<LabelCount>, flags: &LabelsFlags) -> Result<(), Error> {
    if counts.is_empty() {
        warn!("no counts are stored for this account; `labelcast labels --counts` stores them");
    }
    let counted: Vec<_> = counts.into_iter().map(Into::into).collect();
    show(&counted, flags)
}
