//! `labelcast purge`: what is stored is deleted, and nothing else.

mod acknowledged;
mod age;
mod file;
mod found;
mod locked;
mod members;
mod rabbitmq;
mod redis;
mod state;

use serde_json::{Value, json};

use crate::support::{Ended, INSTANCE, Running, Stage};

/// Starts a purge, for an account without a token.
pub(crate) fn purge(sink: &str) -> Running {
    let program = Running::new("purge").args(["--instance-id", INSTANCE]);
    program.args(["--json", "--sink", sink])
}

/// What a purge says, without the kinds of which there was nothing.
pub(crate) fn said(ended: &Ended) -> Value {
    let Value::Object(mut line) = serde_json::from_str(ended.stdout.trim_end()).unwrap() else {
        panic!("{}", ended.stdout);
    };
    line.remove("dry_run").unwrap();
    assert_eq!(line.len(), 9, "{}", ended.stdout);
    line.retain(|_, number| *number != 0);
    Value::Object(line)
}

#[test]
fn the_command_line_says_what_is_deleted() {
    for arguments in [vec![], vec!["--label", "1"], vec!["--older-than", "soon"]] {
        let ended = purge("redis://127.0.0.1:1")
            .args(arguments)
            .end()
            .expect(64);
        assert!(ended.stderr.contains("--older-than"), "{}", ended.stderr);
    }
    let all = ["--older-than", "0s"];
    let ended = purge("-").args(all).end().expect(78);
    assert!(ended.stderr.contains("name the sink"), "{}", ended.stderr);
    let nobody = ["--older-than", "0s", "--retries", "0"];
    let ended = purge("redis://127.0.0.1:1").args(nobody).end().expect(69);
    assert_eq!(said(&ended), json!({}));
    let ended = Running::new("purge").args(all).end().expect(78);
    assert!(ended.stderr.contains("--instance-id"), "{}", ended.stderr);
}

#[test]
fn a_person_reads_a_table() {
    let stage = Stage::with_chats(12);
    stage.run().end().expect(0);
    let sink = format!("file:{}", stage.out().display());
    let table = |arguments: &[&str]| {
        let program = Running::new("purge").args(["--instance-id", INSTANCE, "--sink", &sink]);
        let program = program.args(["--older-than", "0s"]);
        program.args(arguments).end().expect(0).stdout
    };
    let dry = table(&["--dry-run"]);
    assert!(
        dry.contains("WOULD BE DELETED\nmessages                              12\n"),
        "{dry}"
    );
    let wet = table(&[]);
    assert!(
        wet.contains("DELETED\nmessages                     12\n"),
        "{wet}"
    );
}
