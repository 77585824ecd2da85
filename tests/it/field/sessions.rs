//! A run waits for a session that is starting, in whatever form the API reports it.

use labelcast::mock::Reply;

use super::{Case, TWO, TWO_IDS};

const ERROR: &str =
    r#""error":"Session status is not as expected. Try again later or restart the session""#;

fn refusal(body: &str) -> Reply {
    Reply::json(body.to_owned())
        .status(422)
        .header("retry-after", "0")
}

#[test]
fn a_starting_session_is_waited_for() {
    let waha =
        format!(r#"{{{ERROR},"session":"default","status":"STARTING","expected":["WORKING"]}}"#);
    for body in [
        waha.clone(),
        format!("\u{feff}{waha}"),
        format!(
            r#"{{"statusCode":422,{ERROR},"session":"default","status":"STARTING","expected":["WORKING"]}}"#
        ),
        format!(r#"{{"name":"half \ud83d",{ERROR},"status":"STARTING"}}"#),
        format!(r#"{{"statusCode":422,"message":{waha}}}"#),
        format!(r#"{{"success":false,"data":{waha}}}"#),
        format!(r#"{{"error":{{"details":[{waha}]}}}}"#),
        r#"{"message":"The session is starting. Please wait."}"#.to_owned(),
        "Session is STARTING".to_owned(),
        r#"{"code":"SESSION_STARTING","message":"Try later"}"#.to_owned(),
        r#"{"currentStatus":"STARTING","expected":["WORKING"]}"#.to_owned(),
        "<error><status>STARTING</status></error>".to_owned(),
    ] {
        let case = Case::reply(refusal(&body), 0)
            .then(Reply::json(TWO))
            .named(&body);
        case.ids(TWO_IDS).holds();
    }
}

#[test]
fn any_other_session_state_is_an_error() {
    for body in [
        format!(r#"{{{ERROR},"status":"SCAN_QR_CODE","expected":["WORKING"]}}"#),
        format!(r#"{{{ERROR},"status":"FAILED","message":"failed while starting"}}"#),
        r#"{"statusCode":422,"message":"The method is not implemented by the engine"}"#.to_owned(),
        r#"{"error":"Only in the PLUS version"}"#.to_owned(),
        r#"{"message":"Error starting the session: browser crashed"}"#.to_owned(),
        r#"{"message":"Session is STOPPED, expected one of STARTING, WORKING"}"#.to_owned(),
        String::new(),
    ] {
        let case = Case::reply(refusal(&body), 76).named(&body);
        case.says("422").never("trying again").holds();
    }
}
