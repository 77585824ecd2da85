//! Errors that come as JSON under status 200, or as the body of another status.
//!
//! Seen in the wild: `{"status":401,"message":…,"error":…}`, `{"code":"invalid_session",
//! "message":…}`, `{"success":false,…}`, `{"result":false}`, WordPress's `{"code":…,"message":…,
//! "data":{"status":404}}` and WAHA's `{"statusCode":500,"exception":{…}}`.

use std::fmt;

/// What an API says of itself beside, or in place of, a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `success`, `result` or `ok`; false stays false, whatever comes after it. Of the others what sounds
    /// worst is kept.
    pub success: Option<bool>,
    /// `code`.
    pub code: Option<String>,
    /// `status` or `statusCode`.
    pub status: Option<String>,
    /// `message`.
    pub message: Option<String>,
    /// `error`, `errors` or `exception`.
    pub error: Option<String>,
}

/// Words that mean a failure wherever they stand in a code, or in the message beside an empty list.
const BAD_WORDS: [&str; 18] = [
    "denied",
    "disconnect",
    "error",
    "exceed",
    "expired",
    "fail",
    "forbidden",
    "gone",
    "invalid",
    "not connected",
    "not_found",
    "quota",
    "session",
    "stopped",
    "timed out",
    "timeout",
    "unauthor",
    "unavailable",
];
/// Words that a status may be beside an empty list; numbers are looked at as such.
const GOOD_STATUS: [&str; 6] = ["no_error", "ok", "success", "succeeded", "true", "working"];

impl Answer {
    /// What is kept of an array or an object that is not empty.
    pub(crate) const NESTED: &'static str = "(more than a text)";

    /// Takes down `success` or its like, as text; `None` for null, which is no success. What is neither
    /// yes nor no is looked at as a status, as in `"result": "error"`.
    pub(crate) fn add_success(&mut self, text: Option<String>) {
        let Some(text) = text else { return };
        match text.to_lowercase().as_str() {
            "false" | "0" | "" | "no" => self.success = Some(false),
            lower
                if is_good(lower)
                    || lower == "yes"
                    || lower.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                self.success.get_or_insert(true);
            }
            _ => self.add_status(Some(text)),
        }
    }

    /// Takes down a `code`.
    pub(crate) fn add_code(&mut self, text: Option<String>) {
        keep_worst(&mut self.code, text, of_code);
    }

    /// Takes down a `status` or `statusCode`.
    pub(crate) fn add_status(&mut self, text: Option<String>) {
        keep_worst(&mut self.status, text, of_code);
    }

    /// Takes down a `message`.
    pub(crate) fn add_message(&mut self, text: Option<String>) {
        keep_worst(&mut self.message, text, of_message);
    }

    /// Takes down an `error` or its like, unless it says that there is none.
    pub(crate) fn add_error(&mut self, text: Option<String>) {
        let is_one = |text: &String| !["false", "0", ""].contains(&text.as_str());
        self.error = self.error.take().or(text.filter(is_one));
    }

    /// Whether this says that something went wrong, whatever list may stand beside it.
    pub fn is_error(&self) -> bool {
        let code = self.code.as_deref().map_or(Sound::Good, of_code);
        let status = self.status.as_deref().map_or(Sound::Good, of_code);
        self.success == Some(false)
            || self.error.is_some()
            || code == Sound::Bad
            || (code == Sound::Unknown && self.success != Some(true))
            || status == Sound::Bad
    }

    /// Whether this makes an empty list beside it a doubtful one. A false alarm here costs a look at
    /// the message; a false zero would cost all the chats.
    pub fn casts_doubt(&self) -> bool {
        let message = self.message.as_deref().map_or(Sound::Good, of_message);
        let status = self.status.as_deref().map_or(Sound::Good, of_code);
        self.is_error()
            || message == Sound::Bad
            || (message == Sound::Unknown && self.success != Some(true))
            || status != Sound::Good
    }

    /// Whether it says anything at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How a word of the API sounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sound {
    Good,
    Unknown,
    Bad,
}

/// A member may come again, under another name or within `data`: what was bad stays so.
fn keep_worst(slot: &mut Option<String>, new: Option<String>, sound: fn(&str) -> Sound) {
    let Some(new) = new else { return };
    if slot.as_ref().is_none_or(|old| sound(&new) > sound(old)) {
        *slot = Some(new);
    }
}

fn of_code(text: &str) -> Sound {
    match leading_number(text) {
        Some(400..) => Sound::Bad,
        Some(_) => Sound::Good,
        None if is_good(text) => Sound::Good,
        None if has_bad_word(text) => Sound::Bad,
        None => Sound::Unknown,
    }
}

fn of_message(text: &str) -> Sound {
    if has_bad_word(text) {
        Sound::Bad
    } else if text.is_empty() {
        Sound::Good
    } else {
        Sound::Unknown
    }
}

fn has_bad_word(text: &str) -> bool {
    let text = text.to_lowercase();
    BAD_WORDS.iter().any(|word| text.contains(word))
}

fn is_good(text: &str) -> bool {
    text.is_empty() || GOOD_STATUS.contains(&text.to_lowercase().as_str())
}

/// The number that a text is, or begins with, as in `404 Not Found`.
fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, value) in [
            ("code", &self.code),
            ("status", &self.status),
            ("message", &self.message),
            ("error", &self.error),
        ] {
            if let Some(value) = value {
                write!(f, "{separator}{name} “{value}”")?;
                separator = ", ";
            }
        }
        match self.success {
            Some(success) if separator.is_empty() => write!(f, "success {success}"),
            None if separator.is_empty() => f.write_str("no code and no message"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(success: Option<bool>, code: Option<&str>, status: Option<&str>) -> Answer {
        Answer {
            success,
            code: code.map(str::to_owned),
            status: status.map(str::to_owned),
            ..Answer::default()
        }
    }

    #[test]
    fn false_stays_false() {
        let mut answer = Answer::default();
        for text in ["False", "true"] {
            answer.add_success(Some(text.to_owned()));
        }
        assert_eq!(answer.success, Some(false));
        let mut answer = Answer::default();
        answer.add_success(None);
        assert_eq!(answer.success, None);
    }

    #[test]
    fn what_is_an_error() {
        assert!(answer(Some(false), None, None).is_error());
        assert!(answer(None, Some("invalid_session"), None).is_error());
        assert!(answer(None, Some("404"), None).is_error());
        assert!(answer(None, None, Some("401")).is_error());
        assert!(!answer(Some(true), Some("labels_found"), None).is_error());
        assert!(!answer(None, Some("200"), Some("200")).is_error());
        assert!(!answer(None, Some("OK"), Some("success")).is_error());
        assert!(answer(None, None, Some("401 Unauthorized")).is_error());
        assert!(answer(Some(true), Some("invalid_session"), None).is_error());
        assert!(answer(Some(true), None, Some("500")).is_error());
        assert!(!answer(None, None, None).is_error());
    }
}
