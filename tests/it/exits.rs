//! Each exit code, and the message that goes with it.

use labelcast::mock::{Chats, Piece, Reply};

use crate::support::{Running, Stage, small_list};

/// Runs once with a scripted reply.
fn run_over(reply: Reply) -> crate::support::Ended {
    let stage = Stage::with_chats(10);
    stage.mock.script("1", reply);
    stage.run().args(["--retries", "0"]).end()
}

fn refusal(status: u16, body: &str) -> Reply {
    Reply::json(body.to_owned()).status(status)
}

#[test]
fn complete_is_0() {
    let stage = Stage::with_chats(10);
    let ended = stage.run().end().expect(0);
    assert_eq!(ended.report["status"], "complete");
    assert_eq!(ended.report["totals"]["published"], 10);
}

#[test]
fn a_wrong_command_line_is_64() {
    for line in [&["run", "--no-such-flag"][..], &["walk"], &["completions"]] {
        let ended = Running::new(line[0]).args(&line[1..]).end();
        assert_eq!(ended.code, Some(64), "{ended:?}");
        assert!(ended.stdout.is_empty());
    }
}

#[test]
fn bad_data_is_65() {
    let ended = run_over(Reply::json("{\"0\":}")).expect(65);
    assert_eq!(ended.report["status"], "failed");
}

#[test]
fn unavailable_is_69() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let ended = run_over(refusal(status, "busy")).expect(69);
        let error = ended.label()["error"].as_str().unwrap();
        assert!(error.contains(&status.to_string()), "{error}");
        assert!(error.contains("busy"), "{error}");
    }
    let starting = r#"{"error":"Session status is not as expected","status":"STARTING","expected":["WORKING"]}"#;
    run_over(refusal(422, starting)).expect(69);
}

#[test]
fn an_unreachable_api_is_69() {
    let stage = Stage::with_chats(10);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ended = stage
        .run()
        .args(["--api-url", &url, "--retries", "0"])
        .end();
    ended.expect(69);
}

#[test]
fn a_file_that_cannot_be_written_is_74() {
    let stage = Stage::with_chats(10);
    let sink = "file:/nowhere/at/all.jsonl";
    let ended = stage.run().args(["--sink", sink]).end().expect(74);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("/nowhere/at/all.jsonl"), "{error}");
}

#[test]
fn a_full_disk_is_74_and_leaves_no_partial_line() {
    let (_, body) = small_list(20_000);
    let stage = Stage::with_body(&body);
    // Enough room for two batches.
    stage.run().with_disk_of(800).end().expect(74);
    assert!(stage.ids().len() > 1000);
    stage.run().end().expect(0);
    assert_eq!(stage.ids().len(), 20_000);
}

#[test]
fn an_error_of_the_api_is_76_and_is_quoted() {
    for (status, body, says) in [
        (400, r#"{"message":"bad instance"}"#, "bad instance"),
        (
            404,
            r#"{"code":"invalid_session","message":"Session not found. Log in"}"#,
            "invalid_session",
        ),
        (404, "<html>", "404"),
        (418, "tea\nonly", "tea only"),
        (
            422,
            r#"{"error":"Session status is not as expected","status":"SCAN_QR_CODE"}"#,
            "SCAN_QR_CODE",
        ),
        (501, "", "501"),
        (204, "", "204"),
    ] {
        let ended = run_over(refusal(status, body)).expect(76);
        let error = ended.label()["error"].as_str().unwrap();
        assert!(error.contains(says), "{status} {body}: {error}");
    }
}

#[test]
fn refused_credentials_are_77() {
    for status in [401, 403] {
        run_over(refusal(status, r#"{"message":"quota exceeded"}"#)).expect(77);
    }
    let stage = Stage::with_chats(10);
    let ended = stage
        .run()
        .env("WAWP_ACCESS_TOKEN", "wrong")
        .end()
        .expect(77);
    assert!(ended.stderr.contains("WAWP_ACCESS_TOKEN"), "a hint");
    assert_eq!(ended.label()["status"], "failed");
    assert_eq!(ended.label()["attempts"], 0);
}

#[test]
fn wrong_settings_are_78() {
    let stage = Stage::with_chats(10);
    let ended = stage.run().args(["--retries", "often"]).end().expect(78);
    assert_eq!(ended.report["status"], "failed");
    assert!(ended.report["error"].as_str().unwrap().contains("often"));
}

#[test]
fn a_deleted_label_is_80() {
    let stage = Stage::with_chats(10);
    let ended = stage.run().args(["--label", "77"]).end().expect(80);
    assert_eq!(ended.report["labels"][0]["status"], "complete");
    assert_eq!(ended.report["labels"][1]["status"], "guarded");
    assert_eq!(ended.report["status"], "partial");
}

#[test]
fn cut_short_by_the_deadline_is_75() {
    let stage = Stage::with_chats(10);
    stage.mock.script("1", Reply::pieces([Piece::Hold]));
    let ended = stage.run().args(["--deadline", "300ms"]).end().expect(75);
    assert_eq!(ended.label()["status"], "partial");
    assert!(
        ended.label()["error"]
            .as_str()
            .unwrap()
            .contains("deadline")
    );
}

#[test]
fn no_retry_waits_past_the_deadline() {
    let stage = Stage::with_chats(10);
    let busy = refusal(503, "busy").header("retry-after", "3000");
    stage.mock.script("1", busy);
    let ended = stage.run().args(["--deadline", "20m"]).end().expect(75);
    assert_eq!(ended.label()["attempts"], 1);
}

#[test]
fn with_several_labels_all_are_tried_and_the_worst_code_counts() {
    let labels = ["1", "2", "3", "4"].map(|id| (id, Chats::Generated(5)));
    let stage = Stage::with_labels(labels.to_vec());
    stage.mock.script("1", refusal(503, "busy"));
    stage.mock.script("2", refusal(400, "bad"));
    stage.mock.script("3", Reply::json("{\"0\":1"));
    let arguments = ["--label", "2,3", "--label", "4", "--retries", "0"];
    let ended = stage.run().args(arguments).end().expect(76);
    let statuses: Vec<_> = (0..4)
        .map(|i| ended.report["labels"][i]["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["failed", "failed", "failed", "complete"]);
    assert_eq!(stage.ids().len(), 5);
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let stage = Stage::with_chats(200_000);
    let mut process = stage.run().args(["--sink", "-"]).spawn();
    let mut start = [0; 1000];
    let mut stdout = process.take_stdout();
    std::io::Read::read_exact(&mut stdout, &mut start).unwrap();
    drop(stdout);
    let ended = process.end();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert!(!ended.stderr.contains("ERROR"), "{}", ended.stderr);
    assert_eq!(ended.label()["status"], "partial");
}

#[test]
fn an_unwritable_stdout_is_74() {
    let stage = Stage::with_chats(3);
    let read_only = std::fs::File::open("/dev/null").unwrap();
    let ended = stage
        .run()
        .args(["--sink", "-"])
        .stdout(read_only.into())
        .end();
    ended.expect(74);
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let ended = stage.run().args(["--sink", "-"]).stdout(full.into()).end();
    ended.expect(74);
}
