//! The settings of the client.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use super::{Auth, Dialect};
use crate::decode::Trust;
use crate::http::Proxies;

/// How to reach the API and log in.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The base URL, without a query, credentials or fragment.
    pub url: Url,
    /// The dialect of the API.
    pub dialect: Dialect,
    /// The id of the account, or the name of WAHA's session.
    pub instance_id: String,
    /// The access token, or WAHA's API key.
    pub token: SecretString,
    /// The login.
    pub auth: Auth,
    /// The connection time-out.
    pub connect_timeout: Duration,
    /// The time-out without a byte.
    pub read_timeout: Duration,
    /// The number of retries.
    pub retries: usize,
    /// Checks that are turned off.
    pub trust: Trust,
    /// The proxies from the environment.
    pub proxies: Proxies,
}
