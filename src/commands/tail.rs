//! `labelcast tail`: what is on the queue, one JSON line a message.

use serde_json::{Map, Value};

use super::{fail, logged, print_open, set_up_log, settled};
use crate::cli::TailFlags;
use crate::config::{Layers, ProgressMode};
use crate::error::{Error, Exit};
use crate::report::Progress;
use crate::shutdown::Shutdown;
use crate::sink::redis::tail::{Message, Reader, Tail};
use crate::sink::{Destination, SinkError};

pub(super) async fn tail(layers: Layers, flags: TailFlags) -> Exit {
    let settings = settled(layers, |layers| {
        let (tail, log) = (layers.tail(), layers.log());
        Some((tail?, log?))
    });
    let ((destination, queue), log) = match settings {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    set_up_log(&log, &Progress::new(ProgressMode::Never, true));
    let Destination::Redis(redis) = destination else {
        let text = "lines can be looked at with any tool: tail reads brokers".to_owned();
        return logged(&Error::Sink(SinkError::WrongQueue(text)));
    };
    let tail = Tail {
        endpoint: redis.endpoint,
        queue,
        group: flags.group,
        consumer: flags.consumer,
        ack: flags.ack,
        delete: flags.delete,
        follow: flags.follow,
    };
    match read(tail, flags.count).await {
        Ok(()) => Exit::Complete,
        Err(error) => logged(&error),
    }
}

async fn read(tail: Tail, count: Option<u64>) -> Result<(), Error> {
    let (shutdown, _listener) = Shutdown::listen(None)
        .map_err(|error| Error::Bug(format!("signals cannot be listened for: {error}")))?;
    let follow = tail.follow;
    let mut reader = Reader::open(tail).await?;
    let mut left = count.unwrap_or(u64::MAX);
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

/// A message as a line: its fields, with those that are JSON as JSON.
fn line(message: &Message) -> String {
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
