//! The data as JSON, for programs.

use serde::Serialize;

use super::text::rfc3339;
use crate::live::overview::{LabelView, LastRun, Overview};

/// A label in `/api/labels`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct LabelJson<'a> {
    pub(super) label_id: &'a str,
    label_name: Option<&'a str>,
    color_hex: Option<&'a str>,
    chats: Option<u64>,
    counted_at: Option<String>,
    exact: bool,
}

impl<'a> From<&'a LabelView> for LabelJson<'a> {
    fn from(label: &'a LabelView) -> Self {
        Self {
            label_id: &label.label_id,
            label_name: label.label_name.as_deref(),
            color_hex: label.color_hex.as_deref(),
            chats: label.chats,
            counted_at: label.counted_at.map(rfc3339),
            exact: label.is_exact,
        }
    }
}

/// A label's last run in `/api/runs`.
#[derive(Serialize)]
struct RunJson<'a> {
    label_id: &'a str,
    label_name: Option<&'a str>,
    queue: &'a str,
    run_id: &'a str,
    status: &'static str,
    chats: u64,
    published: u64,
    finished_at: String,
    elapsed_ms: u64,
    error: Option<&'a str>,
}

impl<'a> RunJson<'a> {
    fn new(label: &'a LabelView, run: &'a LastRun) -> Self {
        Self {
            label_id: &label.label_id,
            label_name: label.label_name.as_deref(),
            queue: &label.queue,
            run_id: &run.run_id,
            status: run.status.name(),
            chats: run.chats,
            published: run.published,
            finished_at: rfc3339(run.finished_at),
            elapsed_ms: u64::try_from(run.elapsed.as_millis()).unwrap_or(u64::MAX),
            error: run.error.as_deref(),
        }
    }
}

/// Returns `/api/labels`.
pub(super) fn labels(overview: &Overview) -> String {
    let labels: Vec<LabelJson<'_>> = overview.labels.iter().map(LabelJson::from).collect();
    serde_json::json!(labels).to_string()
}

/// Returns `/api/runs`: labels without a run are left out.
pub(super) fn runs(overview: &Overview) -> String {
    let labels = overview.labels.iter();
    let runs: Vec<RunJson<'_>> = labels
        .filter_map(|label| Some(RunJson::new(label, label.last_run.as_ref()?)))
        .collect();
    serde_json::json!(runs).to_string()
}
