//! Whether the broker takes messages: it tells when it does not, and how long to wait follows from
//! that.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::{Connection, Event};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::report::Progress;
use crate::sink::patience::Failure;

/// How long a broker that takes messages may be silent. One that flushes to a slow disk, or elects
/// a leader, can be so for seconds; one that is silent for longer is asked anew.
const SILENCE: Duration = Duration::from_secs(30);

/// Set while the broker blocks its publishers, as when it is short of memory or disk.
#[derive(Clone, Default)]
pub(super) struct Alarm(Arc<AtomicBool>);

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
        let is_set = Arc::clone(&self.0);
        is_set.store(false, Ordering::SeqCst);
        Watch(tokio::spawn(async move {
            while let Some(event) = events.next().await {
                match event {
                    Event::ConnectionBlocked(reason) => {
                        is_set.store(true, Ordering::SeqCst);
                        warn!(reason, "the broker takes no messages for now: waiting");
                        progress.say("the broker takes no messages for now");
                    }
                    Event::ConnectionUnblocked => {
                        is_set.store(false, Ordering::SeqCst);
                        info!("the broker takes messages again");
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
        loop {
            match tokio::time::timeout(SILENCE, work.as_mut()).await {
                Ok(done) => return done,
                Err(_) if self.0.load(Ordering::SeqCst) => {}
                Err(_) => return Err(Failure::Passing("it is silent".to_owned())),
            }
        }
    }
}
