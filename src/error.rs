//! Errors that end a run: exit code, transient or not, and a hint for the fix.
//!
//! Each module has errors of its own; they meet here.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::ApiError;
use crate::broker::BrokerError;
use crate::config_error::ConfigErrors;
use crate::decode::DecodeError;
use crate::exit::Exit;
use crate::retry::Retryable;
use crate::shutdown::Cause;

/// An error that ends a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command line is wrong; clap has printed the details.
    #[error("the command line is wrong")]
    Usage,
    /// Configuration errors, all of them.
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
    /// A request to the API failed.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The body of a chat list could not be decoded.
    #[error(transparent)]
    Decode(DecodeError),
    /// The sink failed.
    #[error(transparent)]
    Broker(BrokerError),
    /// More entries without a valid chat id than allowed. All others were published.
    #[error(
        "{invalid} entries of the list have no valid chat id, which is more than the {allowed} allowed"
    )]
    TooManyInvalid {
        /// Invalid entries.
        invalid: u64,
        /// Accepted number of them.
        allowed: u64,
    },
    /// A guard stopped the run.
    #[error(transparent)]
    Guarded(#[from] Guard),
    /// `Retry-After` is longer than a run waits.
    #[error(
        "{error}; it asks to wait {}, longer than the {} that a run waits",
        humantime::format_duration(*asked),
        humantime::format_duration(*longest)
    )]
    WaitTooLong {
        /// The API's answer.
        error: Box<Error>,
        /// How long it asks to wait, by `Retry-After`.
        asked: Duration,
        /// The longest that a run waits.
        longest: Duration,
    },
    /// A signal or the deadline.
    #[error("cut short by {0}")]
    Interrupted(Cause),
    /// A local file other than the sink's.
    #[error("{what} {}: {error}", path.display())]
    File {
        /// The failed operation, as the start of a sentence: "could not write the report to".
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        error: std::io::Error,
    },
    /// Writing to stdout failed, other than by a closed pipe.
    #[error("could not write to stdout: {0}")]
    Stdout(std::io::Error),
    /// A bug in labelcast.
    #[error("a bug in labelcast: {0}")]
    Bug(String),
}

/// The guard that stopped a run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Guard {
    /// The label is not in the account's list of labels.
    #[error(
        "label {0} does not exist in this account, and a deleted label looks like an empty list"
    )]
    LabelGone(String),
    /// The list is empty, and the label was deleted meanwhile.
    #[error("label {0} was deleted during the run: its empty list is not trusted")]
    LabelWent(String),
    /// `--all-labels` for an account without labels.
    #[error("the account has no label at all")]
    NoLabels,
    /// `--min-chats`.
    #[error("the list has {chats} chats, fewer than the {min} that --min-chats asks for")]
    TooFew {
        /// Chats in the list.
        chats: u64,
        /// Required number of chats.
        min: u64,
    },
    /// `--max-shrink`.
    #[error(
        "the list has {chats} chats, the last complete run had {last}: it shrank by more than the {percent} % that --max-shrink allows"
    )]
    Shrank {
        /// Chats in the list.
        chats: u64,
        /// Chats that the last complete run had.
        last: u64,
        /// The setting.
        percent: u8,
    },
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        match error {
            // The reader's error carries the API's own, which says more.
            DecodeError::Input { at, error } => match error.downcast::<ApiError>() {
                Ok(error) => Self::Api(error),
                Err(error) => Self::Decode(DecodeError::Input { at, error }),
            },
            other => Self::Decode(other),
        }
    }
}

impl From<BrokerError> for Error {
    fn from(error: BrokerError) -> Self {
        match error {
            BrokerError::Interrupted(cause) => Self::Interrupted(cause),
            other => Self::Broker(other),
        }
    }
}

impl DecodeError {
    /// The exit code that this ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Empty | Self::NotAList(_) | Self::Answered(_) | Self::UntrustedEmpty(_) => {
                Exit::Api
            }
            Self::Shape { .. } | Self::Malformed { .. } | Self::Page(_) => Exit::Data,
            Self::Truncated { .. } | Self::Input { .. } | Self::ListChanged(_) => Exit::Unavailable,
            Self::Stopped => Exit::Bug,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Truncated { .. } | Self::Input { .. })
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotAList(_) | Self::Shape { .. } | Self::Empty => Some(
                "check --api-url and --dialect: this does not look like the answer to a list of chats",
            ),
            Self::Truncated { .. } => {
                Some("check the API and the proxies in front of it: every attempt was cut off")
            }
            Self::UntrustedEmpty(_) => {
                Some("if the label really has no chats, run again with --accept-empty")
            }
            Self::Page(_) => Some(
                "the API should send the whole list; if this means something else there, use --ignore-paging",
            ),
            _ => None,
        }
    }
}

impl Error {
    /// The exit code that this ends with.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Usage => Exit::Usage,
            Self::Settings(_) => Exit::Settings,
            Self::Api(error) => error.exit(),
            Self::Decode(error) => error.exit(),
            Self::WaitTooLong { error, .. } => error.exit(),
            Self::Broker(error) => error.exit(),
            Self::TooManyInvalid { .. } => Exit::Data,
            Self::Guarded(_) => Exit::Guarded,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::File { .. } | Self::Stdout(_) => Exit::File,
            Self::Bug(_) => Exit::Bug,
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Api(error) => error.hint(),
            Self::Broker(error) => error.hint(),
            Self::Decode(error) => error.hint(),
            Self::WaitTooLong { .. } => Some("run again after that time"),
            Self::TooManyInvalid { .. } => Some(
                "raise --max-invalid to accept invalid entries; all other chats were published",
            ),
            Self::Guarded(Guard::LabelGone(_)) => {
                Some("list the existing labels with `labelcast labels`; nothing was published")
            }
            Self::Guarded(Guard::LabelWent(_)) => {
                Some("list the existing labels with `labelcast labels`")
            }
            Self::Guarded(Guard::NoLabels) => {
                Some("check --instance-id: another session may be the one with labels")
            }
            Self::Guarded(_) => Some("if the list is right, lower the guard and run again"),
            Self::Interrupted(_) => Some("run again to resume (with a broker or a file)"),
            Self::Bug(_) => Some("please report it, with the log"),
            _ => None,
        }
    }
}

impl Retryable for Error {
    fn is_transient(&self) -> bool {
        match self {
            Self::Api(error) => error.is_transient(),
            Self::Decode(error) => error.is_transient(),
            Self::Broker(error) => matches!(error, BrokerError::Unavailable(_)),
            _ => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after(),
            _ => None,
        }
    }

    fn interrupted(cause: Cause) -> Self {
        Self::Interrupted(cause)
    }

    fn waits_too_long(self, asked: Duration, longest: Duration) -> Self {
        Self::WaitTooLong {
            error: Box::new(self),
            asked,
            longest,
        }
    }
}
