//! Common parts of the tests: a stand-in, the program, and a folder for its files.

pub(crate) mod listener;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod rabbitmq;
pub(crate) mod redis;
pub(crate) mod resp;
pub(crate) mod thread_worker;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use labelcast::mock::{Account, Chats, Mock, Piece, Reply};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(crate) use self::program::{Ended, Process, Running};

pub(crate) const TOKEN: &str = "t0ken-that-nobody-may-see";
pub(crate) const INSTANCE: &str = "inst-1";

/// Long enough for any machine. A test that waits this long has failed.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// A stand-in with the label "1", and its own folder.
pub(crate) struct Stage {
    instance_id: String,
    pub(crate) mock: Mock,
    pub(crate) folder: tempfile::TempDir,
}

impl Stage {
    /// Creates a stage with this list.
    pub(crate) fn with_body(body: impl AsRef<[u8]>) -> Self {
        let body = bytes::Bytes::copy_from_slice(body.as_ref());
        Self::with_labels(vec![("1", Chats::Body(body))])
    }

    /// Creates a stage with a list of this many chats.
    pub(crate) fn with_chats(count: u64) -> Self {
        Self::with_labels(vec![("1", Chats::Generated(count))])
    }

    /// Creates a stage with this list, for another account.
    pub(crate) fn with_account(instance_id: &str, body: &str) -> Self {
        let body = bytes::Bytes::copy_from_slice(body.as_bytes());
        Self::of(instance_id, vec![("1", Chats::Body(body))])
    }

    pub(crate) fn with_labels(labels: Vec<(&str, Chats)>) -> Self {
        Self::of(INSTANCE, labels)
    }

    fn of(instance_id: &str, labels: Vec<(&str, Chats)>) -> Self {
        let account = Account {
            instance_id: instance_id.to_owned(),
            token: TOKEN.to_owned(),
            labels: labels
                .into_iter()
                .map(|(id, chats)| (id.to_owned(), format!("name of {id}"), chats))
                .collect(),
        };
        Self {
            instance_id: instance_id.to_owned(),
            mock: Mock::start(([127, 0, 0, 1], 0).into(), account).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The file to which the runs of this stage publish chats.
    pub(crate) fn out(&self) -> PathBuf {
        self.path("out.jsonl")
    }

    /// Creates a run to [`Stage::out`], with a report beside it.
    pub(crate) fn run(&self) -> Running {
        let sink = format!("file:{}", self.out().display());
        self.program("run").args(["--label", "1", "--sink", &sink])
    }

    /// Creates a command that uses the stand-in.
    pub(crate) fn program(&self, command: &str) -> Running {
        let program = Running::new(command).args([
            "--api-url",
            &self.mock.url(),
            "--instance-id",
            &self.instance_id,
        ]);
        let program = program.env("WAWP_ACCESS_TOKEN", TOKEN);
        match command {
            "run" => program.report_file(self.path("report.json")),
            _ => program,
        }
    }

    /// Makes all records of the journal years old.
    pub(crate) fn age_journal(&self) {
        let journal = self.path("out.jsonl.labelcast");
        let text = std::fs::read_to_string(&journal).unwrap();
        let aged = text.lines().map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record["at"] = "2006-01-02T15:04:05.000Z".into();
            format!("{record}\n")
        });
        std::fs::write(&journal, aged.collect::<String>()).unwrap();
    }

    /// Returns the newest complete record of the journal.
    pub(crate) fn journal(&self) -> Option<Value> {
        let journal = std::fs::read_to_string(self.path("out.jsonl.labelcast")).ok()?;
        let (whole, _) = journal.rsplit_once('\n')?;
        Some(serde_json::from_str(whole.lines().last()?).unwrap())
    }

    /// Returns the ids in the file, in their order.
    pub(crate) fn ids(&self) -> Vec<String> {
        ids_in(&self.out())
    }

    /// Returns the messages in the file.
    pub(crate) fn messages(&self) -> Vec<Value> {
        messages_in(&self.out())
    }
}

pub(crate) fn messages_in(path: &Path) -> Vec<Value> {
    let Ok(text) = std::fs::read_to_string(path) else {
        return Vec::new();
    };
    assert!(text.is_empty() || text.ends_with('\n'), "a half line");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn ids_in(path: &Path) -> Vec<String> {
    messages_in(path)
        .iter()
        .map(|message| message["chat_id"].as_str().unwrap().to_owned())
        .collect()
}

/// Returns the ids of a map like `{"0":{"id":"0@c.us"},…}`, and the map.
pub(crate) fn small_list(count: usize) -> (Vec<String>, String) {
    let ids: Vec<String> = (0..count).map(|i| format!("{i}5551234@c.us")).collect();
    (ids.clone(), map_of(&ids))
}

pub(crate) fn map_of(ids: &[String]) -> String {
    let entries: Vec<String> = ids
        .iter()
        .enumerate()
        .map(|(i, id)| format!(r#""{i}":{{"id":"{id}","name":"Person {i}"}}"#))
        .collect();
    format!("{{{}}}", entries.join(","))
}

/// Creates a reply with the first part of a body and then this piece.
pub(crate) fn part_of(body: &str, part: f64, then: Piece) -> Reply {
    let length = (body.len() as f64 * part) as usize;
    let start = bytes::Bytes::copy_from_slice(&body.as_bytes()[..length]);
    Reply::pieces([Piece::Bytes(start), then])
}

/// Returns the number of bytes of a [`small_list`] up to the end of its first `entries` entries.
pub(crate) fn bytes_of(body: &str, entries: usize) -> usize {
    let mut ends = body.match_indices('}').map(|(at, _)| at + 1);
    ends.nth(entries - 1).unwrap()
}

/// Creates a reply with the first `entries` entries of a [`small_list`], and then silence on an
/// open connection. A run that receives this reply cannot finish, even if `entries` is the length
/// of the list.
pub(crate) fn held_after(body: &str, entries: usize) -> Reply {
    let start = &body.as_bytes()[..bytes_of(body, entries)];
    let start = bytes::Bytes::copy_from_slice(start);
    Reply::pieces([Piece::Bytes(start), Piece::Hold])
}

/// Creates a reply whose second half waits until the token is cancelled.
pub(crate) fn gated(body: &str) -> (Reply, CancellationToken) {
    gated_at(body, body.len() / 2)
}

/// Creates a reply with the first `entries` entries of a [`small_list`], and the rest when the
/// token is cancelled.
pub(crate) fn gated_after(body: &str, entries: usize) -> (Reply, CancellationToken) {
    gated_at(body, bytes_of(body, entries))
}

fn gated_at(body: &str, bytes: usize) -> (Reply, CancellationToken) {
    let gate = CancellationToken::new();
    let (start, end) = body.as_bytes().split_at(bytes);
    let [start, end] = [start, end].map(|half| Piece::Bytes(bytes::Bytes::copy_from_slice(half)));
    let reply = Reply::pieces([start, Piece::Until(gate.clone()), end]);
    (reply, gate)
}

/// Creates a reply that waits before its first byte until the token is cancelled.
pub(crate) fn gated_whole(body: &str) -> (Reply, CancellationToken) {
    let gate = CancellationToken::new();
    let whole = Piece::Bytes(bytes::Bytes::copy_from_slice(body.as_bytes()));
    let reply = Reply::pieces([Piece::Until(gate.clone()), whole]);
    (reply, gate)
}

/// Waits until a condition holds.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(
            begin.elapsed() < TIME_LIMIT,
            "timed out waiting until {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn lines_in(path: &Path) -> usize {
    let text = std::fs::read(path).unwrap_or_default();
    text.iter().filter(|byte| **byte == b'\n').count()
}

/// A deterministic sequence of pseudo-random numbers.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // Knuth's MMIX.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// Creates `cert.pem` and `key.pem` in a folder, for localhost, issued by an unknown authority,
/// `ca.pem`.
pub(crate) fn make_certificate(folder: &Path) {
    let make = |arguments: &[&str]| {
        let made = std::process::Command::new("openssl")
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args(arguments)
            .current_dir(folder)
            .stderr(std::process::Stdio::null())
            .status()
            .unwrap();
        assert!(made.success());
    };
    make(&["-subj", "/CN=nobody", "-keyout", "ca.key", "-out", "ca.pem"]);
    make(&[
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
        "-CA",
        "ca.pem",
        "-CAkey",
        "ca.key",
        "-keyout",
        "key.pem",
        "-out",
        "cert.pem",
    ]);
}
