//! Measures the throughput of a list: the parser alone, the decoder, and the whole program.
//!
//! `cargo bench --bench throughput` measures three things over the same million chats:
//!
//! - **parser**: the minimum work with struson that yields the chat ids;
//! - **decode**: [`labelcast::decode`], which also handles all shapes, enforces limits, and hashes;
//! - **run**: the program, from process start to exit, from HTTP to lines in a file.
//!
//! They take turns, so that a temporary slowdown affects all three, and each ratio compares
//! neighbouring measurements. The stand-in for the API runs in this process: on two cores it takes
//! CPU time from `run`. A run ends by flushing about 100 MB to disk, and its time varies with that.
//! Set `TMPDIR` to a memory file system to exclude the disk.

use std::error::Error;
use std::fmt::Write as _;
use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use labelcast::decode::{Plan, decode};
use labelcast::mock::{Account, Chats, DEMO_INSTANCE, DEMO_TOKEN, Mock};

#[path = "peers/struson/src/bare.rs"]
mod bare;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const CHATS: u32 = 1_000_000;
const ROUNDS: usize = 15;
const LABEL: &str = "1";

fn main() -> Result<()> {
    // `cargo test --all-targets` also starts benches, without this flag and without optimisation.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let list = list();
    let server = serve(list.clone())?;
    let mut rounds = Vec::new();
    for _ in 0..=ROUNDS {
        rounds.push([
            time(|| bare::chats(&list))?,
            time(|| decoder(&list))?,
            run(&server)?,
        ]);
    }
    // The first round is a warm-up.
    show(list.len(), &rounds[1..]);
    Ok(())
}

/// Returns a list in the map shape, about 60 bytes an entry, with ids of all kinds.
fn list() -> Bytes {
    let mut list = String::from("{");
    for index in 0..CHATS {
        let separator = if index == 0 { "" } else { "," };
        let number = 4_900_000_000_000 + u64::from(index.wrapping_mul(2_654_435_761));
        let ending = match index % 10 {
            0 => "lid",
            1 => "g.us",
            _ => "c.us",
        };
        // Writing to memory does not fail.
        let _ = write!(
            list,
            r#"{separator}"{index}":{{"id":"{number}@{ending}","name":"Chat {index}"}}"#
        );
    }
    list.push('}');
    list.into()
}

fn serve(list: Bytes) -> Result<Mock> {
    let account = Account {
        instance_id: DEMO_INSTANCE.to_owned(),
        token: DEMO_TOKEN.to_owned(),
        labels: vec![(LABEL.to_owned(), "VIP".to_owned(), Chats::Body(list))],
    };
    Ok(Mock::start(([127, 0, 0, 1], 0).into(), account)?)
}

/// Measures the time of a function that must find all chats.
fn time(work: impl FnOnce() -> Result<u64>) -> Result<Duration> {
    let start = Instant::now();
    let chats = work()?;
    let took = start.elapsed();
    (chats == u64::from(CHATS))
        .then_some(took)
        .ok_or_else(|| format!("{chats} chats, not {CHATS}").into())
}

fn decoder(list: &[u8]) -> Result<u64> {
    // The batch sizes of a real run.
    let plan = Plan {
        batch_entries: 2048,
        batch_bytes: 64 * 1024,
        ..Plan::whole_list()
    };
    let (seen, end) = decode(list, &plan, |batch| Some(black_box(batch)));
    end?;
    Ok(seen.chats())
}

/// Measures one run of the program, with only the token in its environment.
fn run(server: &Mock) -> Result<Duration> {
    let folder = tempfile::tempdir()?;
    let lines = folder.path().join("chats.jsonl");
    let mut program = Command::new(env!("CARGO_BIN_EXE_labelcast"));
    program
        .args(["run", "--label", LABEL, "--skip-label-check"])
        .args(["--api-url", &server.url(), "--instance-id", DEMO_INSTANCE])
        .args(["--sink", &format!("file:{}", lines.display())])
        .args(["--report", "none", "--quiet"])
        .env_clear()
        .env("WAWP_ACCESS_TOKEN", DEMO_TOKEN)
        .stdin(Stdio::null());
    let start = Instant::now();
    let status = program.status()?;
    let took = start.elapsed();
    let written = std::fs::read(&lines)?;
    let count = written.iter().filter(|byte| **byte == b'\n').count();
    if !status.success() || count != CHATS as usize {
        return Err(format!("{count} lines, {status}").into());
    }
    Ok(took)
}

fn show(bytes: usize, rounds: &[[Duration; 3]]) {
    let seconds = |round: &[Duration; 3], column: usize| round[column].as_secs_f64();
    println!("{CHATS} chats, {bytes} bytes, medians of {ROUNDS} rounds\n");
    println!("| what   |     ms |  MB/s | entries/s |");
    println!("| ------ | -----: | ----: | --------: |");
    for (column, what) in ["parser", "decode", "run"].into_iter().enumerate() {
        let took = median(rounds.iter().map(|round| seconds(round, column)));
        let (rate, entries) = (bytes as f64 / took / 1e6, f64::from(CHATS) / took);
        println!(
            "| {what:<6} | {:>6.0} | {rate:>5.0} | {entries:>9.0} |",
            took * 1e3
        );
    }
    let of_parser = median(rounds.iter().map(|r| seconds(r, 0) / seconds(r, 1)));
    let of_decode = median(rounds.iter().map(|r| seconds(r, 1) / seconds(r, 2)));
    println!("\ndecode : parser {of_parser:.2} (aim 0.9)");
    println!("run    : decode {of_decode:.2} (aim 0.8)");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
