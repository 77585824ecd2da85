//! Turns of a run and of events at one list, and the chats that a run has in flight. Nobody but this
//! process has the file, so memory is enough.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::broker::Target;

/// The turns at all lists of a file.
#[derive(Debug, Default)]
pub(super) struct All(Mutex<HashMap<[String; 3], Arc<Turns>>>);

/// The turns at one list.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Fair: who comes first is served first.
    turn: Arc<tokio::sync::Mutex<()>>,
    in_flight: Mutex<HashSet<String>>,
}

impl All {
    /// Returns the turns at the list of a queue, label and account.
    pub(super) fn of(&self, target: &Target) -> Arc<Turns> {
        let key = [&target.queue, &target.label_id, &target.instance_id].map(Clone::clone);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(key).or_default())
    }
}

impl Turns {
    /// Waits for the turn.
    pub(super) async fn take(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Notes that a run is about to publish chats.
    pub(super) fn mark_in_flight(&self, chats: Vec<String>) {
        if !chats.is_empty() {
            self.in_flight().extend(chats);
        }
    }

    /// Notes that all chats in flight are recorded, or that their run has ended.
    pub(super) fn clear_in_flight(&self) {
        self.in_flight().clear();
    }

    /// Whether a run has one of the chats in flight.
    pub(super) fn has_in_flight(&self, chats: &[String]) -> bool {
        let in_flight = self.in_flight();
        chats.iter().any(|chat| in_flight.contains(chat))
    }

    fn in_flight(&self) -> MutexGuard<'_, HashSet<String>> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
