//! Metrics for a Pushgateway, which keeps them until they are pushed again.
//!
//! <https://github.com/prometheus/pushgateway#api>. Each label is a group of its own there, and what
//! is pushed is added to it (POST): so a run that failed leaves the last success as it was.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use reqwest::Url;
use reqwest::header::CONTENT_TYPE;

use super::metrics::{Group, text};
use crate::api::causes;
use crate::http::{self, Proxies};

/// How long all of it may take: a stop has to end within ten seconds.
const WITHIN: Duration = Duration::from_secs(4);

/// Pushes groups one after the other.
///
/// # Errors
///
/// What kept one of them from being pushed; it holds no URL, in which a password may stand.
pub(super) async fn push(gateway: &Url, groups: &[Group], proxies: &Proxies) -> Result<(), String> {
    let pushing = async {
        let client = http::client(proxies)
            .map_err(why)?
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(why)?;
        for group in groups {
            let pushed = client
                .post(url_of(gateway, group))
                .header(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
                .body(text([group], &[]))
                .send()
                .await
                .map_err(why)?;
            if !pushed.status().is_success() {
                return Err(format!("it answered with {}", pushed.status()));
            }
        }
        Ok(())
    };
    match tokio::time::timeout(WITHIN, pushing).await {
        Ok(pushed) => pushed,
        Err(_) => Err(format!("it took longer than {} s", WITHIN.as_secs())),
    }
}

/// `…/metrics/job/labelcast/NAME/VALUE…`, where a value that a path cannot hold is written in base64.
fn url_of(gateway: &Url, group: &Group) -> Url {
    let mut url = gateway.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        path.extend(["metrics", "job", "labelcast"]);
        for (name, value) in &group.key {
            if value.is_empty() || value.contains('/') || value.starts_with('.') {
                // An empty value is a lone padding character.
                let value = match value.as_str() {
                    "" => "=".to_owned(),
                    value => URL_SAFE.encode(value),
                };
                path.push(&format!("{name}@base64")).push(&value);
            } else {
                path.push(name).push(value);
            }
        }
    }
    url
}

fn why(error: reqwest::Error) -> String {
    causes(&error.without_url())
}
