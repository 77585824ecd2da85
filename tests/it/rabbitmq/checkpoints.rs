//! The checkpoint survives changed settings, and queues that earlier versions declared in another
//! form.

use bytes::Bytes;
use labelcast::mock::{Chats, Piece};
use serde_json::json;

use super::{QUEUE, run};
use crate::support::proxy::{Direction, Proxy};
use crate::support::rabbitmq::{Client, Vhost, once, vhost};
use crate::support::{Ended, Running, Stage, map_of, part_of, small_list, wait_until};

/// The queues that may contain the checkpoint of a queue.
fn names(queue: &str) -> [String; 2] {
    ["", "-2"].map(|number| format!("{queue}.labelcast-checkpoint{number}.inst-1.1"))
}

/// Returns the number of messages in these queues.
fn depths(client: &Client, queue: &str) -> [Option<usize>; 2] {
    names(queue).map(|name| client.depth(&name))
}

/// The differing arguments of two consecutive runs.
const CHANGES: [(&[&str], &[&str]); 6] = [
    (&["--queue-type", "classic"], &["--no-declare"]),
    (&[], &["--no-declare", "--queue-type", "classic"]),
    (&["--retain", "2h"], &[]),
    (&["--retain", "forever"], &["--retain", "1h"]),
    (&["--retain", "1h"], &["--retain", "forever"]),
    (
        &["--queue-type", "classic"],
        &["--no-declare", "--retain", "1h"],
    ),
];

/// Moves the checkpoint to a queue as earlier versions declared it.
fn use_old_queue(vhost: &Vhost, queue: &str, kind: &str, expires: Option<i64>) {
    let [name, _] = names(queue);
    let client = vhost.client();
    let record = client.take(&name).unwrap();
    client.delete(&name);
    // A channel that remembers the deleted queue would drop messages for the new one.
    let client = vhost.client();
    let mut arguments = vec![
        ("x-queue-type", json!(kind)),
        ("x-max-length", json!(1)),
        ("x-overflow", json!("drop-head")),
    ];
    arguments.extend(expires.map(|expires| ("x-expires", json!(expires))));
    client.declare(&name, &arguments);
    client.put(&name, &record);
}

/// Runs that publish the same list to queues of one virtual host.
struct Runs {
    stage: Stage,
    url: String,
    client: Client,
    vhost: Vhost,
    ids: Vec<String>,
    body: String,
}

impl Runs {
    fn of(count: usize) -> Self {
        let vhost = vhost();
        let (ids, body) = small_list(count);
        Self {
            stage: Stage::with_body(&body),
            url: vhost.url(),
            client: vhost.client(),
            vhost,
            ids,
            body,
        }
    }

    fn run(&self, queue: &str, arguments: &[&str]) -> Running {
        run(&self.stage, &self.url)
            .args(["--queue", queue])
            .args(arguments)
    }

    /// Publishes half of the list and is then cut off.
    fn publish_half(&self, queue: &str, arguments: &[&str]) -> Ended {
        let half = part_of(&self.body, 0.5, Piece::Cut);
        self.stage.mock.script("1", half);
        let run = self.run(queue, arguments).args(["--retries", "0"]);
        run.end().expect(69)
    }

    /// Checks that a run has resumed an earlier one and that each chat is there once.
    #[track_caller]
    fn resumes(&self, queue: &str, first: &Ended, last: &Ended) {
        let (first, last) = (first.label(), last.label());
        assert_eq!(last["run_id"], first["run_id"], "{queue}");
        assert_eq!(last["resumed"], first["published"], "{queue}");
        let (found, repeats) = once(&self.client.drain(queue));
        assert!(found == self.ids && repeats == 0, "{queue}: {repeats}");
    }
}

#[test]
fn guards_know_the_last_run_after_changed_settings() {
    for (number, (first, second)) in CHANGES.into_iter().enumerate() {
        let runs = Runs::of(200);
        let queue = format!("guarded{number}");
        runs.run(&queue, first).end().expect(0);
        let short = Chats::Body(Bytes::from(map_of(&runs.ids[..20])));
        runs.stage.mock.set_chats("1", &short);
        for _ in 0..2 {
            let ended = runs.run(&queue, second).args(["--max-shrink", "10"]).end();
            assert_eq!(ended.code, Some(80), "{first:?} {second:?}: {ended:#?}");
        }
    }
}

#[test]
fn a_run_is_resumed_after_changed_settings() {
    let runs = Runs::of(3000);
    for (number, (first, second)) in CHANGES.into_iter().enumerate() {
        let queue = format!("resumed{number}");
        let cut = runs.publish_half(&queue, first);
        let resumed = runs.run(&queue, second).end().expect(0);
        runs.resumes(&queue, &cut, &resumed);
    }
}

#[test]
fn checkpoints_of_earlier_versions_are_read() {
    let runs = Runs::of(3000);
    for (kind, expires) in [
        ("classic", Some(604_800_000)),
        ("classic", Some(3_600_000)),
        ("classic", None),
        ("quorum", Some(3_600_000)),
        ("quorum", None),
    ] {
        let queue = format!("{kind}{expires:?}");
        let cut = runs.publish_half(&queue, &[]);
        use_old_queue(&runs.vhost, &queue, kind, expires);
        let resumed = runs.run(&queue, &[]).end().expect(0);
        runs.resumes(&queue, &cut, &resumed);
        // The queue in the old form is gone.
        assert_eq!(depths(&runs.client, &queue), [None, Some(1)], "{queue}");
    }
}

#[test]
fn a_changed_setting_moves_the_checkpoint_to_the_other_queue() {
    let runs = Runs::of(500);
    for (retain, expected) in [
        ("1h", [Some(1), None]),
        ("2h", [None, Some(1)]),
        ("3h", [Some(1), None]),
        ("3h", [Some(1), None]),
    ] {
        runs.run(QUEUE, &["--retain", retain]).end().expect(0);
        assert_eq!(depths(&runs.client, QUEUE), expected, "{retain}");
    }
}

#[test]
fn a_cut_while_the_checkpoint_is_moved_loses_nothing() {
    let runs = Runs::of(600);
    let proxy = Proxy::start(runs.vhost.port);
    let url = runs.vhost.url_by(proxy.port);
    let mut unmoved = 0;
    for direction in [Direction::ToServer, Direction::ToClient] {
        for bytes in (200..3000).step_by(200) {
            let queue = format!("{direction:?}{bytes}");
            let first = runs.publish_half(&queue, &[]);
            use_old_queue(&runs.vhost, &queue, "classic", Some(3_600_000));
            proxy.cut_after(bytes, direction);
            // Without the cut, a guard ends the run, so it does not publish.
            let moving = run(&runs.stage, &url).args(["--queue", &queue, "--retries", "0"]);
            let mut moving = moving.args(["--min-chats", "601"]).spawn();
            wait_until("the run is cut off or has ended", || {
                !proxy.is_armed() || moving.has_ended()
            });
            drop(moving);
            proxy.cut_after(-1, direction);
            unmoved += u32::from(depths(&runs.client, &queue)[0].is_some());
            let last = runs.run(&queue, &[]).end().expect(0);
            runs.resumes(&queue, &first, &last);
            assert_eq!(depths(&runs.client, &queue), [None, Some(1)], "{queue}");
        }
    }
    assert!(unmoved > 5, "only {unmoved} were cut off before the end");
}

#[test]
fn the_newer_of_two_checkpoints_counts() {
    let runs = Runs::of(600);
    for newer in [0, 1] {
        let queue = format!("newer{newer}");
        let names = names(&queue);
        let first = runs.publish_half(&queue, &[]);
        let record = runs.client.take(&names[0]).unwrap();
        let mut older = record.clone();
        older.data["at"] = "2006-01-02T15:04:05.000Z".into();
        older.data["run_id"] = "01a21943-9fed-77b3-9f42-fb5a3b1e7d5b".into();
        let arguments = [
            ("x-queue-type", json!("quorum")),
            ("x-max-length", json!(1)),
        ];
        runs.client.declare(&names[1], &arguments);
        runs.client.put(&names[newer], &record);
        runs.client.put(&names[1 - newer], &older);
        let last = runs.run(&queue, &[]).end().expect(0);
        runs.resumes(&queue, &first, &last);
    }
}

#[test]
fn the_checkpoint_of_a_waiting_run_does_not_expire() {
    let runs = Runs::of(600);
    let half = part_of(&runs.body, 0.5, Piece::Hold);
    runs.stage.mock.script("1", half);
    let process = runs.run(QUEUE, &["--retain", "4s"]).spawn();
    wait_until("the run waits for the rest", || {
        depths(&runs.client, QUEUE)[0] == Some(1)
    });
    // A message that expires after ten seconds serves as a clock.
    let arguments = [
        ("x-message-ttl", json!(10_000)),
        ("x-dead-letter-exchange", json!("")),
        ("x-dead-letter-routing-key", json!("rung")),
    ];
    runs.client.declare("clock", &arguments);
    runs.client.declare("rung", &[]);
    let record = runs.client.take(QUEUE).unwrap();
    runs.client.put("clock", &record);
    wait_until("ten seconds are over", || {
        runs.client.depth("rung") == Some(1)
    });
    assert_eq!(depths(&runs.client, QUEUE), [Some(1), None]);
    process.kill();
}
