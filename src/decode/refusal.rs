//! The body of a response with a status other than 200.

use super::answer::Answer;
use super::envelope::Envelope;
use super::input::Input;
use super::paging::Paging;
use super::words::{is_starting_state, says_session_is_starting};

/// The maximum length of a plain text that is kept, in characters. It is shortened for display
/// after secrets were removed.
const MAX_TEXT_CHARS: usize = 4096;

/// Reads the API's statements from a body or the start of one. Plain text is quoted. Markup is not:
/// it says no more than the status.
pub fn refusal(body: &[u8]) -> Answer {
    let mut source = body;
    let on_stall = || Ok(());
    let mut input = Input::new(&mut source, &on_stall);
    match input.open() {
        Ok(b'{' | b'[') => Envelope::of_json(body, Paging::default()).into_answer(),
        Ok(b'<') => Answer {
            is_starting: says_session_is_starting(&String::from_utf8_lossy(body)),
            is_page: true,
            ..Answer::default()
        },
        Err(_) => Answer::default(),
        Ok(_) => of_text(&String::from_utf8_lossy(body)),
    }
}

fn of_text(text: &str) -> Answer {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    Answer {
        message: Some(text.chars().take(MAX_TEXT_CHARS).collect()),
        is_starting: is_starting_state(text) || says_session_is_starting(text),
        ..Answer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starting_session_is_recognised_in_many_forms() {
        for body in [
            r#"{"error":"Session status is not as expected.","status":"STARTING","expected":["WORKING"]}"#,
            r#"{"statusCode":422,"error":"Session status is not as expected.","status":"STARTING"}"#,
            r#"{"statusCode":422,"message":{"error":"not as expected","status":"STARTING"}}"#,
            r#"{"error":{"message":"not as expected","session":{"name":"a","status":"starting"}}}"#,
            r#"[{"status":"STARTING"}]"#,
            "\u{feff}{\"status\":\"STARTING\"}",
            "\n{\"name\":\"half \\ud83d\",\"status\":\"STARTING\"}",
            r#"{"message":"The session is starting, try again later"}"#,
            r#"{"status":"STARTING","expec"#,
            "Session is starting",
            r#"{"code":"session_starting","message":"Try later"}"#,
            r#"{"current":"STARTING","expected":["WORKING"]}"#,
            "<error><status>STARTING</status></error>",
        ] {
            assert!(refusal(body.as_bytes()).is_starting, "{body}");
        }
        for body in [
            r#"{"error":"Session status is not as expected. Try again later or restart the session","status":"SCAN_QR_CODE","expected":["WORKING"]}"#,
            r#"{"message":"failed after starting","status":"FAILED"}"#,
            r#"{"statusCode":422,"message":"Not implemented by the engine"}"#,
            "",
            "<html>starting</html>",
            r#"{"code":"STARTING_FAILED"}"#,
            r#"{"message":"Error starting the session: browser crashed"}"#,
            r#"{"status":"STOPPED","expected":["STARTING","WORKING"]}"#,
        ] {
            assert!(!refusal(body.as_bytes()).is_starting, "{body}");
        }
    }

    #[test]
    fn messages_errors_and_plain_texts_are_quoted() {
        for (body, text) in [
            (
                r#"{"error":{"code":7,"message":"no plan"}}"#,
                "error “no plan”",
            ),
            (
                r#"{"detail":"Not authenticated"}"#,
                "detail “Not authenticated”",
            ),
            (
                r#"{"response":{"message":"gone"}}"#,
                "response.message “gone”",
            ),
            (
                r#"{"status":401,"message":"bad"}"#,
                "status “401”, message “bad”",
            ),
            ("busy\n", "message “busy”"),
            ("<html>", "no code and no message"),
        ] {
            assert_eq!(refusal(body.as_bytes()).to_string(), text);
        }
    }
}
