//! Retry policy for the API and for brokers: the pause after each failure, and when to give up.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::time::Instant;
use tracing::warn;

use crate::shutdown::{Cause, Shutdown};

/// The first and shortest pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause. A gateway usually restarts within this time.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest `Retry-After` that a run waits for.
pub(crate) const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// An error after which another attempt may succeed.
pub trait Retryable: std::fmt::Display + Sized {
    /// Whether the same request may succeed a little later.
    fn is_transient(&self) -> bool;

    /// How long the other side asks to wait.
    fn retry_after(&self) -> Option<Duration>;

    /// Returns the error for a signal or the deadline.
    fn interrupted(cause: Cause) -> Self;

    /// Returns this error, with the note that the other side asks to wait longer than a run waits.
    fn waits_too_long(self, asked: Duration, longest: Duration) -> Self;
}

/// How often to retry, and until when.
#[derive(Clone)]
pub struct RetryPolicy {
    retries: usize,
    first_pause: Duration,
    shutdown: Shutdown,
}

impl RetryPolicy {
    /// Allows `retries` retries in a row, until a stop or the deadline.
    pub fn new(retries: usize, shutdown: Shutdown) -> Self {
        Self {
            retries,
            first_pause: SHORTEST_PAUSE,
            shutdown,
        }
    }

    /// Sets the first pause, which is doubled for each further one. Used by tests, to avoid
    /// waiting.
    pub fn with_first_pause(mut self, first_pause: Duration) -> Self {
        self.first_pause = first_pause;
        self
    }

    /// Returns the same policy with another number of retries in a row.
    pub fn with_retries(&self, retries: usize) -> Self {
        Self {
            retries,
            ..self.clone()
        }
    }

    /// The stop signal and the deadline.
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    fn pauses(&self) -> ExponentialBackoff {
        ExponentialBuilder::default()
            .with_min_delay(self.first_pause)
            .with_max_delay(LONGEST_PAUSE)
            .with_max_times(self.retries)
            .with_jitter()
            .build()
    }

    /// The retries of one operation.
    pub fn retries(&self) -> Retries {
        Retries {
            policy: self.clone(),
            pauses: None,
        }
    }
}

/// Retries of one operation, or of a sequence of operations since the last success.
pub struct Retries {
    policy: RetryPolicy,
    /// The pauses that are left since the last success; `None` before the first failure.
    pauses: Option<ExponentialBackoff>,
}

impl Retries {
    /// The policy that these retries follow.
    pub fn policy(&self) -> &RetryPolicy {
        &self.policy
    }

    /// Whether there was a failure since the last success.
    pub fn has_failed(&self) -> bool {
        self.pauses.is_some()
    }

    /// Notes a success: all retries are available again.
    pub fn reset(&mut self) {
        self.pauses = None;
    }

    /// Notes a failure after which another attempt may succeed, and returns the pause before that.
    /// For callers that do something else meanwhile. `None` if no retry is left. A longer time that
    /// the other side asks for is shortened to the longest that a run waits.
    pub fn next_pause(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        let pauses = self.pauses.get_or_insert_with(|| self.policy.pauses());
        let asked = retry_after.map(|asked| asked.min(LONGEST_RETRY_AFTER));
        match decide(true, asked, || pauses.next(), None) {
            Decision::Pause(pause) => Some(pause),
            Decision::GiveUp | Decision::WaitsTooLong(_) | Decision::PastDeadline => None,
        }
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    ///
    /// `error` itself, if it is not transient or no retry is left; [`Retryable::interrupted`], when
    /// a signal or the deadline comes first.
    pub async fn pause<E: Retryable>(&mut self, error: E) -> Result<(), E> {
        let pauses = self.pauses.get_or_insert_with(|| self.policy.pauses());
        let until_deadline = (self.policy.shutdown.deadline())
            .map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let next = || pauses.next();
        match decide(
            error.is_transient(),
            error.retry_after(),
            next,
            until_deadline,
        ) {
            Decision::GiveUp => Err(error),
            Decision::WaitsTooLong(asked) => Err(error.waits_too_long(asked, LONGEST_RETRY_AFTER)),
            Decision::PastDeadline => {
                warn!("{error}; the deadline leaves no time for another try");
                Err(E::interrupted(Cause::Deadline))
            }
            Decision::Pause(pause) => {
                warn!(pause_ms = pause.as_millis(), "{error}; trying again");
                tokio::select! {
                    cause = self.policy.shutdown.stopped() => Err(E::interrupted(cause)),
                    () = tokio::time::sleep(pause) => Ok(()),
                }
            }
        }
    }
}

/// What follows from a failure.
#[derive(Debug, PartialEq, Eq)]
enum Decision {
    /// Try again after this time.
    Pause(Duration),
    /// Report the failure.
    GiveUp,
    /// Report that the other side asks to wait for this time.
    WaitsTooLong(Duration),
    /// Report that the deadline comes before the next attempt.
    PastDeadline,
}

/// Decides what follows from a failure. `next_pause` takes the next of the pauses that are left.
fn decide(
    is_transient: bool,
    retry_after: Option<Duration>,
    next_pause: impl FnOnce() -> Option<Duration>,
    until_deadline: Option<Duration>,
) -> Decision {
    if !is_transient {
        return Decision::GiveUp;
    }
    let Some(pause) = next_pause() else {
        return Decision::GiveUp;
    };
    let pause = match retry_after {
        Some(asked) if asked > LONGEST_RETRY_AFTER => return Decision::WaitsTooLong(asked),
        Some(asked) => asked.max(SHORTEST_PAUSE),
        None => pause.min(LONGEST_PAUSE),
    };
    if until_deadline.is_some_and(|left| left <= pause) {
        return Decision::PastDeadline;
    }
    Decision::Pause(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_retried_while_it_may_pass_and_time_and_retries_are_left() {
        let seconds = Duration::from_secs;
        let cases = [
            // transient, Retry-After, next pause, until the deadline
            ((false, None, Some(1), None), Decision::GiveUp),
            ((true, None, None, None), Decision::GiveUp),
            ((true, None, Some(1), None), Decision::Pause(seconds(1))),
            ((true, None, Some(60), None), Decision::Pause(LONGEST_PAUSE)),
            ((true, Some(7), Some(1), None), Decision::Pause(seconds(7))),
            (
                (true, Some(0), Some(1), None),
                Decision::Pause(SHORTEST_PAUSE),
            ),
            ((true, Some(7), None, None), Decision::GiveUp),
            (
                (true, Some(3601), Some(1), None),
                Decision::WaitsTooLong(seconds(3601)),
            ),
            ((true, None, Some(2), Some(2)), Decision::PastDeadline),
            ((true, Some(9), Some(2), Some(5)), Decision::PastDeadline),
            ((true, None, Some(2), Some(3)), Decision::Pause(seconds(2))),
        ];
        for ((transient, after, next, left), expected) in cases {
            let decision = decide(
                transient,
                after.map(seconds),
                || next.map(seconds),
                left.map(seconds),
            );
            assert_eq!(
                decision, expected,
                "{transient} {after:?} {next:?} {left:?}"
            );
        }
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_end_after_the_retries() {
        let policy = RetryPolicy::new(10, Shutdown::manual(None));
        let all: Vec<Duration> = policy.pauses().collect();
        assert_eq!(all.len(), 10);
        assert!(all[0] >= SHORTEST_PAUSE && all[0] < 2 * SHORTEST_PAUSE);
        assert!(all.last().is_some_and(|last| *last >= LONGEST_PAUSE));
    }
}
