//! `labelcast tail`: what is on the queue, one JSON line a message.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{fail, init_log, listen, load, logged, print_open};
use crate::cli::TailFlags;
use crate::config::ConfigSources;
use crate::error::Error;
use crate::exit::Exit;
use crate::progress::{Progress, ProgressMode};

use crate::broker::{BrokerError, Destination, rabbitmq, redis};
use crate::shutdown::Shutdown;

/// How often an empty queue of RabbitMQ's is looked at.
const LOOK: Duration = Duration::from_millis(200);

pub(super) async fn tail(sources: ConfigSources, flags: TailFlags) -> Exit {
    let settings = load(sources, |sources| {
        let (tail, log) = (sources.tail(), sources.log());
        Some((tail?, log?))
    });
    let ((destination, queue), log) = match settings {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    init_log(&log, &Progress::new(ProgressMode::Never, true));
    match read(destination, queue, flags).await {
        Ok(()) => Exit::Complete,
        Err(error) => logged(&error),
    }
}

async fn read(destination: Destination, queue: String, flags: TailFlags) -> Result<(), Error> {
    let (shutdown, _listener) = listen(None)?;
    let left = flags.count.unwrap_or(u64::MAX);
    match destination {
        Destination::Redis(settings) => {
            let tail = redis::tail::Tail {
                endpoint: settings.endpoint,
                queue,
                group: flags.group,
                consumer: flags.consumer,
                ack: flags.ack,
                delete: flags.delete,
                follow: flags.follow,
            };
            read_redis(tail, left, &shutdown).await
        }
        Destination::RabbitMq(settings) if !flags.delete => {
            let tail = rabbitmq::tail::Tail {
                endpoint: settings.endpoint,
                queue,
                is_stream: settings.queue_type == rabbitmq::QueueType::Stream,
                ack: flags.ack,
            };
            read_rabbitmq(tail, left, flags.follow, &shutdown).await
        }
        Destination::RabbitMq(_) => {
            let text = "--ack takes what was read off a RabbitMQ queue: --delete is for Redis";
            Err(BrokerError::WrongQueue(text.to_owned()).into())
        }
        Destination::Lines(_) => {
            let text = "lines can be looked at with any tool: tail reads brokers";
            Err(BrokerError::WrongQueue(text.to_owned()).into())
        }
    }
}

async fn read_redis(
    tail: redis::tail::Tail,
    mut left: u64,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let follow = tail.follow;
    let mut reader = tokio::select! {
        _ = shutdown.stopped() => return Ok(()),
        reader = redis::tail::Reader::open(tail) => reader?,
    };
    while left > 0 {
        let messages = tokio::select! {
            _ = shutdown.stopped() => return Ok(()),
            messages = reader.next(left) => messages?,
        };
        if messages.is_empty() && !follow {
            return Ok(());
        }
        let lines: String = messages.iter().map(line).collect();
        if !print_open(&lines)? {
            // Nobody has seen these: they stay pending.
            return Ok(());
        }
        reader.done(&messages).await?;
        left = left.saturating_sub(messages.len() as u64);
    }
    Ok(())
}

async fn read_rabbitmq(
    tail: rabbitmq::tail::Tail,
    mut left: u64,
    follow: bool,
    shutdown: &Shutdown,
) -> Result<(), Error> {
    let mut reader = tokio::select! {
        _ = shutdown.stopped() => return Ok(()),
        reader = rabbitmq::tail::Reader::open(tail) => reader?,
    };
    while left > 0 {
        let next = tokio::select! {
            _ = shutdown.stopped() => return Ok(()),
            next = reader.next() => next?,
        };
        let Some(message) = next else {
            if follow {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            return Ok(());
        };
        if !print_open(&format!("{message}\n"))? {
            // Nobody has seen this one: it goes back to the queue.
            return Ok(());
        }
        reader.done().await?;
        left -= 1;
    }
    Ok(())
}

/// A message as a line: its fields, with those that are JSON as JSON.
fn line(message: &redis::tail::Message) -> String {
    let mut object = Map::new();
    object.insert("entry_id".to_owned(), message.id.clone().into());
    for (name, text) in &message.fields {
        let value = match name.as_str() {
            "data" | "chat_ids" | "names" => serde_json::from_str(text).ok(),
            _ => None,
        };
        object.insert(name.clone(), value.unwrap_or_else(|| text.clone().into()));
    }
    Value::from(object).to_string() + "\n"
}
