//! Conversion of batches to appends: which chats go to which stream, and in which form.

use redis::Cmd;

use super::Redis;
use super::stream::Append;
use crate::batch::{Batch, Chat};
use crate::broker::BrokerError;
use crate::message::Format;

impl Redis {
    /// Sends the part of a batch that belongs to one stream.
    pub(super) async fn publish_to(
        &mut self,
        index: usize,
        batch: &Batch,
    ) -> Result<(), BrokerError> {
        if batch.end() <= self.streams[index].next {
            return Ok(());
        }
        if self.settings.max_pending.is_some() {
            self.wait_for_capacity(index).await?;
        }
        if !self.suppress && self.is_whole(index, batch) {
            let count = u64::from(batch.chats());
            return self.append(index, batch, batch.iter(), count, 0).await;
        }
        let mut chats: Vec<Chat<'_>> = self.share(index, batch).collect();
        let all = chats.len() as u64;
        if all == 0 && self.streams.len() > 1 {
            // The checkpoint moves with a later batch, or at the end.
            return Ok(());
        }
        if self.suppress {
            chats = self.streams[index].unseen(&chats).await?;
        }
        let count = chats.len() as u64;
        self.append(index, batch, chats.into_iter(), count, all - count)
            .await
    }

    fn is_whole(&self, index: usize, batch: &Batch) -> bool {
        self.streams.len() == 1 && batch.first() >= self.streams[index].next
    }

    /// Returns the chats of a batch that belong to one stream and are not on it yet.
    fn share<'b>(&self, index: usize, batch: &'b Batch) -> impl Iterator<Item = Chat<'b>> {
        let from = self.streams[index].next;
        let count = self.streams.len();
        batch.iter().filter(move |chat| {
            chat.position >= from && (count == 1 || partition_of(chat.id, count) == index)
        })
    }

    async fn append<'b>(
        &mut self,
        index: usize,
        batch: &Batch,
        chats: impl Iterator<Item = Chat<'b>>,
        count: u64,
        suppressed: u64,
    ) -> Result<(), BrokerError> {
        let per_message = u64::from(self.layout.ids_per_message);
        let append = Append {
            end: batch.end(),
            digest: batch.digest(),
            chats: count,
            messages: count.div_ceil(per_message),
            suppressed,
        };
        // An id in an array needs two quotes and a comma. The buffer grows if that is not enough.
        let bytes = batch.bytes() + 4 * batch.chats() as usize;
        self.capacity[index] = self.capacity[index].saturating_sub(append.messages);
        let command = self.command(index, &append, chats, bytes);
        self.streams[index].send(&append, command).await
    }

    fn command<'b>(
        &self,
        index: usize,
        append: &Append,
        chats: impl Iterator<Item = Chat<'b>>,
        bytes: usize,
    ) -> Cmd {
        let stream = &self.streams[index];
        let is_fields = self.layout.format == Format::Fields;
        let is_packed = self.layout.ids_per_message > 1;
        let values = if is_fields && self.layout.include_names {
            "2"
        } else {
            "1"
        };
        let (field, label) = match (is_fields, is_packed) {
            (true, false) => ("chat_id", self.target.label_id.as_str()),
            (true, true) => ("chat_ids", self.target.label_id.as_str()),
            (false, _) => ("data", ""),
        };
        let layout = [stream.lease.keep.as_str(), values, field, label];
        let mut command = stream.command(append, &layout, bytes);
        if is_fields && !is_packed {
            for chat in chats {
                command.arg(chat.id);
                if self.layout.include_names {
                    command.arg(chat.name.unwrap_or_default());
                }
            }
        } else if let Some(encoder) = &self.encoder {
            encoder.each(chats, |parts| {
                for part in parts {
                    command.arg(*part);
                }
            });
        }
        command
    }

    /// Moves the checkpoint of each stream to the position read so far, so that all are at the same
    /// place.
    pub(super) async fn sync_partitions(&mut self) -> Result<(), BrokerError> {
        let (end, digest) = self.reached;
        for index in 0..self.streams.len() {
            if self.streams[index].next < end {
                let append = Append {
                    end,
                    digest,
                    chats: 0,
                    messages: 0,
                    suppressed: 0,
                };
                let command = self.command(index, &append, std::iter::empty(), 0);
                self.streams[index].send(&append, command).await?;
            }
        }
        Ok(())
    }
}

/// Returns the partition of a chat: XXH3-64 of its id, with seed 0, modulo the number of
/// partitions.
pub fn partition_of(chat_id: &[u8], partitions: usize) -> usize {
    let hash = xxhash_rust::xxh3::xxh3_64(chat_id);
    usize::try_from(hash % (partitions.max(1) as u64)).unwrap_or(0)
}
