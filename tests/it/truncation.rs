//! A body that is cut anywhere is a failure and never a short list.

use bytes::Bytes;
use labelcast::mock::{Piece, Reply};

use crate::support::{Stage, part_of, small_list};

const BODY: &str = "\u{feff}{\"success\":true,\"data\":{\"0\":{\"id\":\"1@c.us\",\"name\":\"A\\u00e9\"},\"1\":{\"id\":{\"_serialized\":\"2@c.us\"},\"x\":[1,true,null]}}} ";

fn cut_at(at: usize) -> [Reply; 3] {
    let start = Bytes::copy_from_slice(&BODY.as_bytes()[..at]);
    [
        // The connection breaks, with chunked framing.
        Reply::pieces([Piece::Bytes(start.clone()), Piece::Cut]),
        // The connection breaks, with a content length.
        Reply::pieces([Piece::Bytes(start.clone()), Piece::Cut])
            .header("content-length", BODY.len().to_string()),
        // The framing is complete, as from a proxy that lost the rest.
        Reply::json(start),
    ]
}

#[test]
fn a_body_cut_at_any_position_is_a_failure() {
    let end = BODY.len();
    for at in 0..end {
        for (kind, reply) in cut_at(at).into_iter().enumerate() {
            let stage = Stage::with_body("[]");
            stage.mock.script("1", reply);
            let ended = stage
                .run()
                .args(["--retries", "0", "--skip-label-check"])
                .end();
            let code = ended.code.unwrap();
            let whole_json = kind == 2 && at == end - 1;
            // With complete framing and no JSON, the body counts as empty.
            let empty = kind == 2 && at <= 3;
            let expected = match (whole_json, empty) {
                (true, _) => 0,
                (_, true) => 76,
                _ => 69,
            };
            assert_eq!(code, expected, "cut {kind} at {at}: {ended:#?}");
            let status = &ended.label()["status"];
            assert_eq!(status == "complete", whole_json, "cut {kind} at {at}");
            let all = ["1@c.us", "2@c.us"];
            assert!(all.starts_with(&stage.ids().iter().map(String::as_str).collect::<Vec<_>>()));
        }
    }
}

#[test]
fn a_cut_body_is_requested_again_without_repeats() {
    let (ids, body) = small_list(5000);
    let stage = Stage::with_body(&body);
    for part in [3, 2] {
        let start = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / part]);
        stage
            .mock
            .script("1", Reply::pieces([Piece::Bytes(start), Piece::Cut]));
    }
    let ended = stage.run().end().expect(0);
    assert_eq!(stage.ids(), ids);
    assert_eq!(ended.label()["attempts"], 3);
    assert_eq!(ended.label()["published"], 5000);
    assert_eq!(ended.label()["resumed"], 0);
    assert_eq!(ended.label().get("list_changed"), None);
}

#[test]
fn chats_before_the_cut_are_kept_for_the_next_run() {
    let (ids, body) = small_list(100);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.5, Piece::Cut));
    let first = stage.run().args(["--retries", "0"]).end().expect(69);
    let published = first.label()["published"].as_u64().unwrap();
    assert!((40..60).contains(&published), "{published}");
    assert_eq!(first.label()["status"], "partial");
    assert_eq!(stage.ids(), ids[..published as usize]);

    let second = stage.run().end().expect(0);
    assert_eq!(stage.ids(), ids);
    assert_eq!(second.label()["resumed"], published);
    assert_eq!(second.label()["published"], 100 - published);
    assert_eq!(second.label()["run_id"], first.label()["run_id"]);
}

#[test]
fn only_full_packed_messages_are_published_before_the_end() {
    let (ids, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    stage.mock.script("1", part_of(&body, 0.55, Piece::Cut));
    let ended = stage.run().args(["--ids-per-message", "7"]).end().expect(0);
    let messages = stage.messages();
    let sizes: Vec<usize> = messages
        .iter()
        .map(|message| message["chat_ids"].as_array().unwrap().len())
        .collect();
    assert!(
        sizes[..sizes.len() - 1].iter().all(|size| *size == 7),
        "{sizes:?}"
    );
    let found: Vec<&str> = messages
        .iter()
        .flat_map(|message| message["chat_ids"].as_array().unwrap())
        .map(|id| id.as_str().unwrap())
        .collect();
    assert_eq!(found, ids);
    assert_eq!(ended.label()["attempts"], 2);
}
