//! Metrics for a Pushgateway, which keeps them until the next push.
//!
//! <https://github.com/prometheus/pushgateway#api>. Each label is a group of its own there. A push
//! adds to the group (POST), so a failed run does not change the last success.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Response};
use url::Url;

use super::metrics::{Group, text};
use crate::http::{self, Proxies, causes};

/// The time limit for all groups. A stopped process has to end within ten seconds.
const TIME_LIMIT: Duration = Duration::from_secs(4);

/// The maximum number of bytes that are read of an error response, and of characters that are
/// shown.
const MAX_READ: usize = 4096;
const MAX_SHOWN: usize = 200;

/// Pushes the groups one after the other. A refused group does not stop the others.
///
/// Returns a text for each problem, without the URL, which may contain a password.
pub(super) async fn push(gateway: &Url, groups: &[Group], proxies: &Proxies) -> Vec<String> {
    let client = http::client(proxies)
        .map(|builder| builder.redirect(reqwest::redirect::Policy::none()))
        .and_then(|builder| builder.build());
    let client = match client {
        Ok(client) => client,
        Err(error) => return vec![cause(error)],
    };
    let mut problems = Vec::new();
    let mut pushed = 0;
    let pushing = async {
        for group in groups {
            if let Err(problem) = push_group(&client, gateway, group).await
                && !problems.contains(&problem)
            {
                problems.push(problem);
            }
            pushed += 1;
        }
    };
    if tokio::time::timeout(TIME_LIMIT, pushing).await.is_err() {
        let (left, all, seconds) = (groups.len() - pushed, groups.len(), TIME_LIMIT.as_secs());
        problems.push(format!(
            "timed out after {seconds} s; {left} of {all} groups were not pushed"
        ));
    }
    problems
}

async fn push_group(client: &Client, gateway: &Url, group: &Group) -> Result<(), String> {
    let response = client
        .post(url_of(gateway, group))
        .header(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")
        .body(text([group], &[]))
        .send()
        .await
        .map_err(cause)?;
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let labels = group.key.iter();
    let labels: Vec<String> = labels
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect();
    let text = excerpt(response).await;
    let separator = if text.is_empty() { "" } else { ": " };
    Err(format!(
        "the gateway answered with {status} for {{{}}}{separator}{text}",
        labels.join(",")
    ))
}

/// Returns the start of a response, as one line.
async fn excerpt(mut response: Response) -> String {
    let mut bytes = Vec::new();
    // A truncated response is quoted as far as it arrived.
    while bytes.len() < MAX_READ
        && let Ok(Some(chunk)) = response.chunk().await
    {
        bytes.extend_from_slice(&chunk);
    }
    let text = String::from_utf8_lossy(&bytes);
    let spaced = text.replace(char::is_control, " ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    words.join(" ").chars().take(MAX_SHOWN).collect()
}

/// Returns `…/metrics/job/labelcast/NAME/VALUE…`. A value that is not allowed in a path is encoded
/// in base64.
fn url_of(gateway: &Url, group: &Group) -> Url {
    let mut url = gateway.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty();
        path.extend(["metrics", "job", "labelcast"]);
        for (name, value) in &group.key {
            if value.is_empty() || value.contains('/') || value.starts_with('.') {
                // An empty value is encoded as one padding character.
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

fn cause(error: reqwest::Error) -> String {
    causes(&error.without_url())
}
