//! Settings, report and metrics.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

use labelcast::mock::Reply;
use serde_json::Value;

use super::{FROM, Place, Streams, TO, chat, of_runs, worker};
use crate::support::{Running, Stage, wait_until};

#[test]
fn all_errors_are_listed_together() {
    let ended = Running::new("enrich")
        .args([
            "--sink",
            "file:a.jsonl",
            "--rate",
            "5",
            "--concurrency",
            "0",
        ])
        .args([
            "--include",
            "photos",
            "--attempts",
            "0",
            "--metrics-bind",
            "9090",
        ])
        .args(["--report", "json"])
        .end()
        .expect(78);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["schema"], "labelcast.enrich-report/1");
    assert_eq!(report["exit_code"], 78);
    for problem in [
        "--instance-id",
        "access token",
        "--sink",
        "--from: is required",
        "--to: is required",
        "--rate “5”: is not a rate such as 5/s",
        "--concurrency “0”",
        "--include “photos”: has a name that is not one of photo, about",
        "--attempts “0”",
        "--metrics-bind “9090”",
        "LABELCAST_ENRICH_FROM",
        "enrich.rate in the file",
    ] {
        assert!(
            ended.stderr.contains(problem),
            "{problem}: {}",
            ended.stderr
        );
    }
}

#[test]
fn contradictions_are_refused() {
    let stage = Stage::with_chats(0);
    let base = ["--sink", "redis://127.0.0.1:1"];
    for (arguments, problem) in [
        (
            &["--from", "a", "--to", "a"][..],
            "records need a queue of their own",
        ),
        (
            &["--from", "a:failed", "--to", "a"],
            "into the queue of --from again",
        ),
        (
            &["--from", "labelcast:{label_id}", "--to", "a"],
            "by its whole name",
        ),
        (
            &["--from", "a", "--to", "b", "--fields", "about"],
            "only known with --include about",
        ),
        (
            &["--from", "a", "--to", "b", "--fields", "age"],
            "not one of name, push_name",
        ),
        (
            &["--from", "a", "--to", "b", "--queue-type", "classic"],
            "only for RabbitMQ",
        ),
    ] {
        let ended = stage
            .program("enrich")
            .args(base)
            .args(arguments)
            .end()
            .expect(78);
        assert!(
            ended.stderr.contains(problem),
            "{problem}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_file_and_the_environment_configure_it() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(3));
    let file = stage.path("labelcast.toml");
    let text = format!(
        "[enrich]\nfrom = \"{FROM}\"\ninclude = [\"photo\", \"about\"]\nconcurrency = 2\n[sink]\nurl = \"{}\"\nformat = \"json\"\nids_per_message = 500\npartitions = 4\n",
        place.url()
    );
    std::fs::write(&file, text).unwrap();
    let program = stage
        .program("enrich")
        .args(["--config", file.to_str().unwrap()]);
    let program = program
        .env("LABELCAST_ENRICH_TO", TO)
        .env("LABELCAST_ENRICH_DRAIN", "true");
    program
        .env("LABELCAST_ENRICH_RATE", "1000/s")
        .end()
        .expect(0);
    assert_eq!(place.length(TO), 3);
    assert_eq!(stage.mock.contact_calls().len(), 9);
}

#[test]
fn the_report_adds_up() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(5));
    place.put(
        FROM,
        &[
            serde_json::json!({"event": "run.completed"}),
            serde_json::json!(1),
        ],
    );
    let path = stage.path("report.json");
    let worker = worker(&stage, &place).arg("--drain").report_file(path);
    let ended = worker.args(["--log-format", "text"]).end().expect(0);
    let totals = &ended.report["totals"];
    for (name, expected) in [
        ("messages", 7),
        ("passed_over", 1),
        ("found", 5),
        ("missing", 0),
        ("not_asked", 0),
        ("failed", 0),
        ("unusable", 1),
        ("requests", 5),
    ] {
        assert_eq!(totals[name], expected, "{name} {totals}");
    }
    assert_eq!(ended.report["status"], "complete");
    assert_eq!(
        (&ended.report["from"], &ended.report["to"]),
        (&FROM.into(), &TO.into())
    );
    assert!(
        ended
            .stderr
            .contains("7 messages, 5 requests: 5 contacts found"),
        "{}",
        ended.stderr
    );
}

#[test]
fn metrics_are_served_while_it_works() {
    let stage = Stage::with_chats(0);
    let place = Streams::start();
    place.put(FROM, &of_runs(4));
    let wait = Reply::json(r#"{"message":"Too many requests"}"#).status(429);
    stage.mock.script_contact(&chat(2), wait);
    let mut process = worker(&stage, &place)
        .args(["--metrics-bind", "127.0.0.1:0"])
        .spawn();
    let mut log = BufReader::new(process.take_stderr());
    let address = loop {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).unwrap() > 0,
            "it serves no metrics"
        );
        let fields: Value = serde_json::from_str(&line).unwrap();
        if let Some(address) = fields["address"].as_str() {
            break address.to_owned();
        }
    };
    let get = |path: &str| {
        let mut stream = TcpStream::connect(&address).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // The last record is counted before its chat leaves the hand.
    wait_until("the records are counted", || {
        let metrics = get("/metrics");
        metrics.contains("labelcast_enrich_chats_total{result=\"found\"} 4")
            && metrics.contains("labelcast_enrich_in_hand 0")
    });
    let metrics = get("/metrics");
    for line in [
        "labelcast_enrich_messages_total 4",
        "labelcast_enrich_requests_total 5",
        "labelcast_enrich_failures_total{kind=\"throttled\"} 1",
        // The pause is over.
        "labelcast_enrich_paused{reason=\"throttled\"} 0",
        "labelcast_enrich_paused{reason=\"unready\"} 0",
        "labelcast_enrich_lookup_seconds_count 4",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    assert!(get("/healthz").starts_with("HTTP/1.1 200"));
    process.signal("TERM");
    process.end().expect(0);
}
