//! Whether the broker takes messages: it tells when it does not, and how long to wait follows from
//! that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::progress::Progress;
use crate::sink::retry_policy::Failure;

/// How long a broker that takes messages may be silent. One that flushes to a slow disk, or elects
/// a leader, can be so for seconds; one that is silent for longer is asked anew.
const SILENCE: Duration = Duration::from_secs(30);

/// Set while the broker blocks its publishers, as when it is short of memory or disk.
#[derive(Clone, Default)]
pub(super) struct Alarm(Arc<State>);

#[derive(Default)]
struct State {
    is_set: AtomicBool,
    /// How often the broker has said something of this.
    said: AtomicU64,
}

/// Looks at a connection's alarms as long as it lives.
pub(super) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Alarm {
    /// Tells, and notes, when the broker stops taking messages, and when it goes on.
    pub(super) fn watch(&self, connection: &Connection, progress: Progress) -> Watch {
        let mut events = connection.events_listener();
        let state = Arc::clone(&self.0);
        state.is_set.store(false, Ordering::SeqCst);
        Watch(tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(reason) => {
                        state.is_set.store(true, Ordering::SeqCst);
                        state.said.fetch_add(1, Ordering::SeqCst);
                        warn!(reason, "broker blocks publishing; waiting");
                        progress.say("broker blocks publishing");
                    }
                    Event::ConnectionUnblocked => {
                        state.is_set.store(false, Ordering::SeqCst);
                        state.said.fetch_add(1, Ordering::SeqCst);
                        info!("broker accepts messages again");
                        progress.say("");
                    }
                    _ => {}
                }
            }
        }))
    }

    /// Waits for what the broker says, but not for ever, unless it has said that it takes nothing.
    pub(super) async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        let said = || self.0.said.load(Ordering::SeqCst);
        loop {
            let before = said();
            match tokio::time::timeout(SILENCE, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) if self.0.is_set.load(Ordering::SeqCst) || said() != before => {}
                Err(_) => return Err(Failure::Transient("it is silent".to_owned())),
            }
        }
    }
}
