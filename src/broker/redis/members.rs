//! The members of a label, beside each stream: what is known of the set, and the steps around a
//! list that the append script does not do.

use std::time::{SystemTime, UNIX_EPOCH};

use redis::{Script, Value};
use uuid::Uuid;

use super::keys::Keys;
use super::link::{Link, reply_text};
use super::selection::PAGE;
use super::session::RedisSession;
use super::stream::{Stream, load_all};
use crate::batch::Batch;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying as _, with_retry};
use crate::broker::{BrokerError, ResumePoint, partition_of};
use crate::message::{EventEncoder, LabelEvent};
use crate::state::record::REMOVAL_REMEMBERED_MS;
use crate::state::{Publish, Removal};

/// The script that confirms members without appending.
const CONFIRM: &str = concat!(include_str!("judge.lua"), include_str!("confirm.lua"));

/// What is to be done with absent members.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absent {
    Count,
    Remove,
    Publish,
}

impl Absent {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Remove => "remove",
            Self::Publish => "publish",
        }
    }
}

/// Counts that show whether members can be absent from the list.
#[derive(Clone, Copy, Debug, Default)]
struct MemberCounts {
    /// Members, old and new.
    members: u64,
    /// Members before the pass.
    before: u64,
    /// Members that the list contains.
    confirmed: u64,
    /// Removals that are remembered.
    removed: u64,
    /// Whether events have changed the members since the pass began, so that `confirmed` may be too
    /// high.
    had_events: bool,
}

impl MemberCounts {
    /// Whether the set may hold members that the list does not contain, or old removals.
    fn may_hold_absent(&self) -> bool {
        self.members > self.confirmed || self.removed > 0 || self.had_events
    }
}

impl Stream {
    /// Loads the token of the set and the passes of the run, which the start script has recorded.
    pub(super) async fn load_members(&mut self) -> Result<(), SessionError> {
        if self.members().is_none() {
            return Ok(());
        }
        let stored = self.load_owned().await?;
        let noted = with_retry!(self, load_set(&mut self.link, &self.keys))?;
        let is_new_only = self
            .members()
            .is_some_and(|it| it.rules.publish == Publish::New);
        let Some(set) = noted.usable(is_new_only) else {
            return Err(members_lost(&self.keys).into());
        };
        if let Some(members) = self.filter.as_mut().and_then(|it| it.members.as_mut()) {
            members.passes = stored.selection.passes;
            members.set = set;
        }
        Ok(())
    }

    /// Whether the set of members is one that a run can add to.
    pub(super) async fn has_usable_set(&mut self) -> Result<bool, SessionError> {
        let noted = with_retry!(self, load_set(&mut self.link, &self.keys))?;
        Ok(noted.usable(false).is_some())
    }

    /// Sets the time that the next list is current as of.
    fn set_list_time(&mut self, as_of: u64) {
        if let Some(members) = self.filter.as_mut().and_then(|it| it.members.as_mut()) {
            members.as_of = as_of;
        }
    }

    /// Records again that the list contains chats before the checkpoint.
    async fn confirm(&mut self, ids: &[&[u8]]) -> Result<(), SessionError> {
        loop {
            let reply = with_retry!(self, self.try_confirm(ids))?;
            match reply_text(&reply).as_str() {
                "fence" => drop(self.load_owned().await?),
                "members" => return Err(members_lost(&self.keys).into()),
                // Without a checkpoint, the next append goes back to the start.
                _ => return Ok(()),
            }
        }
    }

    async fn try_confirm(&mut self, ids: &[&[u8]]) -> Result<Value, Failure> {
        let script = Script::new(CONFIRM);
        let mut script = script.prepare_invoke();
        for key in self.keys.of_append() {
            script.key(key);
        }
        let mut arguments = redis::Cmd::new();
        if let Some(filter) = &self.filter {
            // Only an append notes the number of streams.
            filter.add_arguments(&mut arguments, 0);
        }
        script.arg(&self.lease.fencing_token);
        script.arg(self.run_id.to_string());
        script.arg(&[""; 4]).arg(&self.lease.keep_ms).arg(&[""; 4]);
        for argument in arguments.args_iter() {
            if let redis::Arg::Simple(argument) = argument {
                script.arg(argument);
            }
        }
        script.arg(ids);
        Ok(self.link.run(&script).await?)
    }

    /// Remembers the number of members before a list that would have removed too many of them. The
    /// same list must not pass later only because its new chats are members by then.
    async fn remember_guarded(&mut self, before: u64) -> Result<(), SessionError> {
        with_retry!(self, write_guarded(&mut self.link, &self.keys, before))
    }

    async fn counts(&mut self) -> Result<MemberCounts, SessionError> {
        with_retry!(self, load_counts(&mut self.link, &self.keys))
    }

    /// Goes through the members that the list does not contain. Returns their number.
    async fn absent(&mut self, what: Absent, entry: &[String]) -> Result<u64, SessionError> {
        let (mut cursor, mut count) = ("0".to_owned(), 0);
        loop {
            let reply = with_retry!(self, self.try_absent(what, &cursor, entry))?;
            match reply {
                Value::Array(page) => {
                    cursor = page.first().map(reply_text).unwrap_or_default();
                    if let Some(Value::Int(absent)) = page.get(1) {
                        count += u64::try_from(*absent).unwrap_or(0);
                    }
                    if cursor == "0" {
                        return Ok(count);
                    }
                }
                refusal => match reply_text(&refusal).as_str() {
                    // Another run has taken over, or the token was lost with its data.
                    "fence" => drop(self.load_owned().await?),
                    "members" => return Err(members_lost(&self.keys).into()),
                    _ => {
                        let text = "it has lost the run; run again".to_owned();
                        return Err(BrokerError::Unavailable(text).into());
                    }
                },
            }
        }
    }

    async fn try_absent(
        &mut self,
        what: Absent,
        cursor: &str,
        entry: &[String],
    ) -> Result<Value, Failure> {
        let (as_of, pass, set) = self.members().map_or((0, 0, ""), |members| {
            (members.as_of, members.passes.current, members.set.as_str())
        });
        let script = Script::new(include_str!("remove_absent.lua"));
        let mut script = script.prepare_invoke();
        script.key(&self.keys.checkpoint).key(&self.keys.members);
        script.key(&self.keys.note).key(&self.keys.removed);
        script
            .arg(&self.lease.fencing_token)
            .arg(self.run_id.to_string())
            .arg(cursor)
            .arg(PAGE)
            .arg(as_of)
            .arg(pass)
            .arg(what.name())
            .arg(set)
            .arg(REMOVAL_REMEMBERED_MS / 1000)
            .arg(entry);
        Ok(self.link.run(&script).await?)
    }
}

impl RedisSession {
    fn keeps_members(&self) -> bool {
        self.context.selection.membership.is_some()
    }

    /// Goes back to the start of the list, to record the members again as of a later time.
    pub(super) fn begin_pass(&mut self, as_of: SystemTime) {
        if !self.keeps_members() {
            return;
        }
        let since = as_of.duration_since(UNIX_EPOCH).unwrap_or_default();
        for stream in &mut self.streams {
            stream.set_list_time(since.as_secs());
        }
        let reached = self.resume_point.clone();
        if reached.at.position > 0 {
            let mut expected_digests = vec![(reached.at.position, reached.at.digest)];
            expected_digests.extend(reached.expected_digests);
            self.resume_point = ResumePoint {
                expected_digests,
                ..ResumePoint::start_of(self.run_id())
            };
            self.resume_point.at.chats = reached.at.chats;
        }
    }

    /// Records again those chats of a batch that are before a stream's position.
    pub(super) async fn confirm_in(
        &mut self,
        index: usize,
        batch: &Batch,
    ) -> Result<(), SessionError> {
        let position = self.streams[index].next_position;
        if !self.keeps_members() || batch.first() >= position {
            return Ok(());
        }
        let count = self.streams.len();
        let ids: Vec<&[u8]> = batch
            .iter()
            .filter(|chat| chat.position < position && partition_of(chat.id, count) == index)
            .map(|chat| chat.id)
            .collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.streams[index].confirm(&ids).await
    }

    /// Removes the members that the list does not contain, unless they are too many.
    pub(super) async fn remove_absent_all(&mut self) -> Result<Removal, SessionError> {
        let Some(rules) = self.context.selection.membership else {
            return Ok(Removal::Removed);
        };
        self.begin_all().await?;
        let mut all_counts = Vec::new();
        for stream in &mut self.streams {
            all_counts.push(stream.counts().await?);
        }
        let sum = |of: fn(&MemberCounts) -> u64| all_counts.iter().map(of).sum::<u64>();
        let before = sum(|counts| counts.before);
        // Members that an event has added since are not absent, so this is the highest number.
        let at_most = sum(|counts| counts.members.saturating_sub(counts.confirmed));
        let had_events = all_counts.iter().any(|counts| counts.had_events);
        if had_events || rules.is_too_many(at_most, before) {
            let mut absent = 0;
            for stream in &mut self.streams {
                absent += stream.absent(Absent::Count, &[]).await?;
            }
            // Events may have added some of them since.
            let members = before.max(absent);
            if rules.is_too_many(absent, members) {
                for (stream, counts) in self.streams.iter_mut().zip(&all_counts) {
                    stream.remember_guarded(counts.before).await?;
                }
                return Ok(Removal::TooMany { absent, members });
            }
        }
        let publishes = rules.removed && rules.publish != Publish::Nothing;
        let what = if publishes {
            Absent::Publish
        } else {
            Absent::Remove
        };
        let entry = self.departure_entry();
        for (stream, counts) in self.streams.iter_mut().zip(all_counts) {
            if counts.may_hold_absent() {
                stream.absent(what, &entry).await?;
            }
        }
        self.count_removed().await
    }

    /// Counts the removed members of the run, by the checkpoints.
    async fn count_removed(&mut self) -> Result<Removal, SessionError> {
        let stored = load_all(&mut self.streams).await?;
        for (stream, stored) in self.streams.iter_mut().zip(stored) {
            stream.delivered.removed = stored.selection.removed;
        }
        Ok(Removal::Removed)
    }

    /// Returns the entry of a removed chat for the script: fields, values, and kinds of values.
    fn departure_entry(&self) -> Vec<String> {
        let target = &self.context.target;
        let format = self.context.layout.format;
        let encoder = EventEncoder::new(format, &target.instance_id, &target.label_id);
        // Stands for the chat id; nothing else contains it.
        let id = Uuid::now_v7().to_string();
        let fields = encoder.fields(&LabelEvent::missing_in(self.run_id(), id.clone()));
        let kind = |value: &str| match (value == id, value.contains(&id)) {
            (true, _) => (String::new(), "id"),
            (false, true) => (value.replace(&id, "\n"), "json"),
            (false, false) => (value.to_owned(), "text"),
        };
        let entry = fields.chunks_exact(2).flat_map(|pair| {
            let (value, kind) = kind(&pair[1]);
            [pair[0].clone(), value, kind.to_owned()]
        });
        entry.collect()
    }
}

/// The token that the set of members contains, and those that the note has.
#[derive(Debug)]
pub(super) struct NotedSet {
    found: Option<String>,
    trusted: Option<String>,
    building: Option<String>,
}

impl NotedSet {
    /// Whether there was no set yet.
    pub(super) fn is_first_use(&self) -> bool {
        self.found.is_none() && self.trusted.is_none() && self.building.is_none()
    }

    /// Returns the token of the set, if it is one of the note. Only a set that a whole list has
    /// filled tells which chats are new.
    pub(super) fn usable(self, is_new_only: bool) -> Option<String> {
        let is_building = !is_new_only && self.found == self.building;
        let is_usable = is_building || self.found == self.trusted;
        self.found.filter(|_| is_usable)
    }
}

/// Loads the tokens of the set of members.
pub(super) async fn load_set(link: &mut Link, keys: &Keys) -> Result<NotedSet, Failure> {
    let (noted, found): (Vec<Option<String>>, Option<String>) = redis::pipe()
        .cmd("HMGET")
        .arg(&keys.note)
        .arg(&["trusted", "building"])
        .cmd("HGET")
        .arg(&keys.members)
        .arg(":")
        .query_async(link.connection().await?)
        .await?;
    let mut noted = noted.into_iter();
    Ok(NotedSet {
        found,
        trusted: noted.next().flatten(),
        building: noted.next().flatten(),
    })
}

async fn write_guarded(link: &mut Link, keys: &Keys, before: u64) -> Result<(), Failure> {
    redis::cmd("HSET")
        .arg(&keys.note)
        .arg("guarded")
        .arg(before)
        .exec_async(link.connection().await?)
        .await?;
    Ok(())
}

/// Loads numbers from the note and the checkpoint. One that a server has lost may be below zero.
async fn load_counts(link: &mut Link, keys: &Keys) -> Result<MemberCounts, Failure> {
    let connection = link.connection().await?;
    let (note, run): (Vec<Option<i64>>, Vec<Option<i64>>) = redis::pipe()
        .cmd("HMGET")
        .arg(&keys.note)
        .arg(&["members", "removed", "events"])
        .cmd("HMGET")
        .arg(&keys.checkpoint)
        .arg(&["members_before", "confirmed", "events_before"])
        .query_async(connection)
        .await?;
    let number = |of: &[Option<i64>], index: usize| {
        let number = of.get(index).copied().flatten();
        number
            .and_then(|number| u64::try_from(number).ok())
            .unwrap_or(0)
    };
    Ok(MemberCounts {
        members: number(&note, 0),
        removed: number(&note, 1),
        before: number(&run, 0),
        confirmed: number(&run, 1),
        had_events: number(&note, 2) != number(&run, 2),
    })
}

pub(super) fn members_lost(keys: &Keys) -> BrokerError {
    BrokerError::MembersLost(format!("{} is gone or incomplete", keys.members))
}
