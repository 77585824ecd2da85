//! Times of publication, by which chats that were published recently are left out.
//!
//! They are one hash beside each stream, because the append script looks up a whole batch by one
//! command: buckets that stay small take a third of the memory, but a command each. The hash expires
//! with its last use. Entries that are too old are removed from time to time, at the end of a run.

use std::time::Duration;

use redis::Script;

use super::keys::Keys;
use super::link::{Link, reply_text};
use crate::broker::error::Failure;

/// Entries in a page. A page takes the server under a millisecond.
const PAGE: usize = 500;

/// Sweeps within the time that entries are kept. A sweep reads all entries, which takes the server
/// about as long as appending half as many.
const SWEEPS: u64 = 8;

/// Removes one page of entries that are older than `keep`. Returns the cursor of the next page.
pub(super) async fn sweep_page(
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
