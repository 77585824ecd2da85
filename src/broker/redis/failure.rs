//! Classification of Redis errors: transient or final, and which [`BrokerError`] to report.

use redis::{ErrorKind, RedisError};

use super::connect::IN_CLUSTER;
use crate::broker::BrokerError;
use crate::broker::error::Failure;

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let text = text(&error);
        // Redis 6 wraps the error of a command in a script into an error of the script.
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Final(BrokerError::Credentials(text)),
            _ if says(&REFUSED) => Self::Final(BrokerError::Credentials(text)),
            _ if text == IN_CLUSTER => Self::Final(BrokerError::Misconfigured {
                problem: text,
                fix: "use redis+cluster://, or rediss+cluster:// for TLS, in --sink",
            }),
            _ if says(&[
                "WRONGTYPE",
                "DB index is out of range",
                "SELECT is not allowed in cluster mode",
            ]) =>
            {
                Self::Final(BrokerError::WrongQueue(text))
            }
            ErrorKind::InvalidClientConfig => Self::Final(BrokerError::WrongQueue(text)),
            _ if text.contains("certificate") => Self::Final(BrokerError::Unavailable(text)),
            // All other server errors may pass: it is loading, has become a replica, is out of
            // memory or busy, or is moving a slot. A broken connection can be made again.
            _ => Self::Transient(text),
        }
    }
}

/// Texts with which servers refuse a login, or a command to a user.
const REFUSED: [&str; 5] = [
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "ACL failure",
    "can't run this command",
];

/// Returns whether an error during login concerns the login itself and would occur again.
pub(super) fn is_refused_login(error: &RedisError) -> bool {
    let text = text(error);
    let words = text.to_lowercase();
    error.kind() == ErrorKind::AuthenticationFailed
        || REFUSED.iter().any(|word| text.contains(word))
        || words.contains("password")
        || words.contains("auth")
}

/// Returns an error's text without the command that was sent, which contains chat ids.
pub(super) fn text(error: &RedisError) -> String {
    let detail = error.detail().unwrap_or_default();
    let text = match error.code() {
        Some(code) => format!("{code} {detail}"),
        None => {
            // The library's name of the error kind means nothing to a user.
            let kind = format!(" - {:?}", error.kind());
            error.to_string().replacen(&kind, "", 1)
        }
    };
    match text.find("with args beginning with") {
        Some(at) => text[..at].trim_end_matches([',', ' ']).to_owned(),
        None => text,
    }
}
