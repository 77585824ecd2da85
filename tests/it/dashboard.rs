//! The dashboard: supervisors see counts, strangers see nothing, and nobody sees people.

mod access;
mod served;
mod speed;
mod stream;

use std::time::{Duration, UNIX_EPOCH};

use serde_json::json;

use self::served::{Served, label, overview, run};
use labelcast::live::overview::{LabelView, RunStatus, Sample};

const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                   connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

#[tokio::test]
async fn the_page_shows_labels_largest_first_without_scripts() {
    let failed = LabelView {
        last_run: Some(run(RunStatus::Failed, Some("cannot reach the API"))),
        messages: Some(1234),
        lag: Some(17),
        ..label("2", "VIP", Some(1_500))
    };
    let labels = vec![
        label("1", "New", Some(20)),
        failed,
        label("3", "Unknown", None),
    ];
    let served = Served::open(overview(labels)).await;
    let answer = served.get("/", &[]).await;
    assert_eq!(answer.status, 200);
    let page = &answer.body;
    let place = |text: &str| {
        page.find(text)
            .unwrap_or_else(|| panic!("no {text}: {page}"))
    };
    let table = place("<tbody id=\"chats\">");
    let places = ["VIP", "New", "Unknown"]
        .map(|name| table + page[table..].find(&format!("<bdi>{name}</bdi>")).unwrap());
    assert!(places.is_sorted(), "the largest first: {places:?}");
    place("<td class=\"number\">1,500");
    place("fill=\"#64c4ff\"");
    place("The last run failed: <bdi>cannot reach the API</bdi>");
    place("<span class=\"mark error\">failed</span>");
    place("<td class=\"number\">1,234</td><td class=\"number\">17</td>");
    place("Updated <time id=\"at\"");
    place("3 events in 2 minutes, at most 2 in one");
    assert!(!page.contains("style=") && !page.contains("onload"));
}

#[tokio::test]
async fn a_page_without_labels_is_complete() {
    let served = Served::open(overview(Vec::new())).await;
    let answer = served.get("/", &[]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("Nothing needs attention."));
    assert_eq!(served.get("/api/labels", &[]).await.body, "[]");
    assert_eq!(served.get("/api/runs", &[]).await.body, "[]");
}

#[tokio::test]
async fn names_and_colours_of_the_api_cannot_become_markup() {
    let evil = "\"><script>alert(1)</script>&<img src=x onerror=alert(1)>\u{0}\u{202e}";
    let label = LabelView {
        color_hex: Some("red\" onclick=\"alert(1)".to_owned()),
        queue: evil.to_owned(),
        last_run: Some(run(RunStatus::Failed, Some(evil))),
        ..label(evil, evil, Some(1))
    };
    let invisible = self::label("7", "\u{200b}\u{200f}", Some(1));
    let served = Served::open(overview(vec![label, invisible])).await;
    let page = served.get("/", &[]).await.body;
    assert!(
        !page.contains("<script>") && !page.contains("<img src=x") && !page.contains("onclick")
    );
    assert!(!page.contains('\u{0}') && !page.contains('\u{202e}'));
    assert!(page.contains("&lt;script&gt;alert(1)"), "{page}");
    assert!(page.contains("fill=\"#888888\""), "a colour that is none");
    assert!(
        page.contains("<bdi>7</bdi>"),
        "the id in place of an invisible name"
    );
    // JSON has the name as it is.
    let labels = served.get("/api/labels", &[]).await.json();
    assert_eq!(labels[0]["label_name"], evil);
}

#[tokio::test]
async fn the_api_has_counts_and_runs() {
    let counted = LabelView {
        counted_at: Some(UNIX_EPOCH + Duration::from_millis(1_764_223_478_900)),
        last_run: Some(run(RunStatus::Complete, None)),
        trend: vec![Sample {
            at: UNIX_EPOCH,
            chats: 3,
        }],
        ..label("1", "VIP", Some(5))
    };
    let unknown = LabelView {
        label_name: None,
        color_hex: None,
        counted_at: None,
        is_exact: false,
        ..label("2", "", None)
    };
    let served = Served::open(overview(vec![counted, unknown])).await;
    let answer = served.get("/api/labels", &[]).await;
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let labels = json!([
        {"label_id": "1", "label_name": "VIP", "color_hex": "#64C4ff", "chats": 5,
         "counted_at": "2025-11-27T06:04:38Z", "exact": true},
        {"label_id": "2", "label_name": null, "color_hex": null, "chats": null,
         "counted_at": null, "exact": false},
    ]);
    assert_eq!(answer.json(), labels);
    let runs = json!([
        {"label_id": "1", "label_name": "VIP", "queue": "labelcast:1",
         "run_id": "0197c0de-0000-7000-8000-000000000001", "status": "complete", "chats": 5,
         "published": 4, "finished_at": "2025-11-27T06:04:38Z", "elapsed_ms": 1500, "error": null},
    ]);
    assert_eq!(served.get("/api/runs", &[]).await.json(), runs);
}

#[tokio::test]
async fn all_answers_have_the_security_headers() {
    let served = Served::open(overview(vec![label("1", "VIP", Some(5))])).await;
    let paths = [
        "/",
        "/api/labels",
        "/api/runs",
        "/login",
        "/dashboard.css",
        "/dashboard.js",
        "/icon.svg",
    ];
    for path in paths {
        let answer = served.get(path, &[]).await;
        assert_eq!(
            answer.header("content-security-policy"),
            Some(CSP),
            "{path}"
        );
        assert_eq!(
            answer.header("x-content-type-options"),
            Some("nosniff"),
            "{path}"
        );
        assert_eq!(
            answer.header("referrer-policy"),
            Some("no-referrer"),
            "{path}"
        );
        let is_file = path.contains('.');
        let caching = if is_file { "no-cache" } else { "no-store" };
        assert_eq!(answer.header("cache-control"), Some(caching), "{path}");
    }
    for method in ["POST", "PUT", "DELETE"] {
        for path in ["/", "/api/labels", "/api/runs", "/events"] {
            let answer = served.request(method, path, &[], "").await;
            assert_eq!(answer.status, 405, "{method} {path}");
        }
    }
    let head = served.request("HEAD", "/", &[], "").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn browsers_keep_the_files_as_long_as_they_are_the_same() {
    let served = Served::open(overview(Vec::new())).await;
    let answer = served.get("/dashboard.js", &[]).await;
    assert_eq!(
        answer.header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    let etag = answer.header("etag").unwrap().to_owned();
    let again = served
        .get("/dashboard.js", &[("If-None-Match", &etag)])
        .await;
    assert_eq!((again.status, again.body.as_str()), (304, ""));
    let other = served
        .get("/dashboard.js", &[("If-None-Match", "\"other\"")])
        .await;
    assert_eq!(other.status, 200);
}
