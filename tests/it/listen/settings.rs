//! Settings that are wrong, all at once.

use super::command;
use crate::support::Stage;
use crate::support::listener::SECRET;
use crate::support::redis::Server;

#[test]
fn all_errors_are_listed_together() {
    let stage = Stage::with_body("[]");
    let program = stage.program("listen").args([
        "--sink",
        "-",
        "--removed",
        "--bind",
        "here",
        "--webhook-header",
        "a b",
        "--ids-per-message",
        "2",
        "--reconcile",
        "0s",
        "--suppress-for",
        "30d",
        "--dashboard-token-file",
        "/nothing/here",
    ]);
    let ended = program.end().expect(78);
    for text in [
        "--bind “here”",
        "--webhook-header “a b”",
        "--ids-per-message “2”",
        "--reconcile “0s”",
        "--suppress-for “30d”",
        "--removed",
        "--state",
        "--dashboard-token-file",
        "LABELCAST_WEBHOOK_SECRET",
        "--webhook-auth none",
    ] {
        assert!(ended.stderr.contains(text), "{text}: {}", ended.stderr);
    }
}

#[test]
fn a_sink_without_a_state_is_refused() {
    let stage = Stage::with_body("[]");
    for sink in ["-", "file:chats.jsonl", "amqp://localhost"] {
        let program = stage.program("listen").args(["--sink", sink]);
        let ended = program
            .env("LABELCAST_WEBHOOK_SECRET", SECRET)
            .end()
            .expect(78);
        assert!(ended.stderr.contains("--state"), "{sink}: {}", ended.stderr);
    }
}

#[test]
fn an_address_in_use_is_an_error_that_names_the_flag() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let command = command(&stage, &server).args(["--bind", &address]);
    let ended = command
        .env("LABELCAST_WEBHOOK_SECRET", SECRET)
        .end()
        .expect(78);
    assert!(ended.stderr.contains("--bind"), "{}", ended.stderr);
}
