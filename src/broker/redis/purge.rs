//! Deletion of what is stored: entries of streams, and the keys beside them.
//!
//! Everything is read and deleted in pages, each of which takes the server a few milliseconds.
//! Large keys are unlinked. The worker holds one page at a time. What is left of a page whose reply
//! was lost is deleted by the next attempt, and is then missing in the counts.

mod beside;
mod entries;
mod lock;
mod remote;
mod scope;

use std::time::Duration;

use self::lock::Lock;
use self::remote::Remote;
use self::scope::{Beside, Place, Scope};
use super::connect::Endpoint;
use crate::broker::{BrokerError, Purge, PurgeOutcome, Purged};
use crate::retry::RetryPolicy;

/// Deletes what is stored on the server of a sink.
pub(in crate::broker) async fn purge(
    endpoint: &Endpoint,
    partitions: Option<u32>,
    purge: &Purge,
    retry: &RetryPolicy,
) -> PurgeOutcome {
    purge_at(endpoint, Place::Sink(partitions), purge, retry).await
}

/// Deletes what is stored on the server of a state.
pub(in crate::broker) async fn purge_state(
    endpoint: &Endpoint,
    purge: &Purge,
    retry: &RetryPolicy,
) -> PurgeOutcome {
    match purge.selection.age_of_records() {
        Some(_) => purge_at(endpoint, Place::State, purge, retry).await,
        // There are no messages.
        None => PurgeOutcome::default(),
    }
}

/// Checks that a state on this server can be purged as requested, without connecting.
///
/// # Errors
///
/// [`BrokerError::Misconfigured`].
pub(in crate::broker) fn check_purge(
    endpoint: &Endpoint,
    purge: &Purge,
) -> Result<(), BrokerError> {
    scope::check_request(endpoint, purge)
}

async fn purge_at(
    endpoint: &Endpoint,
    place: Place,
    purge: &Purge,
    retry: &RetryPolicy,
) -> PurgeOutcome {
    let mut outcome = PurgeOutcome::default();
    match scope::find(endpoint, place, purge, retry).await {
        Ok(scopes) => {
            for scope in scopes {
                let mut purged = Purged::default();
                let result = purge_scope(endpoint, purge, &scope, retry, &mut purged).await;
                outcome.add(purged, result);
            }
        }
        Err(error) => outcome.errors.push(error),
    }
    outcome
}

/// Purges one queue, for one label or all, under the locks of its labels.
async fn purge_scope(
    endpoint: &Endpoint,
    purge: &Purge,
    scope: &Scope,
    retry: &RetryPolicy,
    purged: &mut Purged,
) -> Result<(), BrokerError> {
    let remote = |key: &str| Remote::new(endpoint, key, retry);
    let Some(first) = scope.streams.first() else {
        return Ok(());
    };
    let locks = scope.locks.clone();
    let mut lock = Lock::take(remote(&first.stream), locks, purge.dry_run).await?;
    let mut result = Ok(());
    for beside in &scope.streams {
        let mut worker = Worker {
            purge,
            label: scope.label.as_deref(),
            beside,
            lock: &mut lock,
            remote: remote(&beside.stream),
        };
        result = worker.run(purged).await;
        if result.is_err() {
            break;
        }
    }
    // A lock that cannot be released expires.
    let released = lock.release().await;
    result.and(released)
}

/// The purge of one stream, and of what is beside it.
struct Worker<'a> {
    purge: &'a Purge,
    /// The only label whose entries are deleted; `None` for all entries.
    label: Option<&'a str>,
    beside: &'a Beside,
    lock: &'a mut Lock,
    remote: Remote,
}

impl Worker<'_> {
    async fn run(&mut self, purged: &mut Purged) -> Result<(), BrokerError> {
        let now_ms = self.remote.now_ms().await?;
        let beside = self.beside;
        if beside.is_removals {
            let messages = &mut purged.removed_messages;
            self.entries(&beside.stream, now_ms, messages).await?;
        } else if !beside.is_state {
            let messages = &mut purged.messages;
            self.entries(&beside.stream, now_ms, messages).await?;
            let messages = &mut purged.removed_messages;
            self.entries(&beside.removed, now_ms, messages).await?;
        }
        if let Some(age) = self.purge.selection.age_of_records() {
            self.records(now_ms, age, purged).await?;
        }
        Ok(())
    }

    /// Deletes what is beside the stream and older than this.
    async fn records(
        &mut self,
        now_ms: u64,
        age: Duration,
        purged: &mut Purged,
    ) -> Result<(), BrokerError> {
        let older = Older {
            now_ms,
            age_ms: millis(age),
        };
        for members in &self.beside.members {
            self.hash(members, "record", older, &mut purged.members)
                .await?;
        }
        if let Some(published) = &self.beside.published {
            self.hash(published, "time", older, &mut purged.publication_times)
                .await?;
        }
        for dedup in &self.beside.dedup_sets {
            purged.dedup_sets += self.dedup_set(dedup, older).await?;
        }
        self.manifests_and_events(older, purged).await?;
        // Last, because the label is found by its checkpoint if this is interrupted.
        for checkpoint in &self.beside.checkpoints {
            purged.checkpoints += self.checkpoint(checkpoint, older).await?;
        }
        Ok(())
    }
}

/// The test for the age of a record.
#[derive(Clone, Copy, Debug)]
struct Older {
    now_ms: u64,
    age_ms: u64,
}

impl Older {
    /// Whether everything is old, whatever its age.
    fn is_all(self) -> bool {
        self.age_ms == 0
    }

    /// The time before which something is old, in milliseconds since 1970.
    fn limit_ms(self) -> u64 {
        self.now_ms.saturating_sub(self.age_ms)
    }

    fn is_old(self, at_ms: Option<u64>) -> bool {
        self.is_all() || at_ms.is_some_and(|at_ms| at_ms < self.limit_ms())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
