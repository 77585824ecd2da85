//! Retry policy after a broker failure: which errors are transient, and how long to retry.

use std::cell::RefCell;
use std::time::Duration;

use super::BrokerError;
use crate::retry::{Retries, Retryable};
use crate::shutdown::{Cause, Shutdown};

/// A broker failure, classified for the decision whether to retry.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A transient error: a retry may help. The outcome of what was in flight is unknown.
    Transient(String),
    /// A retry will not help.
    Final(BrokerError),
}

impl From<BrokerError> for Failure {
    fn from(error: BrokerError) -> Self {
        Self::Final(error)
    }
}

/// Converts a failure to the error that is reported without a retry.
impl From<Failure> for BrokerError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Final(error) => error,
            Failure::Transient(text) => Self::Unavailable(text),
        }
    }
}

/// Decides whether and when to retry after a failure.
pub struct RetryPolicy {
    retries: usize,
    pub(super) shutdown: Shutdown,
    /// The final failure, after which transient errors are no longer retried.
    failed: RefCell<Option<String>>,
}

impl RetryPolicy {
    /// Allows this many consecutive retries, until a stop is requested.
    pub fn new(retries: usize, shutdown: Shutdown) -> Self {
        Self {
            retries,
            shutdown,
            failed: RefCell::default(),
        }
    }

    /// Returns the final failure as an error, if there was one.
    pub(super) fn ended(&self) -> Result<(), BrokerError> {
        match &*self.failed.borrow() {
            Some(text) => Err(BrokerError::Unavailable(text.clone())),
            None => Ok(()),
        }
    }

    /// Waits until the next attempt is due. `pauses` holds the pauses since the last success.
    ///
    /// # Errors
    ///
    /// A final failure at once; a transient one if the retries are used up, a final failure came
    /// before, or a stop is requested.
    pub(super) async fn pause(
        &self,
        pauses: &mut Option<Retries>,
        failure: Failure,
    ) -> Result<(), BrokerError> {
        let text = match failure {
            Failure::Final(error @ BrokerError::Rewound(_)) => return Err(error),
            Failure::Final(error) => {
                self.failed.replace(Some(error.to_string()));
                return Err(error);
            }
            Failure::Transient(text) => text,
        };
        if self.ended().is_err() {
            return Err(BrokerError::Unavailable(text));
        }
        let pauses = pauses.get_or_insert_with(|| Retries::new(self.retries));
        let error = BrokerError::Unavailable(text.clone());
        let paused = pauses.pause(error, &self.shutdown).await;
        if paused.is_err() {
            self.failed.replace(Some(text));
        }
        paused
    }
}

impl Retryable for BrokerError {
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
