//! Stored events, by the same path.

use serde_json::json;

use super::command;
use crate::support::Stage;
use crate::support::listener::event;
use crate::support::redis::{Server, chat_ids};

const QUEUE: &str = "labelcast:1";

#[test]
fn stored_events_are_published_once_however_often_they_are_replayed() {
    let (stage, server) = (Stage::with_body("[]"), Server::start(&[]));
    let file = stage.path("events.jsonl");
    let mut lines: Vec<String> = (0..1000)
        .map(|number| {
            event(
                &format!("evt_{number}"),
                "added",
                "1",
                &format!("{number}@c.us"),
            )
            .to_string()
        })
        .collect();
    lines.push(
        json!([
            event("evt_a", "added", "1", "a@c.us"),
            event("evt_b", "added", "1", "b@c.us")
        ])
        .to_string(),
    );
    lines.push(String::new());
    std::fs::write(&file, lines.join("\n")).unwrap();
    let replay = || {
        // No secret: nobody sends webhooks.
        let command = command(&stage, &server);
        command.args(["--replay", file.to_str().unwrap()]).end()
    };
    for _ in 0..2 {
        replay().expect(0);
        assert_eq!(chat_ids(&mut server.connection(), QUEUE).len(), 1002);
    }
    let mut bytes = b"no event\n\xff\xff\n".to_vec();
    bytes.extend(vec![b' '; 10]);
    bytes.extend(vec![b'x'; 3 * 1024 * 1024]);
    bytes.extend(format!("\n{}\n", event("evt_c", "added", "1", "c@c.us")).into_bytes());
    std::fs::write(&file, bytes).unwrap();
    let ended = replay().expect(65);
    for line in 1..=3 {
        let named = format!("\"line\":{line}");
        assert!(ended.stderr.contains(&named), "{line} {}", ended.stderr);
    }
    assert!(!ended.stderr.contains("\"line\":4"), "{}", ended.stderr);
    assert_eq!(chat_ids(&mut server.connection(), QUEUE).len(), 1003);
    std::fs::remove_file(&file).unwrap();
    replay().expect(74);
}
