//! Retries with the API or a broker: the pause after each failure, and when to give up.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;
use tracing::warn;

use crate::shutdown::{Cause, Shutdown};

/// The first pause: long enough for a connection to be set up elsewhere.
const SHORTEST: Duration = Duration::from_millis(500);
/// The longest pause: a gateway that restarts is back within it.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that a run waits for.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// An error after which another attempt may succeed.
pub trait Retryable: std::fmt::Display + Sized {
    /// Whether the same request may succeed a little later.
    fn is_transient(&self) -> bool;

    /// How long the other side asks to wait.
    fn retry_after(&self) -> Option<Duration>;

    /// The error for a signal or the deadline that came first.
    fn interrupted(cause: Cause) -> Self;

    /// This error, where the other side asks to wait longer than a run waits.
    fn waits_too_long(self, asked: Duration, longest: Duration) -> Self;
}

/// The remaining retries of one operation.
pub struct Retries {
    pauses: ExponentialBackoff,
}

impl Retries {
    /// Allows up to `retries` retries after the first attempt.
    pub fn new(retries: usize) -> Self {
        Self {
            pauses: ExponentialBuilder::default()
                .with_min_delay(SHORTEST)
                .with_max_delay(LONGEST)
                .with_max_times(retries)
                .with_jitter()
                .build(),
        }
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    ///
    /// `error` itself, if it is not transient or no retry is left; [`Retryable::interrupted`], when
    /// a signal or the deadline comes first.
    pub async fn pause<E: Retryable>(&mut self, error: E, shutdown: &Shutdown) -> Result<(), E> {
        if !error.is_transient() {
            return Err(error);
        }
        let Some(pause) = self.pauses.next() else {
            return Err(error);
        };
        let pause = match error.retry_after() {
            Some(asked) if asked > LONGEST_RETRY_AFTER => {
                return Err(error.waits_too_long(asked, LONGEST_RETRY_AFTER));
            }
            Some(asked) => asked.max(SHORTEST),
            None => pause.min(LONGEST),
        };
        let until = Instant::now() + pause;
        let deadline = shutdown.deadline();
        if deadline.is_some_and(|deadline| deadline <= until) {
            warn!("{error}; the deadline leaves no time for another try");
            return Err(E::interrupted(Cause::Deadline));
        }
        warn!(pause_ms = pause.as_millis(), "{error}; trying again");
        tokio::select! {
            cause = shutdown.stopped() => Err(E::interrupted(cause)),
            () = tokio::time::sleep_until(until) => Ok(()),
        }
    }
}
