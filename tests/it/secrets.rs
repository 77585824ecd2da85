//! Tokens, chat ids and names are in no output at any log level.

use bytes::Bytes;
use labelcast::mock::{Piece, Reply};

use crate::support::{Ended, Stage, TOKEN};

const ID: &str = "4915112345678";
const NAME: &str = "Annemarie";

/// A list with a chat whose id and name must not appear.
fn body() -> String {
    format!(r#"{{"0":{{"id":"{ID}@c.us","name":"{NAME}"}},"1":{{"id":"{ID}@lid"}}}}"#)
}

#[track_caller]
fn says_nothing(ended: &Ended, secrets: &[&str]) {
    let told = format!("{}{}{}", ended.stdout, ended.stderr, ended.report);
    for secret in secrets {
        assert!(!told.contains(secret), "{secret} stands in {ended:#?}");
    }
}

#[test]
fn failing_runs_show_no_secrets() {
    let answer = format!(
        r#"{{"code":"bad","message":"token {TOKEN} may not see {ID}@c.us or {ID} in access_token={TOKEN}"}}"#
    );
    let whole = body();
    let replies = [
        Reply::json(whole.clone()),
        Reply::json(whole[..whole.len() - 1].to_owned()),
        Reply::json(format!("{whole}!")),
        Reply::json(whole.replace(",\"1\"", ",!1")),
        Reply::json(whole.replace("@lid", "\\x")),
        Reply::json(format!("[{ID}]")),
        Reply::json(format!("{ID}@c.us")),
        Reply::pieces([Piece::Bytes(Bytes::from(whole.clone())), Piece::Cut]),
        Reply::json(answer.clone()),
        Reply::json(answer.clone()).status(400),
        Reply::json(answer.clone()).status(401),
        Reply::json(answer).status(500),
        Reply::json(format!("plain {TOKEN} and {ID}@c.us")).status(503),
        Reply::json("").status(302).header(
            "location",
            format!("http://127.0.0.1:9/{TOKEN}?access_token={TOKEN}&x={ID}"),
        ),
        Reply::json("").header("content-encoding", format!("x-{TOKEN}")),
    ];
    for reply in replies {
        for login in ["query", "bearer"] {
            for format in ["json", "text"] {
                let stage = Stage::with_chats(0);
                stage.mock.script("1", reply.clone());
                let arguments = ["--retries", "0", "--auth", login, "--log-format", format];
                let run = stage.run().args(arguments).args(["--include-names"]);
                let ended = run.env("RUST_LOG", "trace").args(["-vv"]).end();
                says_nothing(&ended, &[TOKEN, ID, NAME]);
            }
        }
    }
}

#[test]
fn no_part_or_spelling_of_the_token_is_shown() {
    let half = &TOKEN[..TOKEN.len() / 2];
    for padding in 200..310 {
        let long = format!(r#"{{"message":"{}{TOKEN}"}}"#, "x".repeat(padding));
        let other = format!(r#"{{"message":"{}"}}"#, TOKEN.to_uppercase());
        for (status, body) in [(400, &long), (200, &long), (400, &other)] {
            let stage = Stage::with_chats(0);
            stage
                .mock
                .script("1", Reply::json(body.clone()).status(status));
            let arguments = ["--skip-label-check", "--retries", "0"];
            let ended = stage.run().args(arguments).end().expect(76);
            says_nothing(&ended, &[half, &half.to_uppercase()]);
            if padding % 10 != 0 {
                break;
            }
        }
    }
}

#[test]
fn a_run_that_cannot_connect_does_not_show_the_token() {
    let stage = Stage::with_chats(0);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let arguments = ["--api-url", &url, "--retries", "1"];
    let ended = stage.run().args(arguments).env("RUST_LOG", "trace").end();
    says_nothing(&ended.expect(69), &[TOKEN]);
}

#[test]
fn configuration_errors_show_no_secrets() {
    let stage = Stage::with_chats(0);
    let ended = stage
        .run()
        .args([
            "--api-url",
            "http://user:pa55word@host/?access_token=abc123",
        ])
        .args(["--sink", "nosuch://user:pa55word@host"])
        .end()
        .expect(78);
    says_nothing(&ended, &[TOKEN, "pa55word", "abc123"]);
    for arguments in [
        ["--api-url", "h/v2?access_token=abc123"],
        ["--api-url", "ftp://user:abc123@h/"],
        ["--api-url", "https://h:99999/?access_token=abc123"],
        ["--access-token-file", "abc123"],
        ["--sink-file", "abc123"],
        ["--sink", "abc123:x@h"],
    ] {
        let run = stage.run().without_env("WAWP_ACCESS_TOKEN").args(arguments);
        says_nothing(&run.end().expect(78), &["abc123"]);
    }
    let config = stage.path("labelcast.toml");
    std::fs::write(&config, "[api]\naccess_token = \"pa55word\"\n").unwrap();
    let ended = stage
        .run()
        .args(["--config", config.to_str().unwrap()])
        .end()
        .expect(78);
    says_nothing(&ended, &["pa55word"]);
    assert!(ended.stderr.contains("WAWP_ACCESS_TOKEN"));
    std::fs::write(&config, "[sink]\nurl = \"pa55word\n").unwrap();
    let run = stage.run().args(["--config", config.to_str().unwrap()]);
    says_nothing(&run.end().expect(78), &["pa55word"]);
}

#[test]
fn other_commands_do_not_show_the_token() {
    let refusal = Reply::json(format!(r#"{{"message":"bad token {TOKEN}"}}"#)).status(401);
    for command in ["check", "labels"] {
        let stage = Stage::with_chats(0);
        stage.mock.script_labels(refusal.clone());
        let program = stage.program(command).env("RUST_LOG", "trace");
        let program = match command {
            "check" => program.args(["--label", "1"]),
            _ => program,
        };
        let ended = program.end().expect(77);
        says_nothing(&ended, &[TOKEN]);
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains("bad token ***"));
    }
}

#[test]
fn the_journal_contains_no_ids() {
    let stage = Stage::with_body(body());
    stage.run().args(["--include-names"]).end().expect(0);
    let journal = std::fs::read_to_string(stage.path("out.jsonl.labelcast")).unwrap();
    for secret in [TOKEN, ID, NAME] {
        assert!(!journal.contains(secret), "{journal}");
    }
}
