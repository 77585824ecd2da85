//! Journal beside a file: one JSON line for each checkpoint, the newest last.
//!
//! A partial line is ignored. At the start and the end of a run the journal is rewritten with the
//! newest records only, which keeps a journal of several labels short.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tracing::warn;
use xxhash_rust::xxh3::xxh3_64;

use super::file::failed;
use crate::broker::record::{self, State};
use crate::broker::{BrokerError, Checkpoint, Target};

/// Suffix added to the file's full name.
const SUFFIX: &str = ".labelcast";
/// A record's line is far shorter. A longer line is not a record.
const MAX_LINE_BYTES: u64 = 64 * 1024;
/// Maximum number of bytes that a fingerprint covers.
const FINGERPRINT_BYTES: usize = 4096;

/// One line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(default)]
    pub(super) instance_id: String,
    pub(super) queue: String,
    pub(super) label_id: String,
    /// What the run publishes. A run of another mode does not resume it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) mode: String,
    pub(super) state: State,
    #[serde(flatten)]
    pub(super) checkpoint: Checkpoint,
    /// Length of the file at this checkpoint, in bytes.
    pub(super) length: u64,
    /// The run's last lines. Lines of others may follow.
    #[serde(default, rename = "own_end")]
    pub(super) last_lines: Fingerprint,
    /// Whether the run had written lines before its list changed.
    #[serde(default)]
    pub(super) had_lines: bool,
    /// Whether the run has ended but its process may not know it. The run is then resumed, with
    /// nothing left to publish.
    #[serde(
        default,
        rename = "unsettled",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub(super) outcome_unreported: bool,
    #[serde(with = "record::rfc3339")]
    pub(super) at: SystemTime,
}

/// Fingerprint of a run's last lines. It detects a file that was rotated, emptied or replaced, and
/// has grown beyond the recorded length again, for example by lines of another label.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Fingerprint {
    /// Offset of the end of these lines from the start of the file, in bytes.
    #[serde(rename = "at")]
    pub(super) end: u64,
    /// Number of bytes before the end that the hash covers. 0 if the run has no lines.
    pub(super) bytes: u64,
    /// XXH3-64 of these bytes.
    hash: u64,
}

impl Fingerprint {
    pub(super) fn new(end: u64, lines: &[u8]) -> Self {
        let covered = &lines[lines.len().saturating_sub(FINGERPRINT_BYTES)..];
        Self {
            end,
            bytes: covered.len() as u64,
            hash: xxh3_64(covered),
        }
    }

    /// Returns whether these are the covered bytes.
    pub(super) fn matches(&self, covered: &[u8]) -> bool {
        self.bytes == 0 || xxh3_64(covered) == self.hash
    }
}

impl Record {
    pub(super) fn new(target: &Target, checkpoint: Checkpoint, length: u64, state: State) -> Self {
        Self {
            instance_id: target.instance_id.clone(),
            queue: target.queue.clone(),
            label_id: target.label_id.clone(),
            mode: String::new(),
            state,
            checkpoint,
            length,
            last_lines: Fingerprint::default(),
            had_lines: false,
            outcome_unreported: false,
            at: SystemTime::now(),
        }
    }

    fn key(&self) -> [&String; 3] {
        [&self.instance_id, &self.queue, &self.label_id]
    }

    fn is_for(&self, target: &Target) -> bool {
        self.key() == [&target.instance_id, &target.queue, &target.label_id]
    }

    fn is_over(&self) -> bool {
        self.state != State::Running && !self.outcome_unreported
    }
}

pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
    /// For each account, queue and label the newest record and the newest one of a complete run, in
    /// the order in which they were written.
    records: Vec<Record>,
    line: Vec<u8>,
}

impl Journal {
    /// Reads the journal beside `data`, if it exists.
    pub(super) fn read(data: &Path) -> Result<Self, BrokerError> {
        let mut journal = Self {
            path: path_beside(data),
            file: None,
            records: Vec::new(),
            line: Vec::new(),
        };
        match File::open(&journal.path) {
            Ok(file) => journal.read_lines(file)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("could not open", &journal.path, error)),
        }
        Ok(journal)
    }

    fn read_lines(&mut self, file: File) -> Result<(), BrokerError> {
        let mut lines = BufReader::new(file);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = std::io::Read::take(&mut lines, MAX_LINE_BYTES).read_until(b'\n', &mut line);
            match read {
                Ok(0) => return Ok(()),
                Ok(_) => match serde_json::from_slice(&line) {
                    Ok(record) => self.remember(record),
                    Err(_) if !line.ends_with(b"\n") => {}
                    Err(_) => {
                        warn!("foreign line in the journal skipped");
                    }
                },
                Err(error) => return Err(failed("could not read", &self.path, error)),
            }
        }
    }

    fn remember(&mut self, record: Record) {
        let is_kept = |old: &Record| {
            old.key() != record.key()
                || old.state == State::Complete && record.state != State::Complete
        };
        self.records.retain(is_kept);
        self.records.push(record);
    }

    /// Returns the run that has not ended.
    pub(super) fn unfinished(&self, target: &Target) -> Option<&Record> {
        let newest = self.records.iter().rfind(|record| record.is_for(target));
        newest.filter(|record| !record.is_over())
    }

    /// Returns the last run that was complete.
    pub(super) fn complete(&self, target: &Target) -> Option<&Record> {
        let mut records = self.records.iter();
        records.rfind(|record| record.is_for(target) && record.state == State::Complete)
    }

    /// Returns the newest record of all.
    pub(super) fn last(&self) -> Option<&Record> {
        self.records.last()
    }

    /// Appends a record in one write. A partial line, as a full disk leaves it, is ignored by
    /// readers.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), BrokerError> {
        if self.file.is_none() {
            self.compact()?;
        }
        self.line.clear();
        push_line(&mut self.line, record);
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&self.line)
        {
            // Reopen before the next append, so that its line does not become part of this partial
            // one.
            self.file = None;
            return Err(failed("could not append to", &self.path, error));
        }
        self.remember(record.clone());
        Ok(())
    }

    /// Rewrites the journal with the newest records only.
    pub(super) fn compact(&mut self) -> Result<(), BrokerError> {
        let mut bytes = Vec::new();
        for record in &self.records {
            push_line(&mut bytes, record);
        }
        // The lock on the file allows a fixed name, so killed processes leave one such file at most.
        let new = self.path.with_extension("labelcast-new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_data()?;
            std::fs::rename(&new, &self.path)?;
            Ok(file)
        });
        let file =
            written.map_err(|error| failed("could not write the journal", &self.path, error))?;
        self.file = Some(file);
        Ok(())
    }

    /// Returns the offsets in the file that the records mention.
    pub(super) fn offsets(&self) -> Vec<u64> {
        let offsets = |record: &Record| [record.length, record.last_lines.end];
        self.records.iter().flat_map(offsets).collect()
    }

    /// Changes the offsets in the file that the records mention, in memory only.
    pub(super) fn move_offsets(&mut self, moved: impl Fn(u64) -> u64) {
        for record in &mut self.records {
            record.length = moved(record.length);
            record.last_lines.end = moved(record.last_lines.end);
        }
    }

    /// Removes records, in memory only, and returns their number.
    pub(super) fn remove(&mut self, is_removed: impl Fn(&Record) -> bool) -> usize {
        let before = self.records.len();
        self.records.retain(|record| !is_removed(record));
        before - self.records.len()
    }

    /// Writes the records, or deletes the journal if there are none.
    pub(super) fn replace(&mut self) -> Result<(), BrokerError> {
        if !self.records.is_empty() {
            return self.compact();
        }
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("could not delete", &self.path, error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn sync(&mut self) -> Result<(), BrokerError> {
        match &self.file {
            Some(file) => file
                .sync_data()
                .map_err(|error| failed("could not flush", &self.path, error)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
impl Journal {
    /// Makes all further appends fail as on a full disk.
    pub(super) fn fill_disk(&mut self) {
        self.file = File::options().append(true).open("/dev/full").ok();
    }
}

/// Returns the path of a file's journal.
pub(super) fn path_beside(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

fn push_line(bytes: &mut Vec<u8>, record: &Record) {
    // A record consists of texts and numbers, which always serialise.
    if serde_json::to_writer(&mut *bytes, record).is_ok() {
        bytes.push(b'\n');
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn records_keep_their_order_when_the_clock_is_set_back() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("out.jsonl");
        let target = |label_id: &str| Target {
            queue: "q".to_owned(),
            label_id: label_id.to_owned(),
            instance_id: "i".to_owned(),
        };
        let mut journal = Journal::read(&data).unwrap();
        for (label_id, state, seconds) in [
            ("1", State::Complete, 20),
            ("1", State::Running, 10),
            ("2", State::Complete, 15),
        ] {
            let checkpoint = Checkpoint::start_of(uuid::Uuid::now_v7());
            let record = Record {
                at: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
                ..Record::new(&target(label_id), checkpoint, 0, state)
            };
            journal.append(&record).unwrap();
        }
        journal.compact().unwrap();
        let journal = Journal::read(&data).unwrap();
        assert!(journal.unfinished(&target("1")).is_some());
        assert!(journal.complete(&target("1")).is_some());
        assert!(journal.unfinished(&target("2")).is_none());
        assert_eq!(journal.last().unwrap().label_id, "2");
    }
}
