//! Each shape that the APIs send, and shapes that none of them sends.

use labelcast::mock::{Piece, Reply};

use crate::support::Stage;

/// Returns the ids that a run over this body publishes.
#[track_caller]
fn published(body: impl AsRef<[u8]>) -> Vec<String> {
    let stage = Stage::with_body(body);
    let ended = stage.run().end().expect(0);
    assert_eq!(ended.label()["status"], "complete");
    assert_eq!(ended.label()["read"], stage.ids().len());
    stage.ids()
}

/// Returns the exit code of a run over this body, and the ids that it publishes.
#[track_caller]
fn refused(body: &str, code: i32, says: &str) -> Vec<String> {
    let stage = Stage::with_body(body);
    let ended = stage.run().args(["--retries", "0"]).end().expect(code);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains(says), "{body}: {error}");
    assert_ne!(ended.label()["status"], "complete");
    stage.ids()
}

#[test]
fn a_map_keyed_by_index_is_read() {
    let body = r#"{"0":{"id":"1@c.us","name":"John Doe"},"1":{"id":"2@lid","name":null},"2":{"id":"3@g.us"}}"#;
    assert_eq!(published(body), ["1@c.us", "2@lid", "3@g.us"]);
}

#[test]
fn an_array_is_read() {
    let body = r#"[{"id":"1@c.us"},{"name":"b","id":"2@newsletter"}]"#;
    assert_eq!(published(body), ["1@c.us", "2@newsletter"]);
}

#[test]
fn empty_lists_are_read() {
    for body in [
        "{}",
        "[]",
        " { } ",
        r#"{"success":true,"data":[]}"#,
        r#"{"data":{}}"#,
    ] {
        assert!(published(body).is_empty(), "{body}");
    }
}

#[test]
fn lists_in_an_envelope_are_read() {
    for body in [
        r#"{"success":true,"data":[{"id":"1@c.us"}]}"#,
        r#"{"data":{"0":{"id":"1@c.us"}},"success":true}"#,
        r#"{"success":true,"message":"found","code":200,"data":{"0":{"id":"1@c.us"}},"x":[1,{}]}"#,
        r#"{"success":true,"0":{"id":"1@c.us"}}"#,
    ] {
        assert_eq!(published(body), ["1@c.us"], "{body}");
    }
}

#[test]
fn an_id_may_be_an_object_with_other_members() {
    let body = r#"[{"archived":false,"id":{"server":"c.us","user":"1","_serialized":"1@c.us"},
        "lastMessage":{"id":{"id":"x","_serialized":"no@c.us"},"list":[1,2.5e300,true,null]},"name":"a"}]"#;
    assert_eq!(published(body), ["1@c.us"]);
}

#[test]
fn byte_order_marks_white_space_and_escapes_are_read() {
    assert_eq!(
        published("\u{feff}\n[{\"id\":\"1@c.us\"}]\r\n\t "),
        ["1@c.us"]
    );
    assert_eq!(published(r#"[{"\u0069d":"\u0031\u0040c.us"}]"#), ["1@c.us"]);
}

#[test]
fn names_may_be_any_unicode() {
    let stage = Stage::with_body(r#"[{"id":"1@c.us","name":"Zoë 🐈 \"\\\u0001"},{"id":"2@c.us"}]"#);
    stage.run().args(["--include-names"]).end().expect(0);
    assert_eq!(stage.messages()[0]["name"], "Zoë 🐈 \"\\\u{1}");
    assert_eq!(stage.messages()[1].get("name"), None);
}

#[test]
fn an_empty_name_is_dropped() {
    let stage = Stage::with_body(r#"[{"id":"1@c.us","name":""}]"#);
    stage.run().args(["--include-names"]).end().expect(0);
    assert_eq!(stage.messages()[0].get("name"), None);
}

#[test]
fn lone_surrogates_in_names_are_replaced() {
    // JavaScript cuts strings between the halves of a surrogate pair and writes the remaining half.
    let body = r#"[{"name":"cat \ud83d","id":"1@c.us"},{"id":"2@c.us","name":"\udc08 \\ud83d"}]"#;
    assert_eq!(published(body), ["1@c.us", "2@c.us"]);
}

#[test]
fn names_are_published_only_on_request() {
    let stage = Stage::with_body(r#"[{"id":"1@c.us","name":"John Doe"}]"#);
    stage.run().end().expect(0);
    let text = std::fs::read_to_string(stage.out()).unwrap();
    assert!(!text.contains("John"), "{text}");
}

#[test]
fn errors_under_status_200_are_not_empty_lists() {
    for (body, says) in [
        ("", "empty"),
        (" \n", "empty"),
        ("<html><body>Bad</body></html>", "HTML"),
        ("Session not found", "begins with “Session not found”"),
        ("null", "begins with “null”"),
        (
            r#"{"code":"invalid_session","message":"Session not found."}"#,
            "invalid_session",
        ),
        (r#"{"success":false,"message":"no"}"#, "“no”"),
        (r#"{"success":false,"data":[]}"#, "success"),
        (r#"{"data":[],"success":false}"#, "success"),
        (r#"{"result":false}"#, "false"),
        (
            r#"{"status":401,"message":"m","error":"Unauthorized"}"#,
            "Unauthorized",
        ),
        (
            r#"{"statusCode":500,"timestamp":"t","exception":{"name":"E"}}"#,
            "500",
        ),
        (
            r#"{"code":"rest_no_route","message":"m","data":{"status":404}}"#,
            "rest_no_route",
        ),
        (
            r#"{"code":"rest_no_route","message":"m","data":[]}"#,
            "rest_no_route",
        ),
        (r#"{"message":"Unauthenticated."}"#, "Unauthenticated"),
        (r#"{"status":"error","message":"m","data":[]}"#, "“error”"),
        (r#"{"status":"fail","data":{}}"#, "“fail”"),
        (r#"{"status":"unheard of","data":{}}"#, "unheard of"),
        (r#"{"status":"401 Unauthorized","data":[]}"#, "401"),
        (
            r#"{"message":"Session not found","data":[]}"#,
            "Session not found",
        ),
        (
            r#"{"success":true,"data":[],"message":"Session not found"}"#,
            "Session",
        ),
        (r#"{"errors":["x"],"data":[]}"#, "error"),
        (r#"{"ok":false,"data":[]}"#, "success false"),
        (r#"{"success":"False","data":[]}"#, "success false"),
        (
            r#"{"success":true,"data":[],"error":"session dead"}"#,
            "dead",
        ),
        (
            r#"{"success":true,"code":"invalid_session","data":[]}"#,
            "invalid_session",
        ),
        (r#"{"success":true,"statusCode":500,"data":[]}"#, "500"),
        (
            r#"{"data":[],"success":false,"success":true}"#,
            "success false",
        ),
        // A failure remains one, whatever follows it or stands beside it under another name.
        (r#"{"status":"error","statusCode":200,"data":[]}"#, "error"),
        (r#"{"statusCode":500,"status":"ok","data":[]}"#, "500"),
        (r#"{"data":[],"statusCode":500,"status":null}"#, "500"),
        (r#"{"status":500,"status":200,"data":[]}"#, "500"),
        (
            r#"{"code":"invalid_session","code":"ok","data":[]}"#,
            "invalid_session",
        ),
        (
            r#"{"message":"session not found","message":"","data":[]}"#,
            "session not found",
        ),
        (
            r#"{"status":"error","data":{"status":200,"0":{"id":"1@c.us"}}}"#,
            "error",
        ),
        (
            r#"{"code":"rest_error","data":{"code":"","0":{"id":"1@c.us"}}}"#,
            "rest_error",
        ),
        (r#"{"success":true,"code":"LABEL_GONE","data":[]}"#, "GONE"),
        (
            r#"{"success":true,"message":"Instance is stopped","data":[]}"#,
            "stopped",
        ),
        // Values that are neither yes nor no.
        (r#"{"result":"error","data":[]}"#, "error"),
        (r#"{"success":"failed","data":[]}"#, "failed"),
        (r#"{"ok":"404 Not Found","data":[]}"#, "404"),
        (r#"{"result":{"error":"x"},"data":[]}"#, "result.error “x”"),
        (r#"{"success":-1,"data":{}}"#, "-1"),
    ] {
        assert!(refused(body, 76, says).is_empty(), "{body}");
    }
}

#[test]
fn an_error_after_the_chats_is_an_error() {
    for body in [
        r#"{"data":[{"id":"1@c.us"}],"status":"error","message":"dropped"}"#,
        r#"{"success":true,"data":[{"id":"1@c.us"}],"error":"dropped"}"#,
    ] {
        assert_eq!(refused(body, 76, "dropped"), ["1@c.us"]);
    }
}

#[test]
fn an_empty_list_beside_success_texts_is_accepted() {
    for body in [
        r#"{"success":true,"message":"Chats retrieved successfully","data":[]}"#,
        r#"{"status":"success","data":[],"errors":[],"error":null}"#,
        r#"{"code":200,"status":"OK","data":{}}"#,
        r#"{"success":true,"code":"labels_found","data":[]}"#,
        r#"{"result":0.5,"ok":"yes","success":1,"data":[]}"#,
        r#"{"error":0,"errors":[ ],"exception":{ },"data":[]}"#,
    ] {
        assert!(published(body).is_empty(), "{body}");
    }
}

#[test]
fn chats_beside_an_error_are_not_published() {
    let body = r#"{"success":false,"message":"no","data":[{"id":"1@c.us"}]}"#;
    assert!(refused(body, 76, "no").is_empty());
}

#[test]
fn an_object_without_a_list_is_an_unknown_shape() {
    for body in [
        r#"{"chats":[{"id":"1@c.us"}]}"#,
        r#"{"success":true}"#,
        r#"{"success":true,"data":null}"#,
        r#"{"data":{"chats":[]}}"#,
    ] {
        assert!(
            refused(body, 65, "unknown shape at byte").is_empty(),
            "{body}"
        );
    }
}

#[test]
fn malformed_json_is_located_and_earlier_chats_are_kept() {
    let good = r#"{"0":{"id":"1@c.us"},"1":{"id":"2@c.us"}"#;
    for (bad, at) in [
        (",}", good.len() + 1),
        (" x", good.len() + 1),
        (r#","2":{"id":}}"#, good.len() + 11),
        (r#","2":{"id":'3'}}"#, good.len() + 11),
        (r#","2":{"id":"\x"}}"#, good.len() + 12),
        (r#","2":nul}"#, good.len() + 5),
        (r#","2":01}"#, good.len() + 5),
        ("]", good.len()),
        ("}}", good.len() + 1),
        ("} trailing", good.len() + 2),
        ("}{}", good.len() + 1),
        (",\"2\":{\"name\":\"\u{1}\"}}", good.len() + 14),
    ] {
        let body = format!("{good}{bad}");
        let ids = refused(&body, 65, "malformed JSON at byte ");
        assert_eq!(ids, ["1@c.us", "2@c.us"], "{body}");
        let stage = Stage::with_body(&body);
        let error = stage.run().end().label()["error"].to_string();
        let said: usize = error
            .split("at byte ")
            .nth(1)
            .and_then(|rest| rest.split(':').next())
            .unwrap()
            .parse()
            .unwrap();
        assert!(said.abs_diff(at) <= 3, "{body}: {error}, not near {at}");
    }
}

#[test]
fn invalid_utf_8_is_malformed() {
    let stage = Stage::with_body(b"[{\"id\":\"1@c.us\"},{\"id\":\"\xff\"}]");
    let ended = stage.run().end().expect(65);
    assert!(ended.label()["error"].as_str().unwrap().contains("byte 24"));
    assert_eq!(stage.ids(), ["1@c.us"]);
}

#[test]
fn invalid_entries_are_counted_and_the_others_published() {
    let long = "9".repeat(513);
    let just = "9".repeat(507) + "@c.us";
    let body = format!(
        r#"[{{"id":"1@c.us"}},{{}},{{"id":7}},{{"id":null}},{{"id":""}},{{"id":{{"user":"1"}}}},
            null,"2@c.us",3,[{{"id":"x"}}],{{"id":"{long}"}},{{"id":"{just}"}},{{"id":"2@c.us"}}]"#
    );
    let stage = Stage::with_body(&body);
    let ended = stage.run().end().expect(65);
    assert_eq!(ended.label()["invalid"], 10);
    assert_eq!(ended.label()["published"], 3);
    assert_eq!(ended.label()["read"], 13);
    assert_eq!(stage.ids(), ["1@c.us", &just, "2@c.us"]);

    let stage = Stage::with_body(&body);
    let ended = stage.run().args(["--max-invalid", "10"]).end().expect(0);
    assert_eq!(ended.label()["invalid"], 10);
    assert_eq!(ended.label()["status"], "complete");
}

#[test]
fn each_content_coding_is_decoded() {
    use async_compression::tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder};
    use tokio::io::AsyncWriteExt;
    let (ids, body) = crate::support::small_list(3000);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let mut coded = Vec::new();
    macro_rules! encode {
        ($encoder:ident) => {
            runtime.block_on(async {
                let mut encoder = $encoder::new(Vec::new());
                encoder.write_all(body.as_bytes()).await.unwrap();
                encoder.shutdown().await.unwrap();
                encoder.into_inner()
            })
        };
    }
    coded.push(("gzip", encode!(GzipEncoder)));
    coded.push(("br", encode!(BrotliEncoder)));
    coded.push(("zstd", encode!(ZstdEncoder)));
    for (coding, bytes) in coded {
        let stage = Stage::with_chats(0);
        let whole = Reply::json(bytes.clone()).header("content-encoding", coding);
        stage.mock.script("1", whole);
        let ended = stage.run().end().expect(0);
        assert_eq!(stage.ids(), ids, "{coding}");
        assert_eq!(ended.label()["bytes"], body.len(), "{coding}");

        // The coding has ended but the framing has not, or data follows.
        for (rest, length) in [(&b""[..], bytes.len() + 9), (b"more", bytes.len() + 4)] {
            let stage = Stage::with_chats(0);
            let pieces = [
                bytes::Bytes::from(bytes.clone()),
                bytes::Bytes::from_static(rest),
            ];
            let pieces = pieces.map(Piece::Bytes).into_iter().chain([Piece::Cut]);
            let reply = Reply::pieces(pieces).header("content-encoding", coding);
            stage
                .mock
                .script("1", reply.header("content-length", length.to_string()));
            let ended = stage.run().args(["--retries", "0"]).end().expect(69);
            assert_ne!(ended.label()["status"], "complete", "{coding} {rest:?}");
        }

        // Cut within the coding, with a complete framing: not a short list either.
        let stage = Stage::with_chats(0);
        let half = Reply::json(bytes[..bytes.len() / 2].to_vec());
        stage
            .mock
            .script("1", half.header("content-encoding", coding));
        let ended = stage.run().args(["--retries", "0"]).end().expect(69);
        assert_ne!(ended.label()["status"], "complete", "{coding}");
    }
}
