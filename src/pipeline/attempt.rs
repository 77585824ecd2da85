//! One attempt: the body flows from the API through the decoder to the sink.
//!
//! Three parts run concurrently, joined by bounded channels: feeding the body's bytes to the decoder, the
//! decoder on its own thread, and publishing its batches. Each part ends when its neighbour does, so there
//! is nothing to clean up.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::guards::Decision;
use super::{Publishing, until_drained};
use crate::api::{Body, Client};
use crate::batch::Batch;
use crate::broker::Written;
use crate::decode::{ChunkSender, DecodeError, Paging, Plan, chunks, decode};
use crate::error::Error;
use crate::shutdown::Shutdown;

/// Batches that wait for the sink, in addition to as many that are being published.
const BATCHES: usize = 4;
/// A list of which nothing comes for this long has stalled.
const STALLED: Duration = Duration::from_millis(250);
/// How long before its request a list may have been current: an event of that time that contradicts
/// the list is taken to be newer.
const LIST_GRACE: Duration = Duration::from_secs(60);
/// A batch that has this many bytes is closed.
const BATCH_BYTES: usize = 64 * 1024;

/// How an attempt ended, if it did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Attempted {
    /// The session has accepted the whole list, with this many chats.
    Whole(u64),
    /// The list is long enough, but not all of its batches could be held back: it must be fetched
    /// again.
    Refetch,
    /// The list is no longer the one whose start is on the queue.
    ListChanged,
    /// The queue has lost entries, and the session has gone back to an earlier resume point.
    Rewound,
    /// Nobody reads stdout any more.
    ReaderGone,
}

/// Result of handing batches to the session.
enum Handed {
    /// All were handed over, or are held back by the guards.
    All,
    /// Some were not handed over, because the attempt has ended in this way.
    Stopped(Attempted),
}

impl Publishing<'_, '_> {
    /// Fetches the list once, and publishes the entries after the session's resume point.
    pub(super) async fn attempt(&mut self) -> Result<Attempted, Error> {
        let shutdown = self.context.shutdown();
        let as_of = self.context.client.time() - LIST_GRACE;
        match until_drained(shutdown, self.session.begin_list(as_of)).await? {
            Written::Done => {}
            Written::Rewound => return Ok(Attempted::Rewound),
            Written::ReaderGone => return Ok(Attempted::ReaderGone),
        }
        let mut body = tokio::select! {
            biased;
            cause = shutdown.stopped() => return Err(Error::Interrupted(cause)),
            answer = self.context.client.chats(self.label_id) => answer.map_err(Error::Api)?,
        };
        let from = self.session.resume_point();
        // After the restart of a changed list, the number of chats on the queue says nothing about
        // its length.
        self.guards
            .begin_attempt(from.at.chats.min(from.at.position));
        let plan = self.plan(body.paging().clone());
        let (chunks, received) = chunks();
        let (batch_sender, batches) = mpsc::channel(BATCHES);
        let (recycle, recycled) = std::sync::mpsc::sync_channel(2 * BATCHES);
        let decoder = tokio::task::spawn_blocking(move || {
            decode(received, &plan, |batch| {
                batch_sender.blocking_send(batch).ok()?;
                Some(recycled.try_recv().unwrap_or_default())
            })
        });
        // Stops feeding when publishing has ended, even if the API sends nothing.
        let publishing_ended = CancellationToken::new();
        let feeding = feed(&mut body, chunks, shutdown, &publishing_ended);
        // Owns the receiver: when publishing ends, it is dropped, and the decoder ends too.
        let publishing = async {
            let handed = self.hand_over(batches, &recycle).await;
            publishing_ended.cancel();
            handed
        };
        let (bytes, handed) = tokio::join!(feeding, publishing);
        let (seen, decoded) = decoder
            .await
            .map_err(|_| Error::Bug("the decoder ended early".to_owned()))?;
        self.tally.counts.bytes = bytes;
        self.tally.counts.read = seen.entries;
        self.tally.counts.invalid = seen.invalid;
        self.tally.history.digest = seen.digest;
        if let Handed::Stopped(attempted) = handed? {
            return Ok(attempted);
        }
        match decoded {
            Ok(()) => self.accept(seen.chats()).await,
            Err(DecodeError::ListChanged(_)) => Ok(Attempted::ListChanged),
            Err(error) => Err(explain(self.context.client, shutdown, error)),
        }
    }

    fn plan(&self, paging: Paging) -> Plan {
        let layout = self.context.layout;
        let from = self.session.resume_point();
        // A batch holds whole messages, as many as fit.
        let per_message = layout.ids_per_message;
        let messages = (self.context.batch_entries / per_message).max(1);
        Plan {
            from: from.at.position,
            digest: from.at.digest,
            expected_digests: from.expected_digests.clone(),
            include_names: layout.include_names,
            batch_entries: messages * per_message,
            batch_bytes: BATCH_BYTES.max(per_message as usize * 32),
            ids_per_message: per_message,
            trust: self.context.client.trust(),
            paging,
        }
    }

    /// Hands batches to the session when the guards allow it, and empty batches back to the
    /// decoder.
    async fn hand_over(
        &mut self,
        mut batches: mpsc::Receiver<Batch>,
        recycle: &std::sync::mpsc::SyncSender<Batch>,
    ) -> Result<Handed, Error> {
        // Takes all waiting batches at once, so that a blocked decoder is woken once for all of them.
        let mut taken = Vec::with_capacity(BATCHES);
        let mut is_idle = false;
        loop {
            let count = tokio::select! {
                biased;
                cause = self.context.shutdown().stopped() => return Err(Error::Interrupted(cause)),
                count = batches.recv_many(&mut taken, BATCHES) => count,
                () = tokio::time::sleep(STALLED), if !is_idle => {
                    is_idle = true;
                    let idle = until_drained(self.context.shutdown(), self.session.idle());
                    match idle.await? {
                        Written::Done => continue,
                        Written::Rewound => return Ok(Handed::Stopped(Attempted::Rewound)),
                        Written::ReaderGone => return Ok(Handed::Stopped(Attempted::ReaderGone)),
                    }
                }
            };
            is_idle = false;
            if count == 0 {
                return Ok(Handed::All);
            }
            for batch in taken.drain(..) {
                let handed = match self.guards.decide(batch) {
                    Decision::Hold => Handed::All,
                    Decision::Refetch => Handed::Stopped(Attempted::Refetch),
                    Decision::PublishHeld(held) => self.write_all(held).await?,
                    Decision::Publish(batch) => {
                        let handed = self.write(&batch).await?;
                        // If the channel is full, the batch is freed.
                        let _ = recycle.try_send(batch);
                        handed
                    }
                };
                if let Handed::Stopped(_) = handed {
                    return Ok(handed);
                }
            }
        }
    }

    async fn write_all(&mut self, batches: Vec<Batch>) -> Result<Handed, Error> {
        for batch in batches {
            if let handed @ Handed::Stopped(_) = self.write(&batch).await? {
                return Ok(handed);
            }
        }
        Ok(Handed::All)
    }

    async fn write(&mut self, batch: &Batch) -> Result<Handed, Error> {
        let written = until_drained(self.context.shutdown(), self.session.write(batch)).await?;
        Ok(match written {
            Written::Done => {
                self.line.add(u64::from(batch.chats()));
                Handed::All
            }
            Written::Rewound => Handed::Stopped(Attempted::Rewound),
            Written::ReaderGone => Handed::Stopped(Attempted::ReaderGone),
        })
    }

    /// Applies the guards to a whole list.
    async fn accept(&mut self, chats: u64) -> Result<Attempted, Error> {
        self.guards.check_length(chats).map_err(Error::Guarded)?;
        let handed = match self.guards.open_at_end() {
            Decision::Refetch => Handed::Stopped(Attempted::Refetch),
            Decision::PublishHeld(held) => self.write_all(held).await?,
            Decision::Hold | Decision::Publish(_) => Handed::All,
        };
        if let Handed::Stopped(attempted) = handed {
            return Ok(attempted);
        }
        Ok(Attempted::Whole(chats))
    }
}

/// The cause of a decoder's failure: a stop, or the error itself without secrets.
pub(super) fn explain(client: &Client, shutdown: &Shutdown, error: DecodeError) -> Error {
    match (error, shutdown.cause()) {
        (DecodeError::Input { .. } | DecodeError::Stopped, Some(cause)) => {
            Error::Interrupted(cause)
        }
        (error, _) => client.without_secrets(error).into(),
    }
}

/// Hands the body's bytes to the decoder, and returns how many there were.
///
/// The end is an empty chunk. Without one, as after a stop, the decoder reports a truncated body.
pub(super) async fn feed(
    body: &mut Body,
    chunks: ChunkSender,
    stop: &Shutdown,
    publishing_ended: &CancellationToken,
) -> u64 {
    let mut count = 0;
    loop {
        let next = async {
            chunks.until_low().await;
            body.next().await
        };
        let next = tokio::select! {
            biased;
            _ = stop.stopped() => return count,
            () = publishing_ended.cancelled() => return count,
            // The decoder has ended, by an error or because publishing has.
            () = chunks.closed() => return count,
            next = next => next,
        };
        let chunk = match next {
            Ok(Some(bytes)) if bytes.is_empty() => continue,
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Ok(Bytes::new()),
            Err(error) => Err(io::Error::other(error)),
        };
        let is_last = !matches!(&chunk, Ok(bytes) if !bytes.is_empty());
        count += chunk.as_ref().map_or(0, Bytes::len) as u64;
        if chunks.send(chunk).await.is_err() || is_last {
            return count;
        }
    }
}
