//! Batches in flight over the stream protocol. The broker confirms messages in order, and drops those that
//! it already has. So only the number of confirms counts, and after a broken connection the broker says
//! where it stands.

use std::collections::VecDeque;

use super::publisher::MessageTemplate;
use super::publishing_id::{id, stored};
use crate::batch::{Batch, Chat};
use crate::broker::error::Failure;
use crate::broker::stream_protocol::Producer;

/// The number of messages in a batch of the decoder.
pub(super) const BATCH_MESSAGES: u32 = 1024;
/// The number of entries that are published together. Each time costs two messages to the checkpoint's
/// queue, and a wait for one of them.
pub(super) const STAGED_ENTRIES: u32 = 16 * 1024;
/// Batches in flight: one is on its way while the next one is announced in the checkpoint.
const WINDOW: usize = 2;
/// The number of chats whose messages are written to a frame before it is sent.
const CHUNK: usize = 1024;

/// A batch in flight.
#[derive(Default)]
struct SentBatch {
    batch: Batch,
    messages: u64,
    /// How many messages were sent on this connection, up to the last one of this batch; `None` before
    /// they are sent.
    sent: Option<u64>,
    /// The id of the last message, if there is one.
    last_id: Option<u64>,
}

/// Batches in flight, in order.
#[derive(Default)]
pub(super) struct StreamFlight {
    batches: VecDeque<SentBatch>,
    /// Removed batches, kept to reuse their memory.
    spare: Vec<SentBatch>,
    /// The highest id that was confirmed.
    confirmed_id: u64,
    /// The last id of the broker when it was last asked.
    seen_id: u64,
}

impl StreamFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.batches.len() >= WINDOW
    }

    /// Adds a copy of a batch with this number of messages, to be sent.
    pub(super) fn push(&mut self, batch: &Batch, messages: u64) {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.batch.copy_from(batch);
        (copy.messages, copy.sent, copy.last_id) = (messages, None, None);
        self.batches.push_back(copy);
    }

    pub(super) fn oldest(&self, count: usize) -> impl Iterator<Item = &Batch> {
        self.batches.iter().take(count).map(|oldest| &oldest.batch)
    }

    /// Removes the oldest `count` batches. Returns how many messages they had.
    pub(super) fn drop_oldest(&mut self, count: usize) -> u64 {
        let mut messages = 0;
        for oldest in self.batches.drain(..count) {
            messages += oldest.messages;
            self.confirmed_id = self.confirmed_id.max(oldest.last_id.unwrap_or(0));
            self.spare.push(oldest);
        }
        messages
    }

    /// Sets the highest id that was confirmed, also to an earlier process; 0 for none.
    pub(super) fn set_confirmed_id(&mut self, id: u64) {
        self.confirmed_id = id;
    }

    /// The highest id of the oldest `count` batches and those before; 0 for none.
    pub(super) fn last_id(&self, count: usize) -> u64 {
        let oldest = self.batches.iter().take(count);
        let last = oldest.filter_map(|batch| batch.last_id).max();
        self.confirmed_id.max(last.unwrap_or(0))
    }

    pub(super) fn clear(&mut self) {
        self.batches.clear();
        self.confirmed_id = 0;
    }

    /// Marks all batches as unsent, because the connection is lost.
    pub(super) fn mark_unsent(&mut self) {
        for batch in &mut self.batches {
            batch.sent = None;
        }
    }

    /// Takes the last id of the broker after a reconnect. Returns whether it has got more since it was
    /// last asked.
    pub(super) fn see(&mut self, last_id: u64) -> bool {
        let before = std::mem::replace(&mut self.seen_id, last_id);
        last_id > before.max(self.confirmed_id)
    }

    /// Whether a broker whose last id is this one has lost messages that it had confirmed.
    pub(super) fn is_lost(&self, last_id: u64) -> bool {
        last_id < self.confirmed_id
    }

    /// Sends the messages of unsent batches that the broker does not have.
    pub(super) async fn send(
        &mut self,
        producer: &mut Producer,
        template: &MessageTemplate,
        base: u64,
    ) -> Result<(), Failure> {
        let stored = stored(base, producer.last_id());
        for unsent in self.batches.iter_mut().filter(|it| it.sent.is_none()) {
            let mut chats = unsent.batch.iter();
            while chats.clone().next().is_some_and(|it| it.position < stored) {
                chats.next();
            }
            let per_message = template.per_message();
            let chunk = per_message * (CHUNK / per_message).max(1);
            loop {
                let members = chats.clone().take(chunk);
                let mut encoded = chats.by_ref().take(chunk).peekable();
                if encoded.peek().is_none() {
                    break;
                }
                let last = write(producer, template, base, members, encoded)?;
                unsent.last_id = Some(last);
                producer.send().await?;
            }
            unsent.sent = Some(producer.sent());
        }
        Ok(())
    }

    /// Waits until the oldest batch is confirmed. Returns the number of batches that are: 1, or 0 if
    /// nothing is in flight.
    pub(super) async fn wait_for_oldest(&mut self, producer: &Producer) -> Result<usize, Failure> {
        let Some(oldest) = self.batches.front() else {
            return Ok(0);
        };
        producer.confirmed(oldest.sent.unwrap_or(0)).await?;
        Ok(1)
    }
}

/// Writes the messages of chats to the frame, and returns the last id. `members` are the same chats.
fn write<'a>(
    producer: &mut Producer,
    template: &MessageTemplate,
    base: u64,
    mut members: impl Iterator<Item = Chat<'a>>,
    chats: impl Iterator<Item = Chat<'a>>,
) -> Result<u64, Failure> {
    let (mut last_id, mut written) = (0, Ok(()));
    template.encoder.each(chats, |parts| {
        let (Some(body), Some(first)) = (parts.first(), members.next()) else {
            return;
        };
        let rest = members.by_ref().take(template.per_message() - 1);
        let last = rest.last().unwrap_or(first);
        last_id = id(base, last.position + 1);
        if written.is_ok() {
            written = template.with_message_id(&first, body, |message_id| {
                producer.push(last_id, &template.parts, message_id, body)
            });
        }
    });
    written.map(|()| last_id)
}
