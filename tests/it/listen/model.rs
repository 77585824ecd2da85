//! Ten thousand events in random order with repeats, to two processes, with batch runs in between:
//! membership, counts and messages are those of a model.
//!
//! The model knows one rule: of all that was said about a chat, what is latest by its own time
//! counts. The clock of the API, by which lists are current, is scripted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use labelcast::mock::{Chats, Reply};
use redis::Commands as _;
use serde_json::Value;

use super::command;
use crate::support::listener::{Listener, event_at, now_ms};
use crate::support::redis::{Server, entries, field};
use crate::support::{Numbers, Stage, map_of, wait_until};

const CHATS: u64 = 300;
const ROUNDS: u64 = 5;
const EVENTS_IN_ROUND: u64 = 1250;
const SENDERS: u64 = 8;
/// How long a list is current before its request, in milliseconds.
const GRACE_MS: u64 = 60_000;

/// One change, as WhatsApp knows it.
#[derive(Clone)]
struct Change {
    id: String,
    chat: u64,
    at: u64,
    is_added: bool,
}

/// What is known of a chat: the time of what was said last, and whether it is a member.
#[derive(Clone, Copy, Default)]
struct Known {
    at: u64,
    by_event: bool,
    is_member: bool,
}

#[derive(Default)]
struct Model {
    chats: BTreeMap<u64, Known>,
    list_at: u64,
    seen: BTreeSet<String>,
    /// Event ids of messages about chats that were added, and about those that left.
    added: Vec<String>,
    left: Vec<String>,
}

impl Model {
    fn event(&mut self, change: &Change) {
        if !self.seen.insert(change.id.clone()) {
            return;
        }
        let list_at = self.list_at;
        let known = self.chats.entry(change.chat).or_default();
        if !known.is_member && known.at < list_at {
            // The last list did not contain it either.
            *known = Known {
                at: list_at,
                by_event: false,
                is_member: false,
            };
        }
        let wins_tie = !known.by_event || !change.is_added;
        if change.at < known.at || (change.at == known.at && !wins_tie) {
            return;
        }
        if known.is_member != change.is_added {
            match change.is_added {
                true => self.added.push(change.id.clone()),
                false => self.left.push(change.id.clone()),
            }
        }
        *known = Known {
            at: change.at,
            by_event: true,
            is_member: change.is_added,
        };
    }

    /// A whole list, which publishes new members. Returns them, and those that have left.
    fn list(&mut self, at: u64, listed: &BTreeSet<u64>) -> (BTreeSet<u64>, BTreeSet<u64>) {
        let (mut new, mut gone) = (BTreeSet::new(), BTreeSet::new());
        for chat in 0..CHATS {
            let known = self.chats.entry(chat).or_default();
            if known.by_event && known.at >= at {
                continue;
            }
            let is_member = listed.contains(&chat);
            match (known.is_member, is_member) {
                (false, true) => drop(new.insert(chat)),
                (true, false) => drop(gone.insert(chat)),
                _ => {}
            }
            *known = Known {
                at,
                by_event: false,
                is_member,
            };
        }
        self.list_at = at;
        (new, gone)
    }

    fn members(&self) -> usize {
        self.chats.values().filter(|known| known.is_member).count()
    }
}

fn chat_id(chat: u64) -> String {
    format!("{chat}@c.us")
}

/// The truth at a time.
fn members_at(history: &[Change], at: u64) -> BTreeSet<u64> {
    let mut members = BTreeSet::new();
    for change in history.iter().filter(|change| change.at <= at) {
        match change.is_added {
            true => members.insert(change.chat),
            false => members.remove(&change.chat),
        };
    }
    members
}

#[test]
fn ten_thousand_events_in_any_order_end_as_the_model_does() {
    let stage = Stage::with_body("[]");
    let server = Server::start(&["--hz", "100"]);
    let mut numbers = Numbers(20);
    let mut model = Model::default();
    // Half a day ago, so that each list is current within a day of this machine's clock.
    let start = now_ms() / 1000 * 1000 - 12 * 3600 * 1000;
    set_clock(&stage, start, &BTreeSet::new());
    let one = listen_with_removed(&stage, &server);
    one.wait_until_exact(1);
    let other = listen_with_removed(&stage, &server);
    other.wait_until_exact(1);
    model.list(start - GRACE_MS, &BTreeSet::new());

    let mut history: Vec<Change> = Vec::new();
    let mut lists = (BTreeSet::new(), BTreeSet::new());
    let mut at = start;
    for round in 0..ROUNDS {
        let first = history.len();
        for _ in 0..EVENTS_IN_ROUND {
            at += 1 + numbers.below(4000);
            let chat = numbers.below(CHATS);
            let is_added = !members_at(&history, at).contains(&chat);
            let id = format!("evt_{}", history.len());
            history.push(Change {
                id,
                chat,
                at,
                is_added,
            });
        }
        // A few webhooks get lost; the others arrive in any order, some of them again, with some of
        // earlier rounds.
        let mut sent: Vec<Change> = history[first..].to_vec();
        sent.retain(|_| numbers.below(50) > 0);
        for _ in 0..EVENTS_IN_ROUND {
            sent.push(history[numbers.below(history.len() as u64) as usize].clone());
        }
        shuffle(&mut sent, &mut numbers);
        deliver(&sent, [&one, &other]);
        sent.iter().for_each(|change| model.event(change));

        at += 2 * GRACE_MS;
        let listed_at = at / 1000 * 1000 - GRACE_MS;
        let listed = members_at(&history, listed_at);
        set_clock(&stage, listed_at + GRACE_MS, &listed);
        let run = stage
            .program("run")
            .args(["--label", "1", "--sink", &server.url()]);
        let ended = run
            .args(["--only-new", "--removed", "--max-change", "100"])
            .end()
            .expect(0);
        let (new, gone) = model.list(listed_at, &listed);
        assert_eq!(
            ended.label()["published"],
            new.len(),
            "round {round}: {ended:?}"
        );
        assert_eq!(
            ended.label()["removed"],
            gone.len(),
            "round {round}: {ended:?}"
        );
        lists.0.extend(new);
        lists.1.extend(gone);
        check(&server, &model);
    }
    let happened = (
        model.added.len(),
        model.left.len(),
        lists.0.len(),
        lists.1.len(),
    );
    let (added, left, new, gone) = happened;
    assert!(added.min(left) > 500 && new.min(gone) > 5, "{happened:?}");
    for listener in [one, other] {
        assert_eq!(listener.stop().code, Some(0));
    }
}

fn listen_with_removed(stage: &Stage, server: &Server) -> Listener {
    Listener::start(command(stage, server).arg("--removed"))
}

/// Lets the API's clock stand at a time, with this list.
fn set_clock(stage: &Stage, ms: u64, listed: &BTreeSet<u64>) {
    let ids: Vec<String> = listed.iter().map(|chat| chat_id(*chat)).collect();
    stage.mock.set_chats("1", &Chats::Body(map_of(&ids).into()));
    let at: SystemTime = UNIX_EPOCH + Duration::from_millis(ms);
    let labels = Reply::json(r#"[{"id":"1","name":"VIP"}]"#);
    stage
        .mock
        .script_labels(labels.header("date", httpdate::fmt_http_date(at)));
}

fn shuffle(changes: &mut [Change], numbers: &mut Numbers) {
    for last in (1..changes.len()).rev() {
        changes.swap(last, numbers.below(last as u64 + 1) as usize);
    }
}

/// Sends events from several senders at once, to both processes. The events of one chat are sent
/// one after the other, because their order decides about messages.
fn deliver(sent: &[Change], listeners: [&Listener; 2]) {
    std::thread::scope(|scope| {
        for number in 0..SENDERS {
            scope.spawn(move || {
                let mut senders = listeners.map(Listener::sender);
                let ours = sent.iter().filter(|change| change.chat % SENDERS == number);
                for (turn, change) in ours.enumerate() {
                    let name = if change.is_added { "added" } else { "deleted" };
                    let event = event_at(&change.id, name, "1", &chat_id(change.chat), change.at);
                    let answer = senders[turn % 2].post(&event.to_string()).unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
}

fn check(server: &Server, model: &Model) {
    let mut connection = server.connection();
    let mut ids = |stream: &str| {
        let entries = entries(&mut connection, stream);
        let ids = entries.iter().filter_map(|entry| field(entry, "event_id"));
        let mut ids: Vec<String> = ids.collect();
        ids.sort_unstable();
        ids
    };
    let sorted = |ids: &[String]| {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids
    };
    assert_eq!(ids("labelcast:1"), sorted(&model.added));
    assert_eq!(ids("{labelcast:1}:removed"), sorted(&model.left));
    let records: BTreeMap<String, String> = connection
        .hgetall("labelcast:members:{labelcast:1}:labelcast:1:inst-1:1")
        .unwrap();
    let is_member = |record: &&String| record.starts_with('m') || record.starts_with('n');
    let members = records
        .iter()
        .filter(|(id, record)| *id != ":" && is_member(record));
    let members: BTreeSet<String> = members.map(|(id, _)| id.clone()).collect();
    let expected = model.chats.iter().filter(|(_, known)| known.is_member);
    let expected: BTreeSet<String> = expected.map(|(chat, _)| chat_id(*chat)).collect();
    assert_eq!(members, expected);
    wait_until("the count is stored", || {
        let json: Option<String> = connection.hget("labelcast:labels:{inst-1}", "1").unwrap();
        let stored: Value = serde_json::from_str(&json.unwrap_or_default()).unwrap_or_default();
        stored["chats"] == model.members()
    });
}
