//! Redirects, which are followed only to places that may receive the token.

use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode};
use url::Url;

/// The redirect of a response.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// No redirect, or one without a target.
    None,
    /// To the same host.
    Follow(Box<Url>),
    /// To another host, with its scheme, name and port only, because the rest may contain the
    /// token.
    OtherHost(String),
}

impl Redirect {
    /// Reads the redirect of a response.
    pub(super) fn of(response: &Response) -> Self {
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        Self::from(response.status(), response.url(), location)
    }

    fn from(status: StatusCode, from: &Url, location: Option<&str>) -> Self {
        let is_redirect = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
        let to = location.filter(|_| is_redirect).map(|text| from.join(text));
        match to {
            Some(Ok(to)) if is_same_host(from, &to) => Self::Follow(Box::new(to)),
            Some(Ok(to)) => Self::OtherHost(origin(&to)),
            Some(Err(_)) | None => Self::None,
        }
    }
}

/// Returns whether both URLs are on the same host and port with the same scheme. Otherwise the
/// token, in the query or in a header, would be sent to another server. The one exception is the
/// upgrade from http to https on the default ports.
fn is_same_host(from: &Url, to: &Url) -> bool {
    let is_upgrade = (from.scheme(), to.scheme()) == ("http", "https")
        && (from.port(), to.port()) == (None, None);
    let is_same_port =
        from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default();
    from.host_str() == to.host_str() && (is_upgrade || is_same_port)
}

/// Returns scheme, host and port.
fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn redirects_are_followed_on_the_same_host_only() {
        let follow = |url: &str| Redirect::Follow(Box::new(url.parse().unwrap()));
        let other_host = |origin: &str| Redirect::OtherHost(origin.to_owned());
        for (from, location, expected) in [
            ("http://a/x?t=1", "/y?t=1", follow("http://a/y?t=1")),
            ("http://a/x", "https://a/x", follow("https://a/x")),
            ("http://a:80/x", "https://a:443/x", follow("https://a/x")),
            ("https://a/x", "https://a:443/y", follow("https://a/y")),
            ("https://a/x", "http://a/x", other_host("http://a")),
            ("http://a:81/x", "https://a/x", other_host("https://a")),
            (
                "http://a/x",
                "https://a:8443/x",
                other_host("https://a:8443"),
            ),
            ("http://a/x", "https://b/x?t=1", other_host("https://b")),
            ("http://a/x", "//b/x", other_host("http://b")),
        ] {
            let from: Url = from.parse().unwrap();
            let found = Redirect::from(StatusCode::FOUND, &from, Some(location));
            assert_eq!(found, expected, "{from} to {location}");
        }
    }

    #[test]
    fn other_statuses_are_not_redirects() {
        let from: Url = "http://a/x".parse().unwrap();
        for (status, location) in [
            (304, Some("/y")),
            (300, Some("/y")),
            (301, None),
            (200, Some("/y")),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Redirect::from(status, &from, location), Redirect::None);
        }
    }
}
