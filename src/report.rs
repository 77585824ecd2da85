//! The report of a run, as JSON and as text, and as metrics.

mod metrics;
mod push;
mod settings;

use std::fmt::Write as _;
use std::fs::Permissions;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use tempfile::NamedTempFile;
use url::Url;
use uuid::Uuid;

pub use self::settings::{ReportFormat, ReportSettings};
use crate::batch::Digest;
use crate::error::Error;
use crate::exit::Exit;
use crate::http::Proxies;
use crate::shard::Shard;

/// The value of `schema`.
const SCHEMA: &str = "labelcast.report/1";

/// The status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Every chat is on the queue.
    Complete,
    /// A part is published. With a broker or a file, the next run resumes.
    Partial,
    /// Nothing was published, or someone has to fix a problem.
    Failed,
    /// A guard stopped the run.
    Guarded,
    /// Another run holds the queue and label.
    Locked,
}

impl Status {
    /// All statuses.
    pub const ALL: [Self; 5] = [
        Self::Complete,
        Self::Partial,
        Self::Failed,
        Self::Guarded,
        Self::Locked,
    ];

    /// Returns the spelling in reports, metrics and the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Guarded => "guarded",
            Self::Locked => "locked",
        }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// The outcome of one label.
#[derive(Clone, Debug, Serialize)]
pub struct LabelReport {
    /// The label.
    pub label_id: String,
    /// Its name, if the list of labels was requested.
    pub label_name: Option<String>,
    /// The queue.
    pub queue: String,
    /// The run id. An earlier process may have started the run.
    pub run_id: Uuid,
    /// The status.
    pub status: Status,
    /// The counters.
    #[serde(flatten)]
    pub counts: Counts,
    /// How it went on the way.
    #[serde(flatten)]
    pub history: History,
    /// The error.
    pub error: Option<String>,
    /// The elapsed time.
    #[serde(skip)]
    pub elapsed: Duration,
    /// The label's exit code.
    #[serde(skip)]
    pub exit: Exit,
}

/// What happened while a label's list was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct History {
    /// The number of times that the list was requested.
    pub attempts: u32,
    /// The digest over the list, as far as it was read.
    pub digest: Digest,
    /// Whether the list changed between two attempts or processes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub list_changed: bool,
    /// The number of times that the queue had lost confirmed entries, which were then published
    /// again.
    #[serde(skip_serializing_if = "is_zero")]
    pub rewinds: u32,
}

/// The history of a list that was not requested yet.
impl Default for History {
    fn default() -> Self {
        Self {
            attempts: 0,
            digest: Digest::of_nothing(),
            list_changed: false,
            rewinds: 0,
        }
    }
}

/// Counters of a label, and their totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Entries of the list, as far as it was read.
    pub read: u64,
    /// Chats that this process put on the queue.
    pub published: u64,
    /// Chats that an earlier process of the same run had published.
    pub resumed: u64,
    /// Chats that were left out because they had been published before.
    pub suppressed: u64,
    /// Chats that were left out because they were members of the label before.
    pub known: u64,
    /// Entries without a valid chat id.
    pub invalid: u64,
    /// Members that have left the label. They are not in the list.
    pub removed: u64,
    /// Messages that this process put on the queue.
    pub messages: u64,
    /// Bytes of the body, uncompressed.
    pub bytes: u64,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            published: self.published + other.published,
            resumed: self.resumed + other.resumed,
            suppressed: self.suppressed + other.suppressed,
            known: self.known + other.known,
            invalid: self.invalid + other.invalid,
            removed: self.removed + other.removed,
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// The outcome of all labels.
#[derive(Debug, Serialize)]
pub struct Report {
    schema: &'static str,
    /// The run id if there is one label, else an id of this invocation.
    pub run_id: Uuid,
    /// The overall status.
    pub status: Status,
    exit_code: u8,
    #[serde(serialize_with = "serialize_time")]
    started_at: SystemTime,
    #[serde(serialize_with = "serialize_time")]
    finished_at: SystemTime,
    elapsed_ms: u64,
    /// The labels, in the order in which they ran.
    pub labels: Vec<LabelReport>,
    totals: Counts,
    /// Whether this was a dry run.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dry_run: bool,
    /// The error that stopped the run before any label.
    error: Option<String>,
}

impl Report {
    /// Builds the report of a run.
    pub fn new(
        started_at: SystemTime,
        labels: Vec<LabelReport>,
        error: Option<&Error>,
    ) -> (Self, Exit) {
        let finished_at = SystemTime::now();
        let exit = labels
            .iter()
            .map(|label| label.exit)
            .chain(error.map(Error::exit))
            .fold(Exit::Complete, Exit::heavier);
        let is = |status: Status| labels.iter().any(|label| label.status == status);
        let all_complete = labels.iter().all(|label| label.status == Status::Complete);
        let interrupted = error.is_some_and(|error| error.exit() == Exit::Interrupted);
        let status = if error.is_none() && all_complete {
            Status::Complete
        } else if is(Status::Complete) || is(Status::Partial) || interrupted {
            Status::Partial
        } else {
            Status::Failed
        };
        let run_id = match labels.as_slice() {
            [label] => label.run_id,
            _ => Uuid::now_v7(),
        };
        let elapsed = finished_at.duration_since(started_at).unwrap_or_default();
        let totals = labels
            .iter()
            .fold(Counts::default(), |sum, label| sum.plus(label.counts));
        let report = Self {
            schema: SCHEMA,
            run_id,
            status,
            exit_code: exit.code(),
            started_at,
            finished_at,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            labels,
            totals,
            dry_run: false,
            error: error.map(Error::to_string),
        };
        (report, exit)
    }

    /// Marks the report as that of a dry run.
    #[must_use]
    pub fn of_dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Returns the report as one line of JSON.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Returns the report as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for label in &self.labels {
            let Counts {
                read,
                published,
                resumed,
                suppressed,
                known,
                invalid,
                removed,
                ..
            } = label.counts;
            let _ = write!(text, "label {}", printable(&label.label_id));
            if let Some(name) = &label.label_name {
                let _ = write!(text, " “{}”", printable(name));
            }
            let status = label.status.name();
            let _ = write!(text, ": {status}: {published} chats published");
            for (count, what) in [
                (resumed, "published before"),
                (suppressed, "left out"),
                (known, "known"),
                (invalid, "invalid"),
            ] {
                if count > 0 {
                    let _ = write!(text, ", {count} {what}");
                }
            }
            let _ = write!(text, ", of {read} read");
            if removed > 0 {
                let _ = write!(text, ", {removed} removed");
            }
            let _ = writeln!(
                text,
                "; run {}, attempts {}",
                label.run_id, label.history.attempts
            );
        }
        let elapsed = Duration::from_millis(self.elapsed_ms);
        let _ = writeln!(
            text,
            "{} in {}, exit code {}",
            self.status.name(),
            humantime::format_duration(elapsed),
            self.exit_code
        );
        text
    }

    /// Writes the JSON to a file, atomically if the file can be replaced.
    ///
    /// # Errors
    ///
    /// If neither the file nor a new one beside it can be written.
    pub fn write(&self, path: &Path) -> std::io::Result<()> {
        replace_or_write(path, (self.json() + "\n").as_bytes())
    }

    /// Writes metrics to a file, atomically if the file can be replaced.
    ///
    /// # Errors
    ///
    /// If neither the file nor a new one beside it can be written.
    pub fn write_metrics(
        &self,
        path: &Path,
        instance_id: &str,
        shard: Option<Shard>,
    ) -> std::io::Result<()> {
        metrics::write(path, &metrics::groups(self, instance_id, shard))
    }

    /// Pushes metrics to a Pushgateway.
    ///
    /// Returns the problems of groups that were not accepted.
    pub async fn push_metrics(
        &self,
        gateway: &Url,
        instance_id: &str,
        shard: Option<Shard>,
        proxies: &Proxies,
    ) -> Vec<String> {
        push::push(gateway, &metrics::groups(self, instance_id, shard), proxies).await
    }
}

/// Writes a file, atomically if it can be replaced.
pub(crate) fn replace_or_write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Some files can be written but not replaced: a mount, a link, a device, or a file in a
    // read-only directory, such as /dev/termination-log in a pod. After any other error, such as a
    // full disk, the old file is better than half of a new one.
    let may_be_written = |error: &std::io::Error| {
        matches!(
            error.kind(),
            ErrorKind::PermissionDenied
                | ErrorKind::ReadOnlyFilesystem
                | ErrorKind::ResourceBusy
                | ErrorKind::CrossesDevices
        )
    };
    // A link, a pipe or a device stays what it is.
    let is_special = std::fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        return std::fs::write(path, bytes);
    }
    match replace(path, bytes) {
        Err(error) if path.exists() && may_be_written(&error) => std::fs::write(path, bytes),
        replaced => replaced,
    }
}

/// Checks that [`replace_or_write`] could write a file, without changing it.
///
/// # Errors
///
/// If neither the file nor a new one beside it can be written.
pub(crate) fn check_writable(path: &Path) -> std::io::Result<()> {
    let metadata = std::fs::metadata(path);
    if metadata
        .as_ref()
        .is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
    {
        // Opening a pipe or a device may block or have an effect.
        return Ok(());
    }
    if metadata.is_ok() && std::fs::File::options().write(true).open(path).is_ok() {
        return Ok(());
    }
    if path.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    temporary_beside(path).map(drop)
}

/// Replaces control characters, which a terminal might interpret, with spaces.
pub(crate) fn printable(text: &str) -> String {
    text.replace(char::is_control, " ")
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut new = temporary_beside(path)?;
    new.write_all(bytes)?;
    new.as_file().sync_data()?;
    new.persist(path)?;
    Ok(())
}

/// Creates a file beside the one that it may replace. A collector of `*.prom` does not read it.
fn temporary_beside(path: &Path) -> std::io::Result<NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".labelcast-")
        // As usual for new files, readable by other users if the umask allows it.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(path.parent().unwrap_or(path))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// Writes a time as RFC 3339, with milliseconds.
pub(crate) fn serialize_time<S: Serializer>(
    at: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(*at))
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_file_is_not_taken_for_metrics_and_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let metrics = folder.path().join("labelcast.prom");
        let temporary = temporary_beside(&metrics).unwrap();
        assert_eq!(temporary.path().parent(), Some(folder.path()));
        assert_eq!(temporary.path().extension(), None);
        // A directory cannot be replaced.
        std::fs::create_dir(&metrics).unwrap();
        assert!(replace(&metrics, b"new").is_err());
        drop(temporary);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
