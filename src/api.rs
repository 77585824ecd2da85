//! The client of the Wawp API: its dialects, its two ways to log in, and its many ways to say no.
//!
//! A request is one try; trying again is up to the caller, by [`crate::retry`]. The chat list comes as a
//! [`Body`], a stream of uncompressed bytes.

mod answer;
mod body;
mod redact;

use std::time::Duration;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

pub use self::body::Body;
use self::redact::Redact;
use crate::config::ApiSettings;
use crate::decode::Answer;
use crate::error::{Error, Exit};
use crate::retry::Retries;
use crate::shutdown::Shutdown;
use crate::tls;

/// The longest list of labels that is read, in bytes. An account has about twenty labels.
const MAX_LABELS_BYTES: usize = 256 * 1024;
/// The codings that [`Body`] undoes.
const CODINGS: &str = "gzip, br, zstd";
/// As many redirects in a row as are followed, on one host.
const MAX_REDIRECTS: usize = 10;

/// Which API is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `/v2/labels`, at `api.wawp.net`.
    WawpV2,
    /// `/wp-json/awp/v1/labels`, at `wawp.net`.
    WawpV1,
    /// `/api/{session}/labels` of a WAHA server, which Wawp is built on.
    Waha,
}

/// How Wawp is told who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `instance_id` and `access_token` in the query, as the documentation has it.
    Query,
    /// `Authorization: Bearer` and `X-Instance-ID`, as the Python SDK has it.
    Bearer,
}

/// A label of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// What `--label` takes.
    pub id: String,
    /// What the account's owner called it.
    pub name: Option<String>,
    /// Its colour, as `#rrggbb`.
    pub color: Option<String>,
}

/// Why a request failed. No variant holds a URL: the token may stand in it.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No connection, a broken one, or silence.
    #[error("the API could not be reached: {0}")]
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
    /// Status 200, and nothing else.
    #[error("the answer is empty")]
    Empty,
    /// Labels that are not even JSON: a web page, as a gateway sends one.
    #[error("the answer is no list of labels, and no JSON: it begins with “{}”", .0.escape_ascii())]
    NotJson(u8),
    /// A list of labels that is none.
    #[error("the list of labels is not what the API should send: {0}")]
    Labels(String),
    /// A list of labels that says error.
    #[error("the API answered with an error under status 200: {0}")]
    Answered(Box<Answer>),
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up: {0}")]
    Setup(String),
}

impl ApiError {
    /// The exit code, when trying again has not helped.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Connection(_) | Self::Cut(_) => Exit::Unavailable,
            Self::Status { status, .. } => match status.as_u16() {
                401 | 403 => Exit::Credentials,
                _ if self.is_transient() => Exit::Unavailable,
                _ => Exit::Api,
            },
            Self::Redirect(_)
            | Self::RedirectLoop
            | Self::Coding(_)
            | Self::Empty
            | Self::NotJson(_)
            | Self::Answered(_) => Exit::Api,
            Self::Labels(_) => Exit::Data,
            Self::Setup(_) => Exit::Settings,
        }
    }

    /// Whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connection(_) | Self::Cut(_) => true,
            Self::Status { status, answer, .. } => match status.as_u16() {
                408 | 425 | 429 | 500 | 502 | 503 | 504 => true,
                422 => {
                    let status = answer.status.as_deref();
                    status.is_some_and(|status| status.eq_ignore_ascii_case("STARTING"))
                }
                _ => false,
            },
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
                403 => Some("the token is known, but may not do this: check quota and plan"),
                404 => Some("check --api-url, --dialect and --instance-id"),
                422 => Some("the session is not working: look at it in the dashboard"),
                _ => None,
            },
            Self::Redirect(_) => Some("if that host is right, set it with --api-url"),
            Self::NotJson(_) => {
                Some("check --api-url and --dialect: this does not look like the API")
            }
            Self::Setup(_) => Some("are the system's CA certificates installed?"),
            _ => None,
        }
    }
}

/// A client for one account.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    dialect: Dialect,
    auth: Auth,
    instance_id: String,
    redact: Redact,
    token: SecretString,
}

impl Client {
    /// Sets the client up; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// When the system's certificates cannot be read, or the token cannot stand in a header.
    pub fn new(settings: &ApiSettings) -> Result<Self, ApiError> {
        tls::provide();
        let http = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            .referer(false)
            .redirect(Policy::custom(same_host_only))
            .default_headers(headers(settings)?)
            .build()
            .map_err(|error| ApiError::Setup(causes(&error)))?;
        Ok(Self {
            http,
            base: settings.url.clone(),
            dialect: settings.dialect,
            auth: settings.auth,
            instance_id: settings.instance_id.clone(),
            redact: Redact::new(settings.token.expose_secret()),
            token: settings.token.clone(),
        })
    }

    /// The account's labels.
    ///
    /// # Errors
    ///
    /// When the request fails, or the answer is not a list of labels.
    pub async fn labels(&self) -> Result<Vec<Label>, ApiError> {
        let response = self.get(&["labels"], false).await?;
        let body = self.body(response)?.bounded(MAX_LABELS_BYTES).await?;
        answer::labels(&body).map_err(|error| self.without_secrets(error))
    }

    /// The account's labels, asked for until they come.
    ///
    /// # Errors
    ///
    /// As [`Client::labels`], when no try is left; or that a stop came first.
    pub async fn labels_with(
        &self,
        retries: &mut Retries,
        shutdown: &Shutdown,
    ) -> Result<Vec<Label>, Error> {
        loop {
            let labels = tokio::select! {
                biased;
                cause = shutdown.stopped() => return Err(Error::Interrupted(cause)),
                labels = self.labels() => labels,
            };
            match labels {
                Ok(labels) => return Ok(labels),
                Err(error) => retries.pause(error.into(), shutdown).await?,
            }
        }
    }

    /// The chats that carry a label, as the body of the answer.
    ///
    /// # Errors
    ///
    /// When the request fails, or is answered with anything but status 200.
    pub async fn chats(&self, label_id: &str) -> Result<Body, ApiError> {
        let response = self.get(&["labels", label_id, "chats"], true).await?;
        self.body(response)
    }

    fn body(&self, response: Response) -> Result<Body, ApiError> {
        Body::new(response).map_err(|error| self.without_secrets(error))
    }

    fn without_secrets(&self, error: ApiError) -> ApiError {
        match error {
            ApiError::Answered(answer) => ApiError::Answered(self.redact(*answer)),
            ApiError::Coding(coding) => ApiError::Coding(self.redact.text(&coding)),
            other => other,
        }
    }

    /// What the API says of itself, without secrets and ids.
    pub(crate) fn redact(&self, answer: Answer) -> Box<Answer> {
        Box::new(self.redact.answer(answer))
    }

    async fn get(&self, path: &[&str], compressed: bool) -> Result<Response, ApiError> {
        let mut request = self.http.get(self.url(path));
        if compressed {
            request = request.header(ACCEPT_ENCODING, CODINGS);
        }
        let response = request.send().await.map_err(connection)?;
        if response.status() == StatusCode::OK {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            match self.dialect {
                Dialect::WawpV2 => segments.push("v2"),
                Dialect::WawpV1 => segments.extend(["wp-json", "awp", "v1"]),
                Dialect::Waha => segments.extend(["api", &self.instance_id]),
            };
            segments.extend(path);
        }
        if self.dialect != Dialect::Waha && self.auth == Auth::Query {
            url.query_pairs_mut()
                .append_pair("instance_id", &self.instance_id)
                .append_pair("access_token", self.token.expose_secret());
        }
        url
    }

    async fn refusal(&self, response: Response) -> ApiError {
        let status = response.status();
        if status.is_redirection() {
            return match answer::location(&response) {
                Some(host) if host == answer::origin(response.url()) => ApiError::RedirectLoop,
                Some(host) => ApiError::Redirect(self.redact.text(&host)),
                None => ApiError::Redirect("which it does not name".to_owned()),
            };
        }
        let retry_after = answer::retry_after(response.headers());
        let answer = self.redact(answer::of(response).await);
        ApiError::Status {
            status,
            answer,
            retry_after,
        }
    }
}

/// Another host, another port, or the same host without TLS is not who was asked: the token in
/// the query, or in a header of our own, would go along.
fn same_host_only(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let next = attempt.url();
    let stays = attempt.previous().last().is_some_and(|before| {
        let same_port = before.port_or_known_default() == next.port_or_known_default();
        let upgraded = (before.scheme(), next.scheme()) == ("http", "https")
            && (before.port(), next.port()) == (None, None);
        before.host_str() == next.host_str()
            && (upgraded || (same_port && before.scheme() == next.scheme()))
    });
    if stays && attempt.previous().len() <= MAX_REDIRECTS {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

fn headers(settings: &ApiSettings) -> Result<HeaderMap, ApiError> {
    const INSTANCE: HeaderName = HeaderName::from_static("x-instance-id");
    const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
    let value = |what: &str, text: &str| {
        HeaderValue::from_str(text).map_err(|_| {
            ApiError::Setup(format!("{what} has characters that a header cannot hold"))
        })
    };
    let token = settings.token.expose_secret();
    let secret = |text: &str| {
        value("the access token", text).map(|mut value| {
            value.set_sensitive(true);
            value
        })
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("labelcast/", env!("CARGO_PKG_VERSION"))),
    );
    match (settings.dialect, settings.auth) {
        (Dialect::Waha, _) => {
            headers.insert(API_KEY, secret(token)?);
        }
        (_, Auth::Bearer) => {
            headers.insert(AUTHORIZATION, secret(&format!("Bearer {token}"))?);
            headers.insert(INSTANCE, value("the instance id", &settings.instance_id)?);
        }
        (_, Auth::Query) => {}
    }
    Ok(headers)
}

fn connection(error: reqwest::Error) -> ApiError {
    if error.is_timeout() && !error.is_connect() {
        return ApiError::Connection("no answer within --read-timeout".to_owned());
    }
    ApiError::Connection(causes(&error.without_url()))
}

/// An error with all that caused it. The URL has to be taken out before.
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

/// A label as the API sends it; ids are strings, but have been seen as numbers.
#[derive(Deserialize)]
struct RawLabel {
    id: serde_json::Value,
    name: Option<serde_json::Value>,
    #[serde(rename = "colorHex")]
    color_hex: Option<serde_json::Value>,
}
