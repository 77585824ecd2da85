//! JSON lines sink: on stdout, or appended to a file.
//!
//! A file has a journal beside it, `PATH.labelcast`, with a checkpoint after each batch. Lines that
//! a killed run wrote after its last checkpoint are cut off before the next run continues, so that
//! neither a partial line nor a repeat remains.
//!
//! A batch is encoded while the one before is written on a blocking thread. A full pipe or a slow
//! disk therefore does not delay the handling of signals.

mod events;
mod file;
mod journal;
mod purge;
mod removed;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use uuid::Uuid;

use self::file::LineFile;
use super::{
    BrokerError, Checkpoint, Delivered, Outcome, Recovered, ResumePoint, SessionContext,
    SnapshotSession, SnapshotSink, Start, Written,
};
use crate::batch::Batch;
use crate::message::Encoder;

pub(super) use self::events::{file_events, stdout_events};
pub(super) use self::file::{check, uses};
pub(super) use self::purge::purge;
pub(super) use self::removed::removed_sink;

/// The sink for `-` and `file:PATH`.
pub(super) struct Lines {
    destination: Destination,
    context: SessionContext,
}

/// Where lines are written.
#[derive(Clone, Debug)]
pub(super) enum Destination {
    /// stdout, without lock and checkpoint.
    Stdout,
    /// A file.
    File {
        /// Its path.
        path: PathBuf,
        /// How long records in the journal are valid.
        retain: Option<Duration>,
    },
}

enum Writer {
    /// A plain file handle: the standard library's stdout treats a closed descriptor as success.
    Stdout(File),
    File(Box<LineFile>),
}

/// Result of a write, which returns the writer and the buffer.
struct FinishedWrite {
    writer: Writer,
    buffer: Vec<u8>,
    delivers: Delivered,
    result: Result<Written, BrokerError>,
}

/// A run's hold on a file, or on stdout.
struct LinesSession {
    context: SessionContext,
    /// `None` before the start.
    encoder: Option<Encoder>,
    output: Output,
    /// A free buffer.
    spare: Vec<u8>,
    /// Progress, including batches that were accepted but not written yet.
    resume_point: ResumePoint,
    delivered: Delivered,
}

/// The writer, or the write that has it.
enum Output {
    Idle(Writer),
    Writing(JoinHandle<FinishedWrite>),
    /// The writer is lost with a thread that ended unexpectedly.
    Lost,
}

impl Lines {
    /// Creates the sink without opening anything.
    pub(super) fn new(destination: Destination, context: SessionContext) -> Self {
        Self {
            destination,
            context,
        }
    }
}

#[async_trait]
impl SnapshotSink for Lines {
    async fn open(self: Box<Self>) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
        let (writer, recovered) = match self.destination {
            Destination::Stdout => {
                let stdout = io::stdout().as_fd().try_clone_to_owned();
                let stdout = File::from(stdout.map_err(BrokerError::Stdout)?);
                (Writer::Stdout(stdout), Recovered::default())
            }
            Destination::File { path, retain } => {
                let target = self.context.target.clone();
                let mode = self.context.selection.mode();
                let open =
                    tokio::task::spawn_blocking(move || LineFile::open(path, target, mode, retain));
                let (file, recovered) = open.await.map_err(writer_panicked)??;
                (Writer::File(Box::new(file)), recovered)
            }
        };
        let session = LinesSession {
            context: self.context,
            encoder: None,
            output: Output::Idle(writer),
            spare: Vec::new(),
            resume_point: ResumePoint::start_of(Uuid::nil()),
            delivered: Delivered::default(),
        };
        Ok((recovered, Box::new(session)))
    }
}

impl LinesSession {
    /// Waits for the write in progress.
    async fn confirm(&mut self) -> Result<Written, BrokerError> {
        let Output::Writing(writing) = &mut self.output else {
            return Ok(Written::Done);
        };
        let ended = writing.await.map_err(|error| {
            self.output = Output::Lost;
            writer_panicked(error)
        })?;
        self.spare = ended.buffer;
        self.output = Output::Idle(ended.writer);
        let written = ended.result?;
        if written == Written::Done {
            self.delivered.add(ended.delivers);
        }
        Ok(written)
    }

    /// Takes the writer, which must be idle.
    fn take_writer(&mut self) -> Result<Writer, BrokerError> {
        match std::mem::replace(&mut self.output, Output::Lost) {
            Output::Idle(writer) => Ok(writer),
            Output::Writing(_) | Output::Lost => {
                Err(BrokerError::Bug("the writer is lost".to_owned()))
            }
        }
    }

    /// Runs an operation on the file on a blocking thread; does nothing for stdout.
    async fn with_file(
        &mut self,
        work: impl FnOnce(&mut LineFile) -> Result<(), BrokerError> + Send + 'static,
    ) -> Result<Written, BrokerError> {
        let written = self.confirm().await?;
        let mut file = match self.take_writer()? {
            Writer::File(file) => file,
            stdout @ Writer::Stdout(_) => {
                self.output = Output::Idle(stdout);
                return Ok(written);
            }
        };
        let work = tokio::task::spawn_blocking(move || (work(&mut file), file));
        let (result, file) = work.await.map_err(writer_panicked)?;
        self.output = Output::Idle(Writer::File(file));
        result.map(|()| Written::Done)
    }

    /// Begins at a resume point.
    async fn begin_at(
        &mut self,
        resume_point: ResumePoint,
        is_new: bool,
    ) -> Result<(), BrokerError> {
        let from = resume_point.at;
        self.resume_point = resume_point;
        let _ = self.with_file(move |file| file.start(from, is_new)).await?;
        Ok(())
    }
}

#[async_trait]
impl SnapshotSession for LinesSession {
    async fn start(&mut self, start: Start) -> Result<(), BrokerError> {
        let resume_point = start.resume_point();
        self.encoder = Some(Encoder::new(
            &self.context.layout,
            &self.context.target.instance_id,
            &self.context.target.label_id,
            resume_point.at.run_id,
        ));
        let is_new = matches!(start, Start::New(_));
        self.begin_at(resume_point, is_new).await
    }

    fn resume_point(&self) -> &ResumePoint {
        &self.resume_point
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, BrokerError> {
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.clear();
        let messages = match &self.encoder {
            Some(encoder) => encoder.batch(batch, b"\n", &mut buffer),
            None => return Err(BrokerError::Bug("the session was not started".to_owned())),
        };
        let written = self.confirm().await?;
        if written != Written::Done {
            return Ok(written);
        }
        let mut writer = self.take_writer()?;
        let delivers = Delivered {
            chats: u64::from(batch.chats()),
            messages,
            ..Delivered::default()
        };
        self.resume_point.advance(batch);
        let reached = self.resume_point.at;
        self.output = Output::Writing(tokio::task::spawn_blocking(move || {
            let result = writer.write(&buffer, reached);
            FinishedWrite {
                writer,
                buffer,
                delivers,
                result,
            }
        }));
        Ok(Written::Done)
    }

    async fn flush(&mut self) -> Result<Written, BrokerError> {
        self.with_file(LineFile::sync).await
    }

    async fn restart(&mut self) -> Result<(), BrokerError> {
        let _ = self.flush().await?;
        let start = ResumePoint::start_of(self.resume_point.at.run_id);
        self.begin_at(start, false).await
    }

    fn delivered(&self) -> Delivered {
        self.delivered
    }

    async fn finish(mut self: Box<Self>, outcome: Outcome) -> Result<(), BrokerError> {
        let _ = self.with_file(move |file| file.finish(outcome)).await?;
        Ok(())
    }
}

impl Writer {
    fn write(&mut self, lines: &[u8], reached: Checkpoint) -> Result<Written, BrokerError> {
        match self {
            Self::File(file) => file.write(lines, reached).map(|()| Written::Done),
            Self::Stdout(stdout) => match stdout.write_all(lines) {
                Ok(()) => Ok(Written::Done),
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Written::ReaderGone),
                Err(error) => Err(BrokerError::Stdout(error)),
            },
        }
    }
}

/// Drops the panic message, which may contain data.
fn writer_panicked(_: tokio::task::JoinError) -> BrokerError {
    BrokerError::Bug("the writing thread ended early".to_owned())
}

/// Reads the path of a file's URL, `file:PATH` or `file:///PATH`; `None` for another URL.
pub(super) fn path_of(url: &str) -> Option<Result<PathBuf, String>> {
    let path = url.strip_prefix("file:")?;
    let path = path.strip_prefix("//localhost/").map_or_else(
        || path.strip_prefix("//").unwrap_or(path).to_owned(),
        |path| format!("/{path}"),
    );
    let has_host = url.starts_with("file://") && !path.starts_with('/');
    if path.is_empty() || path.ends_with('/') || has_host {
        let problem = "a file's path has to follow file:, or file:// and a slash";
        return Some(Err(problem.to_owned()));
    }
    Some(Ok(PathBuf::from(path)))
}
