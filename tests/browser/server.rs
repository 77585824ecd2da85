//! Serves a dashboard with made-up labels, for `scripts/test-browser` and for working on the page.
//!
//! The first argument is the address, by default a free port of loopback; the second the number of
//! labels. `LABELCAST_DASHBOARD_TOKEN` is the token. Each line on stdin changes something:
//!
//! - `{"add":{"VIP":3}}` adds chats to labels, by their names;
//! - `{"error":"cannot reach the broker"}` and `{"error":null}`.
#![expect(clippy::unwrap_used, reason = "a server for tests")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use labelcast::enrich::metrics::Totals;
use labelcast::live::overview::{EnrichedView, LabelView, LastRun, Overview, RunStatus, Sample};
use labelcast::server::dashboard::Dashboard;
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3600);

/// Names, colours and numbers of chats. The names include some that are hard to show.
const LABELS: [(&str, &str, u64); 14] = [
    ("Order complete", "#64c4ff", 18_240),
    ("New customer", "#9ba6ff", 12_975),
    ("Newsletter", "#ffd429", 9_310),
    ("Awaiting payment", "#ff9485", 6_122),
    ("Follow up", "#55ccb3", 4_871),
    ("Wholesale", "#8b7990", 3_020),
    ("VIP", "#d4a017", 2_846),
    ("عملاء مميزون", "#00a0f2", 1_904),
    ("Support – second level", "#c9b1ff", 1_377),
    ("Retour & Umtausch", "#ffb178", 912),
    ("<b>Spring</b> campaign", "#1f2c34", 655),
    (
        "A label whose name somebody used as a place for notes that are longer than any table would like",
        "#fdfdfd",
        348,
    ),
    ("Ждёт ответа", "#ff4d8d", 120),
    ("Complaint", "#e53935", 41),
];

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Change {
    Add(HashMap<String, u64>),
    Error(Option<String>),
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let count = arguments
        .next()
        .map_or(LABELS.len(), |it| it.parse().unwrap());
    let token = std::env::var("LABELCAST_DASHBOARD_TOKEN").ok();
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, receiver) = watch::channel(Arc::new(overview(count)));
    let dashboard = Dashboard {
        overview: receiver,
        token: token.map(Into::into),
        is_loopback: address.ip().is_loopback(),
        stop: CancellationToken::new(),
    };
    std::thread::spawn(move || read_changes(&sender));
    println!("http://{address}");
    axum::serve(listener, dashboard.routes()).await.unwrap();
}

/// Applies changes until the end of stdin, and then ends the process.
fn read_changes(overview: &watch::Sender<Arc<Overview>>) {
    for line in std::io::stdin().lines() {
        let change = serde_json::from_str(&line.unwrap()).unwrap();
        overview.send_modify(|overview| apply(Arc::make_mut(overview), change));
    }
    std::process::exit(0);
}

fn apply(overview: &mut Overview, change: Change) {
    overview.at = SystemTime::now();
    match change {
        Change::Error(error) => overview.error = error,
        Change::Add(added) => {
            for label in &mut overview.labels {
                let name = label.label_name.as_deref().unwrap_or_default();
                if let Some(added) = added.get(name) {
                    label.chats = label.chats.map(|chats| chats + added);
                    label.counted_at = Some(overview.at);
                    *overview.events_by_minute.last_mut().unwrap() += added;
                }
            }
        }
    }
}

fn overview(count: usize) -> Overview {
    let labels = LABELS.iter().cycle().take(count).enumerate();
    let labels = labels.map(|(index, (name, color, chats))| {
        let name = match index / LABELS.len() {
            0 => (*name).to_owned(),
            round => format!("{name} {round}"),
        };
        let chats = *chats / (index / LABELS.len() + 1) as u64;
        label(index as u64 + 1, name, color, chats)
    });
    Overview {
        at: SystemTime::now(),
        labels: labels.collect(),
        events_by_minute: (0..60)
            .map(|minute| 14 + minute * 7 % 23 + wave(minute, 9))
            .collect(),
        error: None,
        reconcile_every: Some(6 * HOUR),
        enriched: (1..=count.min(3) as u64).map(enriched).collect(),
    }
}

fn enriched(id: u64) -> EnrichedView {
    EnrichedView {
        queue: format!("labelcast:{id}"),
        totals: Totals {
            found: 1_000 / id,
            missing: 20 / id,
            failed: 3 - id,
            ..Totals::default()
        },
    }
}

fn label(id: u64, name: String, color: &str, chats: u64) -> LabelView {
    let now = SystemTime::now();
    let at = now - Duration::from_secs(id * 40 + 5);
    let earlier = |hour: u64| match id {
        // One label has lost most of its chats.
        14 if hour > 9 => 96,
        14 => 45,
        _ => {
            let change = wave(hour + 2 * id, chats / 90 + 1) * hour / 48;
            (chats + change).saturating_sub(hour * (id % 4) * chats / 700)
        }
    };
    let trend = (1..=48_u64).rev().map(|hour| Sample {
        at: now - HOUR * u32::try_from(hour).unwrap(),
        chats: earlier(hour),
    });
    LabelView {
        chats: (id != 13).then_some(chats),
        counted_at: (id != 13).then_some(at),
        is_exact: id != 13,
        is_deleted: id == 12,
        queue: format!("labelcast:{id}"),
        messages: Some(chats / 7),
        lag: (id % 5 != 4).then_some(chats / 40 * (id % 3)),
        last_run: (id != 13).then(|| run(id, now - at.elapsed().unwrap() * 17, chats)),
        trend: if id == 13 {
            Vec::new()
        } else {
            trend.collect()
        },
        label_id: id.to_string(),
        label_name: Some(name),
        color_hex: Some(color.to_owned()),
    }
}

/// A number that goes up and down between zero and twice `height`.
fn wave(at: u64, height: u64) -> u64 {
    let turn = f64::from(u32::try_from(at).unwrap()) / 4.0;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "not negative and small"
    )]
    let up = ((turn.sin() + 1.0) * height as f64) as u64;
    up
}

fn run(id: u64, finished_at: SystemTime, chats: u64) -> LastRun {
    let (status, error) = match id {
        4 => (
            RunStatus::Failed,
            Some("cannot reach the API: connection refused"),
        ),
        10 => (RunStatus::Partial, Some("stopped by a signal")),
        14 => (
            RunStatus::Guarded,
            Some("the list would remove 53 % of the members, more than --max-change 50"),
        ),
        _ => (RunStatus::Complete, None),
    };
    LastRun {
        label_id: id.to_string(),
        run_id: format!("0197c0de-0000-7000-8000-{id:012}"),
        status,
        chats,
        published: if status == RunStatus::Complete {
            chats
        } else {
            chats / 3
        },
        finished_at: if id == 9 {
            finished_at - 20 * HOUR
        } else {
            finished_at
        },
        elapsed: Duration::from_millis(chats / 4 + 300),
        error: error.map(str::to_owned),
    }
}
