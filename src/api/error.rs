//! Errors of requests to the API.

use std::time::Duration;

use reqwest::StatusCode;

use super::MAX_REDIRECTS;
use crate::decode::{Answer, DecodeError, LookupError};

/// An error of a request. No variant contains a URL, because the token may be part of it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection could be made, so the request was not sent.
    #[error("cannot reach the API: {0}")]
    Unconnected(String),
    /// A broken connection, or a time-out.
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
    /// An unusable answer about a contact.
    #[error("cannot use the answer about a contact: {0}")]
    Contact(Box<LookupError>),
    /// An answer about a contact over the limit.
    #[error("the answer about a contact is over {0} bytes long")]
    ContactTooLong(usize),
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Setup(String),
}

impl ApiError {
    /// Wraps the error of an unusable list of labels.
    pub(crate) fn labels(error: DecodeError) -> Self {
        Self::Labels(Box::new(error))
    }
}
