//! Measures how fast chats are appended to a Redis Stream: the program and the limit.
//!
//! `cargo bench --bench redis` starts a private server and measures in turns:
//!
//! - **raw**: a socket that sends the same entries as pre-encoded, pipelined XADD commands;
//! - **run**: the program, from process start to exit, from HTTP to the stream;
//! - **decode**: [`labelcast::decode`] alone, over the same list;
//! - **packed**: the program with 500 ids per message.
//!
//! The server gets one of two cores. The stand-in for the API and the program share the other.

use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use labelcast::decode::{Plan, decode};
use labelcast::mock::{Account, Chats, DEMO_INSTANCE, DEMO_TOKEN, Mock};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CHATS: usize = 1_000_000;
const ROUNDS: usize = 15;
/// The number of commands that are sent at once, and the number of such batches in flight.
const BATCH: usize = 512;
const WINDOW: usize = 4;

fn main() -> Result<()> {
    // `cargo test --all-targets` also starts benches, without this flag and without optimisation.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let ids: Vec<String> = (0..CHATS)
        .map(|i| format!("{}@c.us", 4_900_000_000_000 + i * 7919))
        .collect();
    let list = list(&ids);
    let commands = encode(&ids);
    let server = Server::start()?;
    let mock = serve(list.clone())?;
    let mut rounds = Vec::new();
    for _ in 0..=ROUNDS {
        rounds.push([
            server.timed(|| raw(&commands, server.port))?,
            server.timed(|| run(&mock, server.port, 1))?,
            time(|| decoder(&list))?,
            server.timed(|| run(&mock, server.port, 500))?,
        ]);
    }
    // The first round is a warm-up.
    show(&rounds[1..]);
    Ok(())
}

fn list(ids: &[String]) -> Bytes {
    let mut list = String::from("{");
    for (index, id) in ids.iter().enumerate() {
        let separator = if index == 0 { "" } else { "," };
        // Writing to memory does not fail.
        let _ = write!(
            list,
            r#"{separator}"{index}":{{"id":"{id}","name":"Chat {index}"}}"#
        );
    }
    list.push('}');
    Bytes::from(list)
}

fn encode(ids: &[String]) -> Vec<Vec<u8>> {
    let run_id = "01a203cd-0699-7160-9303-3c784fb6d2b2";
    let encode = |batch: &[String]| {
        let mut commands = Vec::new();
        for id in batch {
            let arguments = [
                "XADD", "raw", "*", "chat_id", id, "label_id", "1", "run_id", run_id,
            ];
            let _ = write!(commands, "*{}\r\n", arguments.len());
            for argument in arguments {
                let _ = write!(commands, "${}\r\n{argument}\r\n", argument.len());
            }
        }
        commands
    };
    ids.chunks(BATCH).map(encode).collect()
}

/// Sends the commands with several batches in flight and waits for every reply.
fn raw(commands: &[Vec<u8>], port: u16) -> Result<()> {
    let mut writer = TcpStream::connect(("127.0.0.1", port))?;
    writer.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 * 1024, writer.try_clone()?);
    let mut line = Vec::new();
    let mut await_batch = |count: usize| -> Result<()> {
        for _ in 0..2 * count {
            line.clear();
            reader.read_until(b'\n', &mut line)?;
        }
        Ok(())
    };
    for (index, batch) in commands.iter().enumerate() {
        if index >= WINDOW {
            await_batch(BATCH)?;
        }
        writer.write_all(batch)?;
    }
    let rest = CHATS - (commands.len().saturating_sub(WINDOW)) * BATCH;
    await_batch(rest)
}

fn run(mock: &Mock, port: u16, ids_per_message: u32) -> Result<()> {
    let status = Command::new(env!("CARGO_BIN_EXE_labelcast"))
        .env_clear()
        .env("WAWP_ACCESS_TOKEN", DEMO_TOKEN)
        .args(["run", "--label", "1", "--quiet", "--report", "none"])
        .args(["--skip-label-check", "--instance-id", DEMO_INSTANCE])
        .args(["--api-url", &mock.url(), "--queue", "run"])
        .args(["--sink", &format!("redis://127.0.0.1:{port}")])
        .args(["--ids-per-message", &ids_per_message.to_string()])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the run failed".into())
    }
}

fn decoder(list: &Bytes) -> Result<()> {
    let (seen, end) = decode(&list[..], &Plan::whole_list(), Some);
    end?;
    assert_eq!(seen.entries, CHATS as u64);
    Ok(())
}

fn serve(list: Bytes) -> Result<Mock> {
    let account = Account {
        instance_id: DEMO_INSTANCE.to_owned(),
        token: DEMO_TOKEN.to_owned(),
        labels: vec![("1".to_owned(), "VIP".to_owned(), Chats::Body(list))],
    };
    Ok(Mock::start(([127, 0, 0, 1], 0).into(), account)?)
}

fn time(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let begin = Instant::now();
    work()?;
    Ok(begin.elapsed())
}

/// A private server on a free port.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--dir", std::env::temp_dir().to_str().unwrap_or("/tmp")])
            .stdout(Stdio::null())
            .spawn()?;
        let server = Self { child, port };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }

    /// Measures the time of a function on an empty server.
    fn timed(&self, work: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}", self.port))?;
        redis::cmd("FLUSHALL").exec(&mut client.get_connection()?)?;
        time(work)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn show(rounds: &[[Duration; 4]]) {
    println!("{CHATS} chats, medians of {} rounds\n", rounds.len());
    println!("| what   |     ms |   chats/s |\n| ------ | -----: | --------: |");
    let of = |column: usize| median(rounds.iter().map(|r| r[column].as_secs_f64()).collect());
    for (column, name) in ["raw", "run", "decode", "packed"].into_iter().enumerate() {
        let seconds = of(column);
        println!(
            "| {name:6} | {:6.0} | {:9.0} |",
            seconds * 1e3,
            CHATS as f64 / seconds
        );
    }
    let ratio = |a: usize, b: usize| {
        median(
            rounds
                .iter()
                .map(|r| r[b].as_secs_f64() / r[a].as_secs_f64())
                .collect(),
        )
    };
    println!("\nrun    : raw    {:.2} (aim 0.9)", ratio(1, 0));
    println!("packed : decode {:.2} (aim 0.9)", ratio(3, 2));
}
