//! The membership of a label against a model: random lists, events in any order, list changes, and
//! workers that end in the middle.
//!
//! The model knows one rule: of all that was ever said about a chat, the latest counts. Of the same
//! time, an event counts more than a list, and a deletion more than an addition.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use labelcast::batch::Batch;
use labelcast::broker::factory::{Address, Broker};
use labelcast::broker::{
    BrokerOptions, Outcome, PauseObserver, SessionContext, SnapshotSession, Start, Target, Written,
};
use labelcast::decode::{DecodeError, Plan, decode};
use labelcast::message::{Change, Format, LabelEvent, Layout};
use labelcast::retry::RetryPolicy;
use labelcast::shutdown::Shutdown;
use labelcast::state::{Membership, Publish, Removal, Selection};
use redis::Commands as _;
use uuid::Uuid;

use crate::support::redis::{Server, expire_locks, field, numbered_entries};
use crate::support::{INSTANCE, Numbers};

/// Chats that lists and events are about.
const CHATS: u64 = 60;
/// When the first list is current as of, in seconds since 1970.
const START: u64 = 1_760_000_000;

/// What was said last about each chat: when in milliseconds, by an event, that it is no member.
#[derive(Default)]
struct Model {
    latest: BTreeMap<String, (u64, bool, bool)>,
}

impl Model {
    fn says(&mut self, chat: &str, as_of: u64, by_event: bool, deleted: bool) {
        let said = (as_of, by_event, deleted);
        let latest = self.latest.entry(chat.to_owned()).or_insert(said);
        *latest = said.max(*latest);
    }

    fn members(&self) -> BTreeSet<String> {
        let members = self.latest.iter().filter(|(_, (_, _, deleted))| !deleted);
        members.map(|(chat, _)| chat.clone()).collect()
    }
}

struct NoPauses;

impl PauseObserver for NoPauses {
    fn paused(&self, _: &'static str) {}

    fn resumed(&self) {}
}

/// A queue with its membership, and the model of it.
struct Subject {
    server: Server,
    partitions: Option<u32>,
    model: Model,
    numbers: Numbers,
    /// The time of the last list, in seconds.
    now: u64,
    events: u64,
}

fn chat(number: u64) -> String {
    format!("{number}@c.us")
}

impl Subject {
    fn new(seed: u64, partitions: Option<u32>) -> Self {
        Self {
            server: Server::start(&[]),
            partitions,
            model: Model::default(),
            numbers: Numbers(seed),
            now: START,
            events: 0,
        }
    }

    fn broker(&self) -> Broker {
        Broker {
            address: Address::parse(&self.server.url()).unwrap(),
            options: BrokerOptions {
                partitions: self.partitions,
                ..BrokerOptions::default()
            },
            state: None,
        }
    }

    fn context(&self) -> SessionContext {
        SessionContext {
            target: Target {
                queue: "q".to_owned(),
                label_id: "1".to_owned(),
                instance_id: INSTANCE.to_owned(),
            },
            layout: Layout {
                format: Format::Fields,
                ids_per_message: 1,
                include_names: false,
            },
            retry: RetryPolicy::new(0, Shutdown::manual(None)),
            selection: Selection {
                suppress_for: None,
                membership: Some(Membership {
                    publish: Publish::New,
                    removed: true,
                    min_age: None,
                    max_change: 100,
                }),
                ..Selection::default()
            },
            pauses: Arc::new(NoPauses),
        }
    }

    fn random_list(&mut self) -> Vec<String> {
        let (start, length) = (self.numbers.below(CHATS), self.numbers.below(40));
        let mut list: Vec<String> = (start..start + length).map(|n| chat(n % CHATS)).collect();
        if self.numbers.below(2) == 0 {
            list.reverse();
        }
        list
    }

    /// Time of the next list, or of another attempt.
    fn next_time(&mut self) -> SystemTime {
        self.now += 1 + self.numbers.below(20);
        UNIX_EPOCH + Duration::from_secs(self.now)
    }

    /// Opens a session, and says whether a run is resumed.
    async fn open(&self) -> Box<dyn SnapshotSession> {
        let (recovered, mut session) = self.broker().sink(self.context()).open().await.unwrap();
        let start = match recovered.unfinished {
            Some(unfinished) => Start::Resumed(unfinished),
            None => Start::New(Uuid::now_v7()),
        };
        session.start(start).await.unwrap();
        session
    }

    /// Publishes a list; `stop_after` ends the worker after as many batches. Returns whether the
    /// list ended.
    async fn publish(&mut self, list: &[String], stop_after: Option<usize>) -> bool {
        let mut session = self.open().await;
        let body: Vec<_> = list
            .iter()
            .map(|id| serde_json::json!({"id": id}))
            .collect();
        let body = serde_json::Value::from(body).to_string();
        let mut written = 0;
        loop {
            let as_of = self.next_time();
            assert_eq!(session.begin_list(as_of).await.unwrap(), Written::Done);
            let (batches, end) = batches(&body, &*session);
            for batch in batches {
                if stop_after == Some(written) {
                    // What is durable before the worker ends is known, so that the model is.
                    assert_eq!(session.flush().await.unwrap(), Written::Done);
                    return false;
                }
                assert_eq!(session.write(&batch).await.unwrap(), Written::Done);
                written += 1;
                if self.numbers.below(6) == 0 {
                    self.send_events().await;
                }
                for chat in batch.iter() {
                    let id = String::from_utf8(chat.id.to_vec()).unwrap();
                    self.model.says(&id, self.now * 1000, false, false);
                }
            }
            match end {
                Ok(()) => break,
                Err(DecodeError::ListChanged(_)) => session.restart().await.unwrap(),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(session.flush().await.unwrap(), Written::Done);
        self.send_events().await;
        assert_eq!(session.remove_absent().await.unwrap(), Removal::Removed);
        for number in 0..CHATS {
            let chat = chat(number);
            let is_there = list.contains(&chat);
            self.model.says(&chat, self.now * 1000, false, !is_there);
        }
        let chats = list.len() as u64;
        session.finish(Outcome::Complete { chats }).await.unwrap();
        true
    }

    /// Sends events of times around the last list, some of them twice.
    async fn send_events(&mut self) {
        let mut sink = self.broker().event_sink(&self.context()).unwrap();
        for _ in 0..self.numbers.below(12) {
            let number = self.numbers.below(CHATS);
            let at = (self.now - 30 + self.numbers.below(40)) * 1000;
            let at = at + self.numbers.below(2) * self.numbers.below(1000);
            let change = match self.numbers.below(2) {
                0 => Change::Added,
                _ => Change::Deleted,
            };
            self.events += 1;
            let event = LabelEvent {
                id: format!("evt_{}", self.events),
                change,
                chat_id: chat(number),
                occurred_at: UNIX_EPOCH + Duration::from_millis(at),
                listed_by: None,
            };
            let times = 1 + self.numbers.below(2) as usize;
            sink.publish(&vec![event; times]).await.unwrap();
            self.model
                .says(&chat(number), at, true, change == Change::Deleted);
        }
    }

    /// Checks that the stored members are those of the model, and that consumers know them: each
    /// chat joined as often as it left, and members once more. Returns the number of members that
    /// consumers will be told of later.
    fn check(&self, what: &str) -> usize {
        let mut connection = self.server.connection();
        let (mut members, mut untold) = (BTreeSet::new(), BTreeSet::new());
        let mut changes = Vec::new();
        let streams = match self.partitions {
            None => vec![("q".to_owned(), "{q}:removed".to_owned())],
            Some(count) => (0..count)
                .map(|index| (format!("q:{{{index}}}"), format!("q:{{{index}}}:removed")))
                .collect(),
        };
        for (stream, removed) in streams {
            let tag = stream.split(['{', '}']).nth(1).unwrap_or("q").to_owned();
            let key = format!("labelcast:members:{{{tag}}}:{stream}:{INSTANCE}:1");
            let records: BTreeMap<String, String> = connection.hgetall(&key).unwrap();
            let before = members.len();
            // A chat that left by an event and came back in one run is told of by the next run.
            let is_untold = records.iter().filter(|(_, record)| record.starts_with('n'));
            untold.extend(is_untold.map(|(chat, _)| chat.clone()));
            let is_member = |record: &str| record.starts_with(['m', 'n']);
            let of_stream = records.into_iter().filter(|(_, record)| is_member(record));
            members.extend(of_stream.map(|(chat, _)| chat));
            let note = key.replace("members", "membership");
            let counted: Option<usize> = connection.hget(&note, "members").unwrap();
            assert_eq!(counted.unwrap_or(0), members.len() - before, "{what}");
            for (stream, joined) in [(stream, true), (removed, false)] {
                for (id, entry) in numbered_entries(&mut connection, &stream) {
                    let (at, number) = id.split_once('-').unwrap();
                    let at: (u64, u64) = (at.parse().unwrap(), number.parse().unwrap());
                    changes.push((at, field(&entry, "chat_id").unwrap(), joined));
                }
            }
        }
        let expected = self.model.members();
        assert_eq!(members, expected, "{what}: {:?}", self.model.latest);
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for (_, chat, joined) in &changes {
            *counts.entry(chat.clone()).or_default() += if *joined { 1 } else { -1 };
        }
        let told: BTreeSet<String> = expected.difference(&untold).cloned().collect();
        for (chat, count) in &counts {
            assert_eq!(*count, i64::from(told.contains(chat)), "{what}: {chat}");
        }
        assert!(told.iter().all(|chat| counts.contains_key(chat)), "{what}");
        untold.len()
    }

    async fn go(&mut self, steps: usize) {
        // Until there was a whole list, events alone do not say who is new.
        let first = self.random_list();
        assert!(self.publish(&first, None).await);
        let mut resumed = 0;
        let mut unfinished: Option<Vec<String>> = None;
        for step in 0..steps {
            let mut list = self.random_list();
            if let Some(before) = unfinished.take()
                && self.numbers.below(3) > 0
            {
                resumed += 1;
                list = before;
            }
            let stop_after = (self.numbers.below(2) == 0).then(|| self.numbers.below(6) as usize);
            if !self.publish(&list, stop_after).await {
                unfinished = Some(list);
            }
            expire_locks(&mut self.server.connection());
            self.check(&format!("list of step {step}"));
            self.send_events().await;
            self.check(&format!("events of step {step}"));
        }
        assert!(resumed > 0 && self.events > 20, "the steps are too few");
        let list = self.random_list();
        for _ in 0..2 {
            assert!(self.publish(&list, None).await);
        }
        assert_eq!(self.check("the end"), 0);
    }
}

/// Returns the batches that a session takes of a list, and how the list ended.
fn batches(body: &str, session: &dyn SnapshotSession) -> (Vec<Batch>, Result<(), DecodeError>) {
    let from = session.resume_point();
    let plan = Plan {
        from: from.at.position,
        digest: from.at.digest,
        expected_digests: from.expected_digests.clone(),
        batch_entries: 7,
        ..Plan::whole_list()
    };
    let mut batches = Vec::new();
    let (_, end) = decode(body.as_bytes(), &plan, |batch| {
        batches.push(batch);
        Some(Batch::new())
    });
    (batches, end)
}

fn run(seed: u64, partitions: Option<u32>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(Subject::new(seed, partitions).go(60));
}

#[test]
fn redis_knows_the_members_whatever_order_lists_and_events_come_in() {
    for seed in 0..4 {
        run(seed, None);
    }
}

#[test]
fn partitions_know_the_members_whatever_order_lists_and_events_come_in() {
    run(11, Some(3));
}
