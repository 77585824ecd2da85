//! What the API says when it is not a list of chats: labels, refusals, and the headers of both.

use std::time::{Duration, SystemTime};

use reqwest::header::{HeaderMap, LOCATION, RETRY_AFTER};
use reqwest::{Response, Url};
use serde_json::Value;

use super::{ApiError, Body, Label, RawLabel};
use crate::decode::Answer;

/// As much of a refusal's body as is looked at.
const MAX_REFUSAL_BYTES: usize = 64 * 1024;
/// As much of a text as is kept, in characters. Less is shown, once secrets were taken out.
pub(super) const MAX_KEPT: usize = 4096;

/// The labels in a body: an array or a map of them, bare or in an envelope.
pub(super) fn labels(body: &[u8]) -> Result<Vec<Label>, ApiError> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    match body.trim_ascii_start().first() {
        None => return Err(ApiError::Empty),
        Some(b'{' | b'[') => {}
        Some(other) => return Err(ApiError::NotJson(*other)),
    }
    let mut value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(error) if error.is_eof() => {
            return Err(ApiError::Cut("the list of labels is not whole".to_owned()));
        }
        Err(error) => return Err(ApiError::Labels(error.to_string())),
    };
    let answer = of_json(&value);
    let list = value.get("data").unwrap_or(&value);
    let is_empty = match list {
        Value::Array(labels) => labels.is_empty(),
        Value::Object(map) => !map.keys().any(|key| is_index(key)),
        _ => true,
    };
    if answer.is_error() || (is_empty && answer.casts_doubt()) {
        return Err(ApiError::Answered(Box::new(answer)));
    }
    if let Some(data) = value.get_mut("data") {
        value = data.take();
    }
    match value {
        Value::Array(labels) => labels.into_iter().map(label).collect(),
        Value::Object(map) if map.keys().any(|key| is_index(key)) || map.is_empty() => map
            .into_iter()
            .filter(|(key, _)| is_index(key))
            .map(|(_, value)| label(value))
            .collect(),
        _ if !answer.is_empty() => Err(ApiError::Answered(Box::new(answer))),
        _ => Err(ApiError::Labels("it has an unknown shape".to_owned())),
    }
}

fn is_index(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_digit())
}

fn label(value: Value) -> Result<Label, ApiError> {
    let raw: RawLabel = serde_json::from_value(value)
        .map_err(|_| ApiError::Labels("a label has no id".to_owned()))?;
    let id = match raw.id {
        Value::String(id) if !id.is_empty() => id,
        Value::Number(id) => id.to_string(),
        _ => return Err(ApiError::Labels("a label's id is no text".to_owned())),
    };
    Ok(Label {
        id,
        name: raw.name.as_ref().and_then(scalar),
        color: raw.color_hex.as_ref().and_then(scalar),
    })
}

/// What the body of a refusal says.
pub(super) async fn of(response: Response) -> Answer {
    let mut start = Vec::new();
    if let Ok(mut body) = Body::new(response) {
        while let Ok(Some(bytes)) = body.next().await {
            let room = MAX_REFUSAL_BYTES.saturating_sub(start.len());
            start.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if start.len() >= MAX_REFUSAL_BYTES {
                break;
            }
        }
    }
    match serde_json::from_slice(&start) {
        Ok(value @ Value::Object(_)) => of_json(&value),
        _ => Answer {
            message: plain_text(&start),
            ..Answer::default()
        },
    }
}

/// Plain text is quoted; markup says nothing that the status does not.
fn plain_text(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim();
    (!text.is_empty() && !text.starts_with(['<', '{', '['])).then(|| quoted(text))
}

fn of_json(value: &Value) -> Answer {
    let text = |key: &str| scalar(value.get(key)?);
    let nested = |key: &str| {
        let inner = value.get(key)?;
        let more = || match inner {
            Value::Array(all) if !all.is_empty() => Some(Answer::NESTED.to_owned()),
            Value::Object(all) if !all.is_empty() => Some(Answer::NESTED.to_owned()),
            _ => None,
        };
        scalar(inner)
            .or_else(|| scalar(inner.get("message")?))
            .or_else(more)
    };
    let mut answer = Answer::default();
    answer.add_code(text("code"));
    answer.add_message(text("message"));
    for key in ["status", "statusCode"] {
        answer.add_status(text(key));
    }
    for key in ["error", "errors", "exception"] {
        answer.add_error(nested(key));
    }
    for key in ["success", "result", "ok"] {
        answer.add_success(nested(key));
    }
    answer
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => (!text.is_empty()).then(|| quoted(text)),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
    text.chars().take(MAX_KEPT).collect()
}

/// `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// The host that a redirect points to: never more, since the rest may hold the token.
pub(super) fn location(response: &Response) -> Option<String> {
    let text = response.headers().get(LOCATION)?.to_str().ok()?;
    let base = Url::options().base_url(Some(response.url())).parse(text);
    base.ok().map(|url| origin(&url))
}

/// Scheme, host and port.
pub(super) fn origin(url: &Url) -> String {
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

    fn ids(body: &str) -> Vec<String> {
        let labels = labels(body.as_bytes()).unwrap();
        labels.into_iter().map(|label| label.id).collect()
    }

    #[test]
    fn labels_come_in_four_shapes() {
        assert_eq!(ids(r#"[{"id":"1","name":"a"},{"id":22}]"#), ["1", "22"]);
        assert_eq!(ids(r#"{"0":{"id":"1"},"1":{"id":"2"}}"#), ["1", "2"]);
        assert_eq!(ids(r#"{"success":true,"data":[{"id":"1"}]}"#), ["1"]);
        assert_eq!(ids(r#"{"success":true,"0":{"id":"1"}}"#), ["1"]);
        assert!(ids("[]").is_empty());
    }

    #[test]
    fn an_error_is_not_a_list_of_labels() {
        for body in [
            r#"{"code":"invalid_session","message":"Session not found."}"#,
            r#"{"success":false,"data":[]}"#,
            r#"{"message":"Unauthenticated."}"#,
        ] {
            let error = labels(body.as_bytes()).unwrap_err();
            assert!(matches!(error, ApiError::Answered(_)), "{body}: {error}");
        }
        assert!(labels(br#"[{"id":"1"}"#).unwrap_err().is_transient());
        assert!(matches!(labels(b"<html>"), Err(ApiError::NotJson(b'<'))));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let header = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(header("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            header("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(header("soon"), None);
    }
}
