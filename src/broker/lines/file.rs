//! The output file: its lock, its end, and the recovery of what a killed run left in it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};

use super::super::{
    BrokerError, Checkpoint, Finding, Outcome, Recovered, ResumePoint, Target, Unfinished,
};
use super::journal::{self, Journal, OwnEnd, Record};
use crate::broker::record::State;

/// Maximum number of bytes that one killed write can have left: several times the largest batch,
/// which is one message of 10,000 ids of 512 bytes each.
const MAX_TAIL_BYTES: u64 = 16 * 1024 * 1024;
/// Maximum number of bytes before a run's own end that prove that its lines are still there.
const PROOF_BYTES: usize = 4096;

/// A locked file and its journal.
pub(super) struct LineFile {
    path: PathBuf,
    file: File,
    journal: Journal,
    target: Target,
    /// Length of the file in bytes: as found when it was opened, plus what was appended since.
    length: u64,
    /// End of the run's own last line, and the bytes before it.
    own_end: OwnEnd,
    /// Whether the run has written lines, including those for a list that has changed since.
    has_lines: bool,
    state: Option<Record>,
}

impl LineFile {
    pub(super) fn open(
        path: PathBuf,
        target: Target,
        retain: Option<Duration>,
    ) -> Result<(Self, Recovered), BrokerError> {
        let file = open_data(&path)?;
        // Resolved, so that a file has one journal under all of its names.
        let path = path.canonicalize().unwrap_or(path);
        lock(&path, &file)?;
        let journal = Journal::read(&path)?;
        let mut line_file = Self {
            path,
            file,
            journal,
            target,
            length: 0,
            own_end: OwnEnd::default(),
            has_lines: false,
            state: None,
        };
        line_file.mend()?;
        let recovered = line_file.recover(retain)?;
        Ok((line_file, recovered))
    }

    /// Returns what the journal records for this queue and label, as far as the file still confirms
    /// it.
    fn recover(&mut self, retain: Option<Duration>) -> Result<Recovered, BrokerError> {
        let is_fresh = |record: &&Record| {
            let age = record.at.elapsed().unwrap_or_default();
            retain.is_none_or(|retain| age <= retain)
        };
        let history = self.journal.of(&self.target);
        let last_complete = history
            .complete
            .as_ref()
            .filter(is_fresh)
            .map(|record| record.checkpoint.chats);
        // A run that never published anything has nothing to resume.
        let has_begun = |record: &&Record| record.checkpoint.position > 0 || record.had_lines;
        let unfinished = history.unfinished.as_ref();
        let unfinished = unfinished.filter(is_fresh).filter(has_begun).cloned();
        let unfinished = match unfinished {
            Some(record) if self.bears_out(&record)? => {
                self.own_end = record.own_end;
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
            self.own_end = OwnEnd::default();
        }
        self.journal.compact()?;
        self.note(from)
    }

    /// Appends lines and records the progress in the journal. If either fails, the lines are
    /// removed again.
    pub(super) fn write(&mut self, lines: &[u8], reached: Checkpoint) -> Result<(), BrokerError> {
        let before = (self.length, self.own_end, self.has_lines);
        self.append(lines)?;
        if !lines.is_empty() {
            let last = &lines[lines.len().saturating_sub(PROOF_BYTES)..];
            self.own_end = OwnEnd::new(self.length, last);
            self.has_lines = true;
        }
        self.note(reached).inspect_err(|_| {
            (self.length, self.own_end, self.has_lines) = before;
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
        let Some(record) = self.state.clone() else {
            return Ok(());
        };
        let (state, chats) = match outcome {
            // The resume window counts from this record.
            Outcome::Unfinished if self.has_lines => {
                self.note(record.checkpoint)?;
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
        self.note_end(end, state, true)?;
        self.journal.compact()?;
        self.journal.sync()?;
        // Records that this process knows the end of the run. If that fails, the next process
        // resumes the run and finds that nothing is left to publish.
        let _ = self.note_end(end, state, false);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), BrokerError> {
        if let Err(error) = self.file.write_all(bytes) {
            let _ = self.file.set_len(self.length);
            return Err(failed("could not append to", &self.path, error));
        }
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn note(&mut self, checkpoint: Checkpoint) -> Result<(), BrokerError> {
        self.note_end(checkpoint, State::Running, false)
    }

    fn note_end(
        &mut self,
        checkpoint: Checkpoint,
        state: State,
        unsettled: bool,
    ) -> Result<(), BrokerError> {
        let record = Record {
            own_end: self.own_end,
            had_lines: self.has_lines,
            unsettled,
            ..Record::new(&self.target, checkpoint, self.length, state)
        };
        self.journal.append(&record)?;
        self.state = Some(record);
        Ok(())
    }

    /// Cuts off what a killed run wrote after its last checkpoint.
    fn mend(&mut self) -> Result<(), BrokerError> {
        self.length = self
            .file
            .metadata()
            .map_err(|error| failed("could not look at", &self.path, error))?
            .len();
        let Some(last) = self.journal.last().cloned() else {
            return Ok(());
        };
        let tail = self.length.saturating_sub(last.length);
        if tail == 0 || tail > MAX_TAIL_BYTES || !self.bears_out(&last)? {
            return Ok(());
        }
        let bytes = self.read_at(last.length, tail)?;
        if !is_left_by(&last, &bytes) {
            return Ok(());
        }
        self.file
            .set_len(last.length)
            .map_err(|error| failed("could not cut an unfinished line off", &self.path, error))?;
        self.length = last.length;
        info!(
            bytes = tail,
            "truncated lines that a killed run wrote after its last checkpoint"
        );
        Ok(())
    }

    /// Returns whether the file still has, at the recorded offset, the bytes that a record
    /// describes.
    fn bears_out(&mut self, record: &Record) -> Result<bool, BrokerError> {
        let OwnEnd { at, bytes, .. } = record.own_end;
        if record.length > self.length || at > self.length || bytes > at {
            return Ok(false);
        }
        let found = self.read_at(at - bytes, bytes)?;
        Ok(OwnEnd::new(at, &found) == record.own_end)
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

/// Returns whether a tail was left by the record's run: each complete line must contain its run id,
/// and a partial line at the end must be able to.
fn is_left_by(record: &Record, tail: &[u8]) -> bool {
    let run_id = record.checkpoint.run_id.to_string();
    record.state == State::Running
        && tail.split_inclusive(|byte| *byte == b'\n').all(|line| {
            line.starts_with(b"{\"") && (!line.ends_with(b"\n") || contains(line, &run_id))
                || b"{\"".starts_with(line)
        })
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

fn open_data(path: &Path) -> Result<File, BrokerError> {
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

fn lock(path: &Path, file: &File) -> Result<(), BrokerError> {
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
    let probe = path.with_file_name(format!(".labelcast-check-{}", std::process::id()));
    let written = File::create_new(&probe).and_then(|_| std::fs::remove_file(&probe));
    written.map_err(|error| failed("could not create a file beside", path, error))?;
    Ok(format!("{} can be appended to", path.display()).into())
}

/// Returns whether another path is the sink's file or its journal.
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
    other == sink || other == journal::path_beside(&sink)
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_cannot_be_noted_are_taken_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        let target = Target {
            queue: "q".to_owned(),
            label_id: "1".to_owned(),
            instance_id: "i".to_owned(),
        };
        let open = || LineFile::open(path.clone(), target.clone(), None).unwrap();
        let start = Checkpoint::start_of(uuid::Uuid::now_v7());
        let after_one = Checkpoint {
            position: 1,
            chats: 1,
            ..start
        };
        let after_two = Checkpoint {
            position: 2,
            chats: 2,
            ..start
        };
        let (mut file, _) = open();
        file.start(start, true).unwrap();
        file.write(b"one\n", after_one).unwrap();
        file.journal.fill_disk();
        assert!(file.write(b"two\n", after_two).is_err());
        file.finish(Outcome::Unfinished).unwrap();
        drop(file);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
        let (_, recovered) = open();
        assert_eq!(recovered.unfinished.unwrap().resume_point.at, after_one);
        assert_eq!(std::fs::read(&path).unwrap(), b"one\n");
    }
}
