//! Effects of a schedule: a second run beside the first, a late run, labels that are deleted or
//! have shrunk, and labels that are spread over processes.

use std::collections::BTreeSet;

use labelcast::mock::{Chats, Piece, Reply};

use crate::support::{Stage, gated, lines_in, part_of, small_list, wait_until};

#[test]
fn a_second_run_during_the_first_is_refused() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let first = stage.run().spawn();
    wait_until("the first run is publishing", || {
        lines_in(&stage.out()) > 1000
    });
    let second = stage.path("second.json");
    let ended = stage.run().report_file(second).end().expect(81);
    assert_eq!(ended.label()["status"], "locked");
    assert_eq!(ended.report["status"], "failed");
    gate.cancel();
    first.end().expect(0);
    assert_eq!(stage.ids(), ids);
    // The next scheduled run can start.
    stage.run().end().expect(0);
}

#[test]
fn a_late_run_does_not_resume_an_old_one() {
    let (ids, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let cut = stage.run().args(["--retries", "0"]).end().expect(69);
    // Nothing ran for years: the old run is not resumed, and the current list is published.
    stage.age_journal();
    let ended = stage.run().end().expect(0);
    assert_ne!(ended.label()["run_id"], cut.label()["run_id"]);
    assert_eq!(ended.label()["resumed"], 0);
    assert_eq!(ended.label()["published"], 3000);
    let found = stage.ids();
    assert_eq!(found[found.len() - 3000..], ids);
}

#[test]
fn a_deleted_label_does_not_stop_the_others() {
    let stage = Stage::with_labels(vec![("1", Chats::Generated(5)), ("2", Chats::Generated(5))]);
    stage.run().args(["--label", "2"]).end().expect(0);
    let before = stage.ids().len();
    stage.mock.remove_label("1");
    let ended = stage.run().args(["--label", "2"]).end().expect(80);
    let labels = ended.report["labels"].as_array().unwrap();
    assert_eq!(labels[0]["status"], "guarded");
    assert_eq!(labels[0]["published"], 0);
    assert_eq!(
        labels[1]["status"], "complete",
        "the other label is published"
    );
    assert_eq!(stage.ids().len(), before + 5);
}

#[test]
fn a_list_that_shrank_since_the_last_run_publishes_nothing() {
    let (ids, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    let run = || stage.run().args(["--max-shrink", "20"]);
    run().end().expect(0);
    let set = |count: usize| {
        let list = crate::support::map_of(&ids[..count]);
        stage.mock.set_chats("1", &Chats::Body(list.into()));
    };
    set(799);
    let ended = run().end().expect(80);
    assert_eq!(ended.label()["published"], 0);
    assert_eq!(stage.ids().len(), 1000);
    set(800);
    run().end().expect(0);
    assert_eq!(stage.ids().len(), 1800);
}

#[test]
fn shards_publish_each_label_once() {
    let names: Vec<String> = (1..=23).map(|id| id.to_string()).collect();
    let labels = names.iter().map(|id| (id.as_str(), Chats::Generated(1)));
    let stage = Stage::with_labels(labels.collect());
    let mut seen = BTreeSet::new();
    for index in 0..4 {
        let shard = format!("{index}/4");
        let sink = format!("file:{}", stage.out().display());
        let arguments = ["--all-labels", "--shard", &shard, "--sink", &sink];
        let ended = stage.program("run").args(arguments).end().expect(0);
        for label in ended.report["labels"].as_array().unwrap() {
            assert!(seen.insert(label["label_id"].to_string()), "{label} twice");
        }
    }
    assert_eq!(seen.len(), 23);
    assert_eq!(stage.messages().len(), 23);
}

#[test]
fn a_shard_without_a_label_is_complete() {
    let stage = Stage::with_chats(5);
    let ends: Vec<usize> = (0..2)
        .map(|index| {
            let shard = format!("{index}/2");
            let ended = stage.run().args(["--shard", &shard]).end().expect(0);
            assert_eq!(ended.report["status"], "complete");
            ended.report["labels"].as_array().unwrap().len()
        })
        .collect();
    assert_eq!(ends.iter().sum::<usize>(), 1);
}

#[test]
fn a_shard_without_the_list_of_labels_reports_only_its_own() {
    let ids: Vec<String> = (1..=8).map(|id| id.to_string()).collect();
    let mut told = Vec::new();
    for shard in ["0/2", "1/2"] {
        let stage = Stage::with_labels(vec![]);
        stage.mock.script_labels(Reply::json("no").status(401));
        let sink = format!("file:{}", stage.out().display());
        let labels = ids.join(",");
        let arguments = ["--label", &labels, "--shard", shard, "--sink", &sink];
        let ended = stage.program("run").args(arguments).end().expect(77);
        let labels = ended.report["labels"].as_array().unwrap();
        told.extend(labels.iter().map(|label| label["label_id"].clone()));
    }
    let mut told: Vec<String> = told
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    told.sort();
    assert_eq!(told, ids);
}
