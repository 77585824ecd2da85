//! Classification of RabbitMQ errors: transient or final, and which [`BrokerError`] to report.

use lapin::ErrorKind;

use super::names;
use crate::broker::BrokerError;
use crate::broker::error::Failure;

/// AMQP 0-9-1 reply codes that are handled differently, from section 1.2 of the specification.
pub(super) mod code {
    pub(crate) const INVALID_PATH: u16 = 402;
    pub(crate) const ACCESS_REFUSED: u16 = 403;
    pub(crate) const NOT_FOUND: u16 = 404;
    pub(crate) const RESOURCE_LOCKED: u16 = 405;
    pub(crate) const PRECONDITION_FAILED: u16 = 406;
    pub(crate) const NOT_ALLOWED: u16 = 530;
    pub(crate) const NOT_IMPLEMENTED: u16 = 540;
}

/// Returns the reply code and text if the broker itself has refused something.
pub(super) fn refusal(error: &lapin::Error) -> Option<(u16, &str)> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some((error.get_id(), error.get_message().as_str())),
        _ => None,
    }
}

/// Returns whether the broker has refused something with this reply code.
pub(super) fn is_refused_with(error: &lapin::Error, code: u16) -> bool {
    refusal(error).is_some_and(|(found, _)| found == code)
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        read(&error)
    }
}

/// Texts of a queue on an unavailable node. It is reported as not found too, but comes back.
const AWAY: &[&str] = &[
    "down",
    "inaccessible",
    "not available",
    "stopped by supervisor",
];

/// Returns whether one of these words is in the broker's own text. Names that it quotes may contain
/// any.
fn says(text: &str, words: &[&str]) -> bool {
    let mut own = text.split('\'').step_by(2);
    own.any(|part| words.iter().any(|word| part.contains(word)))
}

fn read(error: &lapin::Error) -> Failure {
    let Some((code, text)) = refusal(error) else {
        let text = error.to_string();
        return if text.contains("certificate") {
            Failure::Final(BrokerError::Unavailable(text))
        } else {
            Failure::Transient(text)
        };
    };
    let text = text.to_owned();
    match code {
        code::NOT_ALLOWED if says(&text, &["limit"]) => Failure::Transient(text),
        // No login may use such a name.
        code::ACCESS_REFUSED if says(&text, &["reserved prefix"]) => {
            Failure::Final(names::misnamed(text))
        }
        code::ACCESS_REFUSED => Failure::Final(BrokerError::Credentials(text)),
        code::NOT_ALLOWED if says(&text, &["refused"]) => {
            Failure::Final(BrokerError::Credentials(text))
        }
        // The broker takes deliveries back that are in hand for too long.
        code::PRECONDITION_FAILED if says(&text, &["delivery acknowledgement on channel"]) => {
            Failure::Transient(text)
        }
        code::NOT_FOUND if says(&text, AWAY) => Failure::Transient(text),
        code::INVALID_PATH
        | code::NOT_FOUND
        | code::RESOURCE_LOCKED
        | code::PRECONDITION_FAILED
        | code::NOT_ALLOWED => Failure::Final(BrokerError::WrongQueue(text)),
        // The broker is stopping, is short of something, or did not understand: a new connection
        // may help.
        _ => Failure::Transient(text),
    }
}

#[cfg(test)]
mod tests {
    use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

    use super::*;

    #[test]
    fn a_reserved_name_is_no_refused_login() {
        let refused = |text: &str| {
            let kind = AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED);
            let error = lapin::protocol::AMQPError::new(kind, text.into());
            read(&ErrorKind::ProtocolError(error).into())
        };
        let reserved =
            refused("ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'");
        let is_named = matches!(&reserved, Failure::Final(BrokerError::Misconfigured { .. }));
        assert!(is_named, "{reserved:?}");
        let quoted = refused(
            "ACCESS_REFUSED - access to queue 'reserved prefix' in vhost '/' refused for user 'a'",
        );
        let is_login = matches!(&quoted, Failure::Final(BrokerError::Credentials(_)));
        assert!(is_login, "{quoted:?}");
    }

    #[test]
    fn a_late_acknowledgement_is_transient_and_a_wrong_argument_is_not() {
        let refused = |text: &str| {
            let kind = AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED);
            let error = lapin::protocol::AMQPError::new(kind, text.into());
            read(&ErrorKind::ProtocolError(error).into())
        };
        let late = refused(
            "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value \
             used: 1800000 ms. This timeout value can be configured, see consumers doc guide to learn \
             more",
        );
        assert!(matches!(late, Failure::Transient(_)), "{late:?}");
        let other = refused("PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'a'");
        let is_wrong = matches!(other, Failure::Final(BrokerError::WrongQueue(_)));
        assert!(is_wrong, "{other:?}");
    }

    #[test]
    fn what_the_broker_says_is_not_what_it_quotes() {
        let gone = "NOT_FOUND - no queue 'downstream:1' in vhost 'limited'";
        assert!(!says(gone, AWAY) && !says(gone, &["limit"]));
        let away = "NOT_FOUND - queue 'a' in vhost '/' process is stopped by supervisor";
        assert!(says(away, AWAY));
    }
}
