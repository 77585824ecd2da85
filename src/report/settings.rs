//! The settings of report, metrics and progress.

use std::path::PathBuf;

use url::Url;

use crate::progress::ProgressMode;

/// Which report to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportFormat {
    /// A JSON line on stdout.
    Json,
    /// Text on stderr.
    Text,
    /// None.
    None,
}

/// The settings of report, metrics and progress.
#[derive(Clone, Debug)]
pub struct ReportSettings {
    /// On stdout or stderr.
    pub format: ReportFormat,
    /// Also as a file.
    pub file: Option<PathBuf>,
    /// Progress on stderr.
    pub progress: ProgressMode,
    /// Metrics as a file.
    pub metrics_file: Option<PathBuf>,
    /// The Pushgateway that metrics are pushed to.
    pub metrics_push: Option<Url>,
}
