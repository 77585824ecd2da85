//! Journal beside a file: one JSON line for each checkpoint, the newest last.
//!
//! A partial line is ignored. At the start and the end of a run the journal is rewritten with the
//! newest records only, which keeps a journal of several labels short.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
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

/// One line of the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(default)]
    pub(super) instance_id: String,
    pub(super) queue: String,
    pub(super) label_id: String,
    pub(super) state: State,
    #[serde(flatten)]
    pub(super) checkpoint: Checkpoint,
    /// Length of the file at this checkpoint, in bytes.
    pub(super) length: u64,
    #[serde(default)]
    pub(super) own_end: OwnEnd,
    /// Whether the run had written lines before its list changed.
    #[serde(default)]
    pub(super) had_lines: bool,
    /// Whether the run has ended but its process may not know it. The run is then resumed, with
    /// nothing left to publish.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unsettled: bool,
    #[serde(with = "record::rfc3339")]
    pub(super) at: SystemTime,
}

/// End of a run's own last line in the file. Lines of others may follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnEnd {
    /// Offset from the start of the file, in bytes.
    pub(super) at: u64,
    /// Number of bytes before that offset that the hash covers.
    pub(super) bytes: u64,
    /// XXH3-64 of these bytes.
    pub(super) hash: u64,
}

impl OwnEnd {
    pub(super) fn new(at: u64, before: &[u8]) -> Self {
        Self {
            at,
            bytes: before.len() as u64,
            hash: if before.is_empty() {
                0
            } else {
                xxh3_64(before)
            },
        }
    }
}

impl Record {
    pub(super) fn new(target: &Target, checkpoint: Checkpoint, length: u64, state: State) -> Self {
        Self {
            instance_id: target.instance_id.clone(),
            queue: target.queue.clone(),
            label_id: target.label_id.clone(),
            state,
            checkpoint,
            length,
            own_end: OwnEnd::default(),
            had_lines: false,
            unsettled: false,
            at: SystemTime::now(),
        }
    }
}

/// The newest records of one account, queue and label.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) complete: Option<Record>,
    pub(super) unfinished: Option<Record>,
}

pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
    histories: BTreeMap<[String; 3], History>,
    last: Option<Record>,
    line: Vec<u8>,
}

impl Journal {
    /// Reads the journal beside `data`, if it exists.
    pub(super) fn read(data: &Path) -> Result<Self, BrokerError> {
        let mut journal = Self {
            path: path_beside(data),
            file: None,
            histories: BTreeMap::new(),
            last: None,
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
        let key = [&record.instance_id, &record.queue, &record.label_id].map(String::clone);
        let history = self.histories.entry(key).or_default();
        let is_over = record.state != State::Running && !record.unsettled;
        history.unfinished = (!is_over).then(|| record.clone());
        if record.state == State::Complete {
            history.complete = Some(record.clone());
        }
        self.last = Some(record);
    }

    pub(super) fn of(&self, target: &Target) -> History {
        let key = [&target.instance_id, &target.queue, &target.label_id].map(String::clone);
        self.histories.get(&key).cloned().unwrap_or_default()
    }

    /// Returns the newest record of all.
    pub(super) fn last(&self) -> Option<&Record> {
        self.last.as_ref()
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
        let mut records: Vec<&Record> = self
            .histories
            .values()
            .flat_map(|history| history.complete.iter().chain(&history.unfinished))
            .collect();
        records.sort_by_key(|record| record.at);
        let mut bytes = Vec::new();
        // The newest record says where the file ends, so it must stay last whatever the clock did.
        if let Some(last) = &self.last {
            records.retain(|record| {
                record.checkpoint != last.checkpoint || record.state != last.state
            });
        }
        for record in records.into_iter().chain(&self.last) {
            push_line(&mut bytes, record);
        }
        let new = self.path.with_extension("labelcast-new");
        let written = (|| {
            let mut file = File::create(&new)?;
            file.write_all(&bytes)?;
            file.sync_data()?;
            std::fs::rename(&new, &self.path)?;
            OpenOptions::new().append(true).open(&self.path)
        })();
        match written {
            Ok(file) => {
                self.file = Some(file);
                Ok(())
            }
            Err(error) => Err(failed("could not write the journal", &self.path, error)),
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
        self.file = OpenOptions::new().append(true).open("/dev/full").ok();
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
