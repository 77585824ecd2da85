//! Errors of requests to the API, with exit code, retry decision and hint.

use std::time::Duration;

use reqwest::StatusCode;

use super::MAX_REDIRECTS;
use crate::decode::{Answer, DecodeError};
use crate::exit::Exit;

/// An error of a request. No variant contains a URL, because the token may be part of it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, a broken connection, or a time-out.
    #[error("cannot reach the API: {0}")]
    Connection(String),
    /// The connection or the coding ended in the middle of a body.
    #[error("the body was cut off: {0}")]
    Cut(String),
    /// A status other than 200.
    #[error("the API answered with status {status}: {answer}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The statements of the body, without secrets and ids.
        answer: Box<Answer>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A redirect to a place that must not receive the token.
    #[error("the API redirects to another host, {0}; the token was not sent there")]
    Redirect(String),
    /// Too many redirects.
    #[error("the API redirects more than {MAX_REDIRECTS} times in a row")]
    RedirectLoop,
    /// A content coding that was not requested.
    #[error("the body has the content coding “{0}”, which was not requested")]
    Coding(String),
    /// A header that names a coding which the body does not use.
    #[error("the body is not {0}, although its Content-Encoding header says so")]
    NotCoded(&'static str),
    /// An unusable list of labels.
    #[error("cannot use the list of labels: {0}")]
    Labels(Box<DecodeError>),
    /// A list of labels over the limit.
    #[error("the list of labels is over {0} bytes long")]
    LabelsTooLong(usize),
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Setup(String),
}

impl ApiError {
    /// Wraps the error of an unusable list of labels.
    pub(crate) fn labels(error: DecodeError) -> Self {
        Self::Labels(Box::new(error))
    }

    /// Returns the exit code for the case that all retries failed.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Connection(_) | Self::Cut(_) => Exit::Unavailable,
            Self::Status { status, .. } => match status.as_u16() {
                401 | 403 => Exit::Credentials,
                _ if self.is_transient() => Exit::Unavailable,
                _ => Exit::Api,
            },
            Self::Redirect(_) | Self::RedirectLoop | Self::Coding(_) => Exit::Api,
            Self::Labels(error) => error.exit(),
            Self::NotCoded(_) | Self::LabelsTooLong(_) => Exit::Data,
            Self::Setup(_) => Exit::Settings,
        }
    }

    /// Returns whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Cut(_) => true,
            Self::Status { status, answer, .. } => match status.as_u16() {
                501 | 505 => false,
                408 | 425 | 429 | 500..=599 => true,
                422 => answer.is_starting,
                _ => false,
            },
            Self::Labels(error) => error.is_transient(),
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Connection(_) => {
                Some("check --api-url, the network, and --connect-timeout and --read-timeout")
            }
            Self::Status { status, .. } => match status.as_u16() {
                401 => Some("check WAWP_ACCESS_TOKEN, --instance-id and --auth"),
                403 => Some(
                    "check the plan and its quota, and whether a firewall refuses this address",
                ),
                404 => Some("check --api-url, --dialect and --instance-id"),
                422 => Some("check the session in the dashboard: it is not working"),
                _ => None,
            },
            Self::Redirect(_) => Some("set --api-url to that host if it is the right one"),
            Self::Labels(error) => match &**error {
                DecodeError::NotAList(_) | DecodeError::Empty => {
                    Some("check --api-url and --dialect: this does not look like the API")
                }
                DecodeError::UntrustedEmpty(_) => {
                    Some("check the session in the dashboard: it may not be working")
                }
                error => error.hint(),
            },
            Self::Setup(_) => Some("install the system's CA certificates"),
            _ => None,
        }
    }
}
