//! Why a request to the API failed.

use std::time::Duration;

use reqwest::StatusCode;

use super::MAX_REDIRECTS;
use crate::decode::{Answer, DecodeError};

/// Why a request failed. No variant holds a URL: the token may stand in it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, a broken one, or silence.
    #[error("cannot reach the API: {0}")]
    Connection(String),
    /// The connection broke, or the coding ended, in the middle of a body.
    #[error("the body was cut off: {0}")]
    Cut(String),
    /// Any status but 200.
    #[error("the API answered with status {status}: {answer}")]
    Status {
        /// The status.
        status: StatusCode,
        /// What the body says, without secrets and ids.
        answer: Box<Answer>,
        /// `Retry-After`.
        retry_after: Option<Duration>,
    },
    /// A redirect to somewhere the token must not go.
    #[error("the API redirects to another host, {0}; the token was not sent there")]
    Redirect(String),
    /// Redirects that come to no end.
    #[error("the API redirects more than {MAX_REDIRECTS} times in a row")]
    RedirectLoop,
    /// A coding that was not asked for.
    #[error("the body has the content coding “{0}”, which was not asked for")]
    Coding(String),
    /// A header that names a coding which the body does not have.
    #[error("the body is not {0}, although its Content-Encoding header says so")]
    NotCoded(&'static str),
    /// A list of labels that is none.
    #[error("cannot use the list of labels: {0}")]
    Labels(Box<DecodeError>),
    /// A list of labels without end.
    #[error("the list of labels is over {0} bytes long")]
    LabelsTooLong(usize),
    /// The HTTP client could not be set up.
    #[error("cannot set up the HTTP client: {0}")]
    Setup(String),
}

impl ApiError {
    /// A list of labels that cannot be used.
    pub(crate) fn labels(error: DecodeError) -> Self {
        Self::Labels(Box::new(error))
    }
}
