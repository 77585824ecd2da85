//! Classification of the API's texts: clearly a success, clearly a failure, or anything else.

/// Words of which a clearly successful text must contain one.
const SUCCESS: [&str; 20] = [
    "complete",
    "completed",
    "done",
    "executed",
    "fetched",
    "found",
    "listed",
    "loaded",
    "ok",
    "okay",
    "processed",
    "retrieved",
    "returned",
    "succeeded",
    "success",
    "successful",
    "successfully",
    "true",
    "working",
    "yes",
];
/// Words that may stand beside those. None of them can turn a success into a failure.
const NEUTRAL: [&str; 45] = [
    "a",
    "all",
    "and",
    "api",
    "been",
    "by",
    "chat",
    "chats",
    "code",
    "contact",
    "contacts",
    "data",
    "entries",
    "for",
    "from",
    "get",
    "group",
    "groups",
    "has",
    "have",
    "http",
    "in",
    "is",
    "item",
    "items",
    "label",
    "labels",
    "list",
    "lists",
    "of",
    "operation",
    "query",
    "record",
    "records",
    "request",
    "response",
    "result",
    "results",
    "status",
    "the",
    "total",
    "was",
    "were",
    "with",
    "your",
];
/// Complete texts that mean a success: connection states, and the absence of an error.
const EXACT: [&str; 12] = [
    "active",
    "authenticated",
    "connected",
    "no error",
    "no errors",
    "no_error",
    "noerror",
    "none",
    "online",
    "open",
    "ready",
    "running",
];
/// Parts of words that mean a failure anywhere in a code or a status.
const FAILURE: [&str; 18] = [
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
/// Words that indicate a problem in the place of a name, an id or a version.
const PROBLEMS: [&str; 29] = [
    "banned",
    "blocked",
    "closed",
    "denied",
    "disabled",
    "disconnected",
    "down",
    "error",
    "exceeded",
    "expired",
    "failed",
    "inactive",
    "invalid",
    "loggedout",
    "logout",
    "maintenance",
    "missing",
    "not",
    "offline",
    "out",
    "revoked",
    "scan",
    "stopped",
    "suspended",
    "unauthenticated",
    "unauthorized",
    "unavailable",
    "unknown",
    "unreachable",
];
/// The states of a WAHA session other than STARTING.
const STATES: [&str; 4] = ["FAILED", "SCAN_QR_CODE", "STOPPED", "WORKING"];

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
}

/// Returns whether a text is clearly a success: one of a few fixed texts, or a text of success
/// words and neutral words only. An unknown text is not a success.
pub(super) fn is_success(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    if EXACT.contains(&text.as_str()) {
        return true;
    }
    let is_neutral = |word: &str| match word.parse::<u32>() {
        Ok(number) => !(400..600).contains(&number),
        Err(_) => NEUTRAL.contains(&word),
    };
    words(&text).any(|word| SUCCESS.contains(&word))
        && words(&text).all(|word| SUCCESS.contains(&word) || is_neutral(word))
}

/// Returns whether the text of a code or a status reports a failure.
pub(super) fn is_failure(text: &str) -> bool {
    let text = text.to_lowercase();
    FAILURE.iter().any(|word| text.contains(word))
}

/// Returns whether a text in the place of a name, an id or a version indicates a problem.
pub(super) fn indicates_problem(text: &str) -> bool {
    let text = text.to_lowercase();
    words(&text).any(|word| PROBLEMS.contains(&word))
}

/// Returns whether a text is a WAHA session state other than STARTING.
pub(super) fn is_other_state(text: &str) -> bool {
    STATES.iter().any(|state| text.eq_ignore_ascii_case(state))
}

/// Returns whether a code, a state or its name says that a session is starting: `STARTING`,
/// `session_starting`, "Starting up".
pub(super) fn is_starting_state(text: &str) -> bool {
    let lower = text.to_lowercase();
    words(&lower).count() <= 3
        && words(&lower).any(|word| word == "starting")
        && !lower.contains("fail")
        && !lower.contains("error")
}

/// Returns whether a sentence says that a session is starting. A failed start, or STARTING as an
/// expected state, does not count.
pub(super) fn says_session_is_starting(text: &str) -> bool {
    const PHRASES: [&str; 4] = [
        "is starting",
        "still starting",
        "currently starting",
        "session starting",
    ];
    let lower = text.to_lowercase();
    let has_state = |state: &str| {
        text.split(|c: char| !c.is_alphanumeric() && c != '_')
            .any(|word| word == state)
    };
    let says_so = PHRASES.iter().any(|phrase| lower.contains(phrase)) || has_state("STARTING");
    says_so
        && !["FAILED", "SCAN_QR_CODE", "STOPPED"]
            .iter()
            .any(|state| has_state(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_texts_are_a_success() {
        for text in [
            "OK",
            "ok.",
            "Success!",
            "Your request was successful",
            "Labels retrieved successfully.",
            "Retrieved chats for label 1 successfully",
            "Successfully retrieved 0 chats",
            "chats_found",
            "200 OK",
            "WORKING",
            "connected",
            "No error",
        ] {
            assert!(is_success(text), "{text}");
        }
        for text in [
            "Device is offline",
            "La sesión está cerrada",
            "Please scan the QR code",
            "not ok",
            "unsuccessful",
            "No label found",
            "Label not found",
            "Session found",
            "404 found",
            "connected to nothing",
            "OK, but the session is stopped",
            "close",
            "已断开",
            "the data",
            "",
        ] {
            assert!(!is_success(text), "{text}");
        }
    }

    #[test]
    fn texts_about_a_starting_session_are_recognised() {
        for text in ["STARTING", "session_starting", "Starting up", "starting..."] {
            assert!(is_starting_state(text), "{text}");
        }
        assert!(!is_starting_state("restarting"));
        for text in [
            "Session is STARTING.",
            "The session is starting, try again",
            "status: STARTING",
        ] {
            assert!(says_session_is_starting(text), "{text}");
        }
        for text in [
            "Error starting the session: browser crashed",
            "Dates starting before 2020 are invalid",
            "Session is STOPPED, expected one of STARTING, WORKING",
            "failed after starting",
            "Try again later or restart the session",
        ] {
            assert!(!says_session_is_starting(text), "{text}");
        }
    }
}
