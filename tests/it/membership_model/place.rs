//! Where the messages and the members of the model are kept.

use std::collections::{BTreeMap, BTreeSet};

use labelcast::broker::BrokerOptions;
use labelcast::broker::factory::{Address, Broker, StateAddress};
use labelcast::message::Format;
use redis::Commands as _;

use crate::support::rabbitmq::{Client, Message, Vhost, vhost};
use crate::support::redis::{Server, field, numbered_entries};
use crate::support::{INSTANCE, messages_in};

/// A sink, and where it keeps the members.
pub(super) trait Place {
    const FORMAT: Format;

    /// Whether events are published while a run holds the queue.
    const EVENTS_DURING_RUNS: bool = true;

    fn broker(&self) -> Broker;

    /// What is kept of the label now.
    fn kept(&self) -> Kept;

    /// All messages so far, without repeats: a chat, and whether it joined.
    fn told(&mut self) -> Vec<(String, bool)>;

    /// Ends what a dropped session has left alive.
    fn end_worker(&self) {}
}

/// What is kept of the label.
#[derive(Default)]
pub(super) struct Kept {
    /// Records of chats.
    pub(super) records: BTreeMap<String, String>,
    /// Number of members.
    pub(super) counted: usize,
}

fn broker(url: &str, state: Option<&str>) -> Broker {
    Broker {
        address: Address::parse(url).unwrap(),
        options: BrokerOptions::default(),
        state: state.map(|url| StateAddress::parse(url).unwrap()),
    }
}

/// Deletes locks, as they expire later.
fn expire_all_locks(server: &Server) {
    let mut connection = server.connection();
    let locks: Vec<String> = connection.keys("labelcast:*lock:*").unwrap();
    for lock in locks {
        let _: () = connection.del(lock).unwrap();
    }
}

/// Redis Streams, which keep the members themselves.
pub(super) struct Stream {
    server: Server,
    partitions: Option<u32>,
}

impl Stream {
    pub(super) fn start(partitions: Option<u32>) -> Self {
        Self {
            server: Server::start(&[]),
            partitions,
        }
    }

    fn streams(&self) -> Vec<(String, String)> {
        match self.partitions {
            None => vec![("q".to_owned(), "{q}:removed".to_owned())],
            Some(count) => (0..count)
                .map(|index| (format!("q:{{{index}}}"), format!("q:{{{index}}}:removed")))
                .collect(),
        }
    }
}

impl Place for Stream {
    const FORMAT: Format = Format::Fields;

    fn broker(&self) -> Broker {
        let mut broker = broker(&self.server.url(), None);
        broker.options.partitions = self.partitions;
        broker
    }

    fn kept(&self) -> Kept {
        let mut connection = self.server.connection();
        let mut kept = Kept::default();
        for (stream, _) in self.streams() {
            let tag = stream.split(['{', '}']).nth(1).unwrap_or("q").to_owned();
            let key = format!("labelcast:members:{{{tag}}}:{stream}:{INSTANCE}:1");
            let records: BTreeMap<String, String> = connection.hgetall(&key).unwrap();
            kept.records
                .extend(records.into_iter().filter(|(chat, _)| chat != ":"));
            let note = key.replace("members", "membership");
            let counted: Option<usize> = connection.hget(&note, "members").unwrap();
            kept.counted += counted.unwrap_or(0);
        }
        kept
    }

    fn told(&mut self) -> Vec<(String, bool)> {
        let mut connection = self.server.connection();
        let mut told = Vec::new();
        for (stream, removed) in self.streams() {
            for (stream, joined) in [(stream, true), (removed, false)] {
                let entries = numbered_entries(&mut connection, &stream).into_iter();
                told.extend(entries.map(|(_, it)| (field(&it, "chat_id").unwrap(), joined)));
            }
        }
        told
    }

    fn end_worker(&self) {
        expire_all_locks(&self.server);
    }
}

/// Where the members are kept if the sink keeps none.
enum State {
    File(tempfile::TempDir),
    Redis(Server),
}

impl State {
    fn url(&self) -> String {
        match self {
            Self::File(folder) => format!("file:{}", folder.path().join("state").display()),
            Self::Redis(server) => server.url(),
        }
    }

    fn kept(&self) -> Kept {
        match self {
            Self::File(folder) => kept_in_file(&folder.path().join("state")),
            Self::Redis(server) => kept_in_redis(server),
        }
    }
}

fn kept_in_file(path: &std::path::Path) -> Kept {
    let database = rusqlite::Connection::open(path).unwrap();
    let select = "SELECT chat_id, substr('mnr', state + 1, 1) FROM members_1 WHERE state < 3";
    let mut select = database.prepare(select).unwrap();
    let rows = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    let records = rows.unwrap().map(Result::unwrap).collect();
    let counted = "SELECT members FROM lists";
    let counted: i64 = database.query_row(counted, [], |row| row.get(0)).unwrap();
    Kept {
        records,
        counted: counted as usize,
    }
}

fn kept_in_redis(server: &Server) -> Kept {
    let mut connection = server.connection();
    let key = format!("labelcast:state-members:{{q}}:q:{INSTANCE}:1");
    let mut records: BTreeMap<String, String> = connection.hgetall(&key).unwrap();
    let counted = records.remove(":").map_or(0, |it| it.parse().unwrap());
    for other in ["", "::"] {
        records.remove(other);
    }
    Kept { records, counted }
}

/// A RabbitMQ queue.
pub(super) struct Queue {
    client: Client,
    state: State,
    broker: Broker,
    told: Vec<(String, bool)>,
    ids: BTreeSet<String>,
    _vhost: Vhost,
}

impl Queue {
    pub(super) fn with_file() -> Self {
        Self::start(State::File(tempfile::tempdir().unwrap()))
    }

    pub(super) fn with_redis() -> Self {
        Self::start(State::Redis(Server::start(&[])))
    }

    fn start(state: State) -> Self {
        let vhost = vhost();
        let client = vhost.client();
        for queue in ["q", "q:removed"] {
            let quorum = ("x-queue-type", serde_json::json!("quorum"));
            client.declare(queue, &[quorum]);
        }
        Self {
            client,
            broker: broker(&vhost.url(), Some(&state.url())),
            state,
            told: Vec::new(),
            ids: BTreeSet::new(),
            _vhost: vhost,
        }
    }
}

impl Place for Queue {
    const FORMAT: Format = Format::Json;

    fn broker(&self) -> Broker {
        // All clones share an open file.
        self.broker.clone()
    }

    fn kept(&self) -> Kept {
        self.state.kept()
    }

    fn told(&mut self) -> Vec<(String, bool)> {
        for (queue, joined) in [("q", true), ("q:removed", false)] {
            // The client has a runtime of its own.
            let client = &self.client;
            let drained = std::thread::scope(|scope| scope.spawn(|| client.drain(queue)).join());
            for message in drained.unwrap() {
                let chat = message.data["chat_id"].as_str().unwrap().to_owned();
                if self.ids.insert(Message::id(&message)) {
                    self.told.push((chat, joined));
                }
            }
        }
        self.told.clone()
    }

    fn end_worker(&self) {
        if let State::Redis(server) = &self.state {
            expire_all_locks(server);
        }
    }
}

/// A file. Events wait while a run holds it.
pub(super) struct JsonLines {
    folder: tempfile::TempDir,
    state: State,
    broker: Broker,
}

impl JsonLines {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let state = State::File(tempfile::tempdir().unwrap());
        let url = format!("file:{}", folder.path().join("out").display());
        Self {
            broker: broker(&url, Some(&state.url())),
            folder,
            state,
        }
    }
}

impl Place for JsonLines {
    const FORMAT: Format = Format::Json;
    const EVENTS_DURING_RUNS: bool = false;

    fn broker(&self) -> Broker {
        self.broker.clone()
    }

    fn kept(&self) -> Kept {
        self.state.kept()
    }

    fn told(&mut self) -> Vec<(String, bool)> {
        let mut told = Vec::new();
        for (name, joined) in [("out", true), ("out.removed", false)] {
            let path = self.folder.path().join(name);
            let messages = match path.exists() {
                true => messages_in(&path),
                false => Vec::new(),
            };
            let mut seen = BTreeSet::new();
            for message in messages.iter().filter(|it| seen.insert(it.to_string())) {
                told.push((message["chat_id"].as_str().unwrap().to_owned(), joined));
            }
        }
        told
    }
}
