//! What an error of Redis means: whether it may pass, and what it is called outside.

use redis::{ErrorKind, RedisError};

use crate::sink::SinkError;
use crate::sink::patience::Failure;

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        let text = text(&error);
        // Redis 6 wraps what a command in a script says into an error of the script.
        let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
        match error.kind() {
            ErrorKind::AuthenticationFailed => Self::Final(SinkError::Credentials(text)),
            _ if says(&[
                "NOAUTH",
                "WRONGPASS",
                "NOPERM",
                "ACL failure",
                "can't run this command",
            ]) =>
            {
                Self::Final(SinkError::Credentials(text))
            }
            _ if says(&["WRONGTYPE", "DB index is out of range"]) => {
                Self::Final(SinkError::WrongQueue(text))
            }
            ErrorKind::InvalidClientConfig => Self::Final(SinkError::WrongQueue(text)),
            _ if text.contains("certificate") => Self::Final(SinkError::Unavailable(text)),
            // What else a server says may change: it is loading, a replica by now, out of memory,
            // busy, moving a slot; and a connection that broke may be made again.
            _ => Self::Passing(text),
        }
    }
}

/// An error's text, without what was sent: its values are chat ids.
fn text(error: &RedisError) -> String {
    let detail = error.detail().unwrap_or_default();
    let text = match error.code() {
        Some(code) => format!("{code} {detail}"),
        None => error.to_string(),
    };
    match text.find("with args beginning with") {
        Some(at) => text[..at].trim_end_matches([',', ' ']).to_owned(),
        None => text,
    }
}
