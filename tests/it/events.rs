//! Guarantees of every broker for single events: they are durable when the call returns, in their
//! order, and a repeat is known by its id. To add a broker, write a [`Subject`] and add a line to
//! the list below.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use labelcast::broker::factory::{Address, Broker, StateAddress};
use labelcast::broker::memory::{Fault, Memory};
use labelcast::broker::{
    BrokerError, BrokerOptions, EventOutcome, EventSink, NoPauses, SessionContext, SnapshotSink,
    Target,
};
use labelcast::message::{Change, Format, LabelEvent, Layout};
use labelcast::retry::RetryPolicy;
use labelcast::shutdown::Shutdown;
use labelcast::state::{Membership, Publish};

use crate::support::proxy::{Direction, Proxy};
use crate::support::rabbitmq::{Client, Vhost, vhost};
use crate::support::redis::{Server, entries, field};
use crate::support::{INSTANCE, messages_in};

const QUEUE: &str = "labelcast:1";

macro_rules! brokers {
    ($($name:ident: $start:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn events_are_there_in_order_when_the_call_returns() {
                super::events_are_there_in_order_when_the_call_returns($start);
            }

            #[test]
            fn a_repeat_is_known_by_its_id() {
                super::a_repeat_is_known_by_its_id($start);
            }

            #[test]
            fn a_lost_reply_loses_no_event() {
                super::a_lost_reply_loses_no_event($start);
            }

            #[test]
            fn many_writers_need_no_lock() {
                super::many_writers_need_no_lock($start);
            }
        }
    )*};
}

brokers! {
    to_memory: InMemory::default();
    to_redis: Redis::start(None);
    to_redis_partitions: Redis::start(Some(3));
    to_a_quorum_queue: Queue::start();
    to_a_file_with_a_state_in_a_file: JsonLines::start();
    to_a_queue_with_a_state_in_a_file: Tracked::with_file();
    to_a_queue_with_a_state_in_redis: Tracked::with_redis();
}

/// A broker under test.
trait Subject {
    /// Whether the broker remembers ids, so that nothing is published twice.
    const REMEMBERS: bool;

    /// Whether a message comes again if its confirm was lost.
    const REPEATS: bool = !Self::REMEMBERS;

    /// Whether events wait for a run that holds the queue.
    const WAITS_FOR_RUNS: bool = false;

    fn event_sink(&self) -> Box<dyn EventSink>;

    fn snapshot_sink(&self) -> Box<dyn SnapshotSink>;

    /// Lets the broker take the next write, and loses its reply.
    fn lose_reply(&self);

    /// Whether the reply was lost.
    fn has_lost_reply(&self) -> bool;

    /// Id and chat of all messages so far, in their order.
    fn messages(&mut self) -> Vec<(String, String)>;
}

fn context(format: Format) -> SessionContext {
    let retry = RetryPolicy::new(5, Shutdown::manual(None));
    SessionContext {
        target: Target {
            queue: QUEUE.to_owned(),
            label_id: "1".to_owned(),
            instance_id: INSTANCE.to_owned(),
        },
        layout: Layout {
            format,
            ids_per_message: 1,
            include_names: false,
        },
        retry: retry.with_first_pause(Duration::from_millis(10)),
        selection: labelcast::state::Selection::default(),
        pauses: Arc::new(NoPauses),
    }
}

fn broker(url: &str, partitions: Option<u32>) -> Broker {
    Broker {
        address: Address::parse(url).unwrap(),
        options: BrokerOptions {
            partitions,
            ..BrokerOptions::default()
        },
        state: None,
    }
}

#[derive(Default)]
struct InMemory(Memory);

impl Subject for InMemory {
    const REMEMBERS: bool = true;

    fn event_sink(&self) -> Box<dyn EventSink> {
        self.0.event_sink(&context(Format::Json))
    }

    fn snapshot_sink(&self) -> Box<dyn SnapshotSink> {
        self.0.sink(context(Format::Json))
    }

    fn lose_reply(&self) {
        self.0.script(Fault::LoseReply);
    }

    fn has_lost_reply(&self) -> bool {
        self.0.faults_left() == 0
    }

    fn messages(&mut self) -> Vec<(String, String)> {
        let messages = self.0.messages().into_iter();
        messages
            .map(|message| (message.run_id.to_string(), message.chat_id))
            .collect()
    }
}

struct Redis {
    server: Server,
    proxy: Proxy,
    partitions: Option<u32>,
}

impl Redis {
    fn start(partitions: Option<u32>) -> Self {
        let server = Server::start(&[]);
        Self {
            proxy: Proxy::start(server.port),
            server,
            partitions,
        }
    }
}

impl Subject for Redis {
    const REMEMBERS: bool = true;

    fn event_sink(&self) -> Box<dyn EventSink> {
        let broker = broker(&self.proxy.url(), self.partitions);
        broker.event_sink(&context(Format::Fields))
    }

    fn snapshot_sink(&self) -> Box<dyn SnapshotSink> {
        broker(&self.server.url(), self.partitions).sink(context(Format::Fields))
    }

    fn lose_reply(&self) {
        self.proxy.cut_after(0, Direction::ToClient);
    }

    fn has_lost_reply(&self) -> bool {
        !self.proxy.is_armed()
    }

    fn messages(&mut self) -> Vec<(String, String)> {
        let streams = match self.partitions {
            None => vec![QUEUE.to_owned()],
            Some(count) => (0..count).map(|i| format!("{QUEUE}:{{{i}}}")).collect(),
        };
        let mut connection = self.server.connection();
        let all = streams
            .iter()
            .flat_map(|name| entries(&mut connection, name));
        let mut messages: Vec<_> = all
            .map(|entry| {
                let at = field(&entry, "occurred_at").unwrap();
                let text = |name: &str| field(&entry, name).unwrap();
                (at, (text("event_id"), text("chat_id")))
            })
            .collect();
        if self.partitions.is_some() {
            // There is no order between partitions.
            messages.sort();
        }
        messages.into_iter().map(|(_, message)| message).collect()
    }
}

struct Queue {
    vhost: Vhost,
    client: Client,
    proxy: Proxy,
    taken: Vec<(String, String)>,
}

impl Queue {
    fn start() -> Self {
        let vhost = vhost();
        Self {
            client: vhost.client(),
            proxy: Proxy::start(vhost.port),
            vhost,
            taken: Vec::new(),
        }
    }
}

impl Subject for Queue {
    const REMEMBERS: bool = false;

    fn event_sink(&self) -> Box<dyn EventSink> {
        let broker = broker(&self.vhost.url_by(self.proxy.port), None);
        broker.event_sink(&context(Format::Json))
    }

    fn snapshot_sink(&self) -> Box<dyn SnapshotSink> {
        broker(&self.vhost.url(), None).sink(context(Format::Json))
    }

    fn lose_reply(&self) {
        self.proxy.cut_after(0, Direction::ToClient);
    }

    fn has_lost_reply(&self) -> bool {
        !self.proxy.is_armed()
    }

    fn messages(&mut self) -> Vec<(String, String)> {
        let taken = self.client.drain(QUEUE).into_iter();
        self.taken.extend(taken.map(|message| {
            let chat = message.data["chat_id"].as_str().unwrap().to_owned();
            (message.id(), chat)
        }));
        self.taken.clone()
    }
}

/// A context in which the membership is kept.
fn tracked_context(retries: usize) -> SessionContext {
    let retry = RetryPolicy::new(retries, Shutdown::manual(None));
    let mut context = SessionContext {
        retry: retry.with_first_pause(Duration::from_millis(10)),
        ..context(Format::Json)
    };
    context.selection.membership = Some(Membership {
        publish: Publish::New,
        removed: false,
        min_age: None,
        max_change: 50,
    });
    context
}

/// A RabbitMQ queue with a state elsewhere. What is lost are confirms of the queue with a state in a
/// file, and replies of Redis with a state there.
struct Tracked {
    queue: Queue,
    broker: Broker,
    state: Option<(Server, Proxy)>,
    _folder: tempfile::TempDir,
}

impl Tracked {
    fn with_file() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file:{}", folder.path().join("state").display());
        Self::start(&url, folder, None)
    }

    fn with_redis() -> Self {
        let server = Server::start(&[]);
        let proxy = Proxy::start(server.port);
        let folder = tempfile::tempdir().unwrap();
        Self::start(&proxy.url(), folder, Some((server, proxy)))
    }

    fn start(url: &str, folder: tempfile::TempDir, state: Option<(Server, Proxy)>) -> Self {
        let queue = Queue::start();
        let broker = Broker {
            state: Some(StateAddress::parse(url).unwrap()),
            ..broker(&queue.vhost.url_by(queue.proxy.port), None)
        };
        Self {
            queue,
            broker,
            state,
            _folder: folder,
        }
    }

    fn proxy(&self) -> &Proxy {
        match &self.state {
            Some((_, proxy)) => proxy,
            None => &self.queue.proxy,
        }
    }
}

impl Subject for Tracked {
    const REMEMBERS: bool = true;
    const REPEATS: bool = true;

    fn event_sink(&self) -> Box<dyn EventSink> {
        self.broker.event_sink(&tracked_context(5))
    }

    fn snapshot_sink(&self) -> Box<dyn SnapshotSink> {
        self.broker.sink(tracked_context(5))
    }

    fn lose_reply(&self) {
        self.proxy().cut_after(0, Direction::ToClient);
    }

    fn has_lost_reply(&self) -> bool {
        !self.proxy().is_armed()
    }

    fn messages(&mut self) -> Vec<(String, String)> {
        self.queue.messages()
    }
}

/// A file with a state in another one. There is no reply that could be lost.
struct JsonLines {
    broker: Broker,
    folder: tempfile::TempDir,
}

impl JsonLines {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("file:{}", folder.path().join(name).display());
        let broker = Broker {
            state: Some(StateAddress::parse(&url("state")).unwrap()),
            ..broker(&url("out.jsonl"), None)
        };
        Self { broker, folder }
    }
}

impl Subject for JsonLines {
    const REMEMBERS: bool = true;
    const WAITS_FOR_RUNS: bool = true;

    fn event_sink(&self) -> Box<dyn EventSink> {
        self.broker.event_sink(&tracked_context(0))
    }

    fn snapshot_sink(&self) -> Box<dyn SnapshotSink> {
        self.broker.sink(tracked_context(0))
    }

    fn lose_reply(&self) {}

    fn has_lost_reply(&self) -> bool {
        true
    }

    fn messages(&mut self) -> Vec<(String, String)> {
        let messages = messages_in(&self.folder.path().join("out.jsonl"));
        let text = |message: &serde_json::Value, key: &str| message[key].as_str().unwrap().into();
        let message = |it| (text(&it, "event_id"), text(&it, "chat_id"));
        messages.into_iter().map(message).collect()
    }
}

#[test]
fn events_wait_for_a_run_that_holds_the_file_and_are_refused_after_the_retries() {
    let mut subject = JsonLines::start();
    let events = events(0..10);
    block_on(async {
        let (_, run) = subject.snapshot_sink().open().await.unwrap();
        let mut sink = subject.event_sink();
        let refused = sink.publish(&events).await;
        assert!(matches!(refused, Err(BrokerError::Unavailable(_))));
        let patient = tracked_context(1000);
        let mut patient = subject.broker.event_sink(&patient);
        let (outcomes, ()) = tokio::join!(patient.publish(&events), async {
            tokio::task::yield_now().await;
            drop(run);
        });
        assert_eq!(outcomes.unwrap(), vec![EventOutcome::Published; 10]);
    });
    assert_eq!(chats(&subject.messages()), chats_of(&events));
}

#[test]
fn an_event_never_becomes_part_of_a_line_that_was_cut_off() {
    let mut subject = JsonLines::start();
    let out = subject.folder.path().join("out.jsonl");
    std::fs::write(&out, "{\"event_id\":\"0\",\"chat_id\":\"0\"}").unwrap();
    let events = events(1..3);
    block_on(async { subject.event_sink().publish(&events).await.unwrap() });
    let found = chats(&subject.messages());
    assert_eq!(found[1..], chats_of(&events));
}

/// Events number `range`, a second apart.
fn events(range: std::ops::Range<u64>) -> Vec<LabelEvent> {
    let event = |number: u64| LabelEvent {
        id: format!("evt_{number:04}"),
        change: Change::Added,
        chat_id: format!("{number}5551234@c.us"),
        occurred_at: UNIX_EPOCH + Duration::from_secs(1_700_000_000 + number),
        listed_by: None,
    };
    range.map(event).collect()
}

fn chats(messages: &[(String, String)]) -> Vec<String> {
    messages.iter().map(|(_, chat)| chat.clone()).collect()
}

fn chats_of(events: &[LabelEvent]) -> Vec<String> {
    events.iter().map(|event| event.chat_id.clone()).collect()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

fn events_are_there_in_order_when_the_call_returns<S: Subject>(mut subject: S) {
    let events = events(0..100);
    let outcomes = block_on(async { subject.event_sink().publish(&events).await.unwrap() });
    assert_eq!(outcomes, vec![EventOutcome::Published; 100]);
    assert_eq!(chats(&subject.messages()), chats_of(&events));
}

fn a_repeat_is_known_by_its_id<S: Subject>(mut subject: S) {
    let events = events(0..10);
    let outcomes = block_on(async {
        subject.event_sink().publish(&events).await.unwrap();
        subject.event_sink().publish(&events).await.unwrap()
    });
    let messages = subject.messages();
    let (first, again) = messages.split_at(10);
    assert_eq!(chats(first), chats_of(&events));
    if S::REMEMBERS {
        assert_eq!(outcomes, vec![EventOutcome::Duplicate; 10]);
        assert_eq!(again, []);
    } else {
        assert_eq!(first, again, "the same ids");
    }
}

fn a_lost_reply_loses_no_event<S: Subject>(mut subject: S) {
    let events = events(0..20);
    block_on(async {
        let mut sink = subject.event_sink();
        sink.publish(&events[..10]).await.unwrap();
        subject.lose_reply();
        sink.publish(&events[10..]).await.unwrap();
    });
    assert!(subject.has_lost_reply());
    let mut messages = subject.messages();
    if S::REPEATS {
        messages.sort();
        messages.dedup();
    }
    assert_eq!(chats(&messages), chats_of(&events));
}

fn many_writers_need_no_lock<S: Subject>(mut subject: S) {
    let events = events(0..30);
    block_on(async {
        // A run that holds the queue's lock.
        let run = match S::WAITS_FOR_RUNS {
            true => None,
            false => Some(subject.snapshot_sink().open().await.unwrap()),
        };
        let mut writers = [(); 3].map(|()| subject.event_sink());
        for (number, events) in events.chunks(5).enumerate() {
            writers[number % 3].publish(events).await.unwrap();
        }
        drop(run);
    });
    assert_eq!(chats(&subject.messages()), chats_of(&events));
}
