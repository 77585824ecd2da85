//! `labelcast tail`: prints the messages in the queue, one JSON line per message.

use serde_json::Value;

use super::{fail, init_log, listen, load, logged, print_open};
use crate::broker::ConsumerOptions;
use crate::broker::factory::Broker;
use crate::cli::TailFlags;
use crate::config::ConfigSources;
use crate::error::Error;
use crate::exit::Exit;
use crate::progress::{Progress, ProgressMode};

pub(super) async fn tail(sources: ConfigSources, flags: TailFlags) -> Exit {
    let settings = load(sources, |sources| {
        let (tail, log) = (sources.tail(), sources.log());
        Some((tail?, log?))
    });
    let ((broker, queue), log) = match settings {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    init_log(&log, &Progress::new(ProgressMode::Never, true));
    let count = flags.count.unwrap_or(u64::MAX);
    let options = ConsumerOptions {
        queue,
        group: flags.group,
        consumer: flags.consumer,
        ack: flags.ack,
        delete: flags.delete,
        follow: flags.follow,
    };
    match read(&broker, options, count).await {
        Ok(()) => Exit::Complete,
        Err(error) => logged(&error),
    }
}

/// Prints up to `count` messages. Ends at a stop, and without `--follow` when the queue is empty.
async fn read(broker: &Broker, options: ConsumerOptions, count: u64) -> Result<(), Error> {
    let (shutdown, _listener) = listen(None)?;
    let follow = options.follow;
    let mut consumer = tokio::select! {
        _ = shutdown.stopped() => return Ok(()),
        consumer = broker.consumer(options) => consumer?,
    };
    let mut left = count;
    while left > 0 {
        let deliveries = tokio::select! {
            _ = shutdown.stopped() => return Ok(()),
            deliveries = consumer.receive(left) => deliveries?,
        };
        if deliveries.is_empty() && !follow {
            return Ok(());
        }
        let lines: String = deliveries
            .iter()
            .map(|delivery| format!("{}\n", Value::from(delivery.message.clone())))
            .collect();
        if !print_open(&lines)? {
            // stdout was closed, so these messages are not acknowledged and are delivered again.
            return Ok(());
        }
        consumer.acknowledge(&deliveries).await?;
        left = left.saturating_sub(deliveries.len() as u64);
    }
    Ok(())
}
