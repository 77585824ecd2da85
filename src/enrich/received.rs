//! From a message of any format to the chat ids in it.

use std::char::REPLACEMENT_CHARACTER;
use std::sync::Arc;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

use crate::decode::is_chat_id;
use crate::message::{Change, Origin, QueuedChat, Source, Unusable};

/// The start of the `event` of messages about runs.
const RUN_EVENTS: &str = "run.";

/// What a message asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// These chats, and entries that are no chat ids.
    Chats(Vec<Result<QueuedChat, Unusable>>),
    /// Nothing: a chat that has left its label, or the start or the end of a run.
    PassedOver,
    /// It cannot be used.
    Unusable(Unusable),
}

/// Reads a message, in the form in which consumers return it.
pub fn read(message: &Map<String, Value>) -> Received {
    let identity = identity(message);
    let unusable = |reason, contents: &Value| {
        Received::Unusable(Unusable {
            identity: identity.clone(),
            reason,
            contents: contents.to_string(),
        })
    };
    let body = match message.get("data") {
        None => message,
        Some(Value::Object(data)) => of_cloud_event(data),
        Some(other) => return unusable("the message is not a JSON object", other),
    };
    let contents = || {
        let data = message.get("data").cloned();
        data.unwrap_or_else(|| fields(message))
    };
    let text = |name| body.get(name).and_then(Value::as_str);
    match message
        .get("event")
        .and_then(Value::as_str)
        .or(text("event"))
    {
        None => {}
        Some(event) if event == Change::Added.event_name() => {}
        Some(event) if event == Change::Deleted.event_name() || event.starts_with(RUN_EVENTS) => {
            return Received::PassedOver;
        }
        Some(_) => return unusable("the message has an unknown event", &contents()),
    }
    let entries = match (body.get("chat_id"), body.get("chat_ids")) {
        (Some(chat_id), _) if !chat_id.is_null() => std::slice::from_ref(chat_id),
        (_, Some(Value::Array(chat_ids))) if !chat_ids.is_empty() => chat_ids.as_slice(),
        _ => return unusable("the message has no chat id", &contents()),
    };
    let origin = Arc::new(Origin {
        label_id: body.get("label_id").and_then(text_of),
        source: match (text("event_id"), text("run_id")) {
            (Some(event_id), _) => Source::Event(event_id.to_owned()),
            (None, Some(run_id)) => Source::Run(run_id.to_owned()),
            (None, None) => Source::Other(identity.clone()),
        },
    });
    Received::Chats(chats(entries, &origin, &identity))
}

/// Returns each entry of a message as a chat.
fn chats(
    entries: &[Value],
    origin: &Arc<Origin>,
    identity: &str,
) -> Vec<Result<QueuedChat, Unusable>> {
    let chat = |(number, entry): (usize, &Value)| match entry.as_str() {
        // Redis consumers replace bytes that are not UTF-8.
        Some(chat_id) if is_chat_id(chat_id) && !chat_id.contains(REPLACEMENT_CHARACTER) => {
            Ok(QueuedChat {
                chat_id: chat_id.to_owned(),
                origin: Arc::clone(origin),
            })
        }
        _ => Err(Unusable {
            identity: format!("{identity}:{number}"),
            reason: "the entry is not a chat id",
            contents: entry.to_string(),
        }),
    };
    entries.iter().enumerate().map(chat).collect()
}

/// Whether a chat has a contact: groups, newsletters and broadcasts have none.
pub fn has_contact(chat_id: &str) -> bool {
    let server = chat_id.rsplit_once('@').map_or("", |(_, server)| server);
    !["g.us", "newsletter", "broadcast"].contains(&server)
}

/// The data of a `CloudEvents` event, or the object itself.
fn of_cloud_event(data: &Map<String, Value>) -> &Map<String, Value> {
    match data.get("data") {
        Some(Value::Object(inner)) if data.contains_key("specversion") => inner,
        _ => data,
    }
}

/// A text that identifies the message each time it is delivered.
fn identity(message: &Map<String, Value>) -> String {
    let names = ["entry_id", "message_id"];
    let mut known = names.iter().filter_map(|name| message.get(*name)?.as_str());
    match known.next() {
        Some(known) => known.to_owned(),
        None => format!("{:032x}", xxh3_128(fields(message).to_string().as_bytes())),
    }
}

/// The message without what the consumer has added.
fn fields(message: &Map<String, Value>) -> Value {
    let mut fields = message.clone();
    for added in ["entry_id", "message_id", "redelivered"] {
        fields.remove(added);
    }
    fields.into()
}

/// A text, or a number as text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
#[expect(clippy::panic, clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: &Value) -> Received {
        super::read(message.as_object().unwrap())
    }

    #[track_caller]
    fn chats(message: &Value) -> Vec<(String, Option<String>, Source)> {
        let Received::Chats(chats) = read(message) else {
            panic!("{message}");
        };
        let chats = chats.into_iter().map(Result::unwrap);
        chats
            .map(|chat| {
                let origin = (*chat.origin).clone();
                (chat.chat_id, origin.label_id, origin.source)
            })
            .collect()
    }

    #[test]
    fn every_format_is_understood() {
        let run = Source::Run("r".to_owned());
        let event = Source::Event("e".to_owned());
        let one =
            |source: &Source| vec![("1@c.us".to_owned(), Some("7".to_owned()), source.clone())];
        let plain = json!({"chat_id": "1@c.us", "label_id": "7", "run_id": "r"});
        let cloud =
            |data: &Value| json!({"specversion": "1.0", "type": "t", "id": "x", "data": data});
        let mut added = plain.clone();
        added["event"] = "label.chat.added".into();
        added["event_id"] = "e".into();
        let mut of_stream = plain.clone();
        of_stream["entry_id"] = "1-1".into();
        for (message, expected) in [
            (of_stream, one(&run)),
            (json!({"entry_id": "1-1", "data": plain}), one(&run)),
            (
                json!({"message_id": "r:1", "redelivered": true, "data": cloud(&plain)}),
                one(&run),
            ),
            (added.clone(), one(&event)),
            (
                json!({"event": "label.chat.added", "data": added}),
                one(&event),
            ),
            (json!({"data": cloud(&added)}), one(&event)),
        ] {
            assert_eq!(chats(&message), expected, "{message}");
        }
        let packed = json!({"entry_id": "1-1", "chat_ids": ["1@c.us", "2@lid"], "label_id": 7, "run_id": "r"});
        let ids: Vec<String> = chats(&packed).into_iter().map(|chat| chat.0).collect();
        assert_eq!(ids, ["1@c.us", "2@lid"]);
        assert_eq!(chats(&packed)[0].1.as_deref(), Some("7"));
    }

    #[test]
    fn markers_and_removals_are_passed_over() {
        for message in [
            json!({"entry_id": "1-1", "event": "run.started", "label_id": "7", "run_id": "r"}),
            json!({"event": "run.completed", "data": {"event": "run.completed"}}),
            json!({"data": {"event": "run.completed", "chats": 3}}),
            json!({"data": {"specversion": "1.0", "data": {"event": "run.started"}}}),
            json!({"event": "label.chat.deleted", "chat_id": "1@c.us"}),
            json!({"data": {"event": "label.chat.deleted", "chat_id": "1@c.us"}}),
        ] {
            assert_eq!(read(&message), Received::PassedOver, "{message}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_kept_with_its_contents() {
        for (message, contents) in [
            (json!({"entry_id": "1-1", "data": "{half"}), "\"{half\""),
            (json!({"entry_id": "1-1", "data": [1]}), "[1]"),
            (json!({"entry_id": "1-1", "x": "y"}), r#"{"x":"y"}"#),
            (
                json!({"entry_id": "1-1", "data": {"chat_id": null}}),
                r#"{"chat_id":null}"#,
            ),
            (
                json!({"entry_id": "1-1", "data": {"chat_ids": []}}),
                r#"{"chat_ids":[]}"#,
            ),
            (
                json!({"entry_id": "1-1", "event": "other", "chat_id": "1@c.us"}),
                r#"{"chat_id":"1@c.us","event":"other"}"#,
            ),
        ] {
            let Received::Unusable(unusable) = read(&message) else {
                panic!("{message}");
            };
            assert_eq!(
                (unusable.identity.as_str(), unusable.contents.as_str()),
                ("1-1", contents)
            );
        }
    }

    #[test]
    fn an_entry_that_is_no_chat_id_does_not_spoil_the_others() {
        let message = json!({"entry_id": "1-1", "chat_ids": ["1@c.us", 5, "\u{fffd}@c.us", "2@c.us"], "run_id": "r"});
        let Received::Chats(chats) = read(&message) else {
            panic!("{message}");
        };
        assert!(chats[0].is_ok() && chats[3].is_ok());
        let spoilt: Vec<_> = chats.into_iter().filter_map(Result::err).collect();
        let expected = [("1-1:1", "5"), ("1-1:2", "\"\u{fffd}@c.us\"")];
        let found = spoilt
            .iter()
            .map(|it| (it.identity.as_str(), it.contents.as_str()));
        assert_eq!(found.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_message_without_a_source_has_the_same_identity_each_time() {
        let message =
            |redelivered: bool| json!({"redelivered": redelivered, "data": {"chat_id": "1@c.us"}});
        assert_eq!(chats(&message(false)), chats(&message(true)));
        let other = json!({"redelivered": false, "data": {"chat_id": "2@c.us"}});
        assert_ne!(chats(&message(false))[0].2, chats(&other)[0].2);
    }

    #[test]
    fn only_people_have_contacts() {
        for (id, expected) in [
            ("1@c.us", true),
            ("1@s.whatsapp.net", true),
            ("1@lid", true),
            ("1-2@g.us", false),
            ("1@newsletter", false),
            ("status@broadcast", false),
        ] {
            assert_eq!(has_contact(id), expected, "{id}");
        }
    }
}
