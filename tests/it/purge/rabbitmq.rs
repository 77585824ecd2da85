//! Queues of RabbitMQ, which can only be emptied as a whole.

use labelcast::mock::Chats;
use serde_json::json;

use super::{purge, said};
use crate::support::rabbitmq::vhost;
use crate::support::{Stage, gated, small_list, wait_until};

const ALL: [&str; 2] = ["--older-than", "0s"];
const QUEUE: &str = "labelcast:1";
const CHECKPOINT: &str = "labelcast:1.labelcast-checkpoint.inst-1.1";
const LOCK: &str = "labelcast:1.labelcast-lock.inst-1.1";

#[test]
fn a_queue_is_emptied_with_its_checkpoint() {
    for kind in ["quorum", "classic"] {
        let (vhost, stage) = (vhost(), Stage::with_chats(30));
        let run = || {
            let run = stage
                .program("run")
                .args(["--label", "1", "--queue-type", kind]);
            run.args(["--sink", &vhost.url()])
        };
        run().end().expect(0);
        let client = vhost.client();
        client.declare("labelcast:1:removed", &[]);
        let message = client.take(QUEUE).unwrap();
        client.put("labelcast:1:removed", &message);
        let expected = json!({"messages": 29, "removed_messages": 1, "checkpoints": 1});
        let purge = |more: &[&str]| {
            let purge = purge(&vhost.url()).args(ALL).args(["--label", "1"]);
            said(&purge.args(more).end().expect(0))
        };
        wait_until("the broker has counted", || client.depth(QUEUE) == Some(29));
        assert_eq!(purge(&["--dry-run"]), expected);
        assert_eq!(client.depth(QUEUE), Some(29));
        assert_eq!(client.depth(CHECKPOINT), Some(1));
        assert_eq!(purge(&[]), expected);
        assert_eq!(client.depth(QUEUE), Some(0));
        assert_eq!(client.depth("labelcast:1:removed"), Some(0));
        assert_eq!(client.depth(CHECKPOINT), None);
        assert_eq!(client.depth(LOCK), None);
        assert_eq!(purge(&[]), json!({}));
        run().end().expect(0);
        assert_eq!(client.depth(QUEUE), Some(30));
    }
}

#[test]
fn what_the_broker_cannot_select_is_an_error() {
    let (vhost, stage) = (vhost(), Stage::with_chats(3));
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &vhost.url()]);
    run.end().expect(0);
    for (arguments, problem) in [
        (vec!["--older-than", "1d", "--label", "1"], "by their age"),
        (vec!["--older-than", "0s"], "which queues there are"),
        (
            vec!["--older-than", "0s", "--label", "1", "--queue", QUEUE],
            "by their label",
        ),
    ] {
        let ended = purge(&vhost.url()).args(arguments).end().expect(78);
        assert!(ended.stderr.contains(problem), "{}", ended.stderr);
        assert_eq!(said(&ended), json!({}));
    }
    // Acknowledged messages are gone already.
    let ended = purge(&vhost.url()).args(["--acknowledged", "--label", "1"]);
    assert_eq!(said(&ended.end().expect(0)), json!({}));
    assert_eq!(vhost.client().depth(QUEUE), Some(3));
}

#[test]
fn a_stream_cannot_be_emptied() {
    let (vhost, stage) = (vhost(), Stage::with_chats(3));
    let run = stage
        .program("run")
        .args(["--label", "1", "--queue-type", "stream"]);
    run.args(["--sink", &vhost.url()]).end().expect(0);
    let ended = purge(&vhost.url())
        .args(ALL)
        .args(["--label", "1"])
        .end()
        .expect(78);
    assert!(ended.stderr.contains("is a stream"), "{}", ended.stderr);
}

#[test]
fn a_whole_queue_is_emptied_without_a_label() {
    let labels = vec![("1", Chats::Generated(4)), ("2", Chats::Generated(5))];
    let (vhost, stage) = (vhost(), Stage::with_labels(labels));
    let run = stage.program("run").args(["--all-labels", "--queue", "q"]);
    run.args(["--sink", &vhost.url()]).end().expect(0);
    let client = vhost.client();
    wait_until("the broker has counted", || client.depth("q") == Some(9));
    let ended = purge(&vhost.url())
        .args(ALL)
        .args(["--queue", "q"])
        .end()
        .expect(0);
    assert_eq!(said(&ended), json!({"messages": 9}));
    assert_eq!(client.depth("q"), Some(0));
}

#[test]
fn a_queue_that_a_run_holds_is_left_alone() {
    let (vhost, stage) = (vhost(), Stage::with_chats(3));
    let (_, body) = small_list(1000);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let run = stage
        .program("run")
        .args(["--label", "1", "--sink", &vhost.url()]);
    let process = run.spawn();
    let client = vhost.client();
    wait_until("messages are published", || client.depth(QUEUE) > Some(0));
    for more in [&["--dry-run"][..], &[]] {
        let purge = purge(&vhost.url()).args(ALL).args(["--label", "1"]);
        let ended = purge.args(more).end().expect(81);
        assert_eq!(said(&ended), json!({}));
    }
    gate.cancel();
    process.end().expect(0);
    assert_eq!(client.depth(QUEUE), Some(1000));
}
