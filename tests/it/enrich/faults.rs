//! Workers that are killed or stopped, and brokers that are away.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use serde_json::Value;

use super::{FAILED, FROM, Place, Queues, Streams, TO, by_chat, chat, drain, of_runs, worker};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::Broker;
use crate::support::{Numbers, Stage, wait_until};

const KILLS: u64 = 50;

/// Returns how often each chat has a record.
fn times(records: &[(Option<String>, Value)]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for (_, record) in records {
        let chat_id = record["chat_id"].as_str().unwrap().to_owned();
        *times.entry(chat_id).or_insert(0) += 1;
    }
    times
}

fn killed_workers_lose_no_chat<P: Place>(place: &P) {
    let stage = Stage::with_chats(0);
    let count = 800;
    place.put(FROM, &of_runs(count));
    stage.mock.set_contact_delay(Duration::from_millis(3));
    let mut numbers = Numbers(7);
    let mut in_hand = 0;
    for _ in 0..KILLS {
        // Counted in this process, so that the kill is at this point and no later one.
        let enough = stage.mock.contact_calls().len() as u64 + 1 + numbers.below(14);
        let worker = worker(&stage, place).args(["--concurrency", "6"]).spawn();
        wait_until("it has looked some up", || {
            stage.mock.contact_calls().len() as u64 >= enough
        });
        worker.kill();
        // What a broker may have sent: the look-ups at once, and 2 more.
        in_hand += 8;
    }
    assert!(!place.is_done(), "all kills were in the middle");
    drain(&stage, place);
    assert!(place.is_done());
    let records = place.take(TO);
    let times = times(&records);
    assert_eq!(times.len() as u64, count);
    let repeats = records.len() - times.len();
    assert!(repeats <= in_hand, "{repeats} repeats");
    assert!(!P::REMEMBERS || repeats == 0, "{repeats} repeats");
    let mut ids: Vec<_> = records.iter().filter_map(|(id, _)| id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert!(
        ids.is_empty() || ids.len() as u64 == count,
        "a repeat has the same id"
    );
    assert!(place.take(FAILED).is_empty());
}

#[test]
fn killed_workers_lose_no_chat_on_redis() {
    killed_workers_lose_no_chat(&Streams::start());
}

#[test]
fn killed_workers_lose_no_chat_on_rabbitmq() {
    killed_workers_lose_no_chat(&Queues::start());
}

fn a_stop_ends_what_is_in_hand(place: &impl Place) {
    let stage = Stage::with_chats(0);
    place.put(FROM, &of_runs(40));
    stage.mock.set_contact_delay(Duration::from_millis(500));
    let worker = worker(&stage, place).args(["--concurrency", "4"]).spawn();
    wait_until("look-ups are under way", || {
        stage.mock.contact_calls().len() >= 4
    });
    worker.signal("TERM");
    worker.end().expect(0);
    let calls = stage.mock.contact_calls().len();
    let published = place.length(TO);
    assert!(
        (1..40).contains(&published) && published == calls,
        "{published} of {calls}"
    );
    // What is left can be taken at once.
    stage.mock.set_contact_delay(Duration::ZERO);
    drain(&stage, place);
    assert_eq!(stage.mock.contact_calls().len(), 40);
    assert_eq!(by_chat(place.take(TO)).len(), 40);
}

#[test]
fn a_stop_ends_what_is_in_hand_on_redis() {
    a_stop_ends_what_is_in_hand(&Streams::start());
}

#[test]
fn a_stop_ends_what_is_in_hand_on_rabbitmq() {
    a_stop_ends_what_is_in_hand(&Queues::start());
}

/// A stop does not end the retries of what is on its way to the broker.
#[test]
fn a_stop_while_the_broker_refuses_loses_nothing_and_ends_with_0() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(4));
    let mut connection = place.0.connection();
    let mut limit = |bytes: &str| {
        redis::cmd("CONFIG")
            .arg(&["SET", "maxmemory", bytes])
            .exec(&mut connection)
            .unwrap();
    };
    stage.mock.set_contact_delay(Duration::from_millis(300));
    let mut process = worker(&stage, &place).spawn();
    wait_until("look-ups are under way", || {
        stage.mock.contact_calls().len() == 4
    });
    limit("1");
    let mut log = BufReader::new(process.take_stderr());
    let mut line = String::new();
    while !line.contains("trying again") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "no retry");
    }
    limit("0");
    process.signal("TERM");
    process.end().expect(0);
    assert_eq!(by_chat(place.take(TO)).len(), 4);
    assert!(place.is_done());
}

#[test]
fn a_worker_that_drains_and_is_stopped_ends_with_75() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(40));
    stage.mock.set_contact_delay(Duration::from_millis(300));
    let worker = worker(&stage, &place).arg("--drain").spawn();
    wait_until("look-ups are under way", || {
        !stage.mock.contact_calls().is_empty()
    });
    worker.signal("INT");
    worker.end().expect(75);
}

#[test]
fn a_redis_that_is_killed_and_comes_back_loses_no_chat() {
    let server =
        crate::support::redis::Server::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut place = Streams(server);
    let stage = Stage::with_chats(0);
    place.put(FROM, &of_runs(300));
    stage.mock.set_contact_delay(Duration::from_millis(5));
    let worker = worker(&stage, &place)
        .args(["--concurrency", "8", "--retries", "2"])
        .spawn();
    for part in [50, 150] {
        wait_until("it has published some", || place.length(TO) >= part);
        place.0.kill();
        // Longer than all retries of a batch.
        std::thread::sleep(Duration::from_secs(4));
        place.0.up();
    }
    wait_until("all are enriched", || {
        place.length(TO) == 300 && place.is_done()
    });
    worker.signal("TERM");
    worker.end().expect(0);
    assert_eq!(by_chat(place.take(TO)).len(), 300);
}

#[test]
fn a_rabbitmq_that_is_restarted_loses_no_chat() {
    let mut broker = Broker::start();
    let place = Queues(broker.vhost());
    let stage = Stage::with_chats(0);
    place.put(FROM, &of_runs(200));
    stage.mock.set_contact_delay(Duration::from_millis(20));
    let worker = worker(&stage, &place).args(["--concurrency", "4"]).spawn();
    wait_until("it has published some", || place.length(TO) >= 30);
    broker.down();
    broker.up();
    wait_until("all are enriched", || {
        place.length(TO) >= 200 && place.is_done()
    });
    worker.signal("TERM");
    worker.end().expect(0);
    assert_eq!(times(&place.take(TO)).len(), 200);
}

#[test]
fn cut_connections_lose_no_chat() {
    let place = Streams::start();
    let stage = Stage::with_chats(0);
    place.put(FROM, &of_runs(200));
    stage.mock.set_contact_delay(Duration::from_millis(5));
    let proxy = Proxy::start(place.0.port);
    let through = proxy.url();
    let worker = worker(&stage, &place).args(["--sink", &through]).spawn();
    for part in 1..10 {
        wait_until("it has published some", || place.length(TO) >= part * 20);
        proxy.cut_connections();
    }
    wait_until("all are enriched", || {
        place.length(TO) == 200 && place.is_done()
    });
    worker.signal("TERM");
    worker.end().expect(0);
    assert_eq!(by_chat(place.take(TO)).len(), 200);
    assert!(by_chat(place.take(FAILED)).is_empty(), "{}", chat(0));
}
