//! A channel from the asynchronous body to a blocking [`Read`]. It is bounded by bytes, because a
//! chunk may be of any size.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Buf, Bytes};
use tokio::sync::{Notify, mpsc};

use super::Source;

/// No further chunk is requested while this many bytes are unread. That is a few milliseconds of
/// input: a thread that is woken for less starts each time with cold caches (benches/SIZES.md).
const MAX_UNREAD_BYTES: usize = 256 * 1024;
/// The maximum number of unread chunks.
const MAX_CHUNKS: usize = 8;

/// The fill level that both ends share.
#[derive(Default)]
struct FillLevel {
    unread: AtomicUsize,
    /// Notified when the level falls below [`MAX_UNREAD_BYTES`].
    is_low: Notify,
}

/// Creates a channel for the chunks of one body.
pub fn chunks() -> (ChunkSender, ChunkReader) {
    let (sender, receiver) = mpsc::channel(MAX_CHUNKS);
    let level = Arc::new(FillLevel::default());
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

/// The sending end.
///
/// The end of the body is an item of its own, an empty chunk. If the sender is dropped without
/// sending it, the body has failed, and what arrived must not be taken for the whole.
pub struct ChunkSender {
    chunks: mpsc::Sender<io::Result<Bytes>>,
    level: Arc<FillLevel>,
}

impl ChunkSender {
    /// Waits until another chunk is needed. A caller that requests a chunk only then holds at most
    /// one large chunk.
    pub async fn until_low(&self) {
        while self.level.unread.load(Ordering::Acquire) >= MAX_UNREAD_BYTES {
            self.level.is_low.notified().await;
        }
    }

    /// Waits until the reader is dropped.
    pub async fn closed(&self) {
        self.chunks.closed().await;
    }

    /// Sends a chunk, or the error that the reader is to return.
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

/// The error of sending after the reader was dropped.
#[derive(Debug)]
pub struct Closed;

/// The receiving end.
pub struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    level: Arc<FillLevel>,
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
        if before >= MAX_UNREAD_BYTES && before - count < MAX_UNREAD_BYTES {
            self.level.is_low.notify_one();
        }
        Ok(count)
    }
}
