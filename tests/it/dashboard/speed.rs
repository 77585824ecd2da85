//! The page with many labels.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use labelcast::live::overview::{LabelView, Overview, RunStatus, Sample};

use super::served::{Served, label, overview, run};

const LABELS: u64 = 500;

fn many(extra: u64) -> Overview {
    let labels = (0..LABELS).map(|number| {
        let label = label(
            &number.to_string(),
            &format!("Label number {number}"),
            Some(number * 37),
        );
        let at = label.counted_at.unwrap();
        let trend = (1..100_u32).rev().map(|hour| Sample {
            at: at - hour * Duration::from_secs(3600),
            chats: number * 37 + u64::from(hour * hour % 29),
        });
        LabelView {
            trend: trend.collect(),
            messages: Some(number),
            lag: Some(number / 2),
            last_run: Some(run(
                RunStatus::Failed,
                Some("cannot reach the API: connection refused"),
            )),
            chats: Some(number * 37 + extra),
            ..label
        }
    });
    overview(labels.collect())
}

/// `cargo test --release --test it dashboard::speed -- --nocapture` shows the figures.
#[tokio::test]
async fn the_page_of_500_labels_is_fast_and_small() {
    let served = Served::open(many(0)).await;
    let mut times = Vec::new();
    for extra in 1..20 {
        // A new overview, so that nothing is rendered before.
        served.overview.send_replace(Arc::new(many(extra)));
        times.push(served.time_to_first_byte("/").await);
    }
    // The fastest one is the least disturbed by other processes.
    let fastest = times.into_iter().min().unwrap();
    let page = served.get("/", &[]).await.body;
    let mut all = page;
    for path in ["/dashboard.css", "/dashboard.js", "/icon.svg"] {
        all += &served.get(path, &[]).await.body;
    }
    let compressed = gzip(all.as_bytes()).len();
    println!(
        "first byte after {fastest:?}, {} bytes, {compressed} compressed",
        all.len()
    );
    assert!(compressed < 300 * 1024, "{compressed} bytes");
    // Debug builds are slower by a factor of ten or more, and other tests run beside this one.
    let limit = if cfg!(debug_assertions) { 1000 } else { 5 };
    assert!(fastest < Duration::from_millis(limit), "{fastest:?}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut child = std::process::Command::new("gzip")
        .arg("-c")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}
