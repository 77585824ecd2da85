//! The output file: its lock, its end, and the recovery of what a killed run left in it.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::super::{
    BrokerError, Checkpoint, Finding, Outcome, Recovered, ResumePoint, Target, Unfinished,
};
use super::journal::{self, Fingerprint, Journal, Record};
use super::removed;
use crate::broker::record::State;

/// Maximum number of unrecorded bytes that are examined, which bounds memory if another writer has
/// appended a lot. A killed write leaves one batch at most. A batch has up to 2,048 lines and 400 KiB
/// of ids and names, so it stays below this limit even if each byte is escaped.
const MAX_TAIL_BYTES: u64 = 16 * 1024 * 1024;
/// How long events may hold the file.
const APPENDING: Duration = Duration::from_millis(500);
/// Beginnings of a message, as JSON and as an event.
const MESSAGE_STARTS: [&[u8]; 2] = [
    b"{\"chat_id",
    b"{\"specversion\":\"1.0\",\"type\":\"net.wawp.label.chat\"",
];

/// A locked file and its journal.
pub(super) struct LineFile {
    path: PathBuf,
    file: File,
    journal: Journal,
    target: Target,
    /// What the run publishes.
    mode: &'static str,
    /// Length of the file in bytes, when it was opened or after the last append.
    length: u64,
    last_lines: Fingerprint,
    /// Whether the run has written lines, including those for a list that has changed since.
    has_lines: bool,
    last_record: Option<Record>,
}

impl LineFile {
    pub(super) fn open(
        path: PathBuf,
        target: Target,
        mode: &'static str,
        retain: Option<Duration>,
    ) -> Result<(Self, Recovered), BrokerError> {
        let file = open_data(&path)?;
        // Resolved, so that a file has one journal under all of its names.
        let path = path.canonicalize().unwrap_or(path);
        lock_shortly_held(&path, &file)?;
        if !is_at(&path, &file) {
            // A purge has replaced the file since it was opened.
            return Err(BrokerError::Locked(path.display().to_string()));
        }
        let journal = Journal::read(&path)?;
        let mut line_file = Self {
            path,
            file,
            journal,
            target,
            mode,
            length: 0,
            last_lines: Fingerprint::default(),
            has_lines: false,
            last_record: None,
        };
        line_file.truncate_unrecorded_lines()?;
        let recovered = line_file.recover(retain)?;
        Ok((line_file, recovered))
    }

    /// Returns what the journal records for this queue and label. If the lines of an unfinished run
    /// are no longer in the file, the run starts over.
    fn recover(&mut self, retain: Option<Duration>) -> Result<Recovered, BrokerError> {
        let is_fresh = |record: &&Record| {
            let age = record.at.elapsed().unwrap_or_default();
            retain.is_none_or(|retain| age <= retain)
        };
        let last_complete = self
            .journal
            .complete(&self.target)
            .filter(is_fresh)
            .map(|record| record.checkpoint.chats);
        // A run that never published anything has nothing to resume.
        let has_begun = |record: &&Record| record.checkpoint.position > 0 || record.had_lines;
        let is_alike = |record: &&Record| record.mode == self.mode;
        let unfinished = self.journal.unfinished(&self.target);
        let unfinished = unfinished.filter(is_fresh).filter(has_begun);
        let unfinished = unfinished.filter(is_alike).cloned();
        let unfinished = match unfinished {
            Some(record) if self.matches_file(&record)? => {
                self.last_lines = record.last_lines;
                Some(Unfinished {
                    resume_point: ResumePoint::from(record.checkpoint),
                    updated_at: record.at,
                    list_changed: false,
                })
            }
            Some(record) => {
                warn!(
                    "lines of the unfinished run are missing from the file; publishing the list again"
                );
                Some(Unfinished {
                    resume_point: ResumePoint::start_of(record.checkpoint.run_id),
                    updated_at: record.at,
                    list_changed: false,
                })
            }
            None => None,
        };
        Ok(Recovered {
            unfinished,
            last_complete,
        })
    }

    pub(super) fn start(&mut self, from: Checkpoint, is_new: bool) -> Result<(), BrokerError> {
        self.has_lines = !is_new;
        if self.length > 0 && !self.ends_with_newline()? {
            // Another writer's last line is incomplete; ours must not become part of it.
            self.append(b"\n")?;
        }
        if from.position == 0 {
            self.last_lines = Fingerprint::default();
        }
        self.journal.compact()?;
        self.record_progress(from)
    }

    /// Appends lines and records the progress in the journal. If either fails, the lines are
    /// removed again.
    pub(super) fn write(&mut self, lines: &[u8], reached: Checkpoint) -> Result<(), BrokerError> {
        let before = (self.last_lines, self.has_lines);
        self.append(lines)?;
        if !lines.is_empty() {
            self.last_lines = Fingerprint::new(self.length, lines);
            self.has_lines = true;
        }
        self.record_progress(reached).inspect_err(|_| {
            (self.last_lines, self.has_lines) = before;
            self.length -= lines.len() as u64;
            // If this fails too, the next run finds lines that its journal does not know.
            let _ = self.file.set_len(self.length);
        })
    }

    pub(super) fn sync(&mut self) -> Result<(), BrokerError> {
        self.file
            .sync_data()
            .map_err(|error| failed("could not flush", &self.path, error))?;
        self.journal.sync()
    }

    pub(super) fn finish(&mut self, outcome: Outcome) -> Result<(), BrokerError> {
        let Some(record) = self.last_record.clone() else {
            return Ok(());
        };
        let (state, chats) = match outcome {
            // The resume window counts from this record.
            Outcome::Unfinished if self.has_lines => {
                self.record_progress(record.checkpoint)?;
                return self.journal.sync();
            }
            Outcome::Unfinished => return self.journal.sync(),
            Outcome::Complete { chats } => (State::Complete, chats),
            Outcome::Rejected => (State::Rejected, record.checkpoint.chats),
        };
        let end = Checkpoint {
            chats,
            ..record.checkpoint
        };
        self.record(end, state, true)?;
        self.journal.compact()?;
        self.journal.sync()?;
        // Records that this process knows the end of the run. If that fails, the next process
        // resumes the run and finds that nothing is left to publish.
        let _ = self.record(end, state, false);
        Ok(())
    }

    /// Appends bytes, behind any that another writer has appended meanwhile. If it fails, a part of
    /// them is removed again.
    fn append(&mut self, bytes: &[u8]) -> Result<(), BrokerError> {
        self.measure()?;
        if let Err(error) = self.file.write_all(bytes) {
            let _ = self.file.set_len(self.length);
            return Err(failed("could not append to", &self.path, error));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn measure(&mut self) -> Result<(), BrokerError> {
        let metadata = self.file.metadata();
        self.length = metadata
            .map_err(|error| failed("could not inspect", &self.path, error))?
            .len();
        Ok(())
    }

    fn record_progress(&mut self, checkpoint: Checkpoint) -> Result<(), BrokerError> {
        self.record(checkpoint, State::Running, false)
    }

    fn record(
        &mut self,
        checkpoint: Checkpoint,
        state: State,
        outcome_unreported: bool,
    ) -> Result<(), BrokerError> {
        let record = Record {
            mode: self.mode.to_owned(),
            last_lines: self.last_lines,
            had_lines: self.has_lines,
            outcome_unreported,
            ..Record::new(&self.target, checkpoint, self.length, state)
        };
        self.journal.append(&record)?;
        self.last_record = Some(record);
        Ok(())
    }

    /// Truncates lines that a killed run wrote after its last checkpoint, since the next run
    /// publishes their chats. Nothing is truncated if an editor or a rotation has moved recorded
    /// lines behind the recorded length, or if another writer has appended anything.
    fn truncate_unrecorded_lines(&mut self) -> Result<(), BrokerError> {
        self.measure()?;
        let Some(last) = self.journal.last().cloned() else {
            return Ok(());
        };
        let tail = self.length.saturating_sub(last.length);
        // After the end of a run nothing is unrecorded: even lines with its id are copies.
        let may_be_unrecorded = last.state == State::Running && tail > 0 && tail <= MAX_TAIL_BYTES;
        if !may_be_unrecorded || !self.matches_file(&last)? {
            return Ok(());
        }
        let run_id = last.checkpoint.run_id.to_string();
        let bytes = self.read_at(last.length, tail)?;
        if !bytes
            .split_inclusive(|byte| *byte == b'\n')
            .all(|line| is_line_of(&run_id, line))
        {
            return Ok(());
        }
        self.file
            .set_len(last.length)
            .map_err(|error| failed("could not truncate", &self.path, error))?;
        self.length = last.length;
        info!(
            bytes = tail,
            "truncated lines that a killed run wrote after its last checkpoint"
        );
        Ok(())
    }

    /// Returns whether the file still has the lines that a record describes. The length alone detects a
    /// file that was emptied, also with records of earlier versions, which have no fingerprint.
    fn matches_file(&mut self, record: &Record) -> Result<bool, BrokerError> {
        let lines = record.last_lines;
        let covered = self.read_at(lines.end.saturating_sub(lines.bytes), lines.bytes)?;
        Ok(record.length <= self.length && lines.matches(&covered))
    }

    fn ends_with_newline(&mut self) -> Result<bool, BrokerError> {
        Ok(self.read_at(self.length - 1, 1)? == b"\n")
    }

    fn read_at(&mut self, offset: u64, count: u64) -> Result<Vec<u8>, BrokerError> {
        let mut bytes = Vec::new();
        let read = self
            .file
            .seek(SeekFrom::Start(offset))
            .and_then(|_| (&self.file).take(count).read_to_end(&mut bytes));
        read.map_err(|error| failed("could not read", &self.path, error))?;
        Ok(bytes)
    }
}

/// Returns whether a run wrote a line. Other writers may append to the file too, so a message has to
/// contain the run's id. The last line may be torn before its id: it counts if it is the beginning of
/// a message and JSON without an end, which a line of another writer without a newline is not.
fn is_line_of(run_id: &str, line: &[u8]) -> bool {
    let is_torn = || {
        let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(line);
        !line.ends_with(b"\n") && parsed.is_err_and(|error| error.is_eof())
    };
    let mut starts = MESSAGE_STARTS.into_iter();
    starts.any(|start| line.starts_with(start) || start.starts_with(line))
        && (contains(line, run_id) || is_torn())
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

pub(super) fn open_data(path: &Path) -> Result<File, BrokerError> {
    // Checked before opening, because opening a pipe would wait for its other end.
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => {
            return Err(BrokerError::NotAFile(path.to_owned()));
        }
        _ => {}
    }
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .map_err(|error| failed("could not open", path, error))
}

/// Returns whether a path still leads to this file.
pub(super) fn is_at(path: &Path, file: &File) -> bool {
    let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
    let (there, ours) = (std::fs::metadata(path), file.metadata());
    there.is_ok_and(|there| ours.is_ok_and(|ours| identity(there) == identity(ours)))
}

/// Locks the file, also if events are being appended at this moment. For a blocking thread.
pub(super) fn lock_shortly_held(path: &Path, file: &File) -> Result<(), BrokerError> {
    let until = Instant::now() + APPENDING;
    loop {
        match lock(path, file) {
            Err(BrokerError::Locked(_)) if Instant::now() < until => {
                std::thread::sleep(APPENDING / 50);
            }
            locked => return locked,
        }
    }
}

pub(super) fn lock(path: &Path, file: &File) -> Result<(), BrokerError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(BrokerError::Locked(path.display().to_string())),
        Err(TryLockError::Error(error)) => Err(failed("could not lock", path, error)),
    }
}

pub(super) fn failed(what: &'static str, path: &Path, error: io::Error) -> BrokerError {
    BrokerError::File {
        what,
        path: path.to_owned(),
        error,
    }
}

/// Checks that a run could append to the file, without changing it.
///
/// # Errors
///
/// The error that a run would fail with.
pub(in crate::broker) fn check(path: &Path) -> Result<Finding, BrokerError> {
    if path.exists() {
        lock(path, &open_data(path)?)?;
        Journal::read(path)?;
    }
    // The journal is rewritten through a new file, so the folder must allow new files.
    let probe = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(path));
    let created = probe.map(drop);
    created.map_err(|error| failed("could not create a file beside", path, error))?;
    Ok(format!("{} can be appended to", path.display()).into())
}

/// Returns whether another path is one of the sink's files.
pub(in crate::broker) fn uses(sink: &Path, other: &Path) -> bool {
    // Neither file may exist yet, but their folders do.
    let whole = |path: &Path| {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        path.canonicalize().unwrap_or_else(|_| {
            let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
            match (folder, path.file_name()) {
                (Some(folder), Some(name)) => folder.join(name),
                _ => path,
            }
        })
    };
    let (sink, other) = (whole(sink), whole(other));
    other == sink
        || [journal::path_beside, removed::path_beside]
            .map(|beside| beside(&sink))
            .contains(&other)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests;
