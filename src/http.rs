//! HTTP clients, with the TLS provider and the proxies from the environment.

use std::ffi::OsString;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};
use reqwest::{ClientBuilder, NoProxy, Proxy};
use url::Url;

use crate::tls;

/// The variables that name proxies. The first variable of each pair takes precedence.
pub(crate) const PROXY_VARIABLES: [[&str; 2]; 3] = [
    ["HTTP_PROXY", "http_proxy"],
    ["HTTPS_PROXY", "https_proxy"],
    ["ALL_PROXY", "all_proxy"],
];
/// The variables that name hosts to reach without a proxy.
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];
/// A variable that web servers set for CGI programs. `HTTP_PROXY` then contains the `Proxy` header
/// of a request.
const CGI_VARIABLE: &str = "REQUEST_METHOD";

/// The characters to encode in a part of a URI: all but those that RFC 3986 calls unreserved.
pub(crate) const ALL_BUT_UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The proxies for requests.
#[derive(Clone, Default)]
pub struct Proxies {
    /// The proxy for `http://`.
    http: Option<Url>,
    /// The proxy for `https://`.
    https: Option<Url>,
    /// Hosts, addresses and networks to reach directly, as in `NO_PROXY`.
    except: String,
}

impl std::fmt::Debug for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URLs may contain passwords.
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

/// The error for a variable that does not name a proxy.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotAProxy {
    pub(crate) variable: &'static str,
    pub(crate) problem: &'static str,
}

impl Proxies {
    /// Reads the proxies from the environment.
    ///
    /// An unusable variable is an error. If it were ignored, the access token would be sent without
    /// the proxy.
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
            // Some lists are separated by spaces, semicolons or line breaks, and some are quoted.
            .replace(|c: char| c.is_whitespace() || c == ';', ",")
            .replace(['"', '\''], "");
        if except.split(',').any(matches_all_hosts) {
            return Ok(Self::default());
        }
        Ok(Self {
            http: http.or_else(|| all.clone()),
            https: https.or(all),
            except,
        })
    }
}

/// Returns whether an entry of `NO_PROXY` means all hosts: `*`, `*.*` or `*:*`.
fn matches_all_hosts(entry: &str) -> bool {
    entry.contains('*') && entry.chars().all(|c| "*.:".contains(c))
}

const NOT_TEXT: &str = "is not UTF-8";

fn proxy_url(text: &str) -> Result<Url, &'static str> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err("contains white space or a line break");
    }
    let url = if text.contains("://") {
        Url::parse(text)
    } else {
        Url::parse(&format!("http://{text}"))
    };
    let url = url.map_err(|_| "is not the URL of a proxy, such as http://proxy:3128")?;
    match url.scheme() {
        "http" | "https" if url.host().is_some() => Ok(url),
        "http" | "https" => Err("has no host"),
        _ => Err("is not an HTTP proxy: its URL must start with http:// or https://"),
    }
}

/// Creates a builder for clients that use these proxies and no others.
///
/// # Errors
///
/// If the HTTP client cannot use one of the proxies.
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

/// Returns an error's text with all its causes. The caller must remove the URL first.
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
    fn the_most_specific_variable_names_the_proxy() {
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
    fn an_invalid_proxy_variable_is_an_error() {
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
