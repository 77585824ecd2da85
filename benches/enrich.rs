//! Look-ups of contacts: chat ids on a private Redis, a stand-in API that answers after 50 ms, and the
//! program itself with as many look-ups at once as asked for.
//!
//! `cargo bench --bench enrich -- [CHATS] [CONCURRENCY]`; needs redis-server. `LABELCAST` may name
//! another build of the program.
//!
//! It prints the rate, also as a part of the highest possible one (concurrency / 50 ms), and the
//! memory of the process. Every chat must have one record.

#![expect(clippy::expect_used, reason = "a benchmark that fails must end")]

mod support;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use labelcast::mock::{Account, Mock};

use self::support::{Running, memory, redis};

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
    let (_redis, port) = redis(folder.path());
    let url = format!("redis://127.0.0.1:{port}");
    let mut connection = redis::Client::open(url.as_str())
        .and_then(|client| client.get_connection())
        .expect("a connection");
    put(&mut connection, chats);
    let account = Account {
        instance_id: "bench".to_owned(),
        token: "token".to_owned(),
        labels: Vec::new(),
    };
    let api = Mock::start(([127, 0, 0, 1], 0).into(), account).expect("the stand-in API");
    api.set_contact_delay(DELAY);

    let worker = enrich(&api.url(), &url, concurrency);
    // The start of the process does not count.
    let warm = chats / 20;
    wait(&mut connection, warm);
    let begin = Instant::now();
    let early = memory(worker.0.id());
    wait(&mut connection, chats);
    let rate = (chats - warm) as f64 / begin.elapsed().as_secs_f64();
    let highest = concurrency as f64 / DELAY.as_secs_f64();
    println!(
        "{rate:.0} look-ups a second, {:.2} of {highest:.0}, with {concurrency} at once",
        rate / highest
    );
    println!("memory after {warm}: {early}");
    println!("memory after {chats}: {}", memory(worker.0.id()));
}

/// Puts chat ids on the stream, as a run does.
fn put(connection: &mut redis::Connection, chats: usize) {
    let run_id = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";
    for first in (0..chats).step_by(1000) {
        let mut pipe = redis::pipe();
        for number in first..chats.min(first + 1000) {
            let chat_id = format!("{}@c.us", 4_915_550_000_000 + number);
            let fields = ["chat_id", &chat_id, "label_id", "1", "run_id", run_id];
            pipe.cmd("XADD").arg(FROM).arg("*").arg(&fields).ignore();
        }
        pipe.exec(connection).expect("chat ids");
    }
}

fn enrich(api: &str, sink: &str, concurrency: usize) -> Running {
    let program = std::env::var("LABELCAST").unwrap_or(env!("CARGO_BIN_EXE_labelcast").to_owned());
    let child = Command::new(program)
        .args([
            "enrich",
            "--instance-id",
            "bench",
            "--api-url",
            api,
            "--sink",
            sink,
        ])
        .args(["--from", FROM, "--to", TO, "--rate", "100000/s"])
        .args(["--concurrency", &concurrency.to_string(), "--quiet"])
        .env("WAWP_ACCESS_TOKEN", "token")
        .stdout(Stdio::null())
        .spawn()
        .expect("labelcast");
    Running(child)
}

/// Waits for this many records, and checks that there are no more.
fn wait(connection: &mut redis::Connection, records: usize) {
    loop {
        let length: usize = redis::cmd("XLEN")
            .arg(TO)
            .query(connection)
            .expect("a length");
        if length >= records {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
