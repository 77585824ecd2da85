//! The report of a worker, as JSON and as text.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::Queues;
use super::metrics::Totals;
use super::worker::Ending;
use crate::error::Error;
use crate::exit::Exit;
use crate::report::{Status, serialize_time};

/// The value of `schema`.
const SCHEMA: &str = "labelcast.enrich-report/1";

/// The report of a worker.
#[derive(Clone, Debug, Serialize)]
pub struct EnrichReport {
    schema: &'static str,
    status: Status,
    exit_code: u8,
    #[serde(serialize_with = "serialize_time")]
    started_at: SystemTime,
    #[serde(serialize_with = "serialize_time")]
    finished_at: SystemTime,
    elapsed_ms: u64,
    /// The queue that chat ids were taken from.
    from: String,
    /// The queue that records were published to.
    to: String,
    totals: Totals,
    error: Option<String>,
}

impl EnrichReport {
    /// Builds the report of a worker that ends now, and its exit code.
    ///
    /// A worker that stays ends when it is stopped, and has then done all that it should. One that
    /// drains has left something behind.
    pub fn new(
        started_at: SystemTime,
        queues: &Queues,
        totals: Totals,
        drains: bool,
        ended: &Result<Ending, Error>,
    ) -> (Self, Exit) {
        let finished_at = SystemTime::now();
        let elapsed = finished_at.duration_since(started_at).unwrap_or_default();
        let (status, exit, error) = match ended {
            Ok(Ending::Drained) => (Status::Complete, Exit::Complete, None),
            Ok(Ending::Stopped(_)) if !drains => (Status::Complete, Exit::Complete, None),
            Ok(Ending::Stopped(cause)) => {
                let error = Error::Interrupted(*cause).to_string();
                (Status::Partial, Exit::Interrupted, Some(error))
            }
            Err(error) => {
                let status = match error.exit() {
                    Exit::Interrupted | Exit::Unavailable => Status::Partial,
                    _ => Status::Failed,
                };
                (status, error.exit(), Some(error.to_string()))
            }
        };
        let report = Self {
            schema: SCHEMA,
            status,
            exit_code: exit.code(),
            started_at,
            finished_at,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            from: queues.from.clone(),
            to: queues.to.clone(),
            totals,
            error,
        };
        (report, exit)
    }

    /// Returns the report as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the report as text.
    pub fn text(&self) -> String {
        let Totals {
            messages,
            found,
            missing,
            not_asked,
            failed,
            unusable,
            requests,
            ..
        } = self.totals;
        let mut text = format!(
            "{messages} messages, {requests} requests: {found} contacts found, {missing} that do not exist"
        );
        for (count, what) in [
            (not_asked, "not asked for"),
            (failed, "set aside after failures"),
            (unusable, "set aside as unusable"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        let elapsed = humantime::format_duration(Duration::from_millis(self.elapsed_ms));
        let (status, exit_code) = (self.status.name(), self.exit_code);
        format!("{text}\n{status} in {elapsed}, exit code {exit_code}\n")
    }
}
