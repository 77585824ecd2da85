//! The membership of a label against a model: random lists, events in any order, list changes, and
//! workers that end in the middle.
//!
//! The model knows one rule: of all that was ever said about a chat, the latest counts. Of the same
//! time, an event counts more than a list, and a deletion more than an addition.

mod place;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use labelcast::batch::Batch;
use labelcast::broker::{
    NoPauses, Outcome, SessionContext, SnapshotSession, Start, Target, Written,
};
use labelcast::decode::{DecodeError, Plan, decode};
use labelcast::message::{Change, LabelEvent, Layout};
use labelcast::retry::RetryPolicy;
use labelcast::shutdown::Shutdown;
use labelcast::state::{Membership, Publish, Removal, Selection};
use uuid::Uuid;

use self::place::{JsonLines, Place, Queue, Stream};
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

/// A queue with its membership, and the model of it.
struct Subject<P> {
    place: P,
    model: Model,
    numbers: Numbers,
    /// The time of the last list, in seconds.
    now: u64,
    events: u64,
    has_set: bool,
}

fn chat(number: u64) -> String {
    format!("{number}@c.us")
}

impl<P: Place> Subject<P> {
    fn new(seed: u64, place: P) -> Self {
        Self {
            place,
            model: Model::default(),
            numbers: Numbers(seed),
            now: START,
            events: 0,
            has_set: false,
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
                format: P::FORMAT,
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
        let (recovered, mut session) = self
            .place
            .broker()
            .sink(self.context())
            .open()
            .await
            .unwrap();
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
                // Until a list has begun a set, events alone do not say who is new.
                let with_events = written > 0 || self.has_set;
                self.write(&mut *session, &batch, with_events).await;
                self.has_set = true;
                written += 1;
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
        if P::EVENTS_DURING_RUNS {
            self.send_events().await;
        }
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

    /// Writes a batch, in some cases while events arrive.
    async fn write(&mut self, session: &mut dyn SnapshotSession, batch: &Batch, with_events: bool) {
        if !(with_events && P::EVENTS_DURING_RUNS && self.numbers.below(6) == 0) {
            assert_eq!(session.write(batch).await.unwrap(), Written::Done);
            return;
        }
        let events = self.events();
        let is_before = self.numbers.below(2) == 0;
        let mut sink = self.place.broker().event_sink(&self.context());
        let list = async {
            if is_before {
                tokio::task::yield_now().await;
            }
            assert_eq!(session.write(batch).await.unwrap(), Written::Done);
            // Nothing more comes for now. Events about chats of the batch wait for this.
            assert_eq!(session.idle().await.unwrap(), Written::Done);
        };
        let ((), sent) = tokio::join!(list, sink.publish(&events));
        sent.unwrap();
    }

    async fn send_events(&mut self) {
        let events = self.events();
        let mut sink = self.place.broker().event_sink(&self.context());
        let mut rest = &events[..];
        while !rest.is_empty() {
            let count = 1 + self.numbers.below(rest.len() as u64) as usize;
            let (batch, later) = rest.split_at(count);
            sink.publish(batch).await.unwrap();
            rest = later;
        }
    }

    /// Events of times around the last list, some of them twice, and enters them in the model.
    fn events(&mut self) -> Vec<LabelEvent> {
        let mut events = Vec::new();
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
            events.extend(vec![event; times]);
            self.model
                .says(&chat(number), at, true, change == Change::Deleted);
        }
        events
    }

    /// Checks that the stored members are those of the model, and that consumers know them: each
    /// chat joined as often as it left, and members once more. Returns the number of members that
    /// consumers will be told of later.
    fn check(&mut self, what: &str) -> usize {
        let kept = self.place.kept();
        // A chat that left by an event and came back in one run is told of by the next run.
        let with = |states: &[char]| -> BTreeSet<String> {
            let records = kept.records.iter();
            let records = records.filter(|(_, record)| record.starts_with(states));
            records.map(|(chat, _)| chat.clone()).collect()
        };
        let (members, untold) = (with(&['m', 'n']), with(&['n']));
        assert_eq!(kept.counted, members.len(), "{what}");
        let changes = self.place.told();
        let expected = self.model.members();
        assert_eq!(members, expected, "{what}: {:?}", self.model.latest);
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        for (chat, joined) in &changes {
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
            self.place.end_worker();
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

fn run(seed: u64, place: impl Place, steps: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut subject = Subject::new(seed, place);
    runtime.block_on(subject.go(steps));
    let target = subject.context().target;
    let counted = runtime.block_on(async {
        let mut monitor = subject.place.broker().member_monitor().unwrap();
        monitor.members(&[target]).await.unwrap()[0]
    });
    assert_eq!(counted.members, subject.model.members().len() as u64);
    let listed_at = UNIX_EPOCH + Duration::from_secs(subject.now);
    assert_eq!(counted.listed_at, Some(listed_at));
}

#[test]
fn redis_knows_the_members_whatever_order_lists_and_events_come_in() {
    for seed in 0..4 {
        run(seed, Stream::start(None), 60);
    }
}

#[test]
fn partitions_know_the_members_whatever_order_lists_and_events_come_in() {
    run(11, Stream::start(Some(3)), 60);
}

#[test]
fn a_queue_with_a_state_in_a_file_knows_the_members() {
    for seed in 20..23 {
        run(seed, Queue::with_file(), 40);
    }
}

#[test]
fn a_queue_with_a_state_in_redis_knows_the_members() {
    for seed in 30..33 {
        run(seed, Queue::with_redis(), 40);
    }
}

#[test]
fn a_file_with_a_state_knows_the_members() {
    for seed in 40..43 {
        run(seed, JsonLines::start(), 40);
    }
}
