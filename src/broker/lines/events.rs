//! Single events, as JSON lines on stdout or appended to the file of the chats.
//!
//! A run and events hold the file by the same lock, one after the other. So a run never cuts off an
//! event with the lines that it could not complete, and neither writes into a line of the other. What
//! a killed run has left behind its last checkpoint stays if events follow it: the next run finds
//! lines of another writer, and publishes those chats again.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::file::{failed, is_at, lock_shortly_held, open_data};
use super::removed::end_line;
use super::writer_panicked;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::broker::{BrokerError, EventOutcome, EventSink, SessionContext};
use crate::message::{EventEncoder, LabelEvent};
use crate::retry::RetryPolicy;

/// A file that events are appended to.
struct FileEvents {
    path: PathBuf,
    encoder: EventEncoder,
    policy: RetryPolicy,
    /// Those of this call.
    retries: SessionRetries,
    /// The file, while it is locked.
    locked: Option<File>,
}

/// Events on stdout.
struct StdoutEvents(EventEncoder);

/// Returns the sink for events of a label in a file, without opening it.
pub(in crate::broker) fn file_events(path: &Path, context: &SessionContext) -> Box<dyn EventSink> {
    Box::new(FileEvents {
        path: path.to_owned(),
        encoder: encoder(context),
        policy: context.retry.clone(),
        retries: SessionRetries::new(&context.retry),
        locked: None,
    })
}

/// Returns the sink for events of a label on stdout.
pub(in crate::broker) fn stdout_events(context: &SessionContext) -> Box<dyn EventSink> {
    Box::new(StdoutEvents(encoder(context)))
}

fn encoder(context: &SessionContext) -> EventEncoder {
    let target = &context.target;
    EventEncoder::new(context.layout.format, &target.instance_id, &target.label_id)
}

/// Returns events as JSON lines.
pub(super) fn lines_of(encoder: &EventEncoder, events: &[LabelEvent]) -> Vec<u8> {
    let mut lines = Vec::new();
    for event in events {
        lines.extend_from_slice(encoder.json(event).as_bytes());
        lines.push(b'\n');
    }
    lines
}

impl Retrying for FileEvents {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, _: &Failure) {}
}

impl FileEvents {
    async fn try_lock(&mut self) -> Result<(), Failure> {
        if self.locked.is_none() {
            let path = self.path.clone();
            let locking = tokio::task::spawn_blocking(move || open_locked(&path));
            self.locked = Some(locking.await.map_err(writer_panicked)??);
        }
        Ok(())
    }
}

#[async_trait]
impl EventSink for FileEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        self.reserve().await?;
        let Some(file) = self.locked.take() else {
            return Err(BrokerError::Bug("the file is not locked".to_owned()));
        };
        let (path, lines) = (self.path.clone(), lines_of(&self.encoder, events));
        let appending = tokio::task::spawn_blocking(move || append(&path, file, &lines));
        appending.await.map_err(writer_panicked)??;
        Ok(vec![EventOutcome::Published; events.len()])
    }

    async fn reserve(&mut self) -> Result<(), BrokerError> {
        self.retries = SessionRetries::new(&self.policy);
        with_retry!(self, self.try_lock()).map_err(SessionError::into_failure)
    }

    fn release(&mut self) {
        self.locked = None;
    }
}

#[async_trait]
impl EventSink for StdoutEvents {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        let lines = lines_of(&self.0, events);
        let writing = tokio::task::spawn_blocking(move || {
            let stdout = io::stdout().as_fd().try_clone_to_owned()?;
            File::from(stdout).write_all(&lines)
        });
        let written = writing.await.map_err(writer_panicked)?;
        written.map_err(BrokerError::Stdout)?;
        Ok(vec![EventOutcome::Published; events.len()])
    }
}

/// Opens and locks the file.
fn open_locked(path: &Path) -> Result<File, Failure> {
    let file = open_data(path)?;
    match lock_shortly_held(path, &file) {
        Err(BrokerError::Locked(path)) => {
            return Err(Failure::Transient(format!("a run holds {path}")));
        }
        locked => locked?,
    }
    match is_at(path, &file) {
        true => Ok(file),
        false => {
            let text = format!("{} was replaced", path.display());
            Err(Failure::Transient(text))
        }
    }
}

/// Appends whole lines, durably. If that fails, a part of them is removed again.
fn append(path: &Path, mut file: File, lines: &[u8]) -> Result<(), BrokerError> {
    let failed = |error| failed("could not append to", path, error);
    end_line(&mut file).map_err(failed)?;
    let before = file.metadata().map_err(failed)?.len();
    file.write_all(lines).map_err(|error| {
        // Nobody else has the lock.
        let _ = file.set_len(before);
        failed(error)
    })?;
    file.sync_data().map_err(failed)
}
