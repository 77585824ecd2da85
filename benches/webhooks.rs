//! Webhooks into Redis: signed requests with one event each, against the program itself, on this
//! machine, with a server and a stand-in API of its own.
//!
//! `cargo bench --bench webhooks -- [EVENTS] [CONNECTIONS]`; needs redis-server. `LABELCAST` may
//! name another build of the program.
//!
//! It prints the rate at full load, the times of answers at half of that rate, and the memory of the
//! process. Every request must be answered with 200, and every event must be on the stream once.

#![expect(clippy::expect_used, reason = "a benchmark that fails must end")]

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use labelcast::mock::{Account, Chats, Mock};
use ring::hmac;

use self::support::{Running, memory, redis};

const SECRET: &str = "benchmark";
const LABELS: usize = 8;

fn main() {
    let numbers: Vec<usize> = std::env::args()
        .filter_map(|text| text.parse().ok())
        .collect();
    let events = numbers.first().copied().unwrap_or(100_000);
    let connections = numbers.get(1).copied().unwrap_or(64);
    let folder = tempfile::tempdir().expect("a folder");
    let (_redis, port) = redis(folder.path());
    let label = |id| {
        (
            format!("{id}"),
            format!("Label {id}"),
            Chats::Body(Bytes::from_static(b"[]")),
        )
    };
    let account = Account {
        instance_id: "bench".to_owned(),
        token: "token".to_owned(),
        labels: (1..=LABELS).map(label).collect(),
    };
    let api = Mock::start(([127, 0, 0, 1], 0).into(), account).expect("the stand-in API");
    let (process, address) = listen(&api.url(), port);

    let full = load(&address, 0, events, connections, None);
    let rate = events as f64 / full.elapsed.as_secs_f64();
    println!("full load: {rate:.0} requests a second, {connections} connections");
    println!("  answered after {}", full.times());
    let half = load(&address, events, events / 2, connections, Some(rate / 2.0));
    println!(
        "half load: {:.0} requests a second",
        half.answers.len() as f64 / half.elapsed.as_secs_f64()
    );
    println!("  answered after {}", half.times());
    println!("memory: {}", memory(process.0.id()));
    let mut connection = redis::Client::open(format!("redis://127.0.0.1:{port}"))
        .and_then(|client| client.get_connection())
        .expect("a connection");
    let on_streams: usize = (1..=LABELS)
        .map(|id| {
            redis::cmd("XLEN")
                .arg(format!("labelcast:{id}"))
                .query::<usize>(&mut connection)
        })
        .sum::<Result<_, _>>()
        .expect("lengths");
    assert_eq!(
        on_streams,
        events + events / 2,
        "each event is on a stream once"
    );
}

/// Starts the program, and returns its address once all labels are exact.
fn listen(api: &str, port: u16) -> (Running, String) {
    let program = std::env::var("LABELCAST").unwrap_or(env!("CARGO_BIN_EXE_labelcast").to_owned());
    let mut child = Command::new(program)
        .args([
            "listen",
            "--bind",
            "127.0.0.1:0",
            "--instance-id",
            "bench",
            "--log-format",
            "json",
        ])
        .args([
            "--api-url",
            api,
            "--sink",
            &format!("redis://127.0.0.1:{port}"),
        ])
        .env("WAWP_ACCESS_TOKEN", "token")
        .env("LABELCAST_WEBHOOK_SECRET", SECRET)
        .stderr(Stdio::piped())
        .spawn()
        .expect("labelcast");
    let mut log = BufReader::new(child.stderr.take().expect("a log"));
    let address = loop {
        let mut line = String::new();
        assert!(
            log.read_line(&mut line).expect("a line") > 0,
            "labelcast has ended"
        );
        if let Some((_, rest)) = line.split_once("\"address\":\"") {
            break rest.split('"').next().unwrap_or_default().to_owned();
        }
    };
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    let until = Instant::now() + Duration::from_secs(30);
    while !ready(&address).contains(&format!("\"labels\":{LABELS},\"labels_not_exact\":[]")) {
        assert!(Instant::now() < until, "the labels do not become exact");
        std::thread::sleep(Duration::from_millis(50));
    }
    (Running(child), address)
}

fn ready(address: &str) -> String {
    let mut text = String::new();
    let mut stream = TcpStream::connect(address).expect("a connection");
    let _ =
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let _ = stream.read_to_string(&mut text);
    text
}

/// What a load showed.
struct Load {
    elapsed: Duration,
    /// Times from the moment at which a request was due to its answer, sorted.
    answers: Vec<Duration>,
}

impl Load {
    fn times(&self) -> String {
        let at = |percent: usize| {
            let index = self.answers.len() * percent / 100;
            self.answers[index.min(self.answers.len() - 1)].as_secs_f64() * 1000.0
        };
        format!(
            "{:.1} ms (median), {:.1} ms (p99), {:.1} ms (longest)",
            at(50),
            at(99),
            at(100)
        )
    }
}

/// Sends requests from several connections: one after the other, or at a rate.
fn load(address: &str, first: usize, count: usize, connections: usize, rate: Option<f64>) -> Load {
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let sender = |_| {
        let (address, next) = (address.to_owned(), Arc::clone(&next));
        std::thread::spawn(move || {
            let mut stream = TcpStream::connect(&address).expect("a connection");
            stream.set_nodelay(true).expect("an option");
            let key = hmac::Key::new(hmac::HMAC_SHA512, SECRET.as_bytes());
            let mut answers = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return answers;
                }
                let mut due = Instant::now();
                if let Some(rate) = rate {
                    due = began + Duration::from_secs_f64(number as f64 / rate);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                post(&mut stream, &request(first + number, &key));
                answers.push(due.elapsed());
            }
        })
    };
    let senders: Vec<_> = (0..connections).map(sender).collect();
    let mut answers: Vec<Duration> = senders
        .into_iter()
        .flat_map(|sender| sender.join().expect("a sender"))
        .collect();
    answers.sort();
    Load {
        elapsed: began.elapsed(),
        answers,
    }
}

fn request(number: usize, key: &hmac::Key) -> Vec<u8> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time")
        .as_millis();
    let label = 1 + number % LABELS;
    let body = format!(
        r#"{{"id":"evt_{number}","timestamp":{now},"event":"label.chat.added","session":"bench","payload":{{"labelId":"{label}","chatId":"{number}@c.us","label":null}},"engine":"GOWS"}}"#
    );
    let tag = hmac::sign(key, body.as_bytes());
    let hex: String = tag
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let length = body.len();
    format!(
        "POST /webhook HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Webhook-Hmac: {hex}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

fn post(stream: &mut TcpStream, request: &[u8]) {
    stream.write_all(request).expect("a request");
    let mut answer = Vec::with_capacity(256);
    let mut piece = [0; 512];
    while !answer.ends_with(b"\r\n\r\nok\n") {
        let read = stream.read(&mut piece).expect("an answer");
        answer.extend_from_slice(&piece[..read]);
        let is_ok = answer.starts_with(b"HTTP/1.1 200") || answer.len() < 12;
        assert!(read > 0 && is_ok, "{}", String::from_utf8_lossy(&answer));
    }
}
