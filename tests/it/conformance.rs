//! Guarantees of every sink under faults: the same list, the same faults, and the same checks
//! afterwards. To add a sink, write a module that implements [`Subject`] and add a line to the list
//! below.

mod file;
mod memory;
mod rabbitmq;
mod rabbitmq_stream;
mod redis;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use labelcast::mock::{Chats, Piece};
use tokio_util::sync::CancellationToken;

use crate::support::{Ended, Process, Stage, gated, map_of, part_of, small_list, wait_until};

/// All sinks, by name, with a function that creates an empty one.
macro_rules! sinks {
    ($($name:ident: $start:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn a_refused_write_loses_nothing() {
                meets(Fault::Refuse, $start);
            }

            #[test]
            fn a_lost_reply_loses_nothing() {
                meets(Fault::FailAfterWrite, $start);
            }

            #[test]
            fn withheld_replies_lose_nothing() {
                meets(Fault::Hold, $start);
            }

            #[test]
            fn a_broken_connection_loses_nothing() {
                meets(Fault::Cut, $start);
            }

            #[test]
            fn a_killed_worker_loses_nothing() {
                meets(Fault::Kill, $start);
            }

            #[test]
            fn only_one_of_two_workers_publishes() {
                super::only_one_of_two_workers_publishes($start);
            }

            #[test]
            fn a_stopped_run_is_resumed() {
                super::a_stopped_run_is_resumed($start);
            }

            #[test]
            fn a_changed_list_is_published_completely() {
                super::a_changed_list_is_published_completely($start);
            }
        }
    )*};
}

sinks! {
    to_memory: memory::InMemory::start();
    to_a_file: file::File::start();
    to_redis: redis::Redis::start();
    to_a_quorum_queue: rabbitmq::Queue::start("quorum");
    to_a_classic_queue: rabbitmq::Queue::start("classic");
    to_a_stream: rabbitmq_stream::Stream::start();
}

/// Chats in the list.
const CHATS: usize = 6000;
/// The number of messages at which a run is in the middle of the first half of the list.
const MIDDLE: usize = 1000;

/// A fault in the middle of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The sink refuses further writes with an error.
    Refuse,
    /// The sink executes a write, but the reply is lost.
    FailAfterWrite,
    /// Replies no longer arrive, but the connection stays open.
    Hold,
    /// The connection breaks in the middle of a write.
    Cut,
    /// The worker is killed.
    Kill,
}

/// A message, as a consumer receives it.
#[derive(Debug)]
struct Message {
    /// The id by which a consumer recognises repeats.
    id: String,
    chat: String,
    run_id: String,
}

/// A worker that runs.
trait Worker {
    /// Asks it to stop, as SIGTERM does.
    fn stop(&self);

    /// Waits for its end.
    fn end(self) -> Ended;
}

impl Worker for Process {
    fn stop(&self) {
        self.signal("TERM");
    }

    fn end(self) -> Ended {
        Process::end(self)
    }
}

/// A sink under test.
trait Subject {
    /// The worker that publishes to it.
    type Worker: Worker;
    /// The maximum number of repeated messages after a fault.
    const REPEATS: usize;
    /// Whether the order is unchanged after a fault.
    const KEEPS_ORDER: bool;

    /// The exit code of a run that meets a fault, or SIGKILL.
    fn exit_code(fault: Fault) -> Option<i32> {
        (fault != Fault::Kill).then_some(0)
    }

    /// Starts a run to this sink. If a fault is named, the run is going to meet it.
    fn start_run(&self, stage: &Stage, retries: usize, fault: Option<Fault>) -> Self::Worker;

    /// Returns the number of messages.
    fn depth(&mut self) -> usize;

    /// Causes a fault while the run waits for the second half of its list.
    fn break_down(&mut self, fault: Fault, worker: &Self::Worker);

    /// Waits until a surviving run has met the fault, and ends the fault.
    fn recover(&mut self, fault: Fault, worker: &mut Self::Worker);

    /// Makes a dead worker's lock and records as old as they would be when the next worker starts.
    fn age_remains(&mut self) {}

    /// Returns all messages so far, in their order.
    fn messages(&mut self) -> Vec<Message>;
}

/// A run that has published part of the first half of the list. It receives the second half on
/// request.
struct HalfWay<W> {
    worker: W,
    gate: CancellationToken,
}

/// Retries, where a test does not ask for another number.
const RETRIES: usize = 5;

/// Runs to the end.
fn run<S: Subject>(subject: &S, stage: &Stage) -> Ended {
    subject.start_run(stage, RETRIES, None).end()
}

fn half_way<S: Subject>(
    subject: &mut S,
    stage: &Stage,
    body: &str,
    fault: Option<Fault>,
) -> HalfWay<S::Worker> {
    let (reply, gate) = gated(body);
    stage.mock.script("1", reply);
    let worker = subject.start_run(stage, RETRIES, fault);
    wait_until("the run is in the middle of the list", || {
        subject.depth() > MIDDLE
    });
    HalfWay { worker, gate }
}

/// Causes a fault during a run, and starts another run if the first did not survive it. No chat may
/// be missing, and repeats must have the same id.
fn meets<S: Subject>(fault: Fault, mut subject: S) {
    let (mut ids, body) = small_list(CHATS);
    let stage = Stage::with_body(&body);
    let mut half_way = half_way(&mut subject, &stage, &body, Some(fault));
    subject.break_down(fault, &half_way.worker);
    half_way.gate.cancel();
    if fault != Fault::Kill {
        subject.recover(fault, &mut half_way.worker);
    }
    let mut ended = half_way.worker.end();
    let expected = S::exit_code(fault);
    assert_eq!(ended.code, expected, "{ended:#?}");
    if expected != Some(0) {
        subject.age_remains();
        ended = run(&subject, &stage).expect(0);
        assert!(ended.label()["resumed"].as_u64().unwrap() > 0);
    }
    let messages = subject.messages();
    let mut chats = each_once(&messages);
    if !S::KEEPS_ORDER {
        chats.sort();
        ids.sort();
    }
    assert_same(&chats, &ids);
    let repeats = messages.len() - CHATS;
    assert!(repeats <= S::REPEATS, "{repeats} repeats");
    check_counts(&ended);

    subject.age_remains();
    let next = run(&subject, &stage).expect(0);
    assert_ne!(next.label()["run_id"], ended.label()["run_id"]);
    assert_eq!(next.label()["published"], CHATS, "a run of its own");
}

fn only_one_of_two_workers_publishes<S: Subject>(mut subject: S) {
    let (ids, body) = small_list(CHATS);
    let stage = Stage::with_body(&body);
    let half_way = half_way(&mut subject, &stage, &body, None);
    let second = run(&subject, &stage).expect(81);
    assert_eq!(second.label()["status"], "locked");
    assert_eq!(second.label()["published"], 0);
    half_way.gate.cancel();
    half_way.worker.end().expect(0);
    let messages = subject.messages();
    assert_same(&each_once(&messages), &ids);
    assert_eq!(messages.len(), CHATS, "no repeats");
}

fn a_stopped_run_is_resumed<S: Subject>(mut subject: S) {
    let (ids, body) = small_list(CHATS);
    let stage = Stage::with_body(&body);
    let half_way = half_way(&mut subject, &stage, &body, None);
    half_way.worker.stop();
    let stopped = half_way.worker.end().expect(75);
    let published = stopped.label()["published"].as_u64().unwrap();
    assert!(
        published > MIDDLE as u64,
        "published messages were confirmed"
    );
    let ended = run(&subject, &stage).expect(0);
    assert_eq!(ended.label()["resumed"], published);
    assert_eq!(ended.label()["run_id"], stopped.label()["run_id"]);
    check_counts(&ended);
    let messages = subject.messages();
    assert_same(&each_once(&messages), &ids);
    assert_eq!(messages.len(), CHATS, "no repeats");
}

fn a_changed_list_is_published_completely<S: Subject>(mut subject: S) {
    let (mut ids, body) = small_list(CHATS);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    subject.start_run(&stage, 0, None).end().expect(69);
    let before: BTreeSet<String> = each_once(&subject.messages()).into_iter().collect();
    assert!(!before.is_empty());
    ids.reverse();
    ids.truncate(CHATS - 10);
    let changed = Chats::Body(Bytes::from(map_of(&ids)));
    stage.mock.set_chats("1", &changed);
    let ended = run(&subject, &stage).expect(0);
    assert_eq!(ended.label()["list_changed"], true);
    let found: BTreeSet<String> = each_once(&subject.messages()).into_iter().collect();
    let expected = ids.into_iter().collect::<BTreeSet<_>>();
    assert!(found.is_superset(&expected), "no chat is missing");
    let made_up = &found - &(&expected | &before);
    assert!(
        made_up.is_empty(),
        "{} of {} before",
        made_up.len(),
        before.len()
    );
}

/// Returns the chats, with each message once. All must belong to one run.
fn each_once(messages: &[Message]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut chats = Vec::new();
    for message in messages {
        assert_eq!(
            message.run_id, messages[0].run_id,
            "all messages belong to one run"
        );
        match seen.insert(&message.id, &message.chat) {
            Some(before) => assert_eq!(before, &message.chat, "a repeat is identical"),
            None => chats.push(message.chat.clone()),
        }
    }
    chats
}

/// Checks that two lists are equal, without printing them.
#[track_caller]
fn assert_same(found: &[String], expected: &[String]) {
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(
        (found.len(), at),
        (expected.len(), None),
        "the lists differ"
    );
}

/// Checks the report of a run over an unchanged list.
fn check_counts(ended: &Ended) {
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap();
    assert_eq!(count("read"), CHATS as u64);
    assert_eq!(count("published") + count("resumed"), CHATS as u64);
}
