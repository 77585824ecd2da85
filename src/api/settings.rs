//! The settings of the client.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::{Auth, Dialect};
use crate::decode::Trust;
use crate::http::Proxies;

/// How to reach the API, and as whom.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// Without a query, credentials or fragment.
    pub url: Url,
    /// Which API is spoken there.
    pub dialect: Dialect,
    /// The account, or WAHA's session.
    pub instance_id: String,
    /// The access token, or WAHA's API key.
    pub token: SecretString,
    /// How to log in.
    pub auth: Auth,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long the API may be silent.
    pub read_timeout: Duration,
    /// How often to try again.
    pub retries: usize,
    /// What is trusted although the API casts doubt on it.
    pub trust: Trust,
    /// The proxies that the environment names.
    pub proxies: Proxies,
}
