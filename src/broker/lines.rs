//! JSON lines sink: on stdout, or appended to a file.
//!
//! A file has a journal beside it, `PATH.labelcast`, with a checkpoint after each batch. Lines that
//! a killed run wrote after its last checkpoint are cut off before the next run continues, so that
//! neither a partial line nor a repeat remains.
//!
//! A batch is encoded while the one before is written on a blocking thread. A full pipe or a slow
//! disk therefore does not delay the handling of signals.

mod file;
mod journal;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use tokio::task::JoinHandle;

use self::file::LineFile;
use super::{
    BrokerError, Checkpoint, Delivered, Outcome, Recovered, Sink, Start, Target, Unfinished,
};
use crate::batch::Batch;
use crate::message::{Encoder, Layout};

pub use self::file::{check, uses};

/// The sink for `-` and `file:PATH`.
pub struct Lines {
    target: Target,
    layout: Layout,
    encoder: Option<Encoder>,
    destination: Destination,
    /// The writer; `None` during a write.
    writer: Option<Writer>,
    /// The write in progress.
    writing: Option<JoinHandle<Written>>,
    /// A free buffer.
    spare: Vec<u8>,
    /// Progress including batches that were accepted but not written yet.
    taken: Checkpoint,
    delivered: Delivered,
}

/// Where lines are written.
#[derive(Clone, Debug)]
pub enum Destination {
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
struct Written {
    writer: Writer,
    buffer: Vec<u8>,
    delivers: Delivered,
    result: Result<(), BrokerError>,
}

impl Lines {
    /// Creates the sink without opening anything.
    pub fn new(destination: Destination, target: Target, layout: Layout) -> Self {
        Self {
            target,
            layout,
            encoder: None,
            destination,
            writer: None,
            writing: None,
            spare: Vec::new(),
            taken: Checkpoint::start_of(uuid::Uuid::nil()),
            delivered: Delivered::default(),
        }
    }

    /// Waits for the write in progress, and returns the writer.
    async fn written(&mut self) -> Result<&mut Writer, BrokerError> {
        if let Some(writing) = &mut self.writing {
            let written = writing.await.map_err(died)?;
            self.writing = None;
            self.spare = written.buffer;
            self.writer = Some(written.writer);
            written.result?;
            self.delivered.chats += written.delivers.chats;
            self.delivered.messages += written.delivers.messages;
        }
        self.writer
            .as_mut()
            .ok_or_else(|| BrokerError::Bug("the sink was not opened".to_owned()))
    }

    /// Runs an operation on the file on a blocking thread; does nothing for stdout.
    async fn with_file(
        &mut self,
        work: impl FnOnce(&mut LineFile) -> Result<(), BrokerError> + Send + 'static,
    ) -> Result<(), BrokerError> {
        if let Writer::Stdout(_) = self.written().await? {
            return Ok(());
        }
        let Some(Writer::File(mut file)) = self.writer.take() else {
            return Ok(());
        };
        let work = tokio::task::spawn_blocking(move || (work(&mut file), file));
        let (result, file) = work.await.map_err(died)?;
        self.writer = Some(Writer::File(file));
        result
    }
}

impl Sink for Lines {
    async fn open(&mut self) -> Result<Recovered, BrokerError> {
        let Destination::File { path, retain } = self.destination.clone() else {
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            let stdout = stdout.map_err(BrokerError::Stdout)?;
            self.writer = Some(Writer::Stdout(File::from(stdout)));
            return Ok(Recovered::default());
        };
        let target = self.target.clone();
        let open = tokio::task::spawn_blocking(move || LineFile::open(path, target, retain));
        let (file, recovered) = open.await.map_err(died)??;
        self.writer = Some(Writer::File(Box::new(file)));
        Ok(recovered)
    }

    async fn start(&mut self, start: Start<'_>) -> Result<Unfinished, BrokerError> {
        self.written().await?;
        let unfinished = start.resume_point();
        let from = unfinished.from;
        self.taken = from;
        let Target {
            instance_id,
            label_id,
            ..
        } = &self.target;
        self.encoder = Some(Encoder::new(
            &self.layout,
            instance_id,
            label_id,
            from.run_id,
        ));
        let is_new = matches!(start, Start::New(_));
        self.with_file(move |file| file.start(from, is_new)).await?;
        Ok(unfinished)
    }

    async fn publish(&mut self, batch: &Batch) -> Result<(), BrokerError> {
        let mut buffer = std::mem::take(&mut self.spare);
        buffer.clear();
        let messages = match &self.encoder {
            Some(encoder) => encoder.batch(batch, b"\n", &mut buffer),
            None => return Err(BrokerError::Bug("the sink was not started".to_owned())),
        };
        self.written().await?;
        let delivers = Delivered {
            chats: u64::from(batch.chats()),
            messages,
            suppressed: 0,
        };
        self.taken.position = batch.end();
        self.taken.digest = batch.digest();
        self.taken.chats += delivers.chats;
        let reached = self.taken;
        if let Some(mut writer) = self.writer.take() {
            self.writing = Some(tokio::task::spawn_blocking(move || {
                let result = writer.write(&buffer, reached);
                Written {
                    writer,
                    buffer,
                    delivers,
                    result,
                }
            }));
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BrokerError> {
        self.with_file(LineFile::sync).await
    }

    fn delivered(&self) -> Delivered {
        self.delivered
    }

    async fn finish(&mut self, outcome: Outcome) -> Result<(), BrokerError> {
        self.with_file(move |file| file.finish(outcome)).await?;
        self.writer = None;
        Ok(())
    }
}

impl Writer {
    fn write(&mut self, lines: &[u8], reached: Checkpoint) -> Result<(), BrokerError> {
        match self {
            Self::File(file) => file.write(lines, reached),
            Self::Stdout(stdout) => stdout.write_all(lines).map_err(|error| match error.kind() {
                io::ErrorKind::BrokenPipe => BrokerError::ReaderGone,
                _ => BrokerError::Stdout(error),
            }),
        }
    }
}

/// Drops the panic message, which may contain data.
fn died(_: tokio::task::JoinError) -> BrokerError {
    BrokerError::Bug("the writing thread ended early".to_owned())
}
