//! Deletion of the lines of old runs, and of their records in the journal.
//!
//! A line has no time of its own, but the id of its run contains the time of the list. The file is
//! read line by line, and replaced by one without these lines. Lines of other writers stay.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde::de::IgnoredAny;
use tempfile::NamedTempFile;
use uuid::Uuid;

use super::file::{failed, is_at, lock};
use super::journal::{Journal, Record};
use super::removed;
use crate::broker::purge::impossible;
use crate::broker::{BrokerError, Purge, PurgeOutcome, Purged};
use crate::message::snapshot_time;
use crate::shutdown::Shutdown;

/// Bytes of a line that are examined, which bounds memory. A longer line is not a message: one of
/// 10,000 ids of 512 bytes is shorter, also if each byte is escaped twice.
const MAX_LINE_BYTES: u64 = 16 * 1024 * 1024;

/// Deletes the lines of old runs from a file.
pub(in crate::broker) async fn purge(
    path: &Path,
    purge: &Purge,
    shutdown: &Shutdown,
) -> PurgeOutcome {
    let selection = purge.selection;
    let age = match selection.older_than {
        Some(age) if !selection.acknowledged => age,
        _ => {
            let problem = "a file has no consumers that acknowledge";
            let fix = "use --older-than, without --acknowledged";
            return PurgeOutcome::failed(impossible(problem, fix));
        }
    };
    let (path, purge, shutdown) = (path.to_owned(), purge.clone(), shutdown.clone());
    let purging = tokio::task::spawn_blocking(move || {
        let mut purged = Purged::default();
        let old = Old::new(&purge, age, shutdown);
        let result = purge_file(&path, &old, purge.dry_run, &mut purged);
        (purged, result)
    });
    let (purged, result) = purging.await.unwrap_or_else(|error| {
        let error = super::writer_panicked(error);
        (Purged::default(), Err(error))
    });
    let mut outcome = PurgeOutcome::default();
    outcome.add(purged, result);
    outcome
}

fn purge_file(
    path: &Path,
    old: &Old,
    dry_run: bool,
    purged: &mut Purged,
) -> Result<(), BrokerError> {
    let unreadable = |error| failed("could not open", path, error);
    // Checked before opening, because opening a pipe would wait for its other end.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(BrokerError::NotAFile(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return purge_beside(path, old, dry_run, purged);
        }
        Err(error) => return Err(unreadable(error)),
    }
    let path = path.canonicalize().map_err(unreadable)?;
    let file = File::open(&path).map_err(unreadable)?;
    lock(&path, &file)?;
    if !is_at(&path, &file) {
        return Err(BrokerError::Locked(path.display().to_string()));
    }
    let mut journal = Journal::read(&path)?;
    let records = journal.remove(|record| old.is_record(record));
    let mut offsets = Offsets::of(journal.offsets());
    let (lines, _new) = drop_lines(&path, &file, old, dry_run, &mut offsets)?;
    purged.messages = lines;
    if !dry_run && (lines > 0 || records > 0) {
        journal.move_offsets(|offset| offsets.moved(offset));
        journal.replace()?;
    }
    purged.checkpoints = records as u64;
    purged.removed_messages = drop_lines_beside(&path, old, dry_run)?;
    Ok(())
}

/// Purges what is beside a file that does not exist any more.
fn purge_beside(
    path: &Path,
    old: &Old,
    dry_run: bool,
    purged: &mut Purged,
) -> Result<(), BrokerError> {
    let mut journal = Journal::read(path)?;
    let records = journal.remove(|record| old.is_record(record));
    if !dry_run && records > 0 {
        journal.replace()?;
    }
    purged.checkpoints = records as u64;
    purged.removed_messages = drop_lines_beside(path, old, dry_run)?;
    Ok(())
}

/// Drops or counts the old lines of the file for chats that have left. The lock of the file for
/// chats guards both.
fn drop_lines_beside(path: &Path, old: &Old, dry_run: bool) -> Result<u64, BrokerError> {
    let path = removed::path_beside(path);
    if !path.is_file() {
        return Ok(0);
    }
    let file = File::open(&path).map_err(|error| failed("could not open", &path, error))?;
    let (lines, _new) = drop_lines(&path, &file, old, dry_run, &mut Offsets::default())?;
    Ok(lines)
}

/// Drops or counts the old lines of a file. Returns their number and the new file, which is locked,
/// if the file was replaced.
fn drop_lines(
    path: &Path,
    file: &File,
    old: &Old,
    dry_run: bool,
    offsets: &mut Offsets,
) -> Result<(u64, Option<File>), BrokerError> {
    let lines = copy(path, file, old, None, &mut Offsets::default())?;
    if dry_run || lines == 0 {
        return Ok((lines, None));
    }
    let new = rewrite(path, file, old, offsets)?;
    Ok((lines, Some(new)))
}

/// Replaces the file by one without the old lines, with the same mode and owner. Returns the new
/// file, which is locked.
fn rewrite(
    path: &Path,
    file: &File,
    old: &Old,
    offsets: &mut Offsets,
) -> Result<File, BrokerError> {
    let cannot = |error| failed("could not replace", path, error);
    let folder = path.parent().unwrap_or(path);
    let new = NamedTempFile::new_in(folder).map_err(cannot)?;
    lock(path, new.as_file())?;
    let mut writer = BufWriter::new(new.as_file());
    copy(path, file, old, Some(&mut writer), offsets)?;
    writer.flush().map_err(cannot)?;
    drop(writer);
    let prepare = || {
        let metadata = file.metadata()?;
        let made = new.as_file().metadata()?;
        if (made.uid(), made.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(new.as_file(), Some(metadata.uid()), Some(metadata.gid()))?;
        }
        new.as_file().set_permissions(metadata.permissions())?;
        new.as_file().sync_all()
    };
    prepare().map_err(cannot)?;
    new.persist(path).map_err(|error| cannot(error.error))
}

/// Copies all lines but the old ones, or only counts these. Returns their number.
fn copy(
    path: &Path,
    mut file: &File,
    old: &Old,
    mut to: Option<&mut dyn Write>,
    offsets: &mut Offsets,
) -> Result<u64, BrokerError> {
    let unreadable = |error| failed("could not read", path, error);
    file.rewind().map_err(unreadable)?;
    let mut lines = BufReader::new(file);
    let (mut line, mut found) = (Vec::new(), 0);
    loop {
        if let Some(cause) = old.shutdown.cause() {
            return Err(BrokerError::Interrupted(cause));
        }
        line.clear();
        let read = Read::take(&mut lines, MAX_LINE_BYTES).read_until(b'\n', &mut line);
        if read.map_err(unreadable)? == 0 {
            return Ok(found);
        }
        // A part of a longer line is no JSON, and is kept.
        let is_old = old.is_line(&line);
        offsets.pass(line.len() as u64, is_old);
        if is_old {
            found += 1;
        } else if let Some(to) = &mut to {
            to.write_all(&line)
                .map_err(|error| failed("could not replace", path, error))?;
        }
    }
}

/// The test for what is old.
struct Old {
    age: Duration,
    now: SystemTime,
    instance_id: String,
    labels: Option<Vec<String>>,
    shutdown: Shutdown,
}

/// The part of a message that tells its run. A `CloudEvents` event has it in its data.
#[derive(Deserialize)]
struct Message {
    #[serde(alias = "chat_ids")]
    chat_id: Option<IgnoredAny>,
    label_id: Option<String>,
    run_id: Option<Uuid>,
    data: Option<Box<Message>>,
}

impl Message {
    fn innermost(self) -> Self {
        match self.data {
            Some(data) => *data,
            None => self,
        }
    }
}

impl Old {
    fn new(purge: &Purge, age: Duration, shutdown: Shutdown) -> Self {
        Self {
            age,
            now: SystemTime::now(),
            instance_id: purge.instance_id.clone(),
            labels: purge.labels.clone(),
            shutdown,
        }
    }

    fn is_line(&self, line: &[u8]) -> bool {
        let Ok(message) = serde_json::from_slice::<Message>(line) else {
            return false;
        };
        match message.innermost() {
            Message {
                chat_id: Some(_),
                label_id: Some(label_id),
                run_id: Some(run_id),
                ..
            } => line.ends_with(b"\n") && self.is_old(&label_id, snapshot_time(run_id)),
            _ => false,
        }
    }

    fn is_record(&self, record: &Record) -> bool {
        record.instance_id == self.instance_id && self.is_old(&record.label_id, record.at)
    }

    fn is_old(&self, label_id: &String, at: SystemTime) -> bool {
        let age = self.now.duration_since(at).unwrap_or_default();
        let is_wanted = (self.labels.as_ref()).is_none_or(|labels| labels.contains(label_id));
        is_wanted && (self.age.is_zero() || age > self.age)
    }
}

/// Offsets in the file, and what they are after lines before them were removed.
#[derive(Default)]
struct Offsets {
    /// Old and new offsets, in ascending order.
    moved: Vec<(u64, u64)>,
    /// Number of offsets whose new value is known.
    known: usize,
    position: u64,
    removed: u64,
}

impl Offsets {
    fn of(mut offsets: Vec<u64>) -> Self {
        offsets.sort_unstable();
        Self {
            moved: offsets.into_iter().map(|offset| (offset, offset)).collect(),
            ..Self::default()
        }
    }

    /// Passes over a line.
    fn pass(&mut self, bytes: u64, is_removed: bool) {
        self.position += bytes;
        if is_removed {
            self.removed += bytes;
        }
        for (old, new) in &mut self.moved[self.known..] {
            if *old > self.position {
                break;
            }
            *new = old.saturating_sub(self.removed);
            self.known += 1;
        }
    }

    fn moved(&self, offset: u64) -> u64 {
        let found = self.moved.iter().find(|(old, _)| *old == offset);
        found.map_or(offset, |(_, new)| *new)
    }
}
