//! Retries of a session: one policy for all of its operations and connections.

use std::sync::{Arc, OnceLock};

use super::error::{BrokerError, Failure, SessionError};
use crate::retry::{Retries, RetryPolicy};

/// Retries of one connection since its last success, in a session that gives up as a whole.
pub(super) struct SessionRetries {
    retries: Retries,
    /// Why the session gave up. Nothing is retried from then on.
    gave_up: Arc<OnceLock<String>>,
}

impl SessionRetries {
    /// The retries of a new session.
    pub(super) fn new(policy: &RetryPolicy) -> Self {
        Self {
            retries: policy.retries(),
            gave_up: Arc::default(),
        }
    }

    /// The retries of another connection, or for another reason, in the same session.
    pub(super) fn sibling(&self) -> Self {
        Self {
            retries: self.retries.policy().retries(),
            gave_up: Arc::clone(&self.gave_up),
        }
    }

    /// Fails if the session has given up.
    pub(super) fn check(&self) -> Result<(), BrokerError> {
        match self.gave_up.get() {
            Some(text) => Err(BrokerError::Unavailable(text.clone())),
            None => Ok(()),
        }
    }

    /// Whether there was a failure since the last success.
    pub(super) fn has_failed(&self) -> bool {
        self.retries.has_failed()
    }

    /// Notes a success: all retries are available again.
    pub(super) fn reset(&mut self) {
        self.retries.reset();
    }

    /// Waits until the next attempt is due.
    ///
    /// # Errors
    ///
    /// A final failure and a rewind at once; a transient failure if the retries are used up, the
    /// session has given up, or a stop is requested.
    pub(super) async fn pause(&mut self, failure: Failure) -> Result<(), SessionError> {
        let text = match failure {
            Failure::Rewound(to) => return Err(SessionError::Rewound(to)),
            Failure::Final(error) => {
                let _ = self.gave_up.set(error.to_string());
                return Err(error.into());
            }
            Failure::Transient(text) => text,
        };
        if self.gave_up.get().is_some() {
            return Err(BrokerError::Unavailable(text).into());
        }
        let error = BrokerError::Unavailable(text.clone());
        self.retries.pause(error).await.map_err(|error| {
            let _ = self.gave_up.set(text);
            error.into()
        })
    }
}

/// What [`with_retry!`] needs of a session or of a part of it.
pub(super) trait Retrying {
    fn retries(&mut self) -> &mut SessionRetries;

    /// Drops connections whose state is unknown after a failure.
    fn disconnect(&mut self, failure: &Failure);
}

/// Repeats an idempotent operation until it succeeds, fails for good, or the retries are used up.
///
/// A macro, because the future of an async closure that borrows is not `Send`.
///
/// [`Retrying`] must be in scope.
macro_rules! with_retry {
    ($session:expr, $operation:expr) => {
        loop {
            match $operation.await {
                Ok(value) => {
                    $session.retries().reset();
                    break Ok::<_, $crate::broker::error::SessionError>(value);
                }
                Err(failure) => {
                    $session.disconnect(&failure);
                    if let Err(error) = $session.retries().pause(failure).await {
                        break Err(error);
                    }
                }
            }
        }
    };
}
pub(super) use with_retry;
