//! Chats that are handed to the queue and not recorded yet, and the passes over a list.

use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::decide::{Publication, Rules, publish};
use super::pass::{Beginning, begin_pass, begin_set};
use super::session::{TrackedSession, seconds};
use crate::broker::store::{Changes, Decisions, Saved, Stored};
use crate::broker::{BrokerError, ResumePoint, Written};

/// Chats that are handed to the queue before the session waits until they are durable, and records
/// them. After a crash, as many may come again if the list has changed since, with the same ids. A
/// million new chats in a file took 9 s with these, 23 s with a quarter of them.
const MAX_PENDING: usize = 16 * 1024;
/// Entries whose decisions are noted before they are recorded with the chats. The note is written
/// with each batch.
const MAX_NOTED: u64 = 32 * 1024;

/// How long chats are in flight, if the list comes slowly. Events about them wait.
const MAX_AGE: Duration = Duration::from_millis(500);

impl TrackedSession {
    /// Whether so much is not recorded yet that the session must wait for the queue.
    pub(super) fn is_due(&self) -> bool {
        let noted = self
            .stored
            .note
            .run
            .as_ref()
            .map(|run| run.decisions.entries());
        let is_old = self.window.is_some_and(|since| since.elapsed() >= MAX_AGE);
        let is_much =
            self.pending.len() >= MAX_PENDING || noted.unwrap_or(0) >= MAX_NOTED || is_old;
        is_much && self.is_verified()
    }

    /// Makes what was handed to the queue durable, and records it.
    pub(super) async fn flush_and_record(&mut self) -> Result<Written, BrokerError> {
        let flushed = self.inner.flush().await;
        let written = self.follow(flushed)?;
        if written == Written::Done {
            self.record().await?;
        }
        Ok(written)
    }

    /// Whether the list is verified as far as the queue may have chats of the run. Until then, a
    /// chat at a position where one was handed over may be another one.
    fn is_verified(&self) -> bool {
        self.resume_point.expected_digests.is_empty()
    }

    /// Records chats that are durable on the queue.
    async fn record(&mut self) -> Result<(), BrokerError> {
        if self.has_failed || !self.is_verified() {
            return Ok(());
        }
        let durable = self.inner.resume_point().at.position;
        let Some(run) = &mut self.stored.note.run else {
            return Ok(());
        };
        let is_unchanged = self.pending.is_empty() && run.reached >= durable;
        if is_unchanged && run.decisions == Decisions::default() {
            return Ok(());
        }
        // If the queue has gone back behind it, the next pass has to know.
        run.reached = run.reached.max(durable);
        run.decisions = Decisions::default();
        // In the order of the list, which is the order in which the store has them.
        let mut landed: Vec<_> = self.pending.drain().collect();
        landed.sort_unstable_by_key(|(_, publication)| publication.position);
        self.window = None;
        loop {
            let changes = self.landing(&landed);
            if self.save(changes).await? == Saved::Done {
                return Ok(());
            }
            landed = self.decide_again(landed).await?;
        }
    }

    /// The changes for chats that are durable on the queue.
    fn landing(&self, landed: &[(String, Publication)]) -> Changes {
        let mut changes = Changes {
            published_at: seconds(SystemTime::now()),
            clears_in_flight: true,
            ..Changes::default()
        };
        let has_times = self.selection.suppress_for.is_some();
        for (chat_id, publication) in landed {
            changes.joined += i64::from(publication.joins);
            if let Some(record) = publication.record {
                changes.records.push((chat_id.clone(), record));
            }
            if has_times {
                changes.published.push(chat_id.clone());
            }
        }
        changes
    }

    /// Decides again what is recorded about chats, by what is known of them now.
    async fn decide_again(
        &mut self,
        landed: Vec<(String, Publication)>,
    ) -> Result<Vec<(String, Publication)>, BrokerError> {
        let ids = landed.iter().map(|(chat_id, _)| chat_id.clone()).collect();
        let known = self.store.read(ids).await?;
        let (Some(run), Some(list)) = (&self.stored.note.run, &self.list) else {
            return Ok(landed);
        };
        let rules = Rules::new(&self.selection, list, run, seconds(SystemTime::now()));
        let again = known.into_iter().zip(landed).map(|(known, (chat_id, it))| {
            let publication = publish(&rules, &known, it.position);
            (chat_id, publication)
        });
        Ok(again.collect())
    }

    /// Begins a pass from the start of the list, which must have the same digest at the position of
    /// the queue.
    pub(super) async fn begin_pass(&mut self, as_of: SystemTime) -> Result<(), BrokerError> {
        let ResumePoint {
            at,
            expected_digests,
        } = self.inner.resume_point();
        let mut start = ResumePoint::start_of(at.run_id);
        if at.position > 0 {
            start.expected_digests.push((at.position, at.digest));
        }
        start.expected_digests.extend(expected_digests);
        let mut beginning = Beginning {
            run_id: at.run_id,
            mode: self.selection.mode(),
            durable: at.position,
            members: 0,
            as_of: seconds(as_of),
            now: seconds(SystemTime::now()),
        };
        loop {
            let found = self.store.take_turn().await?;
            let before = self.stored.note.clone();
            let mut changes = Changes::default();
            beginning.members = found.members;
            if self.selection.membership.is_some() {
                changes.new_set = self.begin_set(&found)?;
            }
            if changes.new_set.is_some() {
                beginning.members = 0;
            }
            self.list = Some(begin_pass(&mut self.stored.note, &beginning));
            let new_set = changes.new_set.clone();
            if self.save(changes).await? == Saved::Done {
                self.stored.set = new_set.or(found.set);
                break;
            }
            self.stored.note = before;
        }
        // What is not recorded is in the note.
        self.pending.clear();
        self.window = None;
        self.resume_point = start;
        self.counts.known = 0;
        Ok(())
    }

    /// Enters in the note which set the pass works on. Returns the token of a new one.
    fn begin_set(&mut self, found: &Stored) -> Result<Option<String>, BrokerError> {
        if self.stored.set.is_some() && self.stored.set != found.set {
            let problem = "they have expired or were deleted";
            return Err(BrokerError::MembersLost(problem.to_owned()));
        }
        let Some(membership) = &self.selection.membership else {
            return Ok(None);
        };
        let token = || Uuid::now_v7().to_string();
        let set = found.set.as_deref();
        let note = &mut self.stored.note;
        Ok(begin_set(note, set, membership.publish, token))
    }
}
