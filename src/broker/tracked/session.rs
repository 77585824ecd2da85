//! One run's hold on a queue and on the store beside it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tracing::info;
use uuid::Uuid;

use super::decide::{Decided, Pending, Rules, decide};
use crate::batch::Batch;
use crate::broker::store::{Changes, Decisions, Saved, StateStore, Stored};
use crate::broker::{
    BrokerError, Delivered, EventSink, Outcome, ResumePoint, SnapshotSession, Start, Written,
};
use crate::state::record::ListPass;
use crate::state::{Removal, Selection};

/// A run's hold on a queue and on the store beside it.
pub(super) struct TrackedSession {
    pub(super) inner: Box<dyn SnapshotSession>,
    pub(super) store: Box<dyn StateStore>,
    pub(super) removals: Option<Box<dyn EventSink>>,
    pub(super) selection: Selection,
    pub(super) stored: Stored,
    /// `None` before the first list.
    pub(super) list: Option<ListPass>,
    /// Where the next batch must begin. Its chats are all those of the list so far.
    pub(super) resume_point: ResumePoint,
    pub(super) pending: Pending,
    /// When the oldest of them was handed over.
    pub(super) window: Option<Instant>,
    /// Whether the queue has failed or its reader has gone, so that a later flush proves nothing.
    pub(super) has_failed: bool,
    /// The part of a batch that is published; kept for its memory.
    part: Batch,
    pub(super) counts: Counts,
}

/// Chats that are not published.
#[derive(Default)]
pub(super) struct Counts {
    /// Chats of the current list that were members before.
    pub(super) known: u64,
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
            window: None,
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

    /// Decides about the chats of a batch, and records all but those that are handed to the queue
    /// next, in one turn.
    async fn decide_and_save(&mut self, batch: &Batch) -> Result<(Decided, bool), BrokerError> {
        let is_handed = batch.end() <= self.inner.resume_point().at.position;
        loop {
            let mut decided = self.decide(batch, is_handed).await?;
            if !is_handed {
                self.note_decisions(batch, &decided);
            }
            let in_flight = decided.publish.iter().map(|(chat_id, _)| chat_id.clone());
            let changes = Changes {
                records: std::mem::take(&mut decided.records),
                published: std::mem::take(&mut decided.times),
                published_at: seconds(SystemTime::now()),
                joined: signed(decided.joined),
                in_flight: in_flight.collect(),
                ..Changes::default()
            };
            if self.save(changes).await? == Saved::Done {
                return Ok((decided, is_handed));
            }
        }
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
    pub(super) fn follow(
        &mut self,
        answer: Result<Written, BrokerError>,
    ) -> Result<Written, BrokerError> {
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

    /// Writes changes with the note.
    pub(super) async fn save(&mut self, changes: Changes) -> Result<Saved, BrokerError> {
        let note = self.stored.note.clone();
        self.store.write(Changes { note, ..changes }).await
    }

    /// Writes the note. Nothing else can be outdated.
    pub(super) async fn save_note(&mut self) -> Result<(), BrokerError> {
        let _ = self.save(Changes::default()).await?;
        Ok(())
    }

    /// Follows the queue, which has lost chats and has gone back. What is recorded as published
    /// behind its position is published again: see
    /// [`begin_pass`](super::pass::begin_pass).
    fn go_back(&mut self) {
        self.resume_point = self.inner.resume_point().clone();
        let durable = self.resume_point.at.position;
        self.pending
            .retain(|_, publication| publication.position < durable);
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
        let (decided, is_handed) = self.decide_and_save(batch).await?;
        let known = decided.known;
        let written = match is_handed {
            true => Written::Done,
            false => self.publish(batch, &decided).await?,
        };
        if written != Written::Done {
            return Ok(written);
        }
        if !decided.publish.is_empty() {
            self.window.get_or_insert_with(Instant::now);
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

    async fn idle(&mut self) -> Result<Written, BrokerError> {
        match self.pending.is_empty() {
            true => Ok(Written::Done),
            false => self.flush_and_record().await,
        }
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
        self.save_note().await?;
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

pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A number of chats never gets that large.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
