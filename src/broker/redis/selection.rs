//! Selection of the chats that are appended, by the time of their last publication and by their
//! membership, and the counts of what is left out. The append script decides.
//!
//! Times and members are a hash each beside a stream, because the script looks up a whole batch by
//! one command: buckets that stay small take a third of the memory, but a command each. A hash
//! expires with its last use. Times that are too old are removed from time to time, at the end of a
//! run.

use std::time::Duration;

use redis::{Cmd, Script, Value};

use super::keys::Keys;
use super::link::{Link, StoredState, reply_text};
use super::stream::Stream;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying as _, with_retry};
use crate::state::{Membership, Publish, Selection};

/// Entries in a page. A page takes the server under a millisecond.
pub(super) const PAGE: usize = 500;

/// Sweeps within the time that entries are kept. A sweep reads all entries, which takes the server
/// about as long as appending half as many.
const SWEEPS: u64 = 8;

/// How chats are selected, and the counts of those that are left out. The counts come from the
/// replies of the append script, or from the checkpoint if replies were lost.
#[derive(Clone)]
pub(super) struct Filter {
    /// Time since the last publication in which a chat is left out, in seconds.
    pub(super) window: Option<u64>,
    pub(super) members: Option<Members>,
    /// Chats that earlier processes of the run appended; `None` until the run is known.
    chats_before: Option<u64>,
    /// Chats of the run that were left out, by this process or earlier ones.
    pub(super) skipped: Skipped,
}

/// The set of members, and the list that it is compared with.
#[derive(Clone)]
pub(super) struct Members {
    pub(super) rules: Membership,
    /// The token that the set contains.
    pub(super) set: String,
    /// The time that the list is current as of, in seconds since 1970.
    pub(super) as_of: u64,
    pub(super) passes: Passes,
}

/// The passes of a run, counted over all runs. One begins with the run, and with each time that its
/// list is published again from position 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passes {
    pub(super) current: u64,
    pub(super) first: u64,
    /// The first one whose publications are still on the stream.
    pub(super) published_from: u64,
}

/// Chats that were not appended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    /// Because they had been published before.
    pub(super) suppressed: u64,
    /// Because they had been members before.
    pub(super) known: u64,
}

impl Skipped {
    /// Reads the reply of the append script.
    pub(super) fn of_reply(reply: &[Value]) -> Self {
        let number = |index: usize| match reply.get(index) {
            Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        Self {
            suppressed: number(0),
            known: number(1),
        }
    }
}

/// Returns the name of a rule in scripts. Empty if no membership is kept.
pub(super) fn rule_name(membership: Option<&Membership>) -> &'static str {
    match membership.map(|membership| membership.publish) {
        None => "",
        Some(Publish::All) => "all",
        Some(Publish::New) => "new",
        Some(Publish::Nothing) => "none",
    }
}

impl Filter {
    /// Returns `None` if all chats are appended, and none is recorded.
    pub(super) fn new(selection: &Selection) -> Option<Self> {
        selection.is_active().then(|| Self {
            window: selection.suppress_for.map(|window| window.as_secs()),
            members: selection.membership.map(|rules| Members {
                rules,
                set: String::new(),
                as_of: 0,
                passes: Passes::default(),
            }),
            chats_before: None,
            skipped: Skipped::default(),
        })
    }

    /// Adds the arguments that the script takes for the selection. The queue has this many
    /// `streams`.
    pub(super) fn add_arguments(&self, command: &mut Cmd, streams: usize) {
        command.arg(
            self.window
                .map_or(String::new(), |window| window.to_string()),
        );
        let Some(members) = &self.members else {
            // The script reads none of them.
            command.arg(&[""; 7]).arg(streams);
            return;
        };
        let min_age = members.rules.min_age.map_or(0, |age| age.as_secs());
        command
            .arg(rule_name(Some(&members.rules)))
            .arg(&members.set)
            .arg(members.as_of)
            .arg(members.passes.current)
            .arg(members.passes.first)
            .arg(members.passes.published_from)
            .arg(min_age)
            .arg(streams);
    }
}

impl Stream {
    /// Selects the chats that are appended.
    pub(super) fn select(&mut self, selection: &Selection) {
        self.filter = Filter::new(selection);
        if self.filter.is_some() {
            self.link.append_selected_only();
        }
    }

    /// The set of members, if the membership of the label is kept.
    pub(super) fn members(&self) -> Option<&Members> {
        self.filter.as_ref()?.members.as_ref()
    }

    /// Takes the counts of a checkpoint that covers all batches that were counted.
    pub(super) fn take_counts(&mut self, stored: &StoredState) {
        let (Some(filter), Some(at)) = (&mut self.filter, stored.checkpoint_of(self.run_id)) else {
            return;
        };
        let before = filter.chats_before.unwrap_or(at.chats).min(at.chats);
        filter.chats_before = Some(before);
        filter.skipped = stored.selection.skipped;
        self.delivered.chats = at.chats - before;
        self.delivered.messages = self.delivered.chats;
    }

    /// Counts chats of the batch before as left out.
    pub(super) fn count_skipped(&mut self, skipped: Skipped) {
        if let Some(filter) = &mut self.filter {
            filter.skipped.suppressed += skipped.suppressed;
            filter.skipped.known += skipped.known;
            self.delivered
                .take_back(skipped.suppressed + skipped.known, 1);
        }
    }

    /// Counts anew what is left out, from the start of a list.
    pub(super) fn restart_counts(&mut self) {
        if let Some(filter) = &mut self.filter {
            filter.chats_before.get_or_insert(0);
            filter.skipped = Skipped::default();
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
