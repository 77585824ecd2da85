//! Look-ups of contacts: chat ids on a private Redis, a stand-in API that answers after 50 ms, and the
//! program itself with as many look-ups at once as asked for.
//!
//! `cargo bench --bench enrich -- [CHATS] [CONCURRENCY]`; needs redis-server. `SINK=URL` uses that broker,
//! on which the queue `chats` must not exist. `LABELCAST` may name another build of the program.
//!
//! It prints the rate, also as a part of the highest possible one (concurrency / 50 ms), and the
//! memory of the process. Every chat must have one record.

#![expect(clippy::expect_used, reason = "a benchmark that fails must end")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use labelcast::mock::{Account, Chats, Mock};

use self::support::{Running, free_port, memory, redis};

/// The time that the API takes for an answer.
const DELAY: Duration = Duration::from_millis(50);
const FROM: &str = "chats";
const TO: &str = "contacts";

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .filter_map(|text| text.parse().ok())
        .collect();
    let chats = numbers.first().copied().unwrap_or(20_000);
    let concurrency = numbers.get(1).copied().unwrap_or(64);
    let folder = tempfile::tempdir().expect("a folder");
    let private = std::env::var("SINK").is_err().then(|| redis(folder.path()));
    let sink = match &private {
        Some((_redis, port)) => format!("redis://127.0.0.1:{port}"),
        None => std::env::var("SINK").expect("a URL"),
    };
    let account = Account {
        instance_id: "bench".to_owned(),
        token: "token".to_owned(),
        labels: vec![("1".to_owned(), "VIP".to_owned(), people(chats))],
    };
    let api = Mock::start(([127, 0, 0, 1], 0).into(), account).expect("the stand-in API");
    api.set_contact_delay(DELAY);
    let program = |command: &str| program(command, &api.url(), &sink);
    let run = program("run")
        .args(["--label", "1", "--queue", FROM])
        .status();
    assert!(run.expect("labelcast").success(), "the run has failed");

    let port = free_port();
    let worker = program("enrich")
        .args(["--from", FROM, "--to", TO, "--rate", "100000/s"])
        .args(["--concurrency", &concurrency.to_string()])
        .args(["--metrics-bind", &format!("127.0.0.1:{port}")])
        .stdout(Stdio::null())
        .spawn();
    let worker = Running(worker.expect("labelcast"));
    // The start of the process does not count.
    let warm = wait(port, chats / 20);
    let begin = Instant::now();
    let early = memory(worker.0.id());
    wait(port, chats);
    let rate = (chats - warm) as f64 / begin.elapsed().as_secs_f64();
    let highest = concurrency as f64 / DELAY.as_secs_f64();
    println!(
        "{rate:.0} look-ups a second, {:.2} of {highest:.0}, with {concurrency} at once",
        rate / highest
    );
    println!("memory after {warm}: {early}");
    println!("memory after {chats}: {}", memory(worker.0.id()));
}

/// A list of chats with one person each, so that each takes one request.
fn people(chats: usize) -> Chats {
    let chat = |number| format!(r#"{{"id":"{}@c.us"}}"#, 4_915_550_000_000_usize + number);
    let chats: Vec<String> = (0..chats).map(chat).collect();
    Chats::Body(format!("[{}]", chats.join(",")).into())
}

fn program(command: &str, api: &str, sink: &str) -> Command {
    let program = std::env::var("LABELCAST").unwrap_or(env!("CARGO_BIN_EXE_labelcast").to_owned());
    let mut process = Command::new(program);
    process
        .args([command, "--instance-id", "bench", "--api-url", api])
        .args(["--sink", sink, "--quiet"])
        .env("WAWP_ACCESS_TOKEN", "token");
    process
}

/// Waits for this many confirmed records, and returns their number.
fn wait(port: u16, records: usize) -> usize {
    loop {
        std::thread::sleep(Duration::from_millis(20));
        let found = found(port).unwrap_or(0);
        if found >= records {
            return found;
        }
    }
}

/// Returns the number of confirmed records; `None` before the worker listens.
fn found(port: u16) -> Option<usize> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (_, rest) = answer.split_once("labelcast_enrich_chats_total{result=\"found\"} ")?;
    rest.lines().next()?.parse().ok()
}
