//! Conversion of batches to appends: which chats go to which stream, and in which form.

use redis::Cmd;

use super::lifecycle::now;
use super::session::RedisSession;
use super::stream::{Append, Stream};
use crate::batch::{Batch, Chat};
use crate::broker::error::SessionError;
use crate::broker::{Delivered, partition_of};
use crate::message::Format;

impl Stream {
    /// Builds the start of an append command; the caller adds the values.
    fn command(&self, batch: &Append, layout: &[&str; 4], bytes: usize, streams: usize) -> Cmd {
        let values = 2 * usize::try_from(batch.delivers.messages).unwrap_or(0);
        let mut command = Cmd::with_capacity(values + 16, bytes + 512);
        let keys = self.keys.of_append();
        let keys = if self.filter.is_some() {
            &keys[..]
        } else {
            &keys[..2]
        };
        command
            .arg("EVALSHA")
            .arg(self.link.append_hash())
            .arg(keys.len())
            .arg(keys);
        command
            .arg(&self.lease.fencing_token)
            .arg(self.run_id.to_string())
            .arg(self.next_position)
            .arg(batch.end)
            .arg(batch.digest.to_string())
            .arg(batch.delivers.chats)
            .arg(layout[0])
            .arg(now())
            .arg(&layout[1..]);
        if let Some(filter) = &self.filter {
            filter.add_arguments(&mut command, streams);
        }
        command
    }
}

impl RedisSession {
    /// Sends the part of a batch that belongs to one stream.
    pub(super) async fn append_to(
        &mut self,
        index: usize,
        batch: &Batch,
    ) -> Result<(), SessionError> {
        self.confirm_in(index, batch).await?;
        if batch.end() <= self.streams[index].next_position {
            return Ok(());
        }
        self.wait_for_capacity(index).await?;
        let (append, command) = if !self.suppress && self.takes_whole_batch(index, batch) {
            self.encode(index, batch, batch.iter(), batch.chats().into(), 0)
        } else {
            let mut chats: Vec<Chat<'_>> = self.chats_for(index, batch).collect();
            let all = chats.len() as u64;
            if all == 0 && self.streams.len() > 1 {
                // The checkpoint moves with a later batch, or at the end.
                return Ok(());
            }
            if self.suppress && self.streams[index].members().is_none() {
                chats = self.streams[index].unseen(&chats).await?;
            }
            let count = chats.len() as u64;
            self.encode(index, batch, chats.into_iter(), count, all - count)
        };
        self.streams[index].send(append, command).await
    }

    fn takes_whole_batch(&self, index: usize, batch: &Batch) -> bool {
        self.streams.len() == 1 && batch.first() >= self.streams[index].next_position
    }

    /// Returns the chats of a batch that belong to one stream and are not on it yet.
    fn chats_for<'b>(&self, index: usize, batch: &'b Batch) -> impl Iterator<Item = Chat<'b>> {
        let from = self.streams[index].next_position;
        let count = self.streams.len();
        batch.iter().filter(move |chat| {
            chat.position >= from && (count == 1 || partition_of(chat.id, count) == index)
        })
    }

    /// Encodes `count` chats of a batch, of which `suppressed` others are already on the stream.
    fn encode<'b>(
        &self,
        index: usize,
        batch: &Batch,
        chats: impl Iterator<Item = Chat<'b>> + Clone,
        count: u64,
        suppressed: u64,
    ) -> (Append, Cmd) {
        let append = Append {
            end: batch.end(),
            digest: batch.digest(),
            delivers: Delivered {
                chats: count,
                messages: count.div_ceil(u64::from(self.context.layout.ids_per_message)),
                suppressed,
                ..Delivered::default()
            },
        };
        // An id in an array needs two quotes and a comma. The buffer grows if that is not enough.
        let bytes = batch.bytes() + 4 * batch.chats() as usize;
        let command = self.command(index, &append, chats, bytes);
        (append, command)
    }

    fn command<'b>(
        &self,
        index: usize,
        append: &Append,
        chats: impl Iterator<Item = Chat<'b>> + Clone,
        bytes: usize,
    ) -> Cmd {
        let stream = &self.streams[index];
        let is_fields = self.context.layout.format == Format::Fields;
        let is_packed = self.context.layout.ids_per_message > 1;
        let values = if is_fields && self.context.layout.include_names {
            "2"
        } else {
            "1"
        };
        let (field, label) = match (is_fields, is_packed) {
            (true, false) => ("chat_id", self.context.target.label_id.as_str()),
            (true, true) => ("chat_ids", self.context.target.label_id.as_str()),
            (false, _) => ("data", ""),
        };
        let layout = [stream.lease.keep_ms.as_str(), values, field, label];
        let mut command = stream.command(append, &layout, bytes, self.streams.len());
        if stream.filter.is_some() && !is_fields {
            // The append script looks the chat up by its id, which the message contains as JSON.
            let mut ids = chats.clone().map(|chat| chat.id);
            if let Some(encoder) = &self.encoder {
                encoder.each(chats, |parts| {
                    command.arg(ids.next().unwrap_or_default()).arg(parts);
                });
            }
        } else if is_fields && !is_packed {
            for chat in chats {
                command.arg(chat.id);
                if self.context.layout.include_names {
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
    pub(super) async fn sync_partitions(&mut self) -> Result<(), SessionError> {
        let at = self.resume_point.at;
        for index in 0..self.streams.len() {
            if self.streams[index].next_position < at.position {
                let append = Append {
                    end: at.position,
                    digest: at.digest,
                    delivers: Delivered::default(),
                };
                let command = self.command(index, &append, std::iter::empty(), 0);
                self.streams[index].send(append, command).await?;
            }
        }
        Ok(())
    }
}
