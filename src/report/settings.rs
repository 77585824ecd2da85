//! The settings of report, metrics and progress.

use std::path::PathBuf;

use url::Url;

use crate::progress::ProgressMode;

/// The format of the report at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// A JSON line on stdout.
    Json,
    /// Text on stderr.
    Text,
    /// No report.
    None,
}

/// The settings of report, metrics and progress.
#[derive(Clone, Debug)]
pub struct ReportSettings {
    /// The format of the report at the end.
    pub format: ReportFormat,
    /// The report file.
    pub file: Option<PathBuf>,
    /// Progress on stderr.
    pub progress: ProgressMode,
    /// The metrics file.
    pub metrics_file: Option<PathBuf>,
    /// The Pushgateway that metrics are pushed to.
    pub metrics_push: Option<Url>,
}
