//! An empty list is trusted only if everything beside it is known to be harmless.

use super::Case;
use crate::support::Stage;

/// Members that make an empty list untrustworthy, and the quoted text.
const DOUBTFUL: &[(&str, &str)] = &[
    (r#""msg":"session stopped""#, "session stopped"),
    (r#""detail":"Not authenticated""#, "Not authenticated"),
    (r#""reason":"logged out""#, "logged out"),
    (r#""title":"Unauthorized""#, "Unauthorized"),
    (r#""description":"no session""#, "no session"),
    (r#""warning":"incomplete""#, "incomplete"),
    (r#""warnings":["store is syncing"]"#, "store is syncing"),
    (r#""messages":["session stopped"]"#, "session stopped"),
    (
        r#""messages":[{"text":"session stopped"}]"#,
        "session stopped",
    ),
    (r#""errorCode":"SESSION_STOPPED""#, "SESSION_STOPPED"),
    (r#""error_description":"bad""#, "bad"),
    (r#""isSuccess":false"#, "false"),
    (r#""connected":false"#, "false"),
    (r#""connected":"no""#, "connected"),
    (r#""online":0,"state":"offline""#, "offline"),
    (r#""hasError":true"#, "true"),
    (r#""expired":true"#, "true"),
    (r#""state":"close""#, "close"),
    (r#""status":"SCAN_QR_CODE""#, "SCAN_QR_CODE"),
    (r#""status":202"#, "202"),
    (r#""code":"labels_pending""#, "labels_pending"),
    (r#""session":{"name":"a","status":"STOPPED"}"#, "STOPPED"),
    (r#""session":"STOPPED""#, "STOPPED"),
    (r#""meta":{"status":401,"error":"unauthorized"}"#, "401"),
    (r#""meta":{"a":{"b":{"error":"deep"}}}"#, "deep"),
    (r#""chats":[{"id":"4915112345678@c.us"}]"#, "chats"),
    (r#""mensaje":"Sesión cerrada""#, "Sesión cerrada"),
    (r#""сообщение":"сессия остановлена""#, "сессия остановлена"),
    (r#""unheard_of":"whatever""#, "whatever"),
    (r#""unheard_of":7"#, "7"),
    (r#""unheard_of":false"#, "false"),
    (r#""me":{"id":"1@c.us"},"x":{"id":"2@c.us"}"#, "x"),
    (
        r#""success":true,"message":"Device is offline""#,
        "Device is offline",
    ),
    (
        r#""success":true,"message":"La sesión está cerrada""#,
        "La sesión está cerrada",
    ),
    (
        r#""success":true,"message":"Please scan the QR code""#,
        "Please scan the QR code",
    ),
    (r#""success":true,"message":"no""#, "“no”"),
    (r#""success":false"#, "false"),
    (r#""success":false,"reason":"bad one""#, "bad one"),
    (r#""error":"gone""#, "gone"),
    (r#""connected":0"#, "connected"),
    (r#""session":false"#, "session"),
    (r#""session":{"name":"a","paired":false}"#, "paired"),
    (r#""session":{"qr":"2@abc"}"#, "session.qr"),
    (r#""session":"logged out""#, "logged out"),
    (r#""server":"maintenance""#, "maintenance"),
    (
        r#""pagination":{"note":"session stopped"}"#,
        "session stopped",
    ),
    (r#""limit":"exceeded""#, "exceeded"),
    (r#""first":"scan the code""#, "scan the code"),
];

/// Members that may stand beside an empty list.
const HARMLESS: &[&str] = &[
    r#""success":true"#,
    r#""statusCode":200,"message":"OK""#,
    r#""status":"success""#,
    r#""status":true,"code":0"#,
    r#""success":"true","message":"Chats retrieved successfully.""#,
    r#""success":1,"error":null,"errors":[],"warnings":{},"message":"""#,
    r#""error":false,"hasError":false,"errorCode":0"#,
    r#""count":0,"total":0,"totalPages":0"#,
    r#""success":true,"timestamp":"2026-11-26T00:00:00Z","requestId":"a1b2""#,
    r#""session":"default","engine":"GOWS","version":"2025.1.1","took":12"#,
    r#""session":{"name":"default","status":"WORKING"},"me":{"id":"1@c.us","pushName":"Zoë"}"#,
    r#""connected":true,"state":"open","cached":false"#,
    r#""links":{"first":"/a?page=1","next":null},"meta":{"current_page":1,"last_page":1,"per_page":15,"total":0,"path":"/a"}"#,
    r#""meta":{"links":[{"url":null,"label":"Next &raquo;","active":false}]}"#,
    r#""query_time_ms":5,"cachedAt":"2026-11-26T00:00:00Z","ray_id":"a1","app_version":"1.2""#,
    r#""error":{"code":0,"message":"OK"},"errors":[null]"#,
    r#""totalPages":0,"number":0,"size":20,"sort":{"sorted":false,"empty":true},"pageable":{"paged":true,"offset":0}"#,
    r#""startAt":0,"maxResults":50,"isLast":true,"connected":1"#,
    r#""message":"Successfully retrieved 0 chats""#,
    r#""unheard_of":null,"other":"","more":[],"still":{},"zero":0"#,
];

fn bodies(beside: &str) -> [String; 2] {
    [
        format!(r#"{{"data":[],{beside}}}"#),
        format!(r#"{{{beside},"data":{{}}}}"#),
    ]
}

#[test]
fn unknown_members_make_an_empty_list_untrusted() {
    for (beside, quoted) in DOUBTFUL {
        for body in bodies(beside) {
            let case = Case::body(&body, 76).says(*quoted);
            case.says("the list is empty")
                .says("--accept-empty")
                .holds();
        }
    }
}

#[test]
fn harmless_members_leave_an_empty_list_trusted() {
    for beside in HARMLESS {
        for body in bodies(beside) {
            Case::body(&body, 0).holds();
        }
    }
}

#[test]
fn accept_empty_trusts_any_empty_list() {
    for (beside, _) in DOUBTFUL {
        let [body, _] = bodies(beside);
        Case::body(&body, 0).args(&["--accept-empty"]).holds();
    }
    // The flag does not apply to an answer without a list or to a list with entries.
    for body in [
        r#"{"success":false,"message":"no"}"#,
        r#"{"success":false,"data":[{"id":"1@c.us"}]}"#,
    ] {
        Case::body(body, 76).args(&["--accept-empty"]).holds();
    }
}

#[test]
fn beside_chats_only_an_error_matters() {
    let ids = &["1@c.us"];
    for beside in [
        r#""msg":"session stopped""#,
        r#""state":"close","connected":false"#,
        r#""meta":{"error":"unauthorized"}"#,
        r#""success":true,"message":"Device is offline""#,
    ] {
        let body = format!(r#"{{{beside},"data":[{{"id":"1@c.us"}}]}}"#);
        Case::body(&body, 0).ids(ids).holds();
    }
}

#[test]
fn a_response_without_a_list_is_quoted_or_an_unknown_shape() {
    for (body, exit, says) in [
        (r#"{"detail":"Not authenticated"}"#, 76, "Not authenticated"),
        (r#"{"msg":"session stopped"}"#, 76, "session stopped"),
        (r#"{"isSuccess":false}"#, 76, "false"),
        (
            r#"{"success":true,"chats":[{"id":"1@c.us"}]}"#,
            65,
            "contains no list",
        ),
        (r#"{"message":["bad one"]}"#, 76, "bad one"),
        (r#"{"success":true,"message":"OK"}"#, 65, "contains no list"),
        (
            r#"{"data":{"label":{"id":"7"},"chats":[]}}"#,
            65,
            "contains no list",
        ),
    ] {
        Case::body(body, exit).says(says).holds();
    }
}

#[test]
fn label_counts_apply_the_same_trust_rules() {
    let stage = Stage::with_body(r#"{"data":[],"msg":"session stopped"}"#);
    let ended = stage.program("labels").args(["--counts", "--json"]).end();
    assert_eq!(ended.code, Some(76), "{ended:#?}");
    assert!(ended.stdout.contains("session stopped"), "{ended:#?}");
    let accept = ["--counts", "--json", "--accept-empty"];
    let ended = stage.program("labels").args(accept).end().expect(0);
    assert!(ended.stdout.contains(r#""chats":0"#), "{ended:#?}");
}
