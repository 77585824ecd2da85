use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Snapshot, update};
use crate::live::overview::{LabelView, Overview};
use crate::server::dashboard::fragments::Fragments;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_764_223_478)
}

fn label(id: usize, chats: u64) -> LabelView {
    LabelView {
        label_id: id.to_string(),
        label_name: Some(format!("Label {id}")),
        color_hex: Some("#64c4ff".to_owned()),
        chats: Some(chats),
        counted_at: Some(now()),
        is_exact: true,
        is_deleted: false,
        queue: format!("labelcast:{id}"),
        messages: None,
        lag: None,
        last_run: None,
        trend: Vec::new(),
    }
}

fn snapshot(labels: Vec<LabelView>) -> Snapshot {
    let overview = Arc::new(Overview {
        at: now(),
        labels,
        events_by_minute: vec![1; 60],
        error: None,
        reconcile_every: None,
        enriched: Vec::new(),
    });
    let fragments = Fragments::of(&overview, now());
    Snapshot {
        overview,
        fragments,
    }
}

fn between(old: Option<&Snapshot>, new: &Snapshot) -> (Value, usize) {
    let json = update(old, new);
    (serde_json::from_str(&json).unwrap_or_default(), json.len())
}

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect()
}

#[test]
fn the_first_update_contains_everything() {
    let (update, _) = between(None, &snapshot(vec![label(1, 5), label(2, 7)]));
    assert_eq!(update["labels"][0]["chats"], 5);
    assert_eq!(
        update["page"]["tables"]["chats"]["order"],
        serde_json::json!(["2", "1"])
    );
    assert_eq!(
        keys(&update["page"]["parts"]),
        ["attention", "minutes", "numbers"]
    );
    assert_eq!(
        keys(&update["page"]["tables"]),
        ["chats", "enriched", "minute-rows", "queues", "runs"]
    );
}

#[test]
fn equal_snapshots_differ_in_nothing() {
    let (old, new) = (snapshot(vec![label(1, 5)]), snapshot(vec![label(1, 5)]));
    assert_eq!(old.fragments.version, new.fragments.version);
    let (update, _) = between(Some(&old), &new);
    assert_eq!(update["labels"], serde_json::json!([]));
    assert!(
        keys(&update["page"]["parts"]).is_empty() && keys(&update["page"]["tables"]).is_empty()
    );
}

#[test]
fn one_change_among_many_labels_is_a_small_update() {
    let labels = |largest| {
        let chats = |id| if id == 7 { largest } else { 1000 + id as u64 };
        (0..500).map(|id| label(id, chats(id))).collect()
    };
    let (old, new) = (snapshot(labels(9000)), snapshot(labels(9001)));
    let (update, length) = between(Some(&old), &new);
    assert_eq!(update["labels"].as_array().map(Vec::len), Some(1));
    let table = &update["page"]["tables"]["chats"];
    assert_eq!(keys(&table["rows"]), ["7"]);
    assert_eq!(table["order"], Value::Null);
    assert!(length < 4096, "{length} bytes");
}

#[test]
fn another_order_names_all_rows_but_sends_only_those_that_changed() {
    let old = snapshot(vec![label(1, 9), label(2, 7), label(3, 1)]);
    let new = snapshot(vec![label(1, 6), label(2, 7), label(3, 1)]);
    let (update, _) = between(Some(&old), &new);
    let table = &update["page"]["tables"]["chats"];
    assert_eq!(keys(&table["rows"]), ["1"]);
    assert_eq!(table["order"], serde_json::json!(["2", "1", "3"]));
}

#[test]
fn labels_that_are_not_followed_any_more_are_named() {
    let (old, new) = (
        snapshot(vec![label(1, 9), label(2, 7)]),
        snapshot(vec![label(2, 7)]),
    );
    let (update, _) = between(Some(&old), &new);
    assert_eq!(update["removed"], serde_json::json!(["1"]));
    assert_eq!(
        update["page"]["tables"]["queues"]["order"],
        serde_json::json!(["labelcast:2"])
    );
}
