//! `--metrics-file` and `--metrics-push`, the source of graphs and alerts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use labelcast::mock::{Chats, Piece, Reply};

use crate::support::{Stage, lines_in, part_of, small_list, wait_until};

/// Parses the samples of a text, by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

const OF_LABEL: &str = r#"instance_id="inst-1",label_id="1",queue="labelcast:1""#;

fn series(name: &str, more: &str) -> String {
    format!("labelcast_{name}{{{OF_LABEL}{more}}}")
}

#[test]
fn a_complete_run_writes_all_metrics() {
    let stage = Stage::with_body(r#"[{"id":"1@c.us"},{"id":"2@c.us"},{}]"#);
    let path = stage.path("labelcast.prom");
    let arguments = [
        "--metrics-file",
        path.to_str().unwrap(),
        "--max-invalid",
        "1",
    ];
    let ended = stage.run().args(arguments).end().expect(0);
    let text = std::fs::read_to_string(&path).unwrap();
    let samples = samples(&text);
    for (name, more, value) in [
        ("last_run_status", r#",status="complete""#, 1.0),
        ("last_run_status", r#",status="failed""#, 0.0),
        ("last_run_exit_code", "", 0.0),
        ("last_run_chats", r#",outcome="read""#, 3.0),
        ("last_run_chats", r#",outcome="published""#, 2.0),
        ("last_run_chats", r#",outcome="invalid""#, 1.0),
        ("last_run_messages", "", 2.0),
        ("last_run_bytes", "", 36.0),
        ("last_run_attempts", "", 1.0),
    ] {
        assert_eq!(samples[&series(name, more)], value, "{name}{more}\n{text}");
    }
    let finished = ended.report["finished_at"].as_str().unwrap();
    let finished = humantime::parse_rfc3339(finished).unwrap();
    let finished = finished.duration_since(std::time::UNIX_EPOCH).unwrap();
    for name in ["last_success", "last_end"] {
        let at = samples[&series(&format!("{name}_timestamp_seconds"), "")];
        assert_eq!(at, finished.as_secs_f64());
    }
    assert_eq!(
        samples[r#"labelcast_last_process_exit_code{instance_id="inst-1"}"#],
        0.0
    );
    // Each family is declared once, and its samples are adjacent.
    let families: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("# TYPE"))
        .collect();
    let unique: std::collections::BTreeSet<&&str> = families.iter().collect();
    assert_eq!(families.len(), unique.len());
}

#[test]
fn a_failed_run_keeps_the_last_success() {
    let stage = Stage::with_chats(3);
    let path = stage.path("labelcast.prom");
    let run = || stage.run().args(["--metrics-file", path.to_str().unwrap()]);
    let read = || samples(&std::fs::read_to_string(&path).unwrap());
    run().end().expect(0);
    let success = series("last_success_timestamp_seconds", "");
    let first = read()[&success];
    stage.mock.script("1", Reply::json("<html>"));
    run().end().expect(76);
    let after = read();
    assert_eq!(after[&success], first);
    assert_eq!(after[&series("last_run_exit_code", "")], 76.0);
    assert_eq!(
        after[&series("last_run_status", r#",status="complete""#)],
        0.0
    );
    assert_eq!(
        after[&series("last_run_status", r#",status="failed""#)],
        1.0
    );
    // A dry run does not count as a run.
    run().args(["--dry-run"]).end().expect(0);
    assert_eq!(read(), after);
    run().end().expect(0);
    assert!(read()[&success] > first);
}

#[test]
fn a_locked_run_writes_no_counts() {
    let (_, body) = small_list(3000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Hold));
    let _first = stage.run().spawn();
    wait_until("the first run is publishing", || {
        lines_in(&stage.out()) > 1000
    });
    let path = stage.path("labelcast.prom");
    let arguments = ["--metrics-file", path.to_str().unwrap()];
    stage.run().args(arguments).end().expect(81);
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(samples(&text)[&series("last_run_exit_code", "")], 81.0);
    assert!(!text.contains("labelcast_last_run_chats"), "{text}");
}

#[test]
fn failing_to_write_metrics_does_not_fail_the_run() {
    let stage = Stage::with_chats(3);
    let arguments = [
        "--metrics-file",
        "/nowhere/at/all.prom",
        "--metrics-push",
        "http://user:pass-that-must-not-appear@127.0.0.1:9/",
    ];
    let ended = stage.run().args(arguments).end().expect(0);
    assert!(
        ended.stderr.contains("/nowhere/at/all.prom"),
        "{}",
        ended.stderr
    );
    assert!(
        ended.stderr.contains("cannot push metrics"),
        "{}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("pass-that"), "{}", ended.stderr);
}

/// A stand-in for a Pushgateway. It records metrics by path, and a new push replaces metrics of the
/// same name.
#[derive(Clone, Default)]
struct Gateway {
    groups: Arc<Mutex<BTreeMap<String, BTreeMap<String, f64>>>>,
    /// A part of the path of each group that it refuses. `None` accepts all groups.
    refuses: Option<&'static str>,
}

impl Gateway {
    /// Starts serving until the test process ends. Returns the address.
    fn serve(&self) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let gateway = self.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let take = async move |method: Method, uri: Uri, body: String| {
                    assert_eq!(method, Method::POST);
                    if gateway
                        .refuses
                        .is_some_and(|part| uri.path().contains(part))
                    {
                        let long = "x".repeat(10_000);
                        let text = format!("inconsistent\r\n\x1b[31mmetrics {long}");
                        return (StatusCode::BAD_REQUEST, text);
                    }
                    gateway.take(uri.path(), &body);
                    (StatusCode::OK, String::new())
                };
                let router = Router::new().fallback(take);
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                axum::serve(listener, router).await.unwrap();
            });
        });
        format!("http://{address}/prefix/")
    }

    fn take(&self, path: &str, body: &str) {
        let mut groups = self.groups.lock().unwrap();
        let group = groups.entry(path.to_owned()).or_default();
        let name = |series: &str| series.split('{').next().unwrap().to_owned();
        let new = samples(body);
        group.retain(|series, _| !new.keys().any(|other| name(other) == name(series)));
        group.extend(new);
    }

    fn groups(&self) -> BTreeMap<String, BTreeMap<String, f64>> {
        self.groups.lock().unwrap().clone()
    }
}

#[test]
fn metrics_are_pushed_even_if_the_run_did_not_reach_the_api() {
    let gateway = Gateway::default();
    let url = gateway.serve();
    let stage = Stage::with_chats(1);
    let arguments = ["--metrics-push", &url, "--report-file", "/nowhere/r.json"];
    let ended = stage.run().args(arguments).end().expect(74);
    let told = ended.stderr.matches("could not write the report").count();
    assert_eq!(told, 1, "{}", ended.stderr);
    let groups = gateway.groups();
    let codes: Vec<f64> = groups
        .values()
        .map(|group| group["labelcast_last_process_exit_code{instance_id=\"inst-1\"}"])
        .collect();
    assert_eq!(codes, [74.0]);
}

#[test]
fn pushes_add_to_the_groups_of_a_pushgateway() {
    let gateway = Gateway::default();
    let url = gateway.serve();
    let labels = vec![("1", Chats::Generated(3)), ("a/b", Chats::Generated(2))];
    let stage = Stage::with_labels(labels);
    let run = || {
        let arguments = ["--label", "a/b", "--metrics-push", &url];
        stage.run().args(arguments)
    };
    run().end().expect(0);
    let groups = gateway.groups();
    let paths: Vec<&str> = groups.keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "/prefix/metrics/job/labelcast/instance_id/inst-1",
            "/prefix/metrics/job/labelcast/instance_id/inst-1/label_id/1/queue/labelcast:1",
            "/prefix/metrics/job/labelcast/instance_id/inst-1/label_id@base64/YS9i/queue@base64/bGFiZWxjYXN0OmEvYg==",
        ]
    );
    let of_label = |groups: &BTreeMap<String, BTreeMap<String, f64>>| groups[paths[1]].clone();
    let success = series("last_success_timestamp_seconds", "");
    let first = of_label(&groups);
    assert_eq!(first[&series("last_run_exit_code", "")], 0.0);

    let (_, body) = small_list(100);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    run().args(["--retries", "0"]).end().expect(69);
    let after = of_label(&gateway.groups());
    assert_eq!(after[&success], first[&success], "the last success is kept");
    assert_eq!(after[&series("last_run_exit_code", "")], 69.0);
    assert_eq!(
        after[&series("last_run_status", r#",status="partial""#)],
        1.0
    );
}

#[test]
fn a_refused_group_does_not_stop_the_others() {
    let gateway = Gateway {
        refuses: Some("label_id/2"),
        ..Gateway::default()
    };
    let url = gateway.serve();
    let labels = ["1", "2", "22", "3"].map(|id| (id, Chats::Generated(3)));
    let stage = Stage::with_labels(labels.to_vec());
    let arguments = ["--label", "2,22,3", "--metrics-push", &url];
    let ended = stage.run().args(arguments).end().expect(0);
    let groups = gateway.groups();
    let has = |part: &str| groups.keys().any(|path| path.contains(part));
    assert!(has("label_id/1/") && has("label_id/3/"), "{groups:?}");
    assert_eq!(groups.len(), 3, "two labels and the process");
    let told = &ended.stderr;
    let warnings: Vec<&str> = told
        .lines()
        .filter(|line| line.contains("cannot push metrics"))
        .collect();
    assert_eq!(warnings.len(), 2, "{told}");
    for (warning, label) in warnings.iter().zip(["2", "22"]) {
        let group = format!(r#"label_id=\"{label}\""#);
        assert!(warning.contains(&group), "{warning}");
        assert!(warning.contains("400 Bad Request"), "{warning}");
        assert!(
            warning.contains("inconsistent [31mmetrics xxx"),
            "{warning}"
        );
        assert!(warning.len() < 700, "{warning}");
    }
}

#[test]
fn no_metric_label_changes_with_each_run() {
    let stage = Stage::with_chats(2);
    let path = stage.path("labelcast.prom");
    let keys = || {
        let arguments = ["--metrics-file", path.to_str().unwrap()];
        let ended = stage.run().args(arguments).end().expect(0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(ended.label()["run_id"].as_str().unwrap()));
        samples(&text).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(keys(), keys());
}

#[test]
fn metrics_that_do_not_fit_leave_the_old_file_unchanged() {
    let stage = Stage::with_chats(3);
    let path = stage.path("labelcast.prom");
    let arguments = ["--sink", "-", "--metrics-file", path.to_str().unwrap()];
    stage.run().args(arguments).end().expect(0);
    let before = std::fs::read_to_string(&path).unwrap();
    assert!(before.len() > 1024, "larger than the limit");
    let full = stage.run().args(arguments).with_disk_of(2).end().expect(0);
    assert!(full.stderr.contains("cannot write metrics"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
}
