//! One run's hold on a queue and on the store beside it.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tracing::info;
use uuid::Uuid;

use super::decide::{Decided, Pending, Rules, decide};
use super::pass::{Beginning, begin_pass, begin_set};
use crate::batch::Batch;
use crate::broker::store::{Changes, Decisions, StateStore, Stored};
use crate::broker::{
    BrokerError, Delivered, EventSink, Outcome, ResumePoint, SnapshotSession, Start, Written,
};
use crate::state::record::ListPass;
use crate::state::{Removal, Selection};

/// Chats that are handed to the queue before the session waits until they are durable, and records
/// them. After a crash, as many may come again if the list has changed since, with the same ids. A
/// million new chats in a file took 9 s with these, 23 s with a quarter of them.
const MAX_PENDING: usize = 16 * 1024;
/// Entries whose decisions are noted before they are recorded with the chats. The note is written
/// with each batch.
const MAX_NOTED: u64 = 32 * 1024;

/// A run's hold on a queue and on the store beside it.
pub(super) struct TrackedSession {
    inner: Box<dyn SnapshotSession>,
    pub(super) store: Box<dyn StateStore>,
    pub(super) removals: Option<Box<dyn EventSink>>,
    pub(super) selection: Selection,
    pub(super) stored: Stored,
    /// `None` before the first list.
    pub(super) list: Option<ListPass>,
    /// Where the next batch must begin. Its chats are all those of the list so far.
    resume_point: ResumePoint,
    pending: Pending,
    /// Whether the queue has failed or its reader has gone, so that a later flush proves nothing.
    has_failed: bool,
    /// The part of a batch that is published; kept for its memory.
    part: Batch,
    pub(super) counts: Counts,
}

/// Chats that are not published.
#[derive(Default)]
pub(super) struct Counts {
    /// Chats of the current list that were members before.
    known: u64,
    /// Members that have left.
    pub(super) removed: u64,
}

impl TrackedSession {
    pub(super) fn new(
        inner: Box<dyn SnapshotSession>,
        store: Box<dyn StateStore>,
        removals: Option<Box<dyn EventSink>>,
        selection: Selection,
        stored: Stored,
    ) -> Self {
        Self {
            inner,
            store,
            removals,
            selection,
            stored,
            list: None,
            resume_point: ResumePoint::start_of(Uuid::nil()),
            pending: Pending::new(),
            has_failed: false,
            part: Batch::new(),
            counts: Counts::default(),
        }
    }

    /// Decides about the chats of a batch.
    async fn decide(&mut self, batch: &Batch, is_handed: bool) -> Result<Decided, BrokerError> {
        let known = self.store.read(ids(batch)).await?;
        let (Some(run), Some(list)) = (&self.stored.note.run, &self.list) else {
            return Err(BrokerError::Bug("no list was begun".to_owned()));
        };
        let rules = Rules::new(&self.selection, list, run, seconds(SystemTime::now()));
        let positions = batch.iter().map(|chat| chat.position);
        let chats = positions.zip(known);
        Ok(decide(&rules, chats, &self.pending, is_handed))
    }

    /// Notes which chats of a batch are about to be handed to the queue.
    fn note_decisions(&mut self, batch: &Batch, decided: &Decided) {
        let Some(run) = &mut self.stored.note.run else {
            return;
        };
        if decided.publish.is_empty() && run.decisions.entries() == 0 {
            return;
        }
        let mut published = decided
            .publish
            .iter()
            .map(|(_, publication)| publication.position)
            .peekable();
        let entries = batch.first()..batch.end();
        let bits = entries.map(|position| published.next_if_eq(&position).is_some());
        run.decisions.add(batch.first(), bits);
    }

    /// Hands the chats to publish to the queue.
    async fn publish(&mut self, batch: &Batch, decided: &Decided) -> Result<Written, BrokerError> {
        let written = if decided.publish.len() as u64 == u64::from(batch.chats()) {
            self.inner.write(batch).await
        } else {
            select(&mut self.part, batch, decided);
            self.inner.write(&self.part).await
        };
        self.follow(written)
    }

    /// Takes the queue's answer, after which less may be on it than before.
    fn follow(&mut self, answer: Result<Written, BrokerError>) -> Result<Written, BrokerError> {
        match answer {
            Ok(Written::Done) => {}
            Ok(Written::Rewound) => self.go_back(),
            Ok(Written::ReaderGone) | Err(_) => {
                self.has_failed = true;
                // When the run is resumed, the queue shows how much of it arrived.
                self.pending.clear();
            }
        }
        answer
    }

    /// Whether the list is verified as far as the queue may have chats of the run. Until then, a
    /// chat at a position where one was handed over may be another one.
    fn is_verified(&self) -> bool {
        self.resume_point.expected_digests.is_empty()
    }

    /// Whether so much is not recorded yet that the session must wait for the queue.
    fn is_due(&self) -> bool {
        let noted = self
            .stored
            .note
            .run
            .as_ref()
            .map(|run| run.decisions.entries());
        let is_much = self.pending.len() >= MAX_PENDING || noted.unwrap_or(0) >= MAX_NOTED;
        is_much && self.is_verified()
    }

    /// Makes what was handed to the queue durable, and records it.
    async fn flush_and_record(&mut self) -> Result<Written, BrokerError> {
        let flushed = self.inner.flush().await;
        let written = self.follow(flushed)?;
        if written == Written::Done {
            self.record().await?;
        }
        Ok(written)
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
        let mut changes = Changes {
            published_at: seconds(SystemTime::now()),
            ..Changes::default()
        };
        let has_times = self.selection.suppress_for.is_some();
        // In the order of the list, which is the order in which the store has them.
        let mut pending: Vec<_> = self.pending.drain().collect();
        pending.sort_unstable_by_key(|(_, publication)| publication.position);
        for (chat_id, publication) in pending {
            self.stored.note.members += u64::from(publication.joins);
            if let Some(record) = publication.record {
                changes.records.push((chat_id.clone(), record));
            }
            if has_times {
                changes.published.push(chat_id);
            }
        }
        self.save(changes).await
    }

    /// Writes changes with the note.
    pub(super) async fn save(&mut self, changes: Changes) -> Result<(), BrokerError> {
        let note = self.stored.note.clone();
        self.store.write(Changes { note, ..changes }).await
    }

    /// Follows the queue, which has lost chats and has gone back. What is recorded as published
    /// behind its position is published again: see [`begin_pass`].
    fn go_back(&mut self) {
        self.resume_point = self.inner.resume_point().clone();
        let durable = self.resume_point.at.position;
        self.pending
            .retain(|_, publication| publication.position < durable);
    }

    /// Begins a pass from the start of the list, which must have the same digest at the position of
    /// the queue.
    async fn begin_pass(&mut self, as_of: SystemTime) -> Result<(), BrokerError> {
        let ResumePoint {
            at,
            expected_digests,
        } = self.inner.resume_point();
        let mut start = ResumePoint::start_of(at.run_id);
        if at.position > 0 {
            start.expected_digests.push((at.position, at.digest));
        }
        start.expected_digests.extend(expected_digests);
        let beginning = Beginning {
            run_id: at.run_id,
            mode: self.selection.mode(),
            durable: at.position,
            as_of: seconds(as_of),
            now: seconds(SystemTime::now()),
        };
        let mut changes = Changes::default();
        if let Some(membership) = &self.selection.membership {
            let token = || Uuid::now_v7().to_string();
            changes.new_set = begin_set(
                &mut self.stored.note,
                self.stored.set.as_deref(),
                membership.publish,
                token,
            );
        }
        if let Some(token) = &changes.new_set {
            self.stored.set = Some(token.clone());
        }
        self.list = Some(begin_pass(&mut self.stored.note, &beginning));
        // What is not recorded is in the note.
        self.pending.clear();
        self.resume_point = start;
        self.counts.known = 0;
        self.save(changes).await
    }
}

#[async_trait]
impl SnapshotSession for TrackedSession {
    async fn start(&mut self, start: Start) -> Result<(), BrokerError> {
        if matches!(start, Start::New(_)) {
            self.stored.note.run = None;
        }
        self.inner.start(start).await?;
        self.resume_point = self.inner.resume_point().clone();
        Ok(())
    }

    async fn begin_list(&mut self, as_of: SystemTime) -> Result<Written, BrokerError> {
        if self.list.is_some() {
            let flushed = self.flush_and_record().await?;
            if flushed != Written::Done {
                return Ok(flushed);
            }
        }
        self.begin_pass(as_of).await?;
        Ok(Written::Done)
    }

    fn resume_point(&self) -> &ResumePoint {
        &self.resume_point
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, BrokerError> {
        let is_handed = batch.end() <= self.inner.resume_point().at.position;
        let mut decided = self.decide(batch, is_handed).await?;
        if !is_handed {
            self.note_decisions(batch, &decided);
        }
        self.stored.note.members += decided.joined;
        let changes = Changes {
            records: std::mem::take(&mut decided.records),
            published: std::mem::take(&mut decided.times),
            published_at: seconds(SystemTime::now()),
            ..Changes::default()
        };
        self.save(changes).await?;
        let known = decided.known;
        let written = match is_handed {
            true => Written::Done,
            false => self.publish(batch, &decided).await?,
        };
        if written != Written::Done {
            return Ok(written);
        }
        self.pending.extend(decided.publish);
        self.resume_point.advance(batch);
        self.counts.known += known;
        match self.is_due() {
            true => self.flush_and_record().await,
            false => Ok(Written::Done),
        }
    }

    async fn flush(&mut self) -> Result<Written, BrokerError> {
        self.flush_and_record().await
    }

    async fn restart(&mut self) -> Result<(), BrokerError> {
        // What this run has published stays on the queue, and is not published again.
        let _ = self.flush_and_record().await?;
        let durable = self.inner.resume_point().at.position;
        self.pending.clear();
        let run = &mut self.stored.note.run;
        if let Some(run) = run.as_mut().filter(|run| run.reached <= durable) {
            run.reached = 0;
        }
        self.save(Changes::default()).await?;
        self.inner.restart().await?;
        // Only now: until the queue has restarted, a killed run may be resumed where it was.
        if let Some(run) = &mut self.stored.note.run {
            run.decisions = Decisions::default();
        }
        self.resume_point = self.inner.resume_point().clone();
        Ok(())
    }

    async fn remove_absent(&mut self) -> Result<Removal, BrokerError> {
        self.remove_missing().await
    }

    fn delivered(&self) -> Delivered {
        let inner = self.inner.delivered();
        // The chats of the list that are neither on the queue nor known.
        let on_queue = self.inner.resume_point().at.chats;
        let others = self.resume_point.at.chats.saturating_sub(on_queue);
        Delivered {
            suppressed: inner.suppressed + others.saturating_sub(self.counts.known),
            known: self.counts.known,
            removed: self.counts.removed,
            ..inner
        }
    }

    async fn finish(self: Box<Self>, outcome: Outcome) -> Result<(), BrokerError> {
        let Self {
            inner, mut store, ..
        } = *self;
        // The note keeps the run: it is resumed if the queue does not know that it has ended.
        let finished = inner.finish(outcome).await;
        let is_complete = matches!(outcome, Outcome::Complete { .. });
        if finished.is_ok() && is_complete && store.sweep().await.is_err() {
            info!("expired state not deleted; a later run deletes it");
        }
        store.close().await;
        finished
    }
}

fn ids(batch: &Batch) -> Vec<String> {
    let id = |id: &[u8]| String::from_utf8_lossy(id).into_owned();
    batch.iter().map(|chat| id(chat.id)).collect()
}

/// Copies the part of a batch that is published.
fn select(part: &mut Batch, batch: &Batch, decided: &Decided) {
    let publications = decided.publish.iter();
    let mut positions = publications.map(|(_, it)| it.position).peekable();
    part.copy_some_from(batch, |chat| positions.next_if_eq(&chat.position).is_some());
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
