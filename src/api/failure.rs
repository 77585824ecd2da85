//! Kinds of failures of a look-up, by what the caller should do about them.

use std::time::Duration;

use super::ApiError;
use crate::decode::{Answer, Complaint, LookupError};

/// The kind of a failed look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The API asks for fewer requests.
    Throttled,
    /// The server asks for a pause, because it is busy or under maintenance.
    Busy,
    /// Nothing can be looked up now: no connection, no login, or no working session.
    Unready,
    /// The API has no such look-up: another engine, another version, or a wrong address.
    Unimplemented,
    /// Something does not exist, and the API does not say what: the contact, or the address of the
    /// request.
    NotFound,
    /// The same look-up may succeed later.
    Transient,
    /// The same look-up would fail again.
    Final,
}

impl FailureKind {
    /// Returns the spelling in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Busy => "busy",
            Self::Unready => "unready",
            Self::Unimplemented => "unimplemented",
            Self::NotFound => "not_found",
            Self::Transient => "transient",
            Self::Final => "final",
        }
    }
}

impl ApiError {
    /// Whether this call is forbidden, which says nothing about other calls with the same login.
    pub fn is_forbidden(&self) -> bool {
        match self {
            Self::Status { status, answer, .. } => {
                status.as_u16() == 403 && answer.complaint() != Complaint::Session
            }
            _ => false,
        }
    }

    /// Returns the kind of a failed look-up.
    pub fn failure_kind(&self) -> FailureKind {
        match self {
            Self::Unconnected(_) | Self::Redirect(_) | Self::RedirectLoop | Self::Setup(_) => {
                FailureKind::Unready
            }
            Self::Status {
                status,
                answer,
                retry_after,
            } => of_status(status.as_u16(), answer, *retry_after),
            Self::Contact(error) => match &**error {
                LookupError::Answered(answer) => of_answer(answer),
                _ => FailureKind::Transient,
            },
            Self::Connection(_)
            | Self::Cut(_)
            | Self::Coding(_)
            | Self::NotCoded(_)
            | Self::Labels(_)
            | Self::LabelsTooLong(_)
            | Self::ContactTooLong(_) => FailureKind::Transient,
        }
    }
}

fn of_status(status: u16, answer: &Answer, retry_after: Option<Duration>) -> FailureKind {
    match (status, answer.complaint()) {
        (429, _) => FailureKind::Throttled,
        (503, _) if retry_after.is_some() => FailureKind::Busy,
        (405 | 501, _) => FailureKind::Unimplemented,
        (401 | 403, _) | (..500, Complaint::Session) => FailureKind::Unready,
        // Other failures of an engine also speak of sessions, such as those of its encryption with
        // one contact.
        _ if is_session_unready(answer) => FailureKind::Unready,
        (422, _) | (404, Complaint::Route) => FailureKind::Unimplemented,
        (404, _) if !answer.is_page => FailureKind::NotFound,
        // 505 is the one status of this range that no later attempt can change.
        (505, _) => FailureKind::Final,
        (408 | 425 | 500..=599, _) => FailureKind::Transient,
        _ => FailureKind::Final,
    }
}

/// Returns the kind of an error under status 200.
fn of_answer(answer: &Answer) -> FailureKind {
    match answer.complaint() {
        Complaint::Rate => FailureKind::Throttled,
        Complaint::Session | Complaint::Login => FailureKind::Unready,
        _ if is_session_unready(answer) => FailureKind::Unready,
        Complaint::Route => FailureKind::Unimplemented,
        Complaint::MissingContact | Complaint::Other => FailureKind::Transient,
    }
}

fn is_session_unready(answer: &Answer) -> bool {
    answer.is_starting || answer.names_expected_state
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use FailureKind::{Busy, Final, NotFound, Throttled, Transient, Unimplemented, Unready};
    use reqwest::StatusCode;

    use super::*;
    use crate::decode::{self, refusal};

    fn status(status: u16, body: &str, retry_after: Option<u64>) -> FailureKind {
        let error = ApiError::Status {
            status: StatusCode::from_u16(status).unwrap(),
            answer: Box::new(refusal(body.as_bytes())),
            retry_after: retry_after.map(Duration::from_secs),
        };
        error.failure_kind()
    }

    #[test]
    fn statuses_have_kinds() {
        for (code, expected) in [
            (204, Final),
            (304, Final),
            (400, Final),
            (401, Unready),
            (403, Unready),
            (404, NotFound),
            (405, Unimplemented),
            (408, Transient),
            (410, Final),
            (422, Unimplemented),
            (425, Transient),
            (429, Throttled),
            (500, Transient),
            (501, Unimplemented),
            (502, Transient),
            (503, Transient),
            (504, Transient),
            (505, Final),
            (522, Transient),
        ] {
            assert_eq!(status(code, "", None), expected, "{code}");
        }
        assert_eq!(status(503, "", Some(0)), Busy);
        assert_eq!(status(500, "", Some(1)), Transient);
        assert_eq!(
            status(429, r#"{"code":"invalid_session"}"#, None),
            Throttled
        );
    }

    #[test]
    fn the_body_tells_what_is_not_ready_or_not_implemented() {
        for (code, body, expected) in [
            (
                422,
                r#"{"error":"Session status is not as expected","status":"STOPPED","expected":["WORKING"]}"#,
                Unready,
            ),
            (422, r#"{"status":"X","expected":["CONNECTED"]}"#, Unready),
            (
                422,
                r#"{"message":{"status":"FAILED","expected":["WORKING"]}}"#,
                Unready,
            ),
            (422, r#"{"error":{"expected":"WORKING"}}"#, Unready),
            (422, r#"{"data":{"expected":["WORKING"]}}"#, Unready),
            (422, r#"{"status":"STARTING"}"#, Unready),
            (
                422,
                r#"{"message":"The method is not implemented by the engine"}"#,
                Unimplemented,
            ),
            (
                422,
                r#"{"message":"Only in the PLUS version"}"#,
                Unimplemented,
            ),
            (
                422,
                r#"{"detail":[{"expected":"string","at":"contactId"}]}"#,
                Unimplemented,
            ),
            (
                422,
                r#"{"expected":null,"message":"Only in the PLUS version"}"#,
                Unimplemented,
            ),
            (
                404,
                r#"{"code":"invalid_session","message":"Session not found."}"#,
                Unready,
            ),
            (404, r#"{"message":"Instance 12 not found"}"#, Unready),
            (500, r#"{"message":"Session not found"}"#, Transient),
            (
                404,
                r#"{"statusCode":404,"message":"Cannot GET /api/contacts","error":"Not Found"}"#,
                Unimplemented,
            ),
            (
                404,
                r#"{"code":"rest_no_route","data":{"status":404}}"#,
                Unimplemented,
            ),
            (404, "<h1>Cannot GET /api/contacts</h1>", Final),
            (404, r#"{"message":"Not Found"}"#, NotFound),
            (400, r#"{"message":"Cannot GET it"}"#, Final),
        ] {
            assert_eq!(status(code, body, None), expected, "{code} {body}");
        }
    }

    #[test]
    fn an_unusable_body_under_status_200_is_transient() {
        for (body, expected) in [
            ("", Transient),
            ("<html>", Transient),
            ("{", Transient),
            ("!", Transient),
            (
                r#"{"success":false,"message":"Evaluation failed"}"#,
                Transient,
            ),
            (r#"{"name":"x"}"#, Transient),
            (r#"{"status":500,"message":"no"}"#, Transient),
            (r#"{"code":"invalid_session"}"#, Unready),
            (
                r#"{"success":false,"message":"Session not found"}"#,
                Unready,
            ),
            (
                r#"{"error":"not as expected","status":"STARTING"}"#,
                Unready,
            ),
            (
                r#"{"error":"not as expected","expected":["WORKING"]}"#,
                Unready,
            ),
            (
                r#"{"status":401,"message":"Invalid access token"}"#,
                Unready,
            ),
            (r#"{"status":429,"message":"later"}"#, Throttled),
            (
                r#"{"code":"rest_no_route","message":"No route was found"}"#,
                Unimplemented,
            ),
        ] {
            let error = decode::contact(body.as_bytes()).unwrap_err();
            let error = ApiError::Contact(Box::new(error));
            assert_eq!(error.failure_kind(), expected, "{body}: {error}");
        }
    }

    #[test]
    fn other_errors_have_kinds() {
        let text = || "x".to_owned();
        for (error, expected) in [
            (ApiError::Unconnected(text()), Unready),
            (ApiError::Redirect(text()), Unready),
            (ApiError::RedirectLoop, Unready),
            (ApiError::Setup(text()), Unready),
            (ApiError::Connection(text()), Transient),
            (ApiError::Cut(text()), Transient),
            (ApiError::Coding(text()), Transient),
            (ApiError::NotCoded("br"), Transient),
            (ApiError::ContactTooLong(1), Transient),
        ] {
            assert_eq!(error.failure_kind(), expected, "{error}");
        }
    }
}
