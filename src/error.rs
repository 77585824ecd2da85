//! Errors that end a run, and one table for the errors of all modules: exit code, hint for the fix,
//! and whether the error is transient.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::ApiError;
use crate::broker::BrokerError;
use crate::config_error::ConfigErrors;
use crate::decode::{DecodeError, LookupError};
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
    /// `--max-change`.
    #[error(
        "{absent} of {members} members are not in the list, more than the {percent} % that --max-change allows: none was removed"
    )]
    ChangedTooMuch {
        /// Members that are not in the list.
        absent: u64,
        /// Members before the list.
        members: u64,
        /// The setting.
        percent: u8,
    },
}

impl From<DecodeError> for Error {
    fn from(error: DecodeError) -> Self {
        match error {
            // The error of the reader contains the error of the API, which is more precise.
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

impl Error {
    /// The exit code that this ends with.
    pub fn exit(&self) -> Exit {
        self.class().exit
    }

    /// How to fix it, where the message does not say so.
    pub fn hint(&self) -> Option<&'static str> {
        self.class().hint
    }

    fn class(&self) -> Class {
        match self {
            Self::Usage => Class::of(Exit::Usage),
            Self::Settings(_) => Class::of(Exit::Settings),
            Self::Api(error) => api(error),
            Self::Decode(error) => decode(error),
            Self::Broker(error) => broker(error),
            Self::Guarded(guard) => Class::of(Exit::Guarded).hint(self::guard(guard)),
            Self::WaitTooLong { error, .. } => Class {
                is_transient: false,
                hint: Some("run again after that time"),
                ..error.class()
            },
            Self::TooManyInvalid { .. } => Class::of(Exit::Data).hint(
                "raise --max-invalid to accept invalid entries; all other chats were published",
            ),
            Self::Interrupted(_) => {
                Class::of(Exit::Interrupted).hint("run again to resume (with a broker or a file)")
            }
            Self::File { .. } | Self::Stdout(_) => Class::of(Exit::File),
            Self::Bug(_) => Class::of(Exit::Bug).hint("please report it, with the log"),
        }
    }
}

/// Classification of an error. The functions below are the table of all errors.
#[derive(Clone, Copy)]
struct Class {
    exit: Exit,
    /// Whether the same request may succeed a little later.
    is_transient: bool,
    hint: Option<&'static str>,
}

impl Class {
    /// An error after which a retry would fail in the same way.
    const fn of(exit: Exit) -> Self {
        Self {
            exit,
            is_transient: false,
            hint: None,
        }
    }

    /// An error after which a retry may succeed. The exit code applies after the last retry.
    const fn transient() -> Self {
        Self {
            exit: Exit::Unavailable,
            is_transient: true,
            hint: None,
        }
    }

    const fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }
}

fn api(error: &ApiError) -> Class {
    match error {
        ApiError::Connection(_) | ApiError::Unconnected(_) => Class::transient()
            .hint("check --api-url, the network, and --connect-timeout and --read-timeout"),
        ApiError::Cut(_) => Class::transient(),
        ApiError::Status { status, answer, .. } => api_status(status.as_u16(), answer.is_starting),
        ApiError::Redirect(_) => {
            Class::of(Exit::Api).hint("if that host is right, set it with --api-url")
        }
        ApiError::RedirectLoop | ApiError::Coding(_) => Class::of(Exit::Api),
        ApiError::Labels(error) => match &**error {
            DecodeError::NotAList(_) | DecodeError::Empty => {
                decode(error).hint("check --api-url and --dialect: this does not look like the API")
            }
            DecodeError::UntrustedEmpty(_) => {
                decode(error).hint("check the session in the dashboard: it may not be working")
            }
            error => decode(error),
        },
        ApiError::NotCoded(_) | ApiError::LabelsTooLong(_) | ApiError::ContactTooLong(_) => {
            Class::of(Exit::Data)
        }
        ApiError::Contact(error) => contact(error),
        ApiError::Setup(_) => {
            Class::of(Exit::Settings).hint("install the system's CA certificates")
        }
    }
}

fn contact(error: &LookupError) -> Class {
    match error {
        LookupError::Empty | LookupError::NotJson(_) => Class::of(Exit::Api)
            .hint("check --api-url and --dialect: this does not look like the API"),
        LookupError::Answered(_) => Class::of(Exit::Api),
        LookupError::Shape(_) | LookupError::Malformed(_) => Class::of(Exit::Data),
        LookupError::Truncated(_) => Class::transient(),
    }
}

/// Any status but 200. `is_starting` tells that the session will be ready a little later.
fn api_status(status: u16, is_starting: bool) -> Class {
    const SESSION: &str = "check the session in the dashboard: it is not working";
    match status {
        401 => {
            Class::of(Exit::Credentials).hint("check WAWP_ACCESS_TOKEN, --instance-id and --auth")
        }
        403 => Class::of(Exit::Credentials)
            .hint("check the plan and its quota, and whether a firewall refuses this address"),
        404 => Class::of(Exit::Api).hint("check --api-url, --dialect and --instance-id"),
        422 if is_starting => Class::transient().hint(SESSION),
        422 => Class::of(Exit::Api).hint(SESSION),
        501 | 505 => Class::of(Exit::Api),
        408 | 425 | 429 | 500..=599 => Class::transient(),
        _ => Class::of(Exit::Api),
    }
}

fn decode(error: &DecodeError) -> Class {
    const NOT_CHATS: &str =
        "check --api-url and --dialect: this does not look like the answer to a list of chats";
    match error {
        DecodeError::Empty | DecodeError::NotAList(_) => Class::of(Exit::Api).hint(NOT_CHATS),
        DecodeError::Answered(_) => Class::of(Exit::Api),
        DecodeError::UntrustedEmpty(_) => Class::of(Exit::Api)
            .hint("if the label really has no chats, run again with --accept-empty"),
        DecodeError::Shape { .. } => Class::of(Exit::Data).hint(NOT_CHATS),
        DecodeError::Malformed { .. } => Class::of(Exit::Data),
        DecodeError::Page(_) => Class::of(Exit::Data).hint(
            "the API should send the whole list; if this means something else there, use --ignore-paging",
        ),
        DecodeError::Truncated { .. } => Class::transient()
            .hint("check the API and the proxies in front of it: every attempt was cut off"),
        DecodeError::Input { .. } => Class::transient(),
        DecodeError::ListChanged(_) => Class::of(Exit::Unavailable),
        DecodeError::Stopped => Class::of(Exit::Bug),
    }
}

fn broker(error: &BrokerError) -> Class {
    match error {
        BrokerError::Locked(_) => {
            Class::of(Exit::Locked).hint("wait for it to end, or stop it: it can be resumed")
        }
        BrokerError::File { .. } | BrokerError::Stdout(_) => Class::of(Exit::File),
        BrokerError::NotAFile(_) => Class::of(Exit::Settings)
            .hint("for a pipe or a device, use --sink - and redirect stdout"),
        BrokerError::WrongQueue(_) => {
            Class::of(Exit::Settings).hint("choose another queue (--queue; for enrich --from, --to), or inspect this one")
        }
        BrokerError::Misconfigured { fix, .. } => Class::of(Exit::Settings).hint(fix),
        BrokerError::Unavailable(_) => {
            Class::transient().hint("check the sink's URL and the broker, then run again to resume")
        }
        BrokerError::MembersLost(_) => Class::of(Exit::Guarded).hint(
            "record the list as known with `labelcast run --baseline`, then run again; to publish all of it, leave out --only-new",
        ),
        BrokerError::LosesEntries => Class::of(Exit::Unavailable)
            .hint("check that the broker persists and replicates the queue, then run again"),
        BrokerError::Credentials(_) => Class::of(Exit::Credentials)
            .hint("check user and password in the sink's URL, and the user's permissions"),
        BrokerError::Interrupted(_) => Class::of(Exit::Interrupted),
        BrokerError::Bug(_) => Class::of(Exit::Bug),
    }
}

fn guard(guard: &Guard) -> &'static str {
    match guard {
        Guard::LabelGone(_) => {
            "list the existing labels with `labelcast labels`; nothing was published"
        }
        Guard::LabelWent(_) => "list the existing labels with `labelcast labels`",
        Guard::NoLabels => "check --instance-id: another session may be the one with labels",
        Guard::ChangedTooMuch { .. } => {
            "if the list is right, raise --max-change, or record it with --baseline"
        }
        Guard::TooFew { .. } | Guard::Shrank { .. } => {
            "if the list is right, lower the guard and run again"
        }
    }
}

impl Retryable for Error {
    fn is_transient(&self) -> bool {
        self.class().is_transient
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(ApiError::Status { retry_after, .. }) => *retry_after,
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

impl Retryable for BrokerError {
    fn is_transient(&self) -> bool {
        broker(self).is_transient
    }

    /// Always `None`, because brokers do not state how long to wait.
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
