//! Going on after a broker's failure: what may pass, and how long it is waited for.

use std::cell::RefCell;
use std::time::Duration;

use super::SinkError;
use crate::retry::{Retries, Retryable};
use crate::shutdown::{Cause, Shutdown};

/// A broker's failure, seen by whoever has to decide how to go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Trying again may help, and the outcome of what was sent is not known.
    Transient(String),
    /// It will not help.
    Final(SinkError),
}

impl From<SinkError> for Failure {
    fn from(error: SinkError) -> Self {
        Self::Final(error)
    }
}

/// What a failure is called where nothing is tried again.
impl From<Failure> for SinkError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Final(error) => error,
            Failure::Transient(text) => Self::Unavailable(text),
        }
    }
}

/// How to go on after a failure.
pub struct RetryPolicy {
    retries: usize,
    pub(super) shutdown: Shutdown,
    /// Why nothing is tried for long any more.
    failed: RefCell<Option<String>>,
}

impl RetryPolicy {
    /// Tries so often again in a row, until the stop.
    pub fn new(retries: usize, shutdown: Shutdown) -> Self {
        Self {
            retries,
            shutdown,
            failed: RefCell::default(),
        }
    }

    /// Nothing, or the failure that it has ended with.
    pub(super) fn ended(&self) -> Result<(), SinkError> {
        match &*self.failed.borrow() {
            Some(text) => Err(SinkError::Unavailable(text.clone())),
            None => Ok(()),
        }
    }

    /// Waits until the next try is due. `pauses` are those since something last went well.
    pub(super) async fn pause(
        &self,
        pauses: &mut Option<Retries>,
        failure: Failure,
    ) -> Result<(), SinkError> {
        let text = match failure {
            Failure::Final(error @ SinkError::Rewound(_)) => return Err(error),
            Failure::Final(error) => {
                self.failed.replace(Some(error.to_string()));
                return Err(error);
            }
            Failure::Transient(text) => text,
        };
        if self.ended().is_err() {
            return Err(SinkError::Unavailable(text));
        }
        let pauses = pauses.get_or_insert_with(|| Retries::new(self.retries));
        let error = SinkError::Unavailable(text.clone());
        let paused = pauses.pause(error, &self.shutdown).await;
        if paused.is_err() {
            self.failed.replace(Some(text));
        }
        paused
    }
}

impl Retryable for SinkError {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }

    /// No broker says how long to wait.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    fn interrupted(cause: Cause) -> Self {
        Self::Interrupted(cause)
    }

    fn waits_too_long(self, _asked: Duration, _longest: Duration) -> Self {
        self
    }
}
