//! Server-sent events.

use std::sync::Arc;

use super::served::{Served, label, overview};
use labelcast::live::overview::LabelView;

fn labels(first: u64) -> Vec<LabelView> {
    vec![label("1", "New", Some(first)), label("2", "VIP", Some(7))]
}

#[tokio::test]
async fn each_change_is_one_event_after_the_current_state() {
    let served = Served::open(overview(labels(5))).await;
    let mut events = served.events("").await;
    let state = events.next().await.unwrap();
    assert_eq!(state["labels"].as_array().unwrap().len(), 2);
    assert_eq!(state["labels"][0]["chats"], 5);
    served.overview.send_replace(Arc::new(overview(labels(8))));
    let change = events.next().await.unwrap();
    assert_eq!(change["labels"].as_array().unwrap().len(), 1);
    assert_eq!(change["labels"][0]["label_id"], "1");
    assert_eq!(change["labels"][0]["chats"], 8);
    let table = &change["page"]["tables"]["chats"];
    assert_eq!(table["order"], serde_json::json!(["1", "2"]));
    assert!(
        table["rows"]["1"]
            .as_str()
            .unwrap()
            .contains("<td class=\"number\">8")
    );
    assert!(table["rows"]["2"].is_null(), "only what changed");
}

#[tokio::test]
async fn changes_in_between_are_skipped() {
    let served = Served::open(overview(labels(5))).await;
    let mut events = served.events("").await;
    events.next().await.unwrap();
    for chats in 6..1000 {
        served
            .overview
            .send_replace(Arc::new(overview(labels(chats))));
    }
    let mut read = 0;
    loop {
        read += 1;
        if events.next().await.unwrap()["labels"][0]["chats"] == 999 {
            break;
        }
    }
    assert!(read < 10, "{read} events for 994 changes");
}

#[tokio::test]
async fn a_page_that_is_current_does_not_get_everything_again() {
    let served = Served::open(overview(labels(5))).await;
    let page = served.get("/", &[]).await.body;
    let version = page.split("data-version=\"").nth(1).unwrap();
    let version = version.split('"').next().unwrap();
    let state = served
        .events(&format!("?from={version}"))
        .await
        .next()
        .await;
    let state = state.unwrap();
    assert_eq!(state["page"]["version"], version);
    assert_eq!(state["page"]["tables"], serde_json::json!({}));
    let state = served.events("?from=other").await.next().await.unwrap();
    assert_ne!(state["page"]["tables"], serde_json::json!({}));
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let served = Served::open(overview(labels(5))).await;
    let mut events = served.events("").await;
    events.next().await.unwrap();
    served.stop.cancel();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn only_so_many_streams_are_open_at_once() {
    let served = Served::open(overview(labels(5))).await;
    let mut open = Vec::new();
    for _ in 0..64 {
        let mut events = served.events("").await;
        events.next().await.unwrap();
        open.push(events);
    }
    let answer = served.get("/events", &[]).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(served.get("/", &[]).await.status, 200);
    // A place is free again when a reader is gone, which the server notices.
    drop(open);
    served.overview.send_replace(Arc::new(overview(labels(6))));
    while served.request("HEAD", "/events", &[], "").await.status == 503 {
        tokio::task::yield_now().await;
    }
}
