//! Errors of brokers: those that end a run, and those that a session recovers from.

use std::io;
use std::path::PathBuf;

use super::ResumePoint;
use crate::shutdown::Cause;

/// Reasons for a broker to fail.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Another run is alive.
    #[error("another run holds {0}")]
    Locked(String),
    /// A file could not be read or written.
    #[error("{what} {}: {error}", path.display())]
    File {
        /// The failed operation, as the start of a sentence.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error from the operating system.
        error: io::Error,
    },
    /// The sink's path is a directory, a device or a pipe.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// Writing to stdout failed.
    #[error("could not write to stdout: {0}")]
    Stdout(io::Error),
    /// The broker cannot be reached or cannot accept messages, and the retries are used up or would
    /// not help.
    #[error("cannot reach the broker: {0}")]
    Unavailable(String),
    /// The broker refuses the login, or the user lacks a permission.
    #[error("the broker refused the credentials: {0}")]
    Credentials(String),
    /// The queue's name is used for something else, or the queue cannot take messages.
    #[error("the queue cannot be used: {0}")]
    WrongQueue(String),
    /// A setting does not fit the broker.
    #[error("{problem}")]
    Misconfigured {
        /// The problem.
        problem: String,
        /// What to set instead, with its flag.
        fix: &'static str,
    },
    /// Members of a label were recorded, and are not there any more.
    #[error("the recorded members are missing: {0}")]
    MembersLost(String),
    /// The queue has lost entries that it had confirmed, too often to go on.
    #[error("the queue lost entries that it had confirmed")]
    LosesEntries,
    /// A stop was requested while waiting.
    #[error("cut short by {0}")]
    Interrupted(Cause),
    /// A thread of this process ended unexpectedly.
    #[error("a bug in labelcast: {0}")]
    Bug(String),
}

/// The failure of one attempt, classified for the decision whether to retry.
#[derive(Debug)]
pub(super) enum Failure {
    /// A transient error: a retry may help. The outcome of what was in flight is unknown.
    Transient(String),
    /// The queue has lost entries that it had confirmed: publishing must go back to this point.
    Rewound(Box<ResumePoint>),
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
            Failure::Rewound(_) => Self::LosesEntries,
        }
    }
}

/// Why a session cannot go on from where it is, after all retries.
#[derive(Debug)]
pub(super) enum SessionError {
    /// The queue has lost entries that it had confirmed. The session recovers by going back.
    Rewound(Box<ResumePoint>),
    /// The session cannot recover.
    Failed(BrokerError),
}

impl From<BrokerError> for SessionError {
    fn from(error: BrokerError) -> Self {
        Self::Failed(error)
    }
}

impl SessionError {
    /// Converts the error where the session does not recover: at its start or its end. Explicit, so
    /// that no `?` turns a rewind into a failure.
    pub(super) fn into_failure(self) -> BrokerError {
        match self {
            Self::Rewound(_) => BrokerError::LosesEntries,
            Self::Failed(error) => error,
        }
    }
}
