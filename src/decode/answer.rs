//! Errors that come as JSON under status 200, or as the body of another status.
//!
//! Seen in the wild: `{"status":401,"message":…,"error":…}`, `{"code":"invalid_session",
//! "message":…}`, `{"success":false,…}`, `{"result":false}`, WordPress's `{"code":…,"message":…,
//! "data":{"status":404}}` and WAHA's `{"statusCode":500,"exception":{…}}`.

use std::fmt;

/// What an API says of itself beside, or in place of, a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `success`, `result` or `ok`; false stays false, whatever comes after it.
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
const BAD_WORDS: [&str; 12] = [
    "denied",
    "disconnect",
    "error",
    "exceed",
    "expired",
    "fail",
    "forbidden",
    "invalid",
    "not connected",
    "not_found",
    "session",
    "unauthor",
];
/// Words that a status may be beside an empty list; numbers are looked at as such.
const GOOD_STATUS: [&str; 5] = ["ok", "success", "succeeded", "true", "working"];

impl Answer {
    /// Takes down `success`, as text; `None` for null, which is no success.
    pub(crate) fn add_success(&mut self, text: Option<&str>) {
        let is_false =
            |text: &str| ["false", "0", "", "no"].contains(&text.to_lowercase().as_str());
        if let Some(text) = text {
            self.success = Some(self.success != Some(false) && !is_false(text));
        }
    }

    /// Whether this says that something went wrong, whatever list may stand beside it.
    pub fn is_error(&self) -> bool {
        let bad_code = |code: &String| match leading_number(code) {
            Some(number) => number >= 400,
            None => has_bad_word(code) || (self.success != Some(true) && !is_good(code)),
        };
        let bad_status = |status: &String| match leading_number(status) {
            Some(number) => number >= 400,
            None => has_bad_word(status),
        };
        self.success == Some(false)
            || self.error.is_some()
            || self.code.as_ref().is_some_and(bad_code)
            || self.status.as_ref().is_some_and(bad_status)
    }

    /// Whether this makes an empty list beside it a doubtful one. A false alarm here costs a look at
    /// the message; a false zero would cost all the chats.
    pub fn casts_doubt(&self) -> bool {
        let message = self.message.as_deref().unwrap_or_default();
        let unknown_status = |status: &String| leading_number(status).is_none() && !is_good(status);
        self.is_error()
            || has_bad_word(message)
            || (!message.is_empty() && self.success != Some(true))
            || self.status.as_ref().is_some_and(unknown_status)
    }

    /// Whether it says anything at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
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
            answer.add_success(Some(text));
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
