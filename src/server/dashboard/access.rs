//! Who may see the dashboard.
//!
//! Without a token it is open to requests that come directly to a loopback address. With a token
//! every request needs it, also on loopback: any local program can connect there, and a proxy that
//! adds no header looks like a direct request.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, COOKIE, FORWARDED, HOST, VIA};
use axum::http::{HeaderMap, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use ring::hmac;
use secrecy::{ExposeSecret, SecretString};

use super::login;
use crate::server::signature::hex;

/// The name of the cookie.
const COOKIE_NAME: &str = "labelcast_dashboard";
/// How long browsers keep the cookie: 30 days.
const COOKIE_SECONDS: u32 = 30 * 24 * 60 * 60;

/// The rules for access to data. Clones share the limit of failed logins.
#[derive(Clone)]
pub struct Access(Arc<Rules>);

struct Rules {
    is_loopback: bool,
    token: Option<Token>,
    guesses: login::Guesses,
}

/// The decision about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may see the data.
    Allowed,
    /// It needs the token.
    NeedsToken,
    /// It would need a token, but none is configured.
    NoToken,
}

/// What is derived from the token. The token itself is not kept.
///
/// A presented token is compared by the HMAC of both under a key made from the token, and
/// [`hmac::verify`] compares in constant time.
struct Token {
    key: hmac::Key,
    token_tag: hmac::Tag,
    cookie: String,
}

impl Access {
    /// Creates the rules. `is_loopback` says whether the server is bound to a loopback address. An
    /// empty token is none.
    pub fn new(token: Option<&SecretString>, is_loopback: bool) -> Self {
        let token = token.map(ExposeSecret::expose_secret);
        Self(Arc::new(Rules {
            is_loopback,
            token: token.filter(|token| !token.is_empty()).map(Token::new),
            guesses: login::Guesses::new(),
        }))
    }

    /// Decides about a request by its headers, and by its URI where that names a host.
    pub fn decide(&self, headers: &HeaderMap, uri: &Uri) -> Decision {
        match &self.0.token {
            Some(token) if token.is_in(headers) => Decision::Allowed,
            Some(_) => Decision::NeedsToken,
            None if self.0.is_loopback && is_direct(headers, uri) => Decision::Allowed,
            None => Decision::NoToken,
        }
    }

    /// Adds the decision in front of all routes of a router.
    pub fn protect(&self, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self.clone(), check))
    }

    /// Whether this is the token. It is false without a configured token.
    pub(super) fn accepts(&self, presented: &str) -> bool {
        let token = self.0.token.as_ref();
        token.is_some_and(|token| token.is_token(presented))
    }

    pub(super) fn guesses(&self) -> &login::Guesses {
        &self.0.guesses
    }

    /// Returns the value of `Set-Cookie` after a login.
    pub(super) fn set_cookie(&self, headers: &HeaderMap) -> Option<String> {
        let value = &self.0.token.as_ref()?.cookie;
        let secure = if is_https(headers) { "; Secure" } else { "" };
        Some(format!(
            "{COOKIE_NAME}={value}; Path=/; Max-Age={COOKIE_SECONDS}; HttpOnly; SameSite=Strict{secure}"
        ))
    }
}

impl Token {
    fn new(token: &str) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
        let session = hmac::sign(&key, b"labelcast dashboard cookie 1");
        Self {
            token_tag: hmac::sign(&key, token.as_bytes()),
            cookie: hex(session.as_ref()),
            key,
        }
    }

    fn is_token(&self, presented: &str) -> bool {
        hmac::verify(&self.key, presented.as_bytes(), self.token_tag.as_ref()).is_ok()
    }

    /// Compares like [`Token::is_token`]: the HMACs of both, in constant time.
    fn is_cookie(&self, presented: &str) -> bool {
        let tag = hmac::sign(&self.key, self.cookie.as_bytes());
        hmac::verify(&self.key, presented.as_bytes(), tag.as_ref()).is_ok()
    }

    fn is_in(&self, headers: &HeaderMap) -> bool {
        let bearer = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        let bearer = bearer.and_then(|text| {
            let (scheme, token) = text.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        bearer.is_some_and(|token| self.is_token(token.trim()))
            || cookies(headers).any(|cookie| self.is_cookie(cookie))
    }
}

/// Returns the values of our cookie. There may be several, for example of another path.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == COOKIE_NAME)
        .map(|(_, value)| value)
}

/// Whether a request came without a proxy and for a loopback name. A page of another site that has
/// its own name resolved to a loopback address (DNS rebinding) sends that name.
pub fn is_direct(headers: &HeaderMap, uri: &Uri) -> bool {
    let mut hosts = headers.get_all(HOST).iter().map(|host| host.to_str().ok());
    !is_proxied(headers)
        && hosts.all(|host| host.is_some_and(is_loopback_host))
        && uri
            .authority()
            .is_none_or(|it| is_loopback_host(it.as_str()))
}

/// Whether a request came through a proxy, by the headers that proxies add.
pub fn is_proxied(headers: &HeaderMap) -> bool {
    let proxy = [FORWARDED.as_str(), VIA.as_str(), "x-real-ip"];
    headers
        .keys()
        .any(|name| proxy.contains(&name.as_str()) || name.as_str().starts_with("x-forwarded-"))
}

/// Whether `host` or `host:port` is `localhost` or a loopback address.
fn is_loopback_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let address = match name.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']'),
        None => Some(name),
    };
    let is_loopback = address.is_some_and(|address| {
        address.eq_ignore_ascii_case("localhost")
            || address.parse().is_ok_and(|it: IpAddr| it.is_loopback())
    });
    is_loopback && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the browser spoke https to the proxy.
fn is_https(headers: &HeaderMap) -> bool {
    let first = |name: &str| {
        let value = headers.get(name)?.to_str().ok()?;
        value.split(',').next().map(str::to_ascii_lowercase)
    };
    let forwarded = first(FORWARDED.as_str()).is_some_and(|value| {
        let mut pairs = value.split(';').filter_map(|pair| pair.split_once('='));
        pairs.any(|(name, value)| {
            name.trim() == "proto" && value.trim().trim_matches('"') == "https"
        })
    });
    forwarded || first("x-forwarded-proto").is_some_and(|value| value.trim() == "https")
}

async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    match access.decide(request.headers(), request.uri()) {
        Decision::Allowed => next.run(request).await,
        Decision::NeedsToken if request.uri().path() == "/" => login::form(None).into_response(),
        Decision::NeedsToken => login::unauthorized(),
        Decision::NoToken => login::forbidden(),
    }
}

#[cfg(test)]
#[path = "access/tests.rs"]
mod tests;
