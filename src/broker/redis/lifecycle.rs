//! Lifecycle of a run on each of its streams: start, resume and finish.

use std::time::SystemTime;

use redis::Script;
use uuid::Uuid;

use super::Redis;
use super::link::word;
use crate::batch::Digest;
use crate::broker::{BrokerError, Checkpoint, Outcome, Unfinished};
use crate::message::Marker;

impl Redis {
    /// Starts a new run on all streams. Called when there is something to publish, or at the end.
    pub(super) async fn begin_all(&mut self) -> Result<(), BrokerError> {
        if !self.has_begun {
            for index in 0..self.streams.len() {
                self.begin(index, false, self.settings.marker).await?;
            }
            self.note_begun().await?;
            self.has_begun = true;
        }
        Ok(())
    }

    /// With several streams, records on the first one that the run was started on all of them.
    async fn note_begun(&mut self) -> Result<(), BrokerError> {
        let (run_id, is_spread) = (self.run_id.to_string(), self.streams.len() > 1);
        let Some(first) = self.streams.first_mut().filter(|_| is_spread) else {
            return Ok(());
        };
        first
            .with_retry(async |link, keys, _| {
                redis::cmd("HSET")
                    .arg(&keys.checkpoint)
                    .arg(&["begun", &run_id])
                    .exec_async(link.connection().await?)
                    .await?;
                Ok(())
            })
            .await
    }

    /// Starts a run at position 0 on one stream.
    pub(super) async fn begin(
        &mut self,
        index: usize,
        suppress: bool,
        marker: bool,
    ) -> Result<(), BrokerError> {
        let (run_id, token) = (self.run_id, Uuid::now_v7().to_string());
        let marker = match &self.encoder {
            Some(encoder) if marker => encoder.marker(Marker::Started, 0),
            _ => Vec::new(),
        };
        let label = &self.target.label_id;
        let partitions = self.streams.len();
        let stream = &mut self.streams[index];
        // A second attempt covers a server that has lost its data since the lock was taken.
        for _ in 0..2 {
            let reply = stream
                .with_retry(async |link, keys, lease| {
                    let script = Script::new(include_str!("start.lua"));
                    let mut script = script.prepare_invoke();
                    script.key(&keys.stream).key(&keys.checkpoint);
                    script.key(keys.manifest(run_id));
                    script
                        .arg(&lease.fencing_token)
                        .arg(run_id.to_string())
                        .arg(label);
                    script
                        .arg(Digest::of_nothing().to_string())
                        .arg(&lease.keep);
                    script.arg(u8::from(suppress)).arg(now()).arg(partitions);
                    script.arg(&lease.owner).arg(&token).arg(&marker);
                    Ok(link.run(&script).await?)
                })
                .await?;
            match word(&reply).as_str() {
                "fence" => drop(stream.load_checkpoint().await?),
                fence => {
                    fence.clone_into(&mut stream.lease.fencing_token);
                    stream.restart(run_id, 0);
                    return Ok(());
                }
            }
        }
        Err(BrokerError::Unavailable(
            "it keeps losing its data".to_owned(),
        ))
    }

    /// Resumes each stream where it stopped.
    pub(super) async fn resume(&mut self) -> Result<Unfinished, BrokerError> {
        for stream in &mut self.streams {
            // Batches in flight must have their outcome first. Errors are ignored: the reload below
            // shows the result.
            let _ = stream.confirm_all().await;
        }
        let mut found = Vec::new();
        let stored = self.stored().await?;
        let first = stored
            .first()
            .filter(|first| first.of(self.run_id).is_some());
        let run_id = self.run_id.to_string();
        // The process that started the run may have been cut off before it reached all streams.
        let begins = first.is_some_and(|first| first.begun.as_ref() != Some(&run_id));
        let is_spread = stored.len() > 1;
        for (index, stored) in stored.into_iter().enumerate() {
            let at = stored.of(self.run_id);
            self.suppress |= at.is_some() && stored.suppress;
            match at {
                Some(at) => self.streams[index].restart(self.run_id, at.position),
                None => {
                    // The checkpoint or the stream was lost, but the other may remain: skip chats
                    // that are still there.
                    self.suppress = true;
                    let is_unmarked = stored.is_gone || (is_spread && begins);
                    let marker = self.settings.marker && is_unmarked;
                    self.begin(index, true, marker).await?;
                }
            }
            found.push(at.unwrap_or_else(|| Checkpoint::start_of(self.run_id)));
        }
        if begins {
            self.note_begun().await?;
        }
        let there: u64 = found.iter().map(|at| at.chats).sum();
        let confirmed: u64 = self.streams.iter().map(|s| s.delivered.chats).sum();
        self.base = self.base.min(there);
        self.lost = (self.base + confirmed).saturating_sub(there);
        if self.suppress {
            self.read_back().await?;
        }
        Ok(unfinished(&found, SystemTime::now()))
    }

    pub(super) async fn read_back(&mut self) -> Result<(), BrokerError> {
        for stream in &mut self.streams {
            stream.read_back().await?;
        }
        Ok(())
    }

    pub(super) async fn finish_one(
        &mut self,
        index: usize,
        outcome: Outcome,
    ) -> Result<(), BrokerError> {
        let (status, chats) = match outcome {
            Outcome::Complete { chats } => ("complete", chats),
            Outcome::Rejected => ("rejected", 0),
            Outcome::Unfinished => ("partial", 0),
        };
        let marker = match (&self.encoder, outcome, self.settings.marker) {
            (Some(encoder), Outcome::Complete { .. }, true) => {
                encoder.marker(Marker::Completed, chats)
            }
            _ => Vec::new(),
        };
        let (position, digest) = self.reached;
        let facts = [
            ("position", position.to_string()),
            ("digest", digest.to_string()),
            ("partition", index.to_string()),
            ("partitions", self.streams.len().to_string()),
        ];
        let (run_id, replicas) = (self.run_id, self.settings.min_replicas);
        let stream = &mut self.streams[index];
        let reply = stream
            .with_retry(async |link, keys, lease| {
                let script = Script::new(include_str!("finish.lua"));
                let mut script = script.prepare_invoke();
                script.key(&keys.stream).key(&keys.checkpoint);
                script.key(keys.manifest(run_id));
                script
                    .arg(&lease.fencing_token)
                    .arg(run_id.to_string())
                    .arg(status);
                script.arg(position).arg(chats).arg(&lease.keep).arg(now());
                script.arg(marker.len()).arg(&marker);
                for (name, value) in &facts {
                    script.arg(name).arg(value);
                }
                let reply = link.run(&script).await?;
                if replicas > 0 {
                    link.wait(replicas).await?;
                }
                Ok(reply)
            })
            .await?;
        if word(&reply) == "OK" || outcome == Outcome::Unfinished {
            return Ok(());
        }
        // The flush before this verified the stream, so check for a takeover.
        stream.load_checkpoint().await?;
        let text = "it has lost entries at the very end; run again".to_owned();
        Err(BrokerError::Unavailable(text))
    }
}

/// Returns where to resume if streams have reached different positions: at the lowest one. The
/// other positions become expected digests.
pub(super) fn unfinished(found: &[Checkpoint], at: SystemTime) -> Unfinished {
    let mut sorted = found.to_vec();
    sorted.sort_by_key(|checkpoint| checkpoint.position);
    let chats = sorted.iter().map(|checkpoint| checkpoint.chats).sum();
    let mut from = sorted.remove(0);
    from.chats = chats;
    let mut expected_digests: Vec<_> = sorted.iter().map(|at| (at.position, at.digest)).collect();
    expected_digests.retain(|(position, _)| *position > from.position);
    expected_digests.dedup();
    Unfinished {
        from,
        expected_digests,
        at,
        list_changed: false,
    }
}

pub(super) fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}
