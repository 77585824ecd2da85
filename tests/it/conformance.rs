//! What every sink guarantees, whatever breaks: the same list, the same faults, and the same checks
//! afterwards. A further sink is a module that implements [`Subject`], and a line in the list below.

mod file;
mod memory;
mod rabbitmq;
mod redis;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use labelcast::mock::{Chats, Piece};
use tokio_util::sync::CancellationToken;

use crate::support::{Ended, Process, Stage, gated, map_of, part_of, small_list, wait_until};

/// Every sink there is, by its name and how a test gets one that is empty.
macro_rules! sinks {
    ($($name:ident: $start:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn refuses() {
                meets(Fault::Refuse, $start);
            }

            #[test]
            fn fails_after_a_write() {
                meets(Fault::FailAfterWrite, $start);
            }

            #[test]
            fn is_held() {
                meets(Fault::Hold, $start);
            }

            #[test]
            fn is_cut() {
                meets(Fault::Cut, $start);
            }

            #[test]
            fn the_worker_is_killed() {
                meets(Fault::Kill, $start);
            }

            #[test]
            fn of_two_workers_one_publishes() {
                super::of_two_workers_one_publishes($start);
            }

            #[test]
            fn a_stop_is_gone_on_from() {
                super::a_stop_is_gone_on_from($start);
            }

            #[test]
            fn a_changed_list_is_published_whole() {
                super::a_changed_list_is_published_whole($start);
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
}

/// Chats in the list.
const CHATS: usize = 6000;
/// Messages that are there when a run is in the midst of the first half of the list.
const MIDST: usize = 1000;

/// What befalls a run in the middle of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The sink takes nothing more, and says so.
    Refuse,
    /// The sink takes a write, and nobody hears of it.
    FailAfterWrite,
    /// Nothing is heard any more, and nothing breaks.
    Hold,
    /// It breaks in the middle of a write.
    Cut,
    /// The worker is gone.
    Kill,
}

/// A message, as a consumer sees it.
#[derive(Debug)]
struct Message {
    /// By which repeats are known.
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
    /// What publishes to it.
    type Worker: Worker;
    /// Messages that may come twice after a fault.
    const REPEATS: usize;
    /// Whether a fault leaves the order as it is.
    const KEEPS_ORDER: bool;

    /// How a run ends that meets a fault: by which exit code, or by SIGKILL.
    fn exit_code(fault: Fault) -> Option<i32> {
        (fault != Fault::Kill).then_some(0)
    }

    /// Starts a run to this sink, which is going to meet a fault, if one is named.
    fn start_run(&self, stage: &Stage, retries: usize, fault: Option<Fault>) -> Self::Worker;

    /// How many messages are there.
    fn depth(&mut self) -> usize;

    /// Brings a fault about, while the run waits for the second half of its list.
    fn break_down(&mut self, fault: Fault, worker: &Self::Worker);

    /// Waits until the fault was met by a run that goes on, and lets it pass.
    fn recover(&mut self, fault: Fault, worker: &mut Self::Worker);

    /// What is left of a dead worker is as old as it would be when the next one comes.
    fn let_time_pass(&mut self) {}

    /// All messages that there ever were, in their order.
    fn messages(&mut self) -> Vec<Message>;
}

/// A run that has published some of the first half of the list, and gets the second when it is let.
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
    wait_until("the run is in the midst of it", || subject.depth() > MIDST);
    HalfWay { worker, gate }
}

/// Lets a run meet a fault, and another one go on if it did not survive it: nothing is missing, and
/// what is there twice is known by its id.
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
        subject.let_time_pass();
        ended = run(&subject, &stage).expect(0);
        assert!(ended.label()["resumed"].as_u64().unwrap() > 0);
    }
    let messages = subject.messages();
    let mut chats = each_once(&messages);
    if !S::KEEPS_ORDER {
        chats.sort();
        ids.sort();
    }
    same(&chats, &ids);
    let repeats = messages.len() - CHATS;
    assert!(repeats <= S::REPEATS, "{repeats} repeats");
    adds_up(&ended);

    subject.let_time_pass();
    let next = run(&subject, &stage).expect(0);
    assert_ne!(next.label()["run_id"], ended.label()["run_id"]);
    assert_eq!(next.label()["published"], CHATS, "a run of its own");
}

fn of_two_workers_one_publishes<S: Subject>(mut subject: S) {
    let (ids, body) = small_list(CHATS);
    let stage = Stage::with_body(&body);
    let half_way = half_way(&mut subject, &stage, &body, None);
    let second = run(&subject, &stage).expect(81);
    assert_eq!(second.label()["status"], "locked");
    assert_eq!(second.label()["published"], 0);
    half_way.gate.cancel();
    half_way.worker.end().expect(0);
    let messages = subject.messages();
    same(&each_once(&messages), &ids);
    assert_eq!(messages.len(), CHATS, "no repeats");
}

fn a_stop_is_gone_on_from<S: Subject>(mut subject: S) {
    let (ids, body) = small_list(CHATS);
    let stage = Stage::with_body(&body);
    let half_way = half_way(&mut subject, &stage, &body, None);
    half_way.worker.stop();
    let stopped = half_way.worker.end().expect(75);
    let published = stopped.label()["published"].as_u64().unwrap();
    assert!(published > MIDST as u64, "what was there was confirmed");
    let ended = run(&subject, &stage).expect(0);
    assert_eq!(ended.label()["resumed"], published);
    assert_eq!(ended.label()["run_id"], stopped.label()["run_id"]);
    adds_up(&ended);
    let messages = subject.messages();
    same(&each_once(&messages), &ids);
    assert_eq!(messages.len(), CHATS, "no repeats");
}

fn a_changed_list_is_published_whole<S: Subject>(mut subject: S) {
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
    assert!(found.is_superset(&expected), "none is missing");
    let made_up = &found - &(&expected | &before);
    assert!(
        made_up.is_empty(),
        "{} of {} before",
        made_up.len(),
        before.len()
    );
}

/// The chats, with each message once; all have to be of one run.
fn each_once(messages: &[Message]) -> Vec<String> {
    let mut seen = BTreeMap::new();
    let mut chats = Vec::new();
    for message in messages {
        assert_eq!(message.run_id, messages[0].run_id, "all of one run");
        match seen.insert(&message.id, &message.chat) {
            Some(before) => assert_eq!(before, &message.chat, "a repeat is the same message"),
            None => chats.push(message.chat.clone()),
        }
    }
    chats
}

/// Checks that lists are the same, without showing all of them.
#[track_caller]
fn same(found: &[String], expected: &[String]) {
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!(
        (found.len(), at),
        (expected.len(), None),
        "where they differ"
    );
}

/// Checks what a report says of a list that did not change.
fn adds_up(ended: &Ended) {
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap();
    assert_eq!(count("read"), CHATS as u64);
    assert_eq!(count("published") + count("resumed"), CHATS as u64);
}
