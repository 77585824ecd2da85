//! Alarms: whether the broker blocks its publishers, and how long to wait for it accordingly.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::broker::PauseObserver;
use crate::broker::error::Failure;

/// How long a broker without an alarm may be silent before the operation counts as a transient
/// error. While it flushes to a slow disk or elects a leader, it can be silent for seconds.
const SILENCE: Duration = Duration::from_secs(30);

/// Set while the broker blocks its publishers, for example because it is short of memory or disk.
#[derive(Clone, Default)]
pub(super) struct Alarm(Arc<State>);

#[derive(Default)]
struct State {
    is_set: AtomicBool,
    /// Number of block and unblock notifications.
    said: AtomicU64,
}

/// Task that follows a connection's alarms until it is dropped.
pub(super) struct Watch(JoinHandle<()>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Alarm {
    /// Starts to record, log and show when the broker blocks and unblocks this connection.
    pub(super) fn watch(&self, connection: &Connection, pauses: Arc<dyn PauseObserver>) -> Watch {
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
                        pauses.paused("broker blocks publishing");
                    }
                    Event::ConnectionUnblocked => {
                        state.is_set.store(false, Ordering::SeqCst);
                        state.said.fetch_add(1, Ordering::SeqCst);
                        info!("broker accepts messages again");
                        pauses.resumed();
                    }
                    _ => {}
                }
            }
        }))
    }

    /// Runs an operation with a time limit of [`SILENCE`], which starts again while the alarm is
    /// set or has changed.
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
