//! What follows from a failed look-up.

use super::gate::Closing;
use crate::api::FailureKind;

/// What follows from a failed look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// All look-ups pause. It counts as no failure of the chat.
    Pause(Closing),
    /// The chat is tried again, if an attempt is left.
    Retry,
    /// The chat is set aside.
    SetAside,
}

/// Decides about a failure. `others_were_answered` tells whether other look-ups were answered since the
/// API last was busy or not ready for this chat: then it is ready, and refuses only this one. Too many
/// requests are never the fault of a chat.
pub fn after(kind: FailureKind, others_were_answered: bool) -> Next {
    match kind {
        FailureKind::Throttled => Next::Pause(Closing::Throttled),
        FailureKind::Busy if !others_were_answered => Next::Pause(Closing::Throttled),
        FailureKind::Unready if !others_were_answered => Next::Pause(Closing::Unready),
        FailureKind::Busy
        | FailureKind::Unready
        | FailureKind::NotFound
        | FailureKind::Transient => Next::Retry,
        FailureKind::Unimplemented | FailureKind::Final => Next::SetAside,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chat_that_the_api_alone_refuses_holds_up_nobody() {
        for (kind, alone, expected) in [
            (
                FailureKind::Throttled,
                false,
                Next::Pause(Closing::Throttled),
            ),
            (
                FailureKind::Throttled,
                true,
                Next::Pause(Closing::Throttled),
            ),
            (FailureKind::Busy, false, Next::Pause(Closing::Throttled)),
            (FailureKind::Busy, true, Next::Retry),
            (FailureKind::Unready, false, Next::Pause(Closing::Unready)),
            (FailureKind::Unready, true, Next::Retry),
            (FailureKind::NotFound, false, Next::Retry),
            (FailureKind::NotFound, true, Next::Retry),
            (FailureKind::Transient, false, Next::Retry),
            (FailureKind::Transient, true, Next::Retry),
            (FailureKind::Unimplemented, false, Next::SetAside),
            (FailureKind::Unimplemented, true, Next::SetAside),
            (FailureKind::Final, false, Next::SetAside),
            (FailureKind::Final, true, Next::SetAside),
        ] {
            assert_eq!(after(kind, alone), expected, "{kind:?} {alone}");
        }
    }
}
