//! Requests to the API: dialects, login, redirects, retries, time-outs.

use bytes::Bytes;
use labelcast::mock::{Chats, Piece, Reply};

use crate::support::{INSTANCE, Stage, TOKEN};

#[test]
fn each_dialect_uses_its_own_paths_and_login() {
    let login = format!("instance_id={INSTANCE}&access_token={TOKEN}");
    for (dialect, auth, base, query) in [
        ("wawp-v2", "query", "/v2".to_owned(), login.as_str()),
        ("wawp-v2", "bearer", "/v2".to_owned(), ""),
        ("wawp-v1", "query", "/wp-json/awp/v1".to_owned(), &login),
        ("wawp-v1", "bearer", "/wp-json/awp/v1".to_owned(), ""),
        ("waha", "query", format!("/api/{INSTANCE}"), ""),
    ] {
        let stage = Stage::with_chats(3);
        let arguments = ["--dialect", dialect, "--auth", auth];
        stage.run().args(arguments).end().expect(0);
        let requests = stage.mock.requests();
        assert_eq!(requests[0].path, format!("{base}/labels"));
        assert_eq!(requests[1].path, format!("{base}/labels/1/chats"));
        for request in &requests {
            assert_eq!(request.query, query);
            let value = |name: &str| {
                let value = request.headers.get(name);
                value.map(|value| value.to_str().unwrap().to_owned())
            };
            let bearer = (auth == "bearer").then(|| format!("Bearer {TOKEN}"));
            assert_eq!(value("authorization"), bearer);
            let key = (dialect == "waha").then(|| TOKEN.to_owned());
            assert_eq!(value("x-api-key"), key);
            assert_eq!(value("referer"), None);
        }
        let codings = requests[1].headers.get("accept-encoding").unwrap();
        assert_eq!(codings, "gzip, br, zstd");
    }
}

#[test]
fn base_paths_are_kept_and_labels_are_escaped() {
    let stage = Stage::with_labels(vec![("a b/ü", Chats::Generated(1))]);
    let url = format!("{}/nothing/", stage.mock.url());
    let arguments = ["--label", "a b/ü", "--skip-label-check", "--sink", "-"];
    let run = stage.program("run").args(arguments);
    run.end().expect(0);
    assert_eq!(
        stage.mock.requests()[0].path,
        "/v2/labels/a%20b%2F%C3%BC/chats"
    );
    let run = stage.program("run").args(arguments);
    let ended = run.args(["--api-url", &url, "--retries", "0"]).end();
    assert_eq!(
        ended.code,
        Some(76),
        "the stand-in serves no such path: {ended:?}"
    );
}

#[test]
fn redirects_on_the_same_host_are_followed() {
    let stage = Stage::with_chats(3);
    let target = format!("/v2/labels/1/chats?instance_id={INSTANCE}&access_token={TOKEN}&again=1");
    let redirect = Reply::json("").status(307).header("location", target);
    stage.mock.script("1", redirect);
    stage.run().end().expect(0);
    assert_eq!(stage.ids().len(), 3);
}

#[test]
fn redirects_to_another_host_are_refused() {
    for auth in ["query", "bearer"] {
        let elsewhere = Stage::with_chats(3);
        let stage = Stage::with_chats(3);
        // Another port, and another name for the same address.
        let other_name = stage.mock.url().replace("127.0.0.1", "localhost");
        for host in [elsewhere.mock.url(), other_name] {
            let target = format!("{host}/v2/labels/1/chats?access_token={TOKEN}");
            let redirect = Reply::json("").status(302).header("location", target);
            stage.mock.script("1", redirect);
            let ended = stage.run().args(["--auth", auth]).end().expect(76);
            let error = ended.label()["error"].as_str().unwrap();
            assert!(error.contains("redirects to another host"), "{error}");
            assert!(error.contains(&host), "{error}");
        }
        assert!(elsewhere.mock.requests().is_empty());
    }
}

#[test]
fn redirect_loops_are_limited() {
    let stage = Stage::with_chats(3);
    for _ in 0..30 {
        let target = format!("/v2/labels/1/chats?instance_id={INSTANCE}&access_token={TOKEN}");
        let redirect = Reply::json("").status(302).header("location", target);
        stage.mock.script("1", redirect);
    }
    stage.run().end().expect(76);
}

#[test]
fn transient_errors_are_retried() {
    let stage = Stage::with_chats(3);
    for (status, body) in [
        (503, "busy"),
        (422, r#"{"status":"STARTING"}"#),
        (429, "{}"),
    ] {
        let reply = Reply::json(body).status(status).header("retry-after", "0");
        stage.mock.script("1", reply);
    }
    let ended = stage.run().end().expect(0);
    assert_eq!(ended.label()["attempts"], 4);
    assert_eq!(ended.stderr.matches("trying again").count(), 3);
}

#[test]
fn retries_are_limited_to_the_setting() {
    let stage = Stage::with_chats(3);
    for _ in 0..5 {
        let reply = Reply::json("busy").status(503).header("retry-after", "0");
        stage.mock.script("1", reply);
    }
    let ended = stage.run().args(["--retries", "2"]).end().expect(69);
    assert_eq!(ended.label()["attempts"], 3);
    // The list of labels, and three attempts.
    assert_eq!(stage.mock.requests().len(), 4);
}

#[test]
fn a_retry_after_of_hours_is_not_waited_for() {
    let stage = Stage::with_chats(3);
    let reply = Reply::json("later")
        .status(429)
        .header("retry-after", "86400");
    stage.mock.script("1", reply);
    let ended = stage.run().end().expect(69);
    assert_eq!(ended.label()["attempts"], 1);
}

#[test]
fn a_silent_api_times_out_before_and_within_a_response() {
    let start = Piece::Bytes(Bytes::from_static(b"[{\"id\":\"1@c.us\"},"));
    for pieces in [vec![Piece::Hold], vec![start, Piece::Hold]] {
        let stage = Stage::with_chats(3);
        stage.mock.script("1", Reply::pieces(pieces));
        let arguments = ["--read-timeout", "200ms", "--retries", "0"];
        let ended = stage.run().args(arguments).end().expect(69);
        let error = ended.label()["error"].as_str().unwrap();
        assert!(error.contains("--read-timeout"), "{error}");
    }
}

#[test]
fn a_malformed_body_is_reported_while_it_is_still_arriving() {
    let stage = Stage::with_chats(3);
    let start = Piece::Bytes(Bytes::from_static(b"[{\"id\":\"1@c.us\"},!"));
    stage.mock.script("1", Reply::pieces([start, Piece::Hold]));
    stage.run().end().expect(65);
    assert_eq!(stage.ids(), ["1@c.us"]);
}
