//! The enrichment in `labelcast demo --live`: a worker for each queue, in the same process.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::join_all;
use tracing::warn;

use crate::enrich::lookup::Include;
use crate::enrich::metrics::Metrics;
use crate::enrich::worker::Worker;
use crate::enrich::{self, EnrichSettings, LookupSettings, Queues};
use crate::error::Error;
use crate::live::{Live, LiveSettings};
use crate::message::ContactField;
use crate::shutdown::Shutdown;

/// Requests of each worker: slow enough to watch.
const RATE: &str = "5/s";
/// The consumer group.
const GROUP: &str = "labelcast-demo";

/// Builds the workers, which the dashboard shows from now on. There are none without a broker, or
/// where its queues cannot acknowledge single messages.
pub(super) fn workers(
    live: &mut Live,
    settings: &LiveSettings,
    labels: impl Iterator<Item = String>,
    shutdown: &Shutdown,
) -> Result<Vec<Worker>, Error> {
    let LiveSettings { api, sink, .. } = settings;
    if !sink.broker.has_workers() {
        return Ok(Vec::new());
    }
    let queues = labels.map(|label| sink.target(&label, &api.instance_id).queue);
    // Labels may share one.
    let queues: BTreeSet<String> = queues.collect();
    let rate = RATE
        .parse()
        .map_err(|error| Error::Bug(format!("{RATE}: {error}")))?;
    let worker = |from: String| {
        let metrics = Arc::new(Metrics::new());
        live.show_enrichment(&from, Arc::clone(&metrics));
        let settings = EnrichSettings {
            api: api.clone(),
            sink: sink.clone(),
            queues: Queues {
                to: records(&from),
                from,
                group: GROUP.to_owned(),
            },
            lookups: LookupSettings {
                concurrency: 2,
                rate,
                include: Include::default(),
                check_exists: false,
                attempts: 3,
            },
            fields: ContactField::ALL.to_vec(),
            drain: false,
        };
        enrich::worker(&settings, &metrics, shutdown)
    };
    queues.into_iter().map(worker).collect()
}

/// The queue of the records of a queue.
pub(super) fn records(from: &str) -> String {
    format!("{from}:contacts")
}

/// Works until a stop.
pub(super) async fn enrich(workers: Vec<Worker>, shutdown: &Shutdown) {
    let run = async |worker: Worker| {
        if let Err(error) = worker.run(shutdown).await {
            warn!("enrichment has ended: {error}");
        }
    };
    join_all(workers.into_iter().map(run)).await;
}
