//! Times of publication, by which chats that were published recently are left out, and the counts of
//! what is left out.
//!
//! They are one hash beside each stream, because the append script looks up a whole batch by one
//! command: buckets that stay small take a third of the memory, but a command each. The hash expires
//! with its last use. Entries that are too old are removed from time to time, at the end of a run.

use std::time::Duration;

use redis::Script;

use super::keys::Keys;
use super::link::{Link, StoredState, reply_text};
use super::stream::Stream;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying as _, with_retry};

/// Entries in a page. A page takes the server under a millisecond.
const PAGE: usize = 500;

/// Sweeps within the time that entries are kept. A sweep reads all entries, which takes the server
/// about as long as appending half as many.
const SWEEPS: u64 = 8;

/// The filter for chats that were published recently, and its counts. The append script decides, so
/// the counts come from its replies, or from the checkpoint if replies were lost.
#[derive(Clone, Copy)]
pub(super) struct Filter {
    /// Time since the last publication in which a chat is left out, in seconds.
    pub(super) window: u64,
    /// Chats that earlier processes of the run appended; `None` until the run is known.
    chats_before: Option<u64>,
    /// Chats of the run that were left out, by this process or earlier ones.
    pub(super) suppressed: u64,
}

impl Stream {
    /// Leaves out chats that were published within this time.
    pub(super) fn suppress_for(&mut self, window: Duration) {
        self.link.append_unpublished_only();
        self.filter = Some(Filter {
            window: window.as_secs(),
            chats_before: None,
            suppressed: 0,
        });
    }

    /// Takes the counts of a checkpoint that covers all batches that were counted.
    pub(super) fn take_counts(&mut self, stored: &StoredState) {
        let (Some(filter), Some(at)) = (&mut self.filter, stored.checkpoint_of(self.run_id)) else {
            return;
        };
        let before = filter.chats_before.unwrap_or(at.chats).min(at.chats);
        filter.chats_before = Some(before);
        filter.suppressed = stored.suppressed;
        self.delivered.chats = at.chats - before;
        self.delivered.messages = self.delivered.chats;
    }

    /// Counts chats of the batch before as left out.
    pub(super) fn count_suppressed(&mut self, suppressed: u64) {
        if let Some(filter) = &mut self.filter {
            filter.suppressed += suppressed;
            self.delivered.take_back(suppressed, 1);
        }
    }

    /// Counts anew what is left out, from the start of a list.
    pub(super) fn restart_counts(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.chats_before.get_or_insert(0);
            filter.suppressed = 0;
        }
    }

    /// Removes times of publication that are older than `keep`.
    pub(super) async fn sweep(&mut self, keep: Duration) -> Result<(), SessionError> {
        let mut cursor = "0".to_owned();
        loop {
            cursor = with_retry!(self, sweep_page(&mut self.link, &self.keys, &cursor, keep))?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}

/// Removes one page of entries that are older than `keep`. Returns the cursor of the next page.
async fn sweep_page(
    link: &mut Link,
    keys: &Keys,
    cursor: &str,
    keep: Duration,
) -> Result<String, Failure> {
    let script = Script::new(include_str!("sweep.lua"));
    let mut script = script.prepare_invoke();
    script.key(&keys.published).key(&keys.checkpoint);
    script.arg(cursor).arg(PAGE).arg(keep.as_secs());
    script.arg(keep.as_secs() / SWEEPS);
    Ok(reply_text(&link.run(&script).await?))
}
