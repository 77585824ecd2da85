//! Several workers on one queue, and the rate of their requests.

use std::time::Duration;

use labelcast::mock::{Piece, Reply};
use tokio_util::sync::CancellationToken;

use super::{FROM, Place, Queues, Streams, TO, by_chat, chat, of_runs, worker};
use crate::support::{Process, Stage, wait_until};

/// Returns the number of records that a worker has published, from its report.
fn records(worker: Process) -> u64 {
    let ended = worker.end().expect(0);
    let report: serde_json::Value = serde_json::from_str(ended.stdout.trim()).unwrap();
    assert_eq!(report["schema"], "labelcast.enrich-report/1");
    report["totals"]["found"].as_u64().unwrap()
}

fn two_workers_share_a_queue_evenly(place: &impl Place) {
    let stage = Stage::with_chats(0);
    // Together they need over two seconds, so that it does not matter which one starts first.
    stage.mock.set_contact_delay(Duration::from_millis(50));
    place.put(FROM, &of_runs(400));
    let start = || {
        let worker = worker(&stage, place).args(["--concurrency", "4", "--report", "json"]);
        worker.spawn()
    };
    let workers = [start(), start()];
    wait_until("all are enriched", || place.length(TO) == 400);
    for worker in &workers {
        worker.signal("TERM");
    }
    let shares = workers.map(records);
    assert_eq!(shares.iter().sum::<u64>(), 400);
    assert!(shares.iter().all(|share| *share >= 100), "{shares:?}");
    assert_eq!(by_chat(place.take(TO)).len(), 400);
    // Nobody was looked up twice.
    assert_eq!(stage.mock.contact_calls().len(), 400);
}

#[test]
fn two_workers_share_a_queue_evenly_on_redis() {
    two_workers_share_a_queue_evenly(&Streams::start());
}

#[test]
fn two_workers_share_a_queue_evenly_on_rabbitmq() {
    two_workers_share_a_queue_evenly(&Queues::start());
}

/// Each of three workers keeps its rate, and so the API sees at most three times as much.
#[test]
fn the_api_sees_the_rate_of_each_worker() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(90));
    let start = || {
        let worker = worker(&stage, &place).args(["--rate", "10/s", "--concurrency", "16"]);
        worker.args(["--include", "about", "--drain"]).spawn()
    };
    let workers = [start(), start(), start()];
    for worker in workers {
        worker.end().expect(0);
    }
    assert_eq!(by_chat(place.take(TO)).len(), 90);
    let calls = stage.mock.contact_calls();
    assert_eq!(calls.len(), 180, "two requests a contact");
    let took = calls.last().unwrap().at - calls[0].at;
    // 180 requests at 30 a second, of which each worker may send two at once at first.
    assert!(
        took >= Duration::from_secs_f64((180.0 - 9.0) / 30.0),
        "{took:?}"
    );
}

/// A look-up that takes long is not taken over, and its worker is not held up by others.
/// Also to the same queue, which remembers what it has of the first group.
#[test]
fn another_group_enriches_once_more() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(5));
    for (group, records) in [("a", 5), ("b", 10), ("b", 10)] {
        let worker = worker(&stage, &place).args(["--group", group, "--drain"]);
        worker.end().expect(0);
        assert_eq!(place.length(TO), records, "{group}");
    }
}

#[test]
fn a_slow_contact_stays_with_its_worker() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    let gate = CancellationToken::new();
    let slow = Reply::pieces([
        Piece::Until(gate.clone()),
        Piece::Bytes(r#"{"id":"a@c.us"}"#.into()),
    ]);
    stage.mock.script_contact(&chat(0), slow);
    place.put(FROM, &of_runs(10));
    let first = worker(&stage, &place).spawn();
    wait_until("the others are enriched", || place.length(TO) == 9);
    let second = worker(&stage, &place).arg("--drain").spawn();
    // Longer than the time after which a dead worker's messages are taken over.
    std::thread::sleep(Duration::from_secs(36));
    gate.cancel();
    second.end().expect(0);
    first.signal("TERM");
    first.end().expect(0);
    assert_eq!(by_chat(place.take(TO)).len(), 10);
    assert_eq!(stage.mock.contact_calls().len(), 10);
}

/// A worker that reads its own messages again would never drain a queue.
#[test]
fn a_queue_that_does_not_exist_yet_is_waited_for() {
    for drains in [false, true] {
        let stage = Stage::with_chats(0);
        let place = Streams::start();
        if drains {
            worker(&stage, &place).arg("--drain").end().expect(0);
            continue;
        }
        let worker = worker(&stage, &place).spawn();
        place.put(FROM, &of_runs(3));
        wait_until("all are enriched", || place.length(TO) == 3);
        worker.signal("TERM");
        worker.end().expect(0);
    }
}
