//! `labelcast demo --live`: the whole loop with nothing installed.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

use serde_json::Value;

use crate::support::listener::{Answer, Sender};
use crate::support::rabbitmq::vhost;
use crate::support::redis::{Server, length};
use crate::support::{Process, Running, wait_until};

/// A demo that runs, and the address of its dashboard.
struct Demo {
    process: Process,
    address: String,
}

impl Demo {
    fn start(command: Running) -> Self {
        let mut process = command.spawn();
        let mut line = String::new();
        BufReader::new(process.take_stdout())
            .read_line(&mut line)
            .unwrap();
        let address = line.trim().strip_prefix("Dashboard: http://").unwrap();
        Self {
            address: address.trim_end_matches('/').to_owned(),
            process,
        }
    }

    fn get(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Sender::connect(&self.address)
            .unwrap()
            .exchange(request.as_bytes())
            .unwrap()
    }

    fn stop(self) {
        self.process.signal("TERM");
        let ended = self.process.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(!ended.stderr.contains("@c.us"), "{ended:?}");
    }
}

fn live() -> Running {
    Running::new("demo").args(["--live", "--bind", "127.0.0.1:0", "--reconcile", "1s"])
}

#[test]
fn the_live_demo_shows_counts_that_move() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Demo::start(live().env("TMPDIR", folder.path().to_str().unwrap()));
    let labels = || -> Vec<Value> { serde_json::from_str(&demo.get("/api/labels").body).unwrap() };
    wait_until("all labels are exact", || {
        labels().len() == 6 && labels().iter().all(|label| label["exact"] == true)
    });
    let first = labels();
    wait_until("a count moves", || labels() != first);
    wait_until("a run has ended", || {
        demo.get("/api/runs").body.contains("\"complete\"")
    });
    let page = demo.get("/");
    assert_eq!(page.status, 200);
    // Files have no workers.
    assert_eq!(enriched(&page.body), BTreeMap::new());
    demo.stop();
}

/// The number of records by queue, as on a page.
fn enriched(page: &str) -> BTreeMap<String, u64> {
    let (_, table) = page.split_once("<tbody id=\"enriched\">").unwrap();
    let (table, _) = table.split_once("</tbody>").unwrap();
    let row = |row: &str| {
        let (queue, rest) = row.split_once('"').unwrap();
        let (_, rest) = rest.split_once("<td class=\"number\">").unwrap();
        let (records, _) = rest.split_once('<').unwrap();
        (queue.to_owned(), records.replace(',', "").parse().unwrap())
    };
    table.split("<tr data-key=\"").skip(1).map(row).collect()
}

fn the_live_demo_enriches(demo: Demo, length: impl Fn(&str) -> usize) {
    let counts = || enriched(&demo.get("/").body);
    wait_until("records of two queues", || {
        counts().values().filter(|records| **records > 0).count() > 1
    });
    let counts = counts();
    assert_eq!(counts.len(), 6);
    let page = demo.get("/").body;
    assert!(!page.contains("@c.us"), "an id is on the page");
    for (queue, records) in counts {
        // A record is counted when it is confirmed.
        let published = length(&format!("{queue}:contacts"));
        assert!(
            published as u64 >= records,
            "{queue}: {published} of {records}"
        );
    }
    demo.stop();
}

#[test]
fn the_live_demo_enriches_on_redis() {
    let server = Server::start(&[]);
    let demo = Demo::start(live().args(["--sink", &server.url()]));
    the_live_demo_enriches(demo, |queue| length(&mut server.connection(), queue));
}

#[test]
fn the_live_demo_enriches_on_rabbitmq() {
    let vhost = vhost();
    let folder = tempfile::tempdir().unwrap();
    let live = live().env("TMPDIR", folder.path().to_str().unwrap());
    // Its state is in a file.
    let demo = Demo::start(live.args(["--sink", &vhost.url()]));
    let client = vhost.client();
    the_live_demo_enriches(demo, |queue| client.depth(queue).unwrap_or(0));
}
