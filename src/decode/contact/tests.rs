#![expect(clippy::unwrap_used)]

use super::*;

fn found(body: &str) -> Contact {
    contact(body.as_bytes()).unwrap().unwrap()
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn a_contact_is_read_in_all_shapes() {
    let expected = Contact {
        name: some("Ann"),
        push_name: some("annie"),
        number: some("4915"),
        is_business: Some(true),
        ..Contact::default()
    };
    let plain = r#"{"id":"1@c.us","name":"Ann","pushname":"annie","number":4915,"isBusiness":true,"isBlocked":true,"x":[{"y":null}]}"#;
    for body in [
        plain.to_owned(),
        format!("\u{feff} {plain}\n"),
        plain.replace("\"pushname\"", "\"notify\""),
        plain.replace("\"pushname\"", "\"pushname\":null,\"pushName\""),
        plain.replace("\"pushname\"", "\"push_name\""),
        plain.replace("isBusiness", "is_business"),
        plain.replace(
            "\"1@c.us\"",
            r#"{"server":"c.us","user":"1","_serialized":"1@c.us"}"#,
        ),
        plain.replace("\"1@c.us\"", r#"{"server":"c.us","user":"1"}"#),
        plain.replace("\"1@c.us\"", "4915112345"),
        format!("[{plain}]"),
        format!(r#"{{"0":{plain}}}"#),
        format!(r#"{{"success":true,"data":{plain}}}"#),
        format!(r#"{{"status":"success","message":"Contact found","data":[{plain}]}}"#),
        format!(r#"{{"contact":{plain}}}"#),
        format!(r#"{{"result":{plain}}}"#),
        format!(r#"{{"code":200,"error":null,"response":{{"0":{plain}}}}}"#),
    ] {
        assert_eq!(found(&body), expected, "{body}");
    }
}

#[test]
fn members_that_are_missing_or_of_a_wrong_type_are_unknown() {
    for body in [
        r#"{"id":"1@lid"}"#,
        r#"{"id":"1@lid","name":null,"pushname":"  ","number":{},"isBusiness":"yes","about":7.5}"#,
        r#"{"id":"1@lid","status":"session expired, error 500"}"#,
    ] {
        assert_eq!(found(body), Contact::default(), "{body}");
    }
    let half = r#"{"id":"1@c.us","name":"half \ud83d","about":"busy"}"#;
    assert_eq!(found(half).name, some("half \u{fffd}"));
    assert_eq!(found(half).about, some("busy"));
}

#[test]
fn an_empty_answer_is_a_missing_contact() {
    for body in [
        "null",
        "{}",
        "[]",
        "\u{feff}null",
        r#"{"data":null}"#,
        r#"{"success":true,"data":null}"#,
        r#"{"status":"success","message":"OK","data":{}}"#,
        r#"{"code":200,"contactId":"1@c.us","response":[]}"#,
    ] {
        let found = contact(body.as_bytes());
        assert!(matches!(found, Ok(None)), "{body}: {found:?}");
        assert!(matches!(about(body.as_bytes()), Ok(None)), "{body}");
        assert!(matches!(picture_url(body.as_bytes()), Ok(None)), "{body}");
        assert!(matches!(chat_of_lid(body.as_bytes()), Ok(None)), "{body}");
        number_exists(body.as_bytes()).unwrap_err();
    }
}

#[test]
fn an_error_under_status_200_is_neither_a_contact_nor_a_missing_one() {
    for body in [
        r#"{"success":false}"#,
        r#"{"success":false,"data":null}"#,
        r#"{"success":false,"data":{"id":"1@c.us","name":"Ann"}}"#,
        r#"{"id":"1@c.us","error":"rate limit"}"#,
        r#"{"id":"1@c.us","status":401,"message":"Unauthorized"}"#,
        r#"{"message":"Session is offline","data":null}"#,
        r#"{"state":"DISCONNECTED","data":null}"#,
        r#"{"code":"invalid_session","message":"Session not found."}"#,
        r#"{"code":"rest_no_route","message":"No route","data":{"status":404}}"#,
        r#"{"statusCode":404,"message":"Cannot GET /x","url":"/x","phone":"1"}"#,
        "Session not found",
    ] {
        let body = body.as_bytes();
        let text = String::from_utf8_lossy(body);
        for end in [
            contact(body).map(drop),
            about(body).map(drop),
            picture_url(body).map(drop),
            chat_of_lid(body).map(drop),
            number_exists(body).map(drop),
        ] {
            let error = end.unwrap_err();
            assert!(matches!(error, LookupError::Answered(_)), "{text}: {error}");
            assert!(!error.to_string().contains("Ann"), "{text}: {error}");
        }
    }
}

#[test]
fn unusable_bodies_are_told_apart() {
    let error = |body: &str| contact(body.as_bytes()).unwrap_err();
    for body in ["", " \n", "\u{feff}"] {
        assert!(matches!(error(body), LookupError::Empty), "{body:?}");
    }
    for body in ["<html>", "\u{feff}<?xml ?><a/>"] {
        assert!(matches!(error(body), LookupError::NotJson(_)), "{body}");
    }
    for body in [r#"{"id":"1@c.us""#, r#"{"id":"1@c"#, "[", "\"a"] {
        assert!(matches!(error(body), LookupError::Truncated(_)), "{body}");
    }
    for body in [r#"{"id":"1@c.us"}}"#, r#"{"id":}"#, "{\"id\":\"\u{1}\"}"] {
        assert!(matches!(error(body), LookupError::Malformed(_)), "{body}");
    }
    for body in [
        "true",
        "7",
        "\"Ann\"",
        "[null]",
        r#"{"name":"Ann"}"#,
        r#"{"success":true}"#,
        r#"{"id":"Ann"}"#,
        r#"[{"id":"1@c.us"},{"id":"2@c.us"}]"#,
        r#"{"0":{"id":"1@c.us"},"1":{"id":"2@c.us"}}"#,
        r#"{"data":{"data":{"data":{"data":{"data":{"data":{"id":"1@c.us"}}}}}}}"#,
    ] {
        assert!(matches!(error(body), LookupError::Shape(_)), "{body}");
        assert!(!error(body).to_string().contains("Ann"), "{body}");
    }
    let deep = "[".repeat(100_000);
    assert!(matches!(error(&deep), LookupError::Malformed(_)));
}

#[test]
fn the_text_about_a_person_is_read_in_all_shapes() {
    for (body, expected) in [
        (r#"{"about":"busy"}"#, some("busy")),
        (r#"{"about":null}"#, None),
        (r#"{"about":7.5}"#, None),
        (r#"{"status":"busy"}"#, some("busy")),
        (r#"{"status":"busy","error":null}"#, some("busy")),
        (
            r#"{"status":"success","data":{"about":"busy"}}"#,
            some("busy"),
        ),
        (r#"{"status":"success","about":null}"#, None),
        (
            r#"{"success":true,"data":{"status":"session expired"}}"#,
            some("session expired"),
        ),
        (r#"{"id":"1@c.us"}"#, None),
    ] {
        assert_eq!(about(body.as_bytes()).unwrap(), expected, "{body}");
    }
    for body in [
        r#"{"status":"failed","message":"no"}"#,
        r#"{"status":"error"}"#,
        r#"{"status":"STOPPED"}"#,
        r#"{"status":"404"}"#,
        r#"{"about":null,"message":"Session is offline"}"#,
    ] {
        about(body.as_bytes()).unwrap_err();
    }
}

#[test]
fn a_picture_is_a_url() {
    for (body, expected) in [
        (
            r#"{"profilePictureURL":"https://a/b"}"#,
            some("https://a/b"),
        ),
        (
            r#"{"profilePictureUrl":"https://a/b"}"#,
            some("https://a/b"),
        ),
        (r#"{"data":{"url":"http://a/b"}}"#, some("http://a/b")),
        (r#"[{"picture":"https://a/b"}]"#, some("https://a/b")),
        (r#"{"profilePictureURL":null}"#, None),
        (r#"{"picture":{}}"#, None),
    ] {
        assert_eq!(picture_url(body.as_bytes()).unwrap(), expected, "{body}");
    }
    picture_url(br#"{"url":"/x","message":"Unauthenticated."}"#).unwrap_err();
    picture_url(br#"{"id":"1@c.us"}"#).unwrap_err();
}

#[test]
fn a_lid_is_resolved_to_the_chat_of_its_phone_number() {
    for (body, expected) in [
        (r#"{"lid":"9@lid","pn":"491@c.us"}"#, some("491@c.us")),
        (r#"{"lid":"9@lid","pn":null}"#, None),
        (r#"{"lid":"9999999"}"#, None),
        (
            r#"{"lid":"9@lid","jid":"9@lid","number":49151123}"#,
            some("49151123@c.us"),
        ),
        (r#"{"phone":"+49151123"}"#, some("49151123@c.us")),
        (r#"{"jid":"49151:4@s.whatsapp.net"}"#, some("49151@c.us")),
        (r#"{"pn":{"_serialized":"491@c.us"}}"#, some("491@c.us")),
        (
            r#"{"success":true,"data":{"lid":"9@lid","pn":"491@c.us"}}"#,
            some("491@c.us"),
        ),
    ] {
        assert_eq!(chat_of_lid(body.as_bytes()).unwrap(), expected, "{body}");
    }
    chat_of_lid(br#"{"lid":"9@lid","pn":null,"message":"Session is offline"}"#).unwrap_err();
}

#[test]
fn a_number_exists_if_the_answer_says_so() {
    for (body, expected) in [
        (r#"{"numberExists":true,"chatId":"1@c.us"}"#, true),
        (r#"{"exists":false}"#, false),
        (
            r#"{"number_exists":true,"message":"Number is on WhatsApp"}"#,
            true,
        ),
        (r#"{"success":true,"data":{"numberExists":false}}"#, false),
    ] {
        assert_eq!(number_exists(body.as_bytes()).unwrap(), expected, "{body}");
    }
    for body in ["null", "{}", "", r#"{"exists":"no"}"#, r#"{"exists":null}"#] {
        number_exists(body.as_bytes()).unwrap_err();
    }
}
