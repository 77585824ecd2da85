//! `labelcast demo --live`: the whole loop with nothing installed.

use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::support::listener::Sender;
use crate::support::program::Running;
use crate::support::wait_until;

#[test]
fn the_live_demo_shows_counts_that_move() {
    let command =
        Running::new("demo").args(["--live", "--bind", "127.0.0.1:0", "--reconcile", "1s"]);
    let folder = tempfile::tempdir().unwrap();
    let mut process = command
        .env("TMPDIR", folder.path().to_str().unwrap())
        .spawn();
    let mut line = String::new();
    BufReader::new(process.take_stdout())
        .read_line(&mut line)
        .unwrap();
    let address = line.trim().strip_prefix("Dashboard: http://").unwrap();
    let address = address.trim_end_matches('/').to_owned();
    let get = |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Sender::connect(&address)
            .unwrap()
            .exchange(request.as_bytes())
            .unwrap()
    };
    let labels = || -> Vec<Value> { serde_json::from_str(&get("/api/labels").body).unwrap() };
    wait_until("all labels are exact", || {
        labels().len() == 6 && labels().iter().all(|label| label["exact"] == true)
    });
    let first = labels();
    wait_until("a count moves", || labels() != first);
    wait_until("a run has ended", || {
        get("/api/runs").body.contains("\"complete\"")
    });
    assert_eq!(get("/").status, 200);
    process.signal("TERM");
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(!ended.stderr.contains("@c.us"), "{ended:?}");
}
