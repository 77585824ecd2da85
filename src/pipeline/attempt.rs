//! One attempt: the body flows from the API through the decoder to the sink.
//!
//! Three parts run concurrently, joined by bounded channels: feeding the body's bytes to the decoder, the
//! decoder on its own thread, and publishing its batches. Each part ends when its neighbour does, so there
//! is nothing to clean up.

use std::io;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::guards::{Decision, Guards};
use super::{Context, Tally, within};
use crate::api::{Body, Client};
use crate::batch::Batch;
use crate::broker::{Sink, Unfinished};
use crate::decode::{ChunkSender, DecodeError, Paging, Plan, chunks, decode};
use crate::error::Error;
use crate::shutdown::Shutdown;

/// Batches that wait for the sink, in addition to as many that are being published.
const BATCHES: usize = 4;
/// A batch that has this many bytes is closed.
const BATCH_BYTES: usize = 64 * 1024;

/// Why an attempt did not publish the whole list.
pub(super) enum End {
    /// The list is long enough, but was not kept: it has to be fetched again.
    Refetch,
    /// It failed.
    Failed(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// An attempt, with all that it needs.
pub(super) struct Attempt<'a, 'c, S> {
    pub(super) context: &'a Context<'c>,
    pub(super) label_id: &'a str,
    pub(super) sink: &'a mut S,
    pub(super) guards: &'a mut Guards,
    pub(super) tally: &'a mut Tally,
}

impl<S: Sink> Attempt<'_, '_, S> {
    /// Publishes the entries after `from`, and advances it. Returns the number of chats in the list.
    pub(super) async fn run(mut self, from: &mut Unfinished) -> Result<u64, End> {
        let shutdown = self.context.shutdown;
        let mut body = tokio::select! {
            biased;
            cause = shutdown.stopped() => return Err(Error::Interrupted(cause).into()),
            answer = self.context.client.chats(self.label_id) => answer.map_err(Error::Api)?,
        };
        // After a restart of a changed list, the chats on the queue say nothing about its length.
        self.guards.begin(from.from.chats.min(from.from.position));
        let plan = self.plan(from, body.paging().clone());
        let (chunks, arriving) = chunks();
        let (full, batches) = mpsc::channel(BATCHES);
        let (emptied, empty) = std::sync::mpsc::sync_channel(2 * BATCHES);
        let decoder = tokio::task::spawn_blocking(move || {
            decode(arriving, &plan, |batch| {
                full.blocking_send(batch).ok()?;
                Some(empty.try_recv().unwrap_or_default())
            })
        });
        // Stops feeding when publishing has ended, even if the API sends nothing.
        let over = CancellationToken::new();
        let feeding = feed(&mut body, chunks, shutdown, &over);
        // Owns the receiver: when publishing ends, it is dropped, and the decoder ends too.
        let publishing = async {
            let published = self.publish(batches, &emptied, from).await;
            over.cancel();
            published
        };
        let (bytes, published) = tokio::join!(feeding, publishing);
        let (seen, decoded) = decoder
            .await
            .map_err(|_| Error::Bug("the decoder ended early".to_owned()))?;
        self.tally.counts.bytes = bytes;
        self.tally.counts.read = seen.entries;
        self.tally.counts.invalid = seen.invalid;
        self.tally.digest = seen.digest;
        published?;
        decoded.map_err(|error| explain(self.context.client, shutdown, error))?;
        self.accept(seen.chats(), seen.invalid, from).await
    }

    fn plan(&self, from: &Unfinished, paging: Paging) -> Plan {
        let layout = self.context.layout;
        // A batch holds whole messages, as many as fit.
        let per_message = layout.ids_per_message;
        let messages = (self.context.batch_entries / per_message).max(1);
        Plan {
            from: from.from.position,
            digest: from.from.digest,
            expected_digests: from.expected_digests.clone(),
            include_names: layout.include_names,
            batch_entries: messages * per_message,
            batch_bytes: BATCH_BYTES.max(per_message as usize * 32),
            ids_per_message: per_message,
            trust: self.context.client.trust(),
            paging,
        }
    }

    async fn publish(
        &mut self,
        mut batches: mpsc::Receiver<Batch>,
        emptied: &std::sync::mpsc::SyncSender<Batch>,
        from: &mut Unfinished,
    ) -> Result<(), End> {
        let shutdown = self.context.shutdown;
        // Takes all waiting batches at once, so that a blocked decoder is woken once for all of them.
        let mut taken = Vec::with_capacity(BATCHES);
        loop {
            let count = tokio::select! {
                biased;
                cause = shutdown.stopped() => return Err(Error::Interrupted(cause).into()),
                count = batches.recv_many(&mut taken, BATCHES) => count,
            };
            if count == 0 {
                return Ok(());
            }
            for batch in taken.drain(..) {
                match self.guards.pass(batch) {
                    Decision::Hold => {}
                    Decision::Refetch => return Err(End::Refetch),
                    Decision::Publish(batch) => {
                        self.publish_one(&batch, from).await?;
                        // If the channel is full, the batch is freed.
                        let _ = emptied.try_send(batch);
                    }
                    Decision::PublishHeld => self.publish_held(from).await?,
                }
            }
        }
    }

    async fn publish_held(&mut self, from: &mut Unfinished) -> Result<(), Error> {
        for batch in self.guards.take_held() {
            self.publish_one(&batch, from).await?;
        }
        Ok(())
    }

    async fn publish_one(&mut self, batch: &Batch, from: &mut Unfinished) -> Result<(), Error> {
        within(self.context.shutdown, self.sink.publish(batch)).await?;
        let reached = &mut from.from;
        reached.position = batch.end();
        reached.digest = batch.digest();
        reached.chats += u64::from(batch.chats());
        from.expected_digests
            .retain(|(position, _)| *position > batch.end());
        self.context.progress.add(u64::from(batch.chats()));
        Ok(())
    }

    /// Applies guards and limits to a whole list.
    async fn accept(
        &mut self,
        chats: u64,
        invalid: u64,
        from: &mut Unfinished,
    ) -> Result<u64, End> {
        self.guards.end(chats).map_err(Error::Guarded)?;
        match self.guards.open_at_end() {
            Decision::Refetch => return Err(End::Refetch),
            Decision::PublishHeld => self.publish_held(from).await?,
            Decision::Hold | Decision::Publish(_) => {}
        }
        let allowed = self.context.run.max_invalid;
        if invalid > allowed {
            return Err(Error::TooManyInvalid { invalid, allowed }.into());
        }
        Ok(chats)
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
    over: &CancellationToken,
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
            () = over.cancelled() => return count,
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
