//! `/healthz`, `/readyz` and `/metrics`.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::sync::watch;

use crate::live::overview::Overview;

/// The age of the last successful reading of the state from which on the process is not ready.
const MAX_AGE: Duration = Duration::from_secs(15);
/// The content type of the metrics, as OpenMetrics defines it.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process lives.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether broker and state answer, and which labels are not exact yet. Through a proxy, which may
/// face the internet, only the former.
pub(super) fn readyz(overview: &watch::Receiver<Arc<Overview>>, is_proxied: bool) -> Response {
    let overview = Arc::clone(&overview.borrow());
    let problem = problem(&overview, SystemTime::now());
    let labels = overview.labels.iter();
    let not_exact: Vec<&str> = labels
        .filter(|label| !label.is_exact && !label.is_deleted)
        .map(|label| label.label_id.as_str())
        .collect();
    let status = match problem {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = match is_proxied {
        true => json!({"ready": problem.is_none()}),
        false => json!({
            "ready": problem.is_none(),
            "problem": problem,
            "labels": overview.labels.len(),
            "labels_not_exact": not_exact,
        }),
    };
    let json = [(header::CONTENT_TYPE, "application/json")];
    (status, json, format!("{body}\n")).into_response()
}

/// Why the process is not ready.
fn problem(overview: &Overview, now: SystemTime) -> Option<String> {
    let age = now.duration_since(overview.at).unwrap_or_default();
    match &overview.error {
        Some(error) => Some(error.clone()),
        None if age > MAX_AGE => Some("the state was not read lately".to_owned()),
        None => None,
    }
}

/// Answers with metrics, unless they could not be written.
pub(super) fn metrics(text: Result<String, fmt::Error>) -> Response {
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
