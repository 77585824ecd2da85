//! Chats that have left a label, as JSON lines appended to a file of their own.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::events::lines_of;
use super::file::{failed, open_data};
use super::writer_panicked;
use crate::broker::{BrokerError, EventOutcome, EventSink, SessionContext};
use crate::message::{EventEncoder, LabelEvent};

/// Suffix added to the full name of the file for chats.
const SUFFIX: &str = ".removed";

/// Appends to the file beside the one for chats, whose lock guards both.
struct RemovedLines {
    /// The file for chats.
    data: PathBuf,
    encoder: EventEncoder,
}

/// Returns the sink for chats that have left, beside a file for chats.
pub(in crate::broker) fn removed_sink(data: &Path, context: &SessionContext) -> Box<dyn EventSink> {
    let target = &context.target;
    Box::new(RemovedLines {
        data: data.to_owned(),
        encoder: EventEncoder::new(context.layout.format, &target.instance_id, &target.label_id),
    })
}

/// Returns the path of the file for chats that have left.
pub(super) fn path_beside(data: &Path) -> PathBuf {
    let mut name = data.as_os_str().to_owned();
    name.push(SUFFIX);
    PathBuf::from(name)
}

#[async_trait]
impl EventSink for RemovedLines {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        let lines = lines_of(&self.encoder, events);
        let data = self.data.clone();
        let appending = tokio::task::spawn_blocking(move || {
            // Beside the file itself, as its journal is, and not beside a link to it.
            let data = data.canonicalize().unwrap_or(data);
            append(&path_beside(&data), &lines)
        });
        appending.await.map_err(writer_panicked)??;
        Ok(vec![EventOutcome::Published; events.len()])
    }
}

/// Appends whole lines, durably.
fn append(path: &Path, lines: &[u8]) -> Result<(), BrokerError> {
    let mut file = open_data(path)?;
    let appended = end_line(&mut file)
        .and_then(|()| file.write_all(lines))
        .and_then(|()| file.sync_data());
    appended.map_err(|error| failed("could not append to", path, error))
}

/// Ends a line that a killed process or a full disk has left incomplete.
pub(super) fn end_line(file: &mut File) -> std::io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    match last {
        [b'\n'] => Ok(()),
        _ => file.write_all(b"\n"),
    }
}
