//! What an error of RabbitMQ means: whether it may pass, and what it is called outside.

use lapin::ErrorKind;

use crate::sink::SinkError;
use crate::sink::patience::Failure;

/// The reply codes of AMQP 0-9-1 that are told apart, from its specification, section 1.2.
pub(super) mod code {
    pub(crate) const INVALID_PATH: u16 = 402;
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const RESOURCE_LOCKED: u16 = 405;
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    pub(crate) const NOT_ALLOWED: u16 = 530;
}

/// The reply code and text, where the broker itself has refused something.
pub(super) fn refusal(error: &lapin::Error) -> Option<(u16, &str)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some((error.get_id(), error.get_message().as_str())),
        _ => None,
    }
}

/// Whether the broker has refused something with this reply code.
pub(super) fn is_refused_with(error: &lapin::Error, code: u16) -> bool {
    refusal(error).is_some_and(|(found, _)| found == code)
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        read(&error)
    }
}

fn read(error: &lapin::Error) -> Failure {
    let Some((code, text)) = refusal(error) else {
        let text = error.to_string();
        return if text.contains("certificate") {
            Failure::Final(SinkError::Unavailable(text))
        } else {
            Failure::Passing(text)
        };
    };
    let text = text.to_owned();
    // A queue whose node is away is not found either, and comes back.
    let is_away = [
        "down",
        "inaccessible",
        "not available",
        "stopped by supervisor",
    ]
    .iter()
    .any(|word| text.contains(word));
    match code {
        code::ACCESS_REFUSED => Failure::Final(SinkError::Credentials(text)),
        code::NOT_ALLOWED if text.contains("refused") => {
            Failure::Final(SinkError::Credentials(text))
        }
        code::NOT_FOUND if is_away => Failure::Passing(text),
        code::INVALID_PATH
        | code::NOT_FOUND
        | code::RESOURCE_LOCKED
        | code::PRECONDITION_FAILED
        | code::NOT_ALLOWED => Failure::Final(SinkError::WrongQueue(text)),
        // It stops, is short of something, or did not understand: a new connection may help.
        _ => Failure::Passing(text),
    }
}
