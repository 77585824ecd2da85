//! What an error of Redis means: whether it may pass, and what it is called outside.

use redis::{ErrorKind, RedisError};

use super::connect::IN_CLUSTER;
use crate::sink::SinkError;
use crate::sink::retry_policy::Failure;

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let text = text(&error);
        // Redis 6 wraps what a command in a script says into an error of the script.
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Final(SinkError::Credentials(text)),
            _ if says(&REFUSED) => Self::Final(SinkError::Credentials(text)),
            _ if text == IN_CLUSTER => Self::Final(SinkError::Misconfigured {
                problem: text,
                fix: "use redis+cluster://, or rediss+cluster:// for TLS, in --sink",
            }),
            _ if says(&[
                "WRONGTYPE",
                "DB index is out of range",
                "SELECT is not allowed in cluster mode",
            ]) =>
            {
                Self::Final(SinkError::WrongQueue(text))
            }
            ErrorKind::InvalidClientConfig => Self::Final(SinkError::WrongQueue(text)),
            _ if text.contains("certificate") => Self::Final(SinkError::Unavailable(text)),
            // What else a server says may change: it is loading, a replica by now, out of memory,
            // busy, moving a slot; and a connection that broke may be made again.
            _ => Self::Transient(text),
        }
    }
}

/// The words of servers that refuse a login, or a command to a user.
const REFUSED: [&str; 5] = [
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "ACL failure",
    "can't run this command",
];

/// Whether an error that a login met is about the login, and will be the same next time.
pub(super) fn is_refused_login(error: &RedisError) -> bool {
    let text = text(error);
    let words = text.to_lowercase();
    error.kind() == ErrorKind::AuthenticationFailed
        || REFUSED.iter().any(|word| text.contains(word))
        || words.contains("password")
        || words.contains("auth")
}

/// An error's text, without what was sent: its values are chat ids.
pub(super) fn text(error: &RedisError) -> String {
    let detail = error.detail().unwrap_or_default();
    let text = match error.code() {
        Some(code) => format!("{code} {detail}"),
        None => {
            // The library's own name of the kind says nothing to a user.
            let kind = format!(" - {:?}", error.kind());
            error.to_string().replacen(&kind, "", 1)
        }
    };
    match text.find("with args beginning with") {
        Some(at) => text[..at].trim_end_matches([',', ' ']).to_owned(),
        None => text,
    }
}
