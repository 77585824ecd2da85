//! From the chunks of a body, as they arrive, to a blocking [`Read`]: a channel that is bounded by
//! bytes, since a chunk may be of any size.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};
use tokio::sync::{Notify, mpsc};

use super::Source;

/// No further chunk is taken while this many bytes wait to be read: some milliseconds' worth, since a
/// thread that has to be woken for less begins each time with cold caches (benches/SIZES.md).
const ENOUGH_BYTES: usize = 256 * 1024;
/// Small chunks that wait to be read, at the most.
const CHUNKS: usize = 8;

/// What both ends know.
#[derive(Default)]
struct Level {
    unread: AtomicUsize,
    /// Told when there is not enough any more.
    is_low: Notify,
}

/// A channel for the chunks of one body.
pub fn chunks() -> (ChunkSender, ChunkReader) {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let level = Arc::new(Level::default());
    let sender = ChunkSender {
        chunks: sender,
        level: Arc::clone(&level),
    };
    let reader = ChunkReader {
        chunks: receiver,
        level,
        current: Bytes::new(),
        ended: false,
    };
    (sender, reader)
}

/// Where chunks go in.
///
/// The end of the body is an item of its own, an empty chunk: a sender that is dropped without it
/// has failed, and what came so far must not pass for the whole.
pub struct ChunkSender {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    level: Arc<Level>,
}

impl ChunkSender {
    /// Waits until there is a use for another chunk. Whoever asks for one only then holds no more
    /// than one that is large.
    pub async fn until_low(&self) {
        while self.level.unread.load(Ordering::Acquire) >= ENOUGH_BYTES {
            self.level.is_low.notified().await;
        }
    }

    /// Waits until the reader is dropped.
    pub async fn closed(&self) {
        self.chunks.closed().await;
    }

    /// Hands a chunk over, or what the reader is to fail with.
    ///
    /// # Errors
    ///
    /// When the reader was dropped.
    pub async fn send(&self, chunk: io::Result<Bytes>) -> Result<(), Closed> {
        let bytes = chunk.as_ref().map_or(0, Bytes::len);
        self.level.unread.fetch_add(bytes, Ordering::AcqRel);
        self.chunks.send(chunk).await.map_err(|_| Closed)
    }
}

/// The reader was dropped.
#[derive(Debug)]
pub struct Closed;

/// Where bytes come out.
pub struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    level: Arc<Level>,
    current: Bytes,
    ended: bool,
}

impl Source for ChunkReader {
    fn would_wait(&mut self) -> bool {
        self.current.is_empty() && !self.ended && self.chunks.is_empty()
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => {
                    self.ended = chunk.is_empty();
                    self.current = chunk;
                }
                Some(Err(error)) => return Err(error),
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::BrokenPipe,
                        "reading was stopped",
                    ));
                }
            }
        }
        let count = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..count]);
        let before = self.level.unread.fetch_sub(count, Ordering::AcqRel);
        if before >= ENOUGH_BYTES && before - count < ENOUGH_BYTES {
            self.level.is_low.notify_one();
        }
        Ok(count)
    }
}
