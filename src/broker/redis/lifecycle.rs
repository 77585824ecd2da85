//! Lifecycle of a run on each of its streams: start, resume and finish.

use std::time::SystemTime;

use redis::{Script, Value};
use uuid::Uuid;

use super::link::{StoredState, StreamState, reply_text};
use super::members::members_lost;
use super::reconcile::resume_point_of;
use super::selection::rule_name;
use super::session::{Phase, RedisSession};
use super::stream::Stream;
use crate::batch::Digest;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying as _, with_retry};
use crate::broker::{BrokerError, Outcome};
use crate::message::Marker;

/// How a run begins on one stream.
struct Beginning<'a> {
    run_id: Uuid,
    label_id: &'a str,
    partitions: usize,
    /// Whether to skip chats that are already on the stream.
    suppress: bool,
    /// Fields and values of the start marker, if there is one.
    marker: Vec<String>,
    /// Token for a new set of members.
    set: String,
    /// Name of the selection of chats.
    mode: &'static str,
    /// Identity of this call, by which the script recognizes a delayed duplicate.
    token: String,
}

impl Stream {
    /// Starts a run at position 0.
    async fn begin(&mut self, beginning: &Beginning<'_>) -> Result<(), SessionError> {
        // A second attempt covers a server that has lost its data since the lock was taken.
        for _ in 0..2 {
            let reply = with_retry!(self, self.try_begin(beginning))?;
            match reply_text(&reply).as_str() {
                "fence" => drop(self.load_owned().await?),
                "members" => return Err(members_lost(&self.keys).into()),
                token => {
                    token.clone_into(&mut self.lease.fencing_token);
                    self.restart(beginning.run_id, 0);
                    self.restart_counts();
                    return self.load_members().await;
                }
            }
        }
        Err(BrokerError::Unavailable("it keeps losing its data".to_owned()).into())
    }

    async fn try_begin(&mut self, beginning: &Beginning<'_>) -> Result<Value, Failure> {
        let script = Script::new(include_str!("start.lua"));
        let mut script = script.prepare_invoke();
        script.key(&self.keys.stream).key(&self.keys.checkpoint);
        script.key(self.keys.manifest(beginning.run_id));
        if self.members().is_some() {
            // A user of a server without them needs no permission for these keys.
            script.key(&self.keys.members).key(&self.keys.note);
        }
        let window = self.filter.as_ref().and_then(|filter| filter.window);
        script
            .arg(&self.lease.fencing_token)
            .arg(beginning.run_id.to_string())
            .arg(beginning.label_id)
            .arg(Digest::of_nothing().to_string())
            .arg(&self.lease.keep_ms)
            .arg(u8::from(beginning.suppress))
            .arg(now())
            .arg(beginning.partitions)
            .arg(&self.lease.owner)
            .arg(&beginning.token)
            .arg(rule_name(self.members().map(|members| &members.rules)))
            .arg(&beginning.set)
            .arg(u8::from(window.is_some()))
            .arg(beginning.mode)
            .arg(self.members().map_or("", |members| members.set.as_str()))
            .arg(&beginning.marker);
        Ok(self.link.run(&script).await?)
    }

    /// Records on the first of several streams that the run was started on all of them.
    async fn record_begun_on_all(&mut self, run_id: &str) -> Result<(), Failure> {
        redis::cmd("HSET")
            .arg(&self.keys.checkpoint)
            .arg(&["begun", run_id])
            .exec_async(self.link.connection().await?)
            .await?;
        Ok(())
    }

    async fn try_finish(&mut self, end: &End, replicas: u32) -> Result<Value, Failure> {
        let script = Script::new(include_str!("finish.lua"));
        let mut script = script.prepare_invoke();
        script.key(&self.keys.stream).key(&self.keys.checkpoint);
        script.key(self.keys.manifest(end.run_id));
        let members = self.members();
        if members.is_some() {
            script.key(&self.keys.members).key(&self.keys.note);
            script.key(&self.keys.removed);
        }
        let as_of = members.map(|members| members.as_of.to_string());
        let set = members.map(|members| members.set.clone());
        script
            .arg(&self.lease.fencing_token)
            .arg(end.run_id.to_string())
            .arg(end.status)
            .arg(end.position)
            .arg(end.chats)
            .arg(&self.lease.keep_ms)
            .arg(now())
            .arg(as_of.unwrap_or_default())
            .arg(set.unwrap_or_default())
            .arg(end.marker.len())
            .arg(&end.marker);
        for (name, value) in &end.manifest_fields {
            script.arg(name).arg(value);
        }
        let reply = self.link.run(&script).await?;
        if replicas > 0 {
            self.link.wait(replicas).await?;
        }
        Ok(reply)
    }
}

/// How a run ends on one stream.
struct End {
    run_id: Uuid,
    status: &'static str,
    position: u64,
    chats: u64,
    /// Fields and values of the end marker, if there is one.
    marker: Vec<String>,
    /// Further fields and values of the manifest.
    manifest_fields: [(&'static str, String); 4],
}

impl RedisSession {
    /// Records a new run on all streams. Called when there is something to publish, or at the end.
    pub(super) async fn begin_all(&mut self) -> Result<(), SessionError> {
        if matches!(self.phase, Phase::Recorded) {
            return Ok(());
        }
        for index in 0..self.streams.len() {
            self.begin(index, false, self.settings.marker).await?;
        }
        self.record_begun_on_all().await?;
        self.phase = Phase::Recorded;
        Ok(())
    }

    async fn record_begun_on_all(&mut self) -> Result<(), SessionError> {
        let (run_id, is_spread) = (self.run_id().to_string(), self.streams.len() > 1);
        match self.streams.first_mut().filter(|_| is_spread) {
            Some(first) => with_retry!(first, first.record_begun_on_all(&run_id)),
            None => Ok(()),
        }
    }

    /// Starts the run at position 0 on one stream.
    pub(super) async fn begin(
        &mut self,
        index: usize,
        suppress: bool,
        marker: bool,
    ) -> Result<(), SessionError> {
        let beginning = Beginning {
            run_id: self.run_id(),
            label_id: &self.context.target.label_id,
            partitions: self.streams.len(),
            suppress,
            marker: match &self.encoder {
                Some(encoder) if marker => encoder.marker(Marker::Started, 0),
                _ => Vec::new(),
            },
            set: Uuid::now_v7().to_string(),
            mode: self.mode,
            token: Uuid::now_v7().to_string(),
        };
        self.streams[index].begin(&beginning).await
    }

    /// Resumes each stream where it stopped, by what was found on it.
    pub(super) async fn resume(&mut self, stored: Vec<StoredState>) -> Result<(), SessionError> {
        let run_id = self.run_id();
        let first = stored
            .first()
            .filter(|first| first.checkpoint_of(run_id).is_some());
        // The process that started the run may have been cut off before it reached all streams.
        let start_was_cut_off = first.is_some_and(|first| first.begun != Some(run_id.to_string()));
        let is_spread = stored.len() > 1;
        let mut found = Vec::new();
        for (index, stored) in stored.into_iter().enumerate() {
            let at = stored.checkpoint_of(run_id);
            self.suppress |= at.is_none() || stored.suppress;
            match at {
                Some(at) => {
                    self.streams[index].restart(run_id, at.position);
                    self.streams[index].take_counts(&stored);
                    self.streams[index].load_members().await?;
                }
                None => {
                    // The checkpoint or the stream was lost, but the other may remain: skip chats
                    // that are still there.
                    let lacks_marker =
                        stored.stream != StreamState::Exists || (is_spread && start_was_cut_off);
                    let marker = self.settings.marker && lacks_marker;
                    self.begin(index, true, marker).await?;
                }
            }
            found.push(at);
        }
        if start_was_cut_off {
            self.record_begun_on_all().await?;
        }
        self.resume_point = resume_point_of(run_id, found.into_iter());
        let on_streams = self.resume_point.at.chats;
        let confirmed: u64 = self.streams.iter().map(|s| s.delivered.chats).sum();
        self.resumed_chats = self.resumed_chats.min(on_streams);
        // With a filter, the checkpoints tell the counts.
        let is_counted = self.streams.iter().all(|stream| stream.filter.is_none());
        self.lost_chats = match is_counted {
            true => (self.resumed_chats + confirmed).saturating_sub(on_streams),
            false => 0,
        };
        if self.suppress {
            self.read_back().await?;
        }
        Ok(())
    }

    /// Finds out which chats are on the streams, unless the records of the members tell.
    pub(super) async fn read_back(&mut self) -> Result<(), SessionError> {
        if self.context.selection.membership.is_some() {
            return Ok(());
        }
        for stream in &mut self.streams {
            stream.read_back().await?;
        }
        Ok(())
    }

    pub(super) async fn finish_one(
        &mut self,
        index: usize,
        outcome: Outcome,
    ) -> Result<(), SessionError> {
        let end = self.end_of(index, outcome);
        let replicas = self.settings.min_replicas;
        let stream = &mut self.streams[index];
        let reply = with_retry!(stream, stream.try_finish(&end, replicas))?;
        if reply_text(&reply) == "OK" || outcome == Outcome::Unfinished {
            return Ok(());
        }
        if reply_text(&reply) == "members" {
            return Err(members_lost(&stream.keys).into());
        }
        // The flush before this verified the stream, so check for a takeover.
        stream.load_owned().await?;
        let text = "it has lost entries at the very end; run again".to_owned();
        Err(BrokerError::Unavailable(text).into())
    }

    fn end_of(&self, index: usize, outcome: Outcome) -> End {
        let (status, chats) = match outcome {
            Outcome::Complete { chats } => ("complete", chats),
            Outcome::Rejected => ("rejected", 0),
            Outcome::Unfinished => ("partial", 0),
        };
        let at = self.resume_point.at;
        End {
            run_id: at.run_id,
            status,
            position: at.position,
            chats,
            marker: match (&self.encoder, outcome, self.settings.marker) {
                (Some(encoder), Outcome::Complete { .. }, true) => {
                    encoder.marker(Marker::Completed, chats)
                }
                _ => Vec::new(),
            },
            manifest_fields: [
                ("position", at.position.to_string()),
                ("digest", at.digest.to_string()),
                ("partition", index.to_string()),
                ("partitions", self.streams.len().to_string()),
            ],
        }
    }
}

pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
