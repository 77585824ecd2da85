//! What the texts of an API mean: plainly a success, plainly a failure, or anything else.

/// Words of which one has to stand in a text that is plainly a success.
const SUCCESS: [&str; 19] = [
    "complete",
    "completed",
    "done",
    "executed",
    "fetched",
    "found",
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
    "yes",
    "working",
];
/// Words that may stand beside those. None of them can turn a success into a failure.
const NEUTRAL: [&str; 33] = [
    "200",
    "a",
    "all",
    "and",
    "api",
    "been",
    "by",
    "chat",
    "chats",
    "code",
    "data",
    "for",
    "get",
    "has",
    "have",
    "http",
    "is",
    "label",
    "labels",
    "list",
    "lists",
    "of",
    "operation",
    "query",
    "request",
    "response",
    "result",
    "results",
    "status",
    "the",
    "was",
    "were",
    "with",
];
/// Texts that are a success as they are: connection states, and the absence of an error.
const EXACT: [&str; 11] = [
    "active",
    "authenticated",
    "connected",
    "no error",
    "no_error",
    "noerror",
    "none",
    "online",
    "open",
    "ready",
    "running",
];
/// Words that mean a failure wherever they stand in a code or a status.
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

/// Whether a text is plainly a success: one of a few fixed texts, or made of success words and neutral ones
/// only. A text that is not understood is no success.
pub(super) fn is_success(text: &str) -> bool {
    let text = text.trim().to_lowercase();
    if EXACT.contains(&text.as_str()) {
        return true;
    }
    let words = || {
        text.split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
    };
    words().any(|word| SUCCESS.contains(&word))
        && words().all(|word| SUCCESS.contains(&word) || NEUTRAL.contains(&word))
}

/// Whether a code or a status says that something failed, in words.
pub(super) fn is_failure(text: &str) -> bool {
    let text = text.to_lowercase();
    FAILURE.iter().any(|word| text.contains(word))
}

/// Whether a text has the word "starting" in it.
pub(super) fn mentions_starting(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric())
        .any(|word| word.eq_ignore_ascii_case("starting"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_understood_is_a_success() {
        for text in [
            "OK",
            "ok.",
            "Success!",
            "Request successful",
            "Labels retrieved successfully.",
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
    fn starting_is_a_word_of_its_own() {
        assert!(mentions_starting("Session is STARTING."));
        assert!(!mentions_starting("restarting"));
    }
}
