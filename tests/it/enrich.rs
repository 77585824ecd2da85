//! `labelcast enrich`: from chat ids on one queue to records of contacts on another.

mod failures;
mod faults;
mod records;
mod settings;
mod sharing;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::support::rabbitmq::{Vhost, vhost};
use crate::support::redis::{Server, length, numbered_entries};
use crate::support::{Ended, Running, Stage};

const FROM: &str = "labelcast:1";
const TO: &str = "enriched";
const FAILED: &str = "enriched:failed";
const RUN: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

/// A broker with the queues of a worker.
trait Place {
    /// Whether the broker drops what it already has.
    const REMEMBERS: bool;

    fn url(&self) -> String;

    /// Puts JSON messages on a queue.
    fn put(&self, queue: &str, messages: &[Value]);

    /// Returns the messages of a queue with their identities, where the broker shows them. On
    /// RabbitMQ they are taken off the queue.
    fn take(&self, queue: &str) -> Vec<(Option<String>, Value)>;

    /// Returns the number of messages of a queue.
    fn length(&self, queue: &str) -> usize;

    /// Whether no message of the queue of chat ids is left for any worker.
    fn is_done(&self) -> bool;
}

/// Redis Streams.
struct Streams(Server);

impl Streams {
    fn start() -> Self {
        Self(Server::start(&[]))
    }
}

impl Place for Streams {
    const REMEMBERS: bool = true;

    fn url(&self) -> String {
        self.0.url()
    }

    fn put(&self, queue: &str, messages: &[Value]) {
        let mut pipe = redis::pipe();
        for message in messages {
            let fields = ["*", "data", &message.to_string()];
            pipe.cmd("XADD").arg(queue).arg(&fields);
        }
        pipe.exec(&mut self.0.connection()).unwrap();
    }

    fn take(&self, queue: &str) -> Vec<(Option<String>, Value)> {
        let entries = numbered_entries(&mut self.0.connection(), queue);
        let message = |fields: Vec<(String, String)>| -> Value {
            let fields: BTreeMap<String, String> = fields.into_iter().collect();
            match fields.get("data") {
                Some(data) => serde_json::from_str(data).unwrap(),
                None => json!(fields),
            }
        };
        let entries = entries.into_iter();
        entries.map(|(_, fields)| (None, message(fields))).collect()
    }

    fn length(&self, queue: &str) -> usize {
        length(&mut self.0.connection(), queue)
    }

    fn is_done(&self) -> bool {
        let groups: redis::Value = redis::cmd("XINFO")
            .arg(&["GROUPS", FROM])
            .query(&mut self.0.connection())
            .unwrap();
        let groups: Vec<BTreeMap<String, redis::Value>> = redis::from_redis_value(groups).unwrap();
        let number = |name: &str| redis::from_redis_value::<Option<u64>>(groups[0][name].clone());
        number("pending").unwrap() == Some(0) && number("lag").unwrap() == Some(0)
    }
}

/// Quorum queues.
struct Queues(Vhost);

impl Queues {
    fn start() -> Self {
        Self(vhost())
    }
}

impl Place for Queues {
    const REMEMBERS: bool = false;

    fn url(&self) -> String {
        self.0.url()
    }

    fn put(&self, queue: &str, messages: &[Value]) {
        let client = self.0.client();
        client.declare(queue, &[("x-queue-type", "quorum".into())]);
        client.put_all(queue, messages);
    }

    fn take(&self, queue: &str) -> Vec<(Option<String>, Value)> {
        let client = self.0.client();
        if client.depth(queue).is_none() {
            return Vec::new();
        }
        let messages = client.drain(queue).into_iter();
        messages
            .map(|message| (Some(message.id()), message.data))
            .collect()
    }

    fn length(&self, queue: &str) -> usize {
        self.0.client().depth(queue).unwrap_or(0)
    }

    fn is_done(&self) -> bool {
        self.length(FROM) == 0
    }
}

/// The id of a contact of the stand-in.
fn chat(number: u64) -> String {
    format!("{}@c.us", 4_915_550_000_000 + number)
}

/// The message of a chat, as a run publishes it.
fn of_run(chat_id: &str) -> Value {
    json!({"chat_id": chat_id, "label_id": "1", "run_id": RUN})
}

fn of_runs(count: u64) -> Vec<Value> {
    (0..count).map(|number| of_run(&chat(number))).collect()
}

/// A worker that uses the stand-in, with JSON on both brokers.
fn worker(stage: &Stage, place: &impl Place) -> Running {
    let url = place.url();
    stage
        .program("enrich")
        .args(["--sink", &url, "--from", FROM, "--to", TO])
        .args([
            "--format",
            "json",
            "--rate",
            "10000/s",
            "--log-format",
            "json",
        ])
}

/// Lets a worker enrich everything.
fn drain(stage: &Stage, place: &impl Place) -> Ended {
    worker(stage, place).arg("--drain").end().expect(0)
}

/// Returns records by their chats, and checks that there is one for each.
#[track_caller]
fn by_chat(records: Vec<(Option<String>, Value)>) -> BTreeMap<String, Map<String, Value>> {
    let mut found = BTreeMap::new();
    for (_, record) in records {
        let chat_id = record["chat_id"].as_str().unwrap().to_owned();
        let Value::Object(record) = record else {
            panic!("{record}");
        };
        let before = found.insert(chat_id, record);
        assert!(before.is_none(), "twice: {before:?}");
    }
    found
}
