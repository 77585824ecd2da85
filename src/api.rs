//! The client of the Wawp API, with its dialects, both logins and all forms of its errors.
//!
//! A request is one attempt. The caller retries, with [`crate::retry`]. The chat list is returned
//! as a [`Body`], a stream of uncompressed bytes.

mod body;
mod clock;
mod contacts;
mod endpoint;
mod error;
mod failure;
mod headers;
mod redact;
mod redirect;
mod settings;

use std::time::SystemTime;

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use tracing::warn;
use url::Url;

pub use self::body::Body;
use self::clock::Clock;
use self::endpoint::Endpoint;
pub use self::error::ApiError;
pub use self::failure::FailureKind;
use self::redact::Redact;
pub(crate) use self::redact::mask_ids;
use self::redirect::Redirect;
pub use self::settings::ApiSettings;
use crate::decode::{self, Answer, DecodeError, Doubt, Trust};
pub use crate::decode::{Label, LabelList};
use crate::http::{self, causes};

/// The maximum length of a list of labels, in bytes. An account has about twenty labels.
const MAX_LABELS_BYTES: usize = 1024 * 1024;
/// The maximum number of bytes that are read of the body of a refused request.
const MAX_REFUSAL_BYTES: usize = 512 * 1024;
/// The content codings that [`Body`] decodes.
const CODINGS: &str = "gzip, br, zstd";
/// The maximum number of redirects in a row, all on one host.
const MAX_REDIRECTS: usize = 10;

/// The dialect of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// `/v2/labels`, at `api.wawp.net`.
    WawpV2,
    /// `/wp-json/awp/v1/labels`, at `wawp.net`.
    WawpV1,
    /// `/api/{session}/labels` of a WAHA server, on which Wawp is based.
    Waha,
}

/// The authentication of requests to Wawp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// `instance_id` and `access_token` in the query, as in the documentation.
    Query,
    /// `Authorization: Bearer` and `X-Instance-ID`, as in the Python SDK.
    Bearer,
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
    trust: Trust,
    clock: Clock,
}

impl Client {
    /// Sets up the client without sending anything.
    ///
    /// # Errors
    ///
    /// If the system's certificates cannot be read, or the token cannot be sent in a header.
    pub fn new(settings: &ApiSettings) -> Result<Self, ApiError> {
        let http = http::client(&settings.proxies)
            .map_err(|error| ApiError::Setup(causes(&error)))?
            .connect_timeout(settings.connect_timeout)
            .read_timeout(settings.read_timeout)
            .referer(false)
            .redirect(Policy::none())
            .default_headers(default_headers(settings)?)
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
            trust: settings.trust,
            clock: Clock::default(),
        })
    }

    /// Returns the checks that are turned off.
    pub fn trust(&self) -> Trust {
        self.trust
    }

    /// Returns the current time by the clock of the API, as far as its label list has told it.
    pub fn time(&self) -> SystemTime {
        self.clock.time()
    }

    /// Requests the account's labels.
    ///
    /// # Errors
    ///
    /// If the request fails, or the response is not a list of labels.
    pub async fn labels(&self) -> Result<LabelList, ApiError> {
        let response = self.get(Endpoint::Labels, false).await?;
        self.clock.set(response.headers());
        let body = self.body(response)?;
        let paging = body.paging().clone();
        let body = body
            .read_all(MAX_LABELS_BYTES, ApiError::LabelsTooLong)
            .await?;
        let mut list = decode::labels(&body, paging)
            .map_err(|error| ApiError::labels(self.without_secrets(error)))?;
        list.page = list
            .page
            .filter(|_| !self.trust.ignore_paging)
            .map(|why| self.redact.text(&why));
        for label in &mut list.labels {
            label.name = label.name.take().map(|name| self.redact.secrets(&name));
        }
        if list.unusable > 0 {
            warn!(labels = list.unusable, "labels without an id skipped");
        }
        Ok(list)
    }

    /// Requests the chats that carry a label.
    ///
    /// # Errors
    ///
    /// If the request fails, or the status of the response is not 200.
    pub async fn chats(&self, label_id: &str) -> Result<Body, ApiError> {
        let response = self.get(Endpoint::Chats(label_id), true).await?;
        self.body(response)
    }

    fn body(&self, response: Response) -> Result<Body, ApiError> {
        Body::new(response).map_err(|error| match error {
            ApiError::Coding(coding) => ApiError::Coding(self.redact.text(&coding)),
            other => other,
        })
    }

    /// Returns the error with secrets and ids removed from the quoted text.
    pub(crate) fn without_secrets(&self, error: DecodeError) -> DecodeError {
        match error {
            DecodeError::Answered(answer) => DecodeError::Answered(self.redact(*answer)),
            DecodeError::UntrustedEmpty(answer) => {
                DecodeError::UntrustedEmpty(self.redact(*answer))
            }
            DecodeError::Page(why) => DecodeError::Page(self.redact.text(&why)),
            DecodeError::NotAList(start) => DecodeError::NotAList(self.redact.text(&start)),
            other => other,
        }
    }

    fn redact(&self, answer: Answer) -> Box<Answer> {
        let text = |text: Option<String>| text.map(|text| self.redact.text(&text));
        let doubt = |doubt: Doubt| Doubt {
            path: self.redact.text(&doubt.path),
            value: self.redact.text(&doubt.value),
            ..doubt
        };
        Box::new(Answer {
            success: answer.success,
            code: text(answer.code),
            status: text(answer.status),
            message: text(answer.message),
            error: text(answer.error),
            doubts: answer.doubts.into_iter().map(doubt).collect(),
            is_doubtful: answer.is_doubtful,
            is_starting: answer.is_starting,
            names_expected_state: answer.names_expected_state,
            is_page: answer.is_page,
        })
    }

    async fn get(&self, endpoint: Endpoint<'_>, compressed: bool) -> Result<Response, ApiError> {
        let mut url = self.url(endpoint);
        for _ in 0..=MAX_REDIRECTS {
            let mut request = self.http.get(url);
            if compressed {
                request = request.header(ACCEPT_ENCODING, CODINGS);
            }
            let response = request.send().await.map_err(connection_error)?;
            if response.status() == StatusCode::OK {
                return Ok(response);
            }
            match Redirect::of(&response) {
                Redirect::Follow(to) => url = *to,
                Redirect::OtherHost(host) => {
                    return Err(ApiError::Redirect(self.redact.secrets(&host)));
                }
                Redirect::None => return Err(self.refusal(response).await),
            }
        }
        Err(ApiError::RedirectLoop)
    }

    async fn refusal(&self, response: Response) -> ApiError {
        let status = response.status();
        let retry_after = headers::retry_after(response.headers());
        let start = match Body::new(response) {
            Ok(body) => body.read_start(MAX_REFUSAL_BYTES).await,
            Err(_) => Vec::new(),
        };
        ApiError::Status {
            status,
            answer: self.redact(decode::refusal(&start)),
            retry_after,
        }
    }
}

fn default_headers(settings: &ApiSettings) -> Result<HeaderMap, ApiError> {
    const INSTANCE: HeaderName = HeaderName::from_static("x-instance-id");
    const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
    let value = |what: &str, text: &str| {
        HeaderValue::from_str(text).map_err(|_| {
            ApiError::Setup(format!(
                "{what} contains characters that are not allowed in a header"
            ))
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

fn connection_error(error: reqwest::Error) -> ApiError {
    if error.is_timeout() && !error.is_connect() {
        return ApiError::Connection("no response within --read-timeout".to_owned());
    }
    let is_unconnected = error.is_connect();
    let causes = causes(&error.without_url());
    match is_unconnected {
        true => ApiError::Unconnected(causes),
        false => ApiError::Connection(causes),
    }
}
