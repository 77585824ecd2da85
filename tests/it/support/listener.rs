//! `labelcast listen` as a separate process, and senders of webhooks.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::{Value, json};

use super::program::{Ended, Process, Running};
use super::{INSTANCE, wait_until};

/// The secret of webhooks.
pub(crate) const SECRET: &str = "webhook-secret-7f3a";

/// A process that listens.
pub(crate) struct Listener {
    process: Process,
    address: String,
    log: Arc<Mutex<String>>,
}

/// An answer: its status, headers and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Listener {
    /// Starts a command, and waits until it listens on a free port.
    pub(crate) fn start(command: Running) -> Self {
        let command = command
            .args(["--bind", "127.0.0.1:0", "--log-format", "json"])
            .env("LABELCAST_WEBHOOK_SECRET", SECRET);
        Self::of(command.spawn())
    }

    /// Waits until a process listens.
    pub(crate) fn of(mut process: Process) -> Self {
        let mut lines = BufReader::new(process.take_stderr());
        let log = Arc::new(Mutex::new(String::new()));
        let address = loop {
            let mut line = String::new();
            let read = lines.read_line(&mut line).unwrap();
            log.lock().unwrap().push_str(&line);
            assert!(read > 0, "it does not listen: {}", log.lock().unwrap());
            let fields: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = fields["address"].as_str() {
                break address.to_owned();
            }
        };
        let shared = Arc::clone(&log);
        std::thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                shared.lock().unwrap().push_str(&line);
                line.clear();
            }
        });
        Self {
            process,
            address,
            log,
        }
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Sends a signed body.
    pub(crate) fn post(&self, body: &str) -> Answer {
        self.sender().post(body).unwrap()
    }

    /// Sends an event of a chat, and checks that it is acknowledged.
    #[track_caller]
    pub(crate) fn acknowledged(&self, event: &Value) {
        let answer = self.post(&event.to_string());
        assert_eq!(answer.status, 200, "{answer:?} {}", self.log());
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.sender().exchange(request.as_bytes()).unwrap()
    }

    /// Opens a connection.
    pub(crate) fn sender(&self) -> Sender {
        Sender::connect(&self.address).unwrap()
    }

    /// Waits until the lists of this many labels are counted.
    pub(crate) fn wait_until_exact(&self, labels: usize) {
        wait_until("the labels are exact", || {
            let ready: Value = serde_json::from_str(&self.get("/readyz").body).unwrap();
            ready["labels"] == labels && ready["labels_not_exact"] == json!([])
        });
    }

    /// Returns the value of a metric.
    pub(crate) fn metric(&self, name: &str) -> Option<u64> {
        let text = self.get("/metrics").body;
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} ")))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Stops it by a signal, and waits for its end.
    pub(crate) fn stop(self) -> Ended {
        self.process.signal("TERM");
        self.end()
    }

    pub(crate) fn end(self) -> Ended {
        let log = Arc::clone(&self.log);
        let mut ended = self.process.end();
        ended.stderr = log.lock().unwrap().clone();
        ended
    }

    pub(crate) fn kill(self) {
        self.process.kill();
    }
}

/// A connection of a sender.
pub(crate) struct Sender {
    stream: TcpStream,
}

impl Sender {
    pub(crate) fn connect(address: &str) -> std::io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream })
    }

    /// Sends a signed body.
    pub(crate) fn post(&mut self, body: &str) -> std::io::Result<Answer> {
        self.exchange(signed(body).as_bytes())
    }

    /// Sends a body with some headers.
    pub(crate) fn post_with(&mut self, path: &str, headers: &str, body: &str) -> Answer {
        self.exchange(request(path, headers, body).as_bytes())
            .unwrap()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends bytes, and reads an answer with a known length.
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> std::io::Result<Answer> {
        self.stream.write_all(bytes)?;
        self.answer()
    }

    pub(crate) fn answer(&mut self) -> std::io::Result<Answer> {
        let closed = || std::io::Error::other("closed without an answer");
        let mut read = Vec::new();
        let mut piece = [0; 4096];
        loop {
            if let Some(answer) = parse(&read) {
                return Ok(answer);
            }
            let count = self.stream.read(&mut piece)?;
            if count == 0 {
                return Err(closed());
            }
            read.extend_from_slice(&piece[..count]);
        }
    }
}

fn parse(read: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(read);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let head = head.to_lowercase();
    let length = head.split("content-length: ").nth(1)?;
    let length: usize = length.split("\r\n").next()?.parse().unwrap();
    (body.len() >= length).then(|| Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.clone(),
        body: body.to_owned(),
    })
}

/// Returns a request with a signed body.
pub(crate) fn signed(body: &str) -> String {
    let hmac = hmac_of(hmac::HMAC_SHA512, SECRET, body);
    request("/webhook", &format!("X-Webhook-Hmac: {hmac}\r\n"), body)
}

pub(crate) fn hmac_of(algorithm: hmac::Algorithm, secret: &str, body: &str) -> String {
    let tag = hmac::sign(
        &hmac::Key::new(algorithm, secret.as_bytes()),
        body.as_bytes(),
    );
    tag.as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

pub(crate) fn request(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    )
}

/// An event of a chat that has just happened.
pub(crate) fn event(id: &str, change: &str, label: &str, chat: &str) -> Value {
    event_at(id, change, label, chat, now_ms())
}

/// An event of a chat at a time in milliseconds.
pub(crate) fn event_at(id: &str, change: &str, label: &str, chat: &str, ms: u64) -> Value {
    json!({
        "id": id, "timestamp": ms, "event": format!("label.chat.{change}"), "session": INSTANCE,
        "payload": {"labelId": label, "chatId": chat, "label": null}, "engine": "GOWS",
    })
}

pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64
}
