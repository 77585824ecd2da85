//! HTTP clients: the TLS provider, and the proxies that the environment names.

use std::ffi::OsString;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use reqwest::{ClientBuilder, NoProxy, Proxy};
use url::Url;

use crate::tls;

/// The variables that name proxies, with those of each pair that is asked first in front.
pub(crate) const PROXY_VARIABLES: [[&str; 2]; 3] = [
    ["HTTP_PROXY", "http_proxy"],
    ["HTTPS_PROXY", "https_proxy"],
    ["ALL_PROXY", "all_proxy"],
];
/// The variables that name hosts which are reached without a proxy.
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// Set by web servers that run a program: `HTTP_PROXY` is then the `Proxy` header of a request.
const CGI_VARIABLE: &str = "REQUEST_METHOD";

/// The characters to encode in a part of a URI: all but those that RFC 3986 calls unreserved.
pub(crate) const ALL_BUT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The proxies that requests go through.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For `http://`.
    http: Option<Url>,
    /// For `https://`.
    https: Option<Url>,
    /// Hosts, addresses and networks that are reached directly, as in `NO_PROXY`.
    except: String,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Passwords may stand in the URLs.
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

/// A variable that does not name a proxy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAProxy {
    pub(crate) variable: &'static str,
    pub(crate) problem: &'static str,
}

impl Proxies {
    /// Reads the environment.
    ///
    /// A variable that cannot be used is an error and never passed over: the access token would go out directly.
    pub(crate) fn from_env(env: impl Fn(&str) -> Option<OsString>) -> Result<Self, Vec<NotAProxy>> {
        let is_cgi = env(CGI_VARIABLE).is_some();
        let mut problems = Vec::new();
        let [http, https, all] = PROXY_VARIABLES.map(|pair| {
            let found = pair.map(|variable| {
                if is_cgi && variable == "HTTP_PROXY" {
                    return None;
                }
                let value = env(variable).filter(|value| !value.is_empty())?;
                match value.to_str().ok_or(NOT_TEXT).and_then(proxy_url) {
                    Ok(url) => Some(url),
                    Err(problem) => {
                        problems.push(NotAProxy { variable, problem });
                        None
                    }
                }
            });
            found.into_iter().flatten().next()
        });
        if !problems.is_empty() {
            return Err(problems);
        }
        let except = NO_PROXY_VARIABLES
            .map(|variable| {
                env(variable)
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned()
            })
            .join(",")
            // Some write lists with spaces, semicolons or line breaks, and some with quotes.
            .replace(|c: char| c.is_whitespace() || c == ';', ",")
            .replace(['"', '\''], "");
        if except.split(',').any(means_all) {
            return Ok(Self::default());
        }
        Ok(Self {
            http: http.or_else(|| all.clone()),
            https: https.or(all),
            except,
        })
    }
}

/// Whether an entry of `NO_PROXY` stands for all hosts: `*`, and `*.*` or `*:*` too.
fn means_all(entry: &str) -> bool {
    entry.contains('*') && entry.chars().all(|c| "*.:".contains(c))
}

const NOT_TEXT: &str = "is not UTF-8";

fn proxy_url(text: &str) -> Result<Url, &'static str> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("has white space or a line break in it");
    }
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("http://{text}"))
    };
    let url = url.map_err(|_| "is not the URL of a proxy, like http://proxy:3128")?;
    match url.scheme() {
        "http" | "https" if url.host().is_some() => Ok(url),
        "http" | "https" => Err("has no host"),
        _ => Err("is not an HTTP proxy: its URL has to begin with http:// or https://"),
    }
}

/// A builder of clients that go through these proxies, and through no others.
///
/// # Errors
///
/// When the HTTP client cannot use one of the proxies.
pub(crate) fn client(proxies: &Proxies) -> reqwest::Result<ClientBuilder> {
    tls::provide();
    let mut builder = reqwest::Client::builder().no_proxy();
    let except = NoProxy::from_string(&proxies.except);
    let http = proxies.http.clone().map(Proxy::http);
    let https = proxies.https.clone().map(Proxy::https);
    for proxy in http.into_iter().chain(https) {
        builder = builder.proxy(proxy?.no_proxy(except.clone()));
    }
    Ok(builder)
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

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Proxies, Vec<NotAProxy>> {
        Proxies::from_env(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).into())
        })
    }

    fn hosts(variables: &[(&str, &str)]) -> [Option<String>; 2] {
        let proxies = read(variables).unwrap();
        [proxies.http, proxies.https].map(|url| url.map(|url| url.to_string()))
    }

    #[test]
    fn the_nearest_variable_names_the_proxy() {
        let url = |text: &str| Some(text.to_owned());
        for (variables, expected) in [
            (&[][..], [None, None]),
            (&[("http_proxy", "a:1")], [url("http://a:1/"), None]),
            (
                &[("HTTP_PROXY", ""), ("http_proxy", "http://u:p@a")],
                [url("http://u:p@a/"), None],
            ),
            (
                &[("ALL_PROXY", "https://a"), ("HTTPS_PROXY", "b:2")],
                [url("https://a/"), url("http://b:2/")],
            ),
            (&[("ALL_PROXY", "a"), ("NO_PROXY", "x, *")], [None, None]),
            (
                &[("HTTP_PROXY", "a"), ("REQUEST_METHOD", "GET")],
                [None, None],
            ),
        ] {
            assert_eq!(hosts(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_variable_that_names_no_proxy_is_an_error() {
        for value in [
            "http://127.0.0.1:1\n",
            "http://a b",
            "http://",
            "http://a:port",
            "socks5://a:1080",
            "ftp://a",
            ":3128",
        ] {
            for variable in ["HTTPS_PROXY", "all_proxy"] {
                let problems = read(&[(variable, value), ("NO_PROXY", "*")]).unwrap_err();
                assert_eq!(problems.len(), 1, "{value}");
                assert_eq!(problems[0].variable, variable);
            }
        }
    }
}
