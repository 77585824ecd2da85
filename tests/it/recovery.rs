//! Recovery of a run, with the broker in memory: lost entries, lost replies and changed lists, alone
//! and together.

use std::collections::BTreeSet;

use bytes::Bytes;
use labelcast::broker::memory::{Fault, Memory};
use labelcast::mock::{Chats, Piece};

use crate::support::thread_worker::ThreadWorker;
use crate::support::{Ended, Stage, held_after, map_of, part_of, small_list, wait_until};

/// Rewinds after which a run gives up.
const MAX_REWINDS: usize = 20;

fn run(stage: &Stage, memory: &Memory) -> Ended {
    ThreadWorker::start(stage, memory, 5).end()
}

fn chats(memory: &Memory) -> Vec<String> {
    let messages = memory.messages().into_iter();
    messages.map(|message| message.chat_id).collect()
}

/// Checks the sum that a report promises for a complete label.
fn adds_up(ended: &Ended) {
    let label = ended.label();
    let count = |key: &str| label[key].as_u64().unwrap();
    let parts = ["published", "resumed", "suppressed", "invalid"].map(count);
    assert_eq!(count("read"), parts.iter().sum::<u64>(), "{label}");
}

#[test]
fn lost_entries_are_published_again() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let memory = Memory::default();
    memory.script(Fault::Cut);
    memory.script(Fault::LoseAll);
    let ended = run(&stage, &memory).expect(0);
    assert_eq!(chats(&memory), ids);
    assert_eq!(ended.label()["rewinds"], 1);
    assert_eq!(ended.label()["attempts"], 2);
    adds_up(&ended);
}

#[test]
fn a_queue_that_keeps_losing_entries_ends_the_run() {
    let (_, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let memory = Memory::default();
    for _ in 0..=MAX_REWINDS {
        // A success in between, without which the broker counts as unavailable.
        memory.script(Fault::Skip);
        memory.script(Fault::LoseAll);
    }
    let ended = run(&stage, &memory).expect(69);
    assert_eq!(ended.label()["rewinds"], MAX_REWINDS);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("the queue lost entries"), "{error}");
    // It can still be resumed.
    run(&stage, &memory).expect(0);
}

#[test]
fn entries_are_lost_while_a_changed_list_is_published() {
    let (mut ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let memory = Memory::default();
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    ThreadWorker::start(&stage, &memory, 0).end().expect(69);
    ids.reverse();
    stage
        .mock
        .set_chats("1", &Chats::Body(Bytes::from(map_of(&ids))));
    memory.script(Fault::LoseReply);
    memory.script(Fault::LoseAll);
    let ended = run(&stage, &memory).expect(0);
    assert_eq!(ended.label()["list_changed"], true);
    assert_eq!(ended.label()["rewinds"], 1);
    let found = chats(&memory);
    assert_eq!(found.len(), ids.len(), "no repeats");
    assert_eq!(BTreeSet::from_iter(found), BTreeSet::from_iter(ids));
}

#[test]
fn any_sequence_of_faults_and_kills_publishes_each_chat_once() {
    let (ids, body) = small_list(2000);
    let mut state = 1u64;
    // xorshift64, by G. Marsaglia.
    let mut below = |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    };
    for round in 0..60 {
        let stage = Stage::with_body(&body);
        let memory = Memory::default();
        for _ in 0..below(5) {
            memory.script(match below(3) {
                0 => Fault::Refuse,
                1 => Fault::Cut,
                _ => Fault::LoseReply,
            });
        }
        let kills = below(3) as usize;
        for kill in 1..=kills {
            // In steps, so that each worker gets further than the one before.
            stage.mock.script("1", held_after(&body, kill * 600));
            let worker = ThreadWorker::start(&stage, &memory, 9);
            wait_until("the worker has published more", || {
                memory.messages().len() > (kill - 1) * 600 + 200
            });
            worker.kill();
            assert_eq!(worker.end().code, None, "killed in round {round}");
        }
        let ended = ThreadWorker::start(&stage, &memory, 9).end().expect(0);
        assert_eq!(chats(&memory), ids, "round {round}");
        assert_eq!(ended.label()["resumed"].as_u64().unwrap() > 0, kills > 0);
        adds_up(&ended);
    }
}
