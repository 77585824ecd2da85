//! Failed look-ups: their kinds, bounds, and what their errors show.

use labelcast::api::{ApiError, Auth, Dialect, FailureKind};
use labelcast::decode::LookupError;
use labelcast::mock::{Piece, Reply};

use super::{DIALECTS, ID, client, client_at, kind, v2};
use crate::support::{INSTANCE, Stage, TOKEN};

#[tokio::test]
async fn a_wrong_login_leaves_nothing_to_look_up() {
    let stage = Stage::with_chats(0);
    for (dialect, auth) in DIALECTS {
        let client = client_at(&stage.mock.url(), "another-token", dialect, auth);
        for kind in [
            kind(client.contact(ID).await),
            kind(client.about(ID).await),
            kind(client.picture_url(ID).await),
            kind(client.chat_of_lid(ID).await),
            kind(client.number_exists("49").await),
        ] {
            assert_eq!(kind, FailureKind::Unready);
        }
    }
}

#[tokio::test]
async fn every_kind_of_failure_is_told() {
    let json = |status: u16, body: &str| Reply::json(body.to_owned()).status(status);
    for (reply, expected) in [
        (
            json(429, "{}").header("retry-after", "1"),
            FailureKind::Throttled,
        ),
        (json(503, "").header("retry-after", "1"), FailureKind::Busy),
        (json(403, ""), FailureKind::Unready),
        (
            json(422, r#"{"status":"FAILED","expected":["WORKING"]}"#),
            FailureKind::Unready,
        ),
        (
            json(
                404,
                r#"{"code":"invalid_session","message":"Session not found."}"#,
            ),
            FailureKind::Unready,
        ),
        (
            json(
                200,
                r#"{"code":"invalid_session","message":"Session not found."}"#,
            ),
            FailureKind::Unready,
        ),
        (
            json(302, "").header("location", "http://elsewhere.example/x"),
            FailureKind::Unready,
        ),
        (json(501, ""), FailureKind::Unimplemented),
        (
            json(422, r#"{"message":"not implemented by the engine"}"#),
            FailureKind::Unimplemented,
        ),
        (
            json(
                404,
                r#"{"statusCode":404,"message":"Cannot GET /v2/contacts"}"#,
            ),
            FailureKind::Unimplemented,
        ),
        (
            json(500, r#"{"message":"Evaluation failed"}"#),
            FailureKind::Transient,
        ),
        (json(200, "<html>"), FailureKind::Transient),
        (json(200, r#"{"success":false}"#), FailureKind::Transient),
        (json(200, r#"{"id":"1@c.us""#), FailureKind::Transient),
        (
            Reply::pieces([Piece::Bytes("{".into()), Piece::Cut]),
            FailureKind::Transient,
        ),
        (Reply::pieces([Piece::Hold]), FailureKind::Transient),
        (json(404, "<h1>Not Found</h1>"), FailureKind::Final),
        (json(404, ""), FailureKind::NotFound),
        (
            json(404, r#"{"message":"Not Found"}"#),
            FailureKind::NotFound,
        ),
        (
            json(400, r#"{"message":"contact not found"}"#),
            FailureKind::Final,
        ),
    ] {
        let stage = Stage::with_chats(0);
        stage.mock.always_contact(ID, reply.clone());
        let client = v2(&stage);
        for kind in [
            kind(client.contact(ID).await),
            kind(client.picture_url(ID).await),
        ] {
            assert_eq!(kind, expected, "{reply:?}");
        }
    }
}

#[tokio::test]
async fn an_api_that_cannot_be_connected_to_is_not_ready() {
    let stage = Stage::with_chats(0);
    let url = stage.mock.url();
    drop(stage);
    let refused = client_at(&url, TOKEN, Dialect::WawpV2, Auth::Query);
    let error = refused.contact(ID).await.unwrap_err();
    assert!(
        error.to_string().starts_with("cannot reach the API: "),
        "{error}"
    );
    assert_eq!(error.failure_kind(), FailureKind::Unready);
    // A connection that is accepted and closed is another matter.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || while listener.accept().is_ok() {});
    let closed = client_at(&url, TOKEN, Dialect::WawpV2, Auth::Query);
    assert_eq!(kind(closed.contact(ID).await), FailureKind::Transient);
}

#[tokio::test]
async fn answers_over_the_limit_are_refused() {
    const LIMIT: usize = 256 * 1024;
    let stage = Stage::with_chats(0);
    let client = v2(&stage);
    let padded = |length: usize| {
        let body = r#"{"id":"1@c.us"}"#;
        Reply::json(format!("{body}{}", " ".repeat(length - body.len())))
    };
    stage.mock.script_contact(ID, padded(LIMIT));
    stage.mock.script_contact(ID, padded(LIMIT + 1));
    client.contact(ID).await.unwrap().unwrap();
    let error = client.contact(ID).await.unwrap_err();
    assert!(matches!(error, ApiError::ContactTooLong(LIMIT)), "{error}");
}

#[tokio::test]
async fn secrets_and_ids_are_in_no_error_and_no_record() {
    let text = format!("{TOKEN} may not see {ID} or access_token={TOKEN}");
    let name = format!(r#""name":"Annemarie {TOKEN}""#);
    for reply in [
        Reply::json(format!(r#"{{"success":false,"message":"{text}",{name}}}"#)),
        Reply::json(format!(r#"{{"message":"{text}"}}"#)).status(500),
        Reply::json(text.clone()),
        Reply::json(format!(r#"{{"number":"{ID}",{name}}}"#)),
        Reply::json(format!(r#"{{"id":"{ID}",{name}"#)),
        Reply::json(format!(
            r#"{{"success":false,"data":{{"id":"{ID}",{name}}}}}"#
        )),
        Reply::json("")
            .status(302)
            .header("location", format!("http://127.0.0.1:9/{TOKEN}")),
    ] {
        for (dialect, auth) in DIALECTS {
            let stage = Stage::with_chats(0);
            stage.mock.script_contact(ID, reply.clone());
            let error = client(&stage, dialect, auth).contact(ID).await.unwrap_err();
            let told = format!("{error} {error:?}");
            for secret in [TOKEN, "4915112345678", "Annemarie"] {
                assert!(!told.contains(secret), "{secret} stands in {told}");
            }
        }
    }
    let stage = Stage::with_chats(0);
    let own = format!(
        r#"{{"id":"{ID}",{name},"about":"{TOKEN}","profilePictureURL":"https://a/{TOKEN}"}}"#
    );
    stage.mock.always_contact(ID, Reply::json(own));
    let client = v2(&stage);
    let contact = client.contact(ID).await.unwrap().unwrap();
    assert_eq!(contact.name.as_deref(), Some("Annemarie ***"));
    assert_eq!(contact.about.as_deref(), Some("***"));
    let url = client.picture_url(ID).await.unwrap();
    assert_eq!(url.as_deref(), Some("https://a/***"));
}

#[tokio::test]
async fn unasked_codings_and_redirects_are_handled_as_for_lists() {
    let stage = Stage::with_chats(0);
    let client = v2(&stage);
    let target =
        format!("/v2/contacts?contactId=17%40c.us&instance_id={INSTANCE}&access_token={TOKEN}");
    let redirect = Reply::json("").status(307).header("location", target);
    stage.mock.script_contact(ID, redirect);
    let found = client.contact(ID).await.unwrap().unwrap();
    assert_eq!(found.name.as_deref(), Some("Person 17"));
    let coded = Reply::json("{}").header("content-encoding", "x-unknown");
    stage.mock.script_contact(ID, coded);
    let error = client.contact(ID).await.unwrap_err();
    assert!(matches!(error, ApiError::Coding(_)), "{error}");
    stage.mock.script_contact(ID, Reply::json("\"x"));
    let error = client.contact(ID).await.unwrap_err();
    assert!(
        matches!(&error, ApiError::Contact(error) if matches!(**error, LookupError::Truncated(2))),
        "{error}"
    );
}
