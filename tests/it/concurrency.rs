//! `--concurrency`: labels that are published at once do not disturb each other.

use labelcast::mock::Chats;

use crate::support::redis::{Server, entries};
use crate::support::{Ended, Stage, gated, ids_in, small_list, wait_until};

fn stage_of(labels: &[&str], body: &str) -> Stage {
    let chats = || Chats::Body(bytes::Bytes::copy_from_slice(body.as_bytes()));
    Stage::with_labels(labels.iter().map(|id| (*id, chats())).collect())
}

/// How many lists of chats were asked for.
fn lists_fetched(stage: &Stage) -> usize {
    let requests = stage.mock.requests();
    let is_list = |path: &str| path.ends_with("/chats");
    requests.iter().filter(|it| is_list(&it.path)).count()
}

/// Id and status of each label, in the order of the report.
fn labels(ended: &Ended) -> Vec<String> {
    let labels = ended.report["labels"].as_array().unwrap().iter();
    let text = |label: &serde_json::Value, key: &str| label[key].as_str().unwrap().to_owned();
    labels
        .map(|label| text(label, "label_id") + " " + &text(label, "status"))
        .collect()
}

#[test]
fn labels_are_published_at_once_and_reported_in_their_order() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = stage_of(&["1", "2", "3"], &body);
    // The first label ends only after the last one was fetched.
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let run = stage
        .program("run")
        .args(["--all-labels", "--concurrency", "3"]);
    let process = run.args(["--sink", &server.url()]).spawn();
    wait_until("all lists are fetched", || lists_fetched(&stage) == 3);
    gate.cancel();
    let ended = process.end().expect(0);
    let complete = ["1 complete", "2 complete", "3 complete"];
    assert_eq!(labels(&ended), complete);
    for label in ["1", "2", "3"] {
        let stream = entries(&mut server.connection(), &format!("labelcast:{label}"));
        assert_eq!(stream.len(), ids.len(), "label {label}");
    }
}

#[test]
fn a_label_that_fails_leaves_the_others_alone() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(3000);
    let stage = stage_of(&["1", "2", "3"], &body);
    stage
        .mock
        .set_chats("2", &Chats::Body(bytes::Bytes::from_static(b"<html>")));
    let run = stage.program("run").args(["--label", "1,2,3,4"]);
    let run = run.args(["--concurrency", "4", "--sink", &server.url()]);
    // The heaviest of 76 (an answer that is no list) and 80 (a label that does not exist).
    let ended = run.end().expect(76);
    assert_eq!(
        labels(&ended),
        ["1 complete", "2 failed", "3 complete", "4 guarded"]
    );
    for label in ["1", "3"] {
        let stream = entries(&mut server.connection(), &format!("labelcast:{label}"));
        assert_eq!(stream.len(), ids.len(), "label {label}");
    }
}

#[test]
fn a_stop_leaves_all_labels_in_hand_to_be_resumed() {
    let server = Server::start(&[]);
    let (ids, body) = small_list(6000);
    let stage = stage_of(&["1", "2", "3"], &body);
    let gates = ["1", "2"].map(|label| {
        let (reply, gate) = gated(&body);
        stage.mock.script(label, reply);
        gate
    });
    let run = || {
        let run = stage.program("run").args(["--label", "1,2,3"]);
        run.args(["--concurrency", "2", "--sink", &server.url()])
    };
    let process = run().spawn();
    let mut connection = server.connection();
    for stream in ["labelcast:1", "labelcast:2"] {
        wait_until("both labels are in hand", || {
            !entries(&mut connection, stream).is_empty()
        });
    }
    process.signal("TERM");
    let stopped = process.end().expect(75);
    drop(gates);
    assert_eq!(labels(&stopped), ["1 partial", "2 partial", "3 partial"]);
    assert_eq!(lists_fetched(&stage), 2, "two labels were in hand");
    let ended = run().end().expect(0);
    for (index, label) in ["1", "2", "3"].iter().enumerate() {
        let before = stopped.report["labels"][index]["published"]
            .as_u64()
            .unwrap();
        assert_eq!(before > 0, *label != "3");
        assert_eq!(ended.report["labels"][index]["resumed"], before);
        let stream = entries(&mut connection, &format!("labelcast:{label}"));
        assert_eq!(stream.len(), ids.len(), "label {label}");
    }
}

#[test]
fn a_file_takes_one_label_after_the_other() {
    let (ids, body) = small_list(3000);
    let stage = stage_of(&["1", "2"], &body);
    let sink = format!("file:{}", stage.out().display());
    let run = stage
        .program("run")
        .args(["--label", "1,2", "--sink", &sink]);
    let ended = run.args(["--concurrency", "2"]).end().expect(0);
    assert_eq!(labels(&ended), ["1 complete", "2 complete"]);
    assert_eq!(ids_in(&stage.out()), [ids.clone(), ids].concat());
    assert!(
        ended
            .stderr
            .contains("sink takes one label after the other")
    );
}

#[test]
fn a_number_of_labels_out_of_range_is_an_error() {
    for number in ["0", "17", "many"] {
        let stage = Stage::with_chats(1);
        let ended = stage.run().args(["--concurrency", number]).end().expect(78);
        let text = "is not a whole number from 1 to 16";
        assert!(ended.stderr.contains(text), "{}", ended.stderr);
    }
}
