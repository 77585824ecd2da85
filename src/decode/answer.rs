//! Errors that come as JSON under status 200, or as the body of another status.
//!
//! Seen in the wild: `{"status":401,"message":…,"error":…}`, `{"code":"invalid_session",
//! "message":…}`, `{"success":false,…}`, `{"result":false}`, WordPress's `{"code":…,"message":…,
//! "data":{"status":404}}` and WAHA's `{"statusCode":500,"exception":{…}}`.

use std::fmt;

/// What an API says of itself beside, or in place of, a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `success` or `result`.
    pub success: Option<bool>,
    /// `code`.
    pub code: Option<String>,
    /// `status` or `statusCode`.
    pub status: Option<String>,
    /// `message`.
    pub message: Option<String>,
    /// `error`, or `exception`.
    pub error: Option<String>,
}

impl Answer {
    /// Whether this says that something went wrong, whatever list may stand beside it.
    pub fn is_error(&self) -> bool {
        if let Some(success) = self.success {
            return !success;
        }
        let wrong_code = |code: &String| match code.parse::<i64>() {
            Ok(number) => number >= 400,
            Err(_) => !["ok", "success", ""].contains(&code.to_lowercase().as_str()),
        };
        let wrong_status = |status: &String| status.parse::<i64>().is_ok_and(|n| n >= 400);
        self.error.is_some()
            || self.code.as_ref().is_some_and(wrong_code)
            || self.status.as_ref().is_some_and(wrong_status)
    }

    /// Whether it says anything at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
    fn what_is_an_error() {
        assert!(answer(Some(false), None, None).is_error());
        assert!(answer(None, Some("invalid_session"), None).is_error());
        assert!(answer(None, Some("404"), None).is_error());
        assert!(answer(None, None, Some("401")).is_error());
        assert!(!answer(Some(true), Some("labels_found"), None).is_error());
        assert!(!answer(None, Some("200"), Some("200")).is_error());
        assert!(!answer(None, Some("OK"), Some("success")).is_error());
        assert!(!answer(None, None, None).is_error());
    }
}
