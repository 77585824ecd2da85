//! The settings of report, metrics and progress.

use std::path::PathBuf;

use url::Url;

use super::ConfigSources;
use super::values::{Optional, Reader};
use crate::progress::ProgressMode;
use crate::report::{ReportFormat, ReportSettings};

/// The settings that could be read.
struct Parts {
    format: Option<ReportFormat>,
    file: Optional<PathBuf>,
    progress: Option<ProgressMode>,
    metrics_file: Optional<PathBuf>,
    metrics_push: Optional<Url>,
}

pub(super) fn read(sources: &mut ConfigSources) -> Result<ReportSettings, Box<ReportSettings>> {
    let parts = Parts::read(&mut Reader::new(sources));
    parts.all().ok_or_else(|| Box::new(parts.at_least()))
}

impl Parts {
    fn read(read: &mut Reader<'_>) -> Self {
        Self {
            format: read.one_of(
                "report.format",
                &[
                    ("json", ReportFormat::Json),
                    ("text", ReportFormat::Text),
                    ("none", ReportFormat::None),
                ],
            ),
            file: read.optional("report.file", Reader::path),
            progress: read.one_of(
                "report.progress",
                &[
                    ("auto", ProgressMode::Auto),
                    ("always", ProgressMode::Always),
                    ("never", ProgressMode::Never),
                ],
            ),
            metrics_file: read.optional("report.metrics_file", Reader::path),
            metrics_push: read.optional("report.metrics_push", Reader::push_url),
        }
    }

    fn all(&self) -> Option<ReportSettings> {
        Some(ReportSettings {
            format: self.format?,
            file: self.file.clone()?,
            progress: self.progress?,
            metrics_file: self.metrics_file.clone()?,
            metrics_push: self.metrics_push.clone()?,
        })
    }

    fn at_least(self) -> ReportSettings {
        ReportSettings {
            format: self.format.unwrap_or(ReportFormat::Text),
            file: self.file.flatten(),
            progress: self.progress.unwrap_or(ProgressMode::Never),
            metrics_file: self.metrics_file.flatten(),
            metrics_push: self.metrics_push.flatten(),
        }
    }
}
