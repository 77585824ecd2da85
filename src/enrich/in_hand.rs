//! The deliveries in hand, and the chats of them that are still to be looked up.

use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use crate::broker::Delivery;
use crate::message::QueuedChat;
use crate::retry::Retries;

/// Identifies a delivery in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryKey(u64);

/// A delivery, with the number of its parts that have not been published yet.
struct Held {
    delivery: Delivery,
    parts: usize,
}

/// Deliveries that are not acknowledged yet.
#[derive(Default)]
pub struct InHand {
    held: HashMap<DeliveryKey, Held>,
    taken: u64,
    /// Whether some were let go since [`InHand::has_let_go`] was last asked.
    let_go: bool,
}

impl InHand {
    /// Takes a delivery with this many parts, at least one.
    pub fn take(&mut self, delivery: Delivery, parts: usize) -> DeliveryKey {
        self.taken += 1;
        let key = DeliveryKey(self.taken);
        self.held.insert(key, Held { delivery, parts });
        key
    }

    /// Notes that a part is published. Returns the delivery when this was the last one.
    pub fn finish_part(&mut self, key: DeliveryKey) -> Option<Delivery> {
        let held = self.held.get_mut(&key)?;
        held.parts = held.parts.saturating_sub(1);
        if held.parts > 0 {
            return None;
        }
        self.held.remove(&key).map(|held| held.delivery)
    }

    /// Whether a delivery is in hand.
    pub fn contains(&self, key: DeliveryKey) -> bool {
        self.held.contains_key(&key)
    }

    /// Lets go of deliveries that can no longer be acknowledged.
    pub fn retain(&mut self, keeps: impl Fn(&Delivery) -> bool) {
        let before = self.held.len();
        self.held.retain(|_, held| keeps(&held.delivery));
        self.let_go |= self.held.len() < before;
    }

    /// Whether deliveries were let go since this was last asked.
    pub fn has_let_go(&mut self) -> bool {
        std::mem::take(&mut self.let_go)
    }

    /// Returns all deliveries in hand.
    pub fn deliveries(&self) -> Vec<&Delivery> {
        self.held.values().map(|held| &held.delivery).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Returns the number of deliveries.
    pub fn len(&self) -> usize {
        self.held.len()
    }
}

/// A chat that is to be looked up.
pub struct Job {
    /// The delivery that it belongs to.
    pub key: DeliveryKey,
    /// The chat.
    pub chat: QueuedChat,
    /// How often the API has answered with a failure.
    pub attempts: u32,
    /// The pauses that are left; `None` before the first failure.
    pub retries: Option<Retries>,
    /// The pauses of its own while the API asks for fewer requests; `None` if it never did.
    pub pauses: Option<Retries>,
    /// How many look-ups had been answered when the API last asked for a pause or was not ready for
    /// this one; `None` if it never was so.
    pub refused_after: Option<u64>,
}

/// Jobs that no look-up is under way for.
#[derive(Default)]
pub struct Backlog {
    ready: VecDeque<Job>,
    /// Those that failed, by when they are tried again.
    waiting: BTreeMap<(Instant, u64), Job>,
    waited: u64,
}

impl Backlog {
    /// Adds a job behind all others.
    pub fn push(&mut self, job: Job) {
        self.ready.push_back(job);
    }

    /// Adds a job before all others.
    pub fn push_front(&mut self, job: Job) {
        self.ready.push_front(job);
    }

    /// Adds a job for a later time.
    pub fn push_for(&mut self, at: Instant, job: Job) {
        self.waited += 1;
        self.waiting.insert((at, self.waited), job);
    }

    /// Removes the next job that is due.
    pub fn next(&mut self, now: Instant) -> Option<Job> {
        match self.waiting.first_entry() {
            Some(entry) if entry.key().0 <= now => Some(entry.remove()),
            _ => self.ready.pop_front(),
        }
    }

    /// Returns when the next job is due, `now` if one is ready.
    pub fn due_at(&self, now: Instant) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(now);
        }
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    /// Returns the number of jobs that are ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Returns the number of jobs for a later time.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Drops the jobs of deliveries that are not in hand any more.
    pub fn drop_without(&mut self, in_hand: &InHand) {
        self.ready.retain(|job| in_hand.contains(job.key));
        self.waiting.retain(|_, job| in_hand.contains(job.key));
    }
}
