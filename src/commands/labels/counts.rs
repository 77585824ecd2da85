//! How many chats carry each label: every list is streamed and counted, and nothing of it kept.

use std::time::SystemTime;

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::json;

use crate::api::{ApiSettings, Client, Label};
use crate::error::Error;
use crate::exit::Exit;
use crate::job::{self, Context, Labels, RunSettings};
use crate::message::{Format, Layout};
use crate::progress::Progress;
use crate::report::Status;
use crate::shutdown::Shutdown;
use crate::sink::Target;
use crate::sink::blackhole::Blackhole;

/// Lists that are fetched at once: an engine takes minutes for a long one, and memory is bounded.
const AT_ONCE: usize = 4;
/// Entries that are counted at once.
const BATCH_ENTRIES: u32 = 2048;

/// A label, and how many chats carry it.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) label: Label,
    /// None where that could not be found out.
    pub(super) chats: Option<u64>,
    /// Why not.
    pub(super) error: Option<String>,
    pub(super) exit: Exit,
    at: SystemTime,
}

/// Counts the chats of each label, some at once. Gives them in the order of the labels.
pub(super) async fn count(
    api: &ApiSettings,
    shutdown: &Shutdown,
    labels: &[Label],
    progress: &Progress,
) -> Result<Vec<Counted>, Error> {
    let client = Client::new(api)?;
    let run = RunSettings {
        labels: Labels::All,
        shard: None,
        deadline: None,
        resume_window: None,
        min_chats: 0,
        max_shrink: None,
        max_invalid: u64::MAX,
        check_label: false,
        dry_run: true,
    };
    let layout = Layout {
        format: Format::Json,
        ids_per_message: 1,
        include_names: false,
    };
    let part = progress.part();
    let context = Context {
        client: &client,
        retries: api.retries,
        run: &run,
        layout: &layout,
        batch_entries: BATCH_ENTRIES,
        shutdown,
        progress: &part,
    };
    progress.begin(&format!("1 to {}", labels.len()));
    let counting = stream::iter(labels.iter().cloned())
        .map(|label| count_one(&context, &api.instance_id, label));
    let counted = counting.buffered(AT_ONCE).collect().await;
    progress.end();
    Ok(counted)
}

async fn count_one(context: &Context<'_>, instance_id: &str, label: Label) -> Counted {
    let target = Target {
        queue: "nothing".to_owned(),
        label_id: label.id.clone(),
        instance_id: instance_id.to_owned(),
    };
    let report = match context.shutdown.cause() {
        Some(cause) => job::not_tried(label.clone(), &target, &Error::Interrupted(cause)),
        None => job::publish_label(context, &label, &target, Blackhole).await,
    };
    let is_whole = report.status == Status::Complete;
    Counted {
        label,
        chats: is_whole.then_some(report.counts.read - report.counts.invalid),
        error: report.error,
        exit: report.exit,
        at: SystemTime::now(),
    }
}

/// A JSON line a label.
pub(super) fn lines(counted: &[Counted]) -> String {
    let line = |counted: &Counted| {
        let Label { id, name, color } = &counted.label;
        let mut line = json!({
            "label_id": id,
            "label_name": name,
            "color_hex": color,
            "chats": counted.chats,
            "counted_at": humantime::format_rfc3339_millis(counted.at).to_string(),
        });
        if let Some(error) = &counted.error {
            line["error"] = json!(error);
        }
        format!("{line}\n")
    };
    counted.iter().map(line).collect()
}
