//! Redirects: followed only where the login may go along.

use reqwest::header::LOCATION;
use reqwest::{Response, StatusCode};
use url::Url;

/// Where an answer sends its reader.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Nowhere: it is an answer, or a redirect without a place.
    None,
    /// To the same host, which the request is for.
    Follow(Box<Url>),
    /// To another host, by its scheme, name and port: the rest may hold the token.
    Elsewhere(String),
}

impl Redirect {
    /// What a response asks for.
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
            Some(Ok(to)) => Self::Elsewhere(origin(&to)),
            Some(Err(_)) | None => Self::None,
        }
    }
}

/// Another host, another port, or the same host without TLS is not who was asked: the token, in the query or in
/// a header, would go along. The one exception is the step up to TLS on the usual ports.
fn is_same_host(from: &Url, to: &Url) -> bool {
    let is_upgrade = (from.scheme(), to.scheme()) == ("http", "https")
        && (from.port(), to.port()) == (None, None);
    let is_same_port =
        from.scheme() == to.scheme() && from.port_or_known_default() == to.port_or_known_default();
    from.host_str() == to.host_str() && (is_upgrade || is_same_port)
}

/// Scheme, host and port.
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
    fn the_login_goes_along_on_one_host_only() {
        let follow = |url: &str| Redirect::Follow(Box::new(url.parse().unwrap()));
        let elsewhere = |origin: &str| Redirect::Elsewhere(origin.to_owned());
        for (from, location, expected) in [
            ("http://a/x?t=1", "/y?t=1", follow("http://a/y?t=1")),
            ("http://a/x", "https://a/x", follow("https://a/x")),
            ("http://a:80/x", "https://a:443/x", follow("https://a/x")),
            ("https://a/x", "https://a:443/y", follow("https://a/y")),
            ("https://a/x", "http://a/x", elsewhere("http://a")),
            ("http://a:81/x", "https://a/x", elsewhere("https://a")),
            (
                "http://a/x",
                "https://a:8443/x",
                elsewhere("https://a:8443"),
            ),
            ("http://a/x", "https://b/x?t=1", elsewhere("https://b")),
            ("http://a/x", "//b/x", elsewhere("http://b")),
        ] {
            let from: Url = from.parse().unwrap();
            let found = Redirect::from(StatusCode::FOUND, &from, Some(location));
            assert_eq!(found, expected, "{from} to {location}");
        }
    }

    #[test]
    fn other_answers_are_no_redirects() {
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
