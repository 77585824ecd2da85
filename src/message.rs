//! The messages that consumers receive, as JSON, for every sink that carries JSON.
//!
//! Parts that are the same for all messages of a run are prepared once. For each chat, only bytes
//! are copied.

mod contact;
mod event;
mod ready;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use percent_encoding::utf8_percent_encode;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

pub use self::contact::{
    Contact, ContactEncoder, ContactField, Lookup, Origin, QueuedChat, Source, Unusable,
};
pub use self::event::{Change, EventEncoder, LabelEvent};
pub use self::ready::{MessageBody, ReadyMessage};
use crate::batch::{Batch, Chat};
use crate::http::ALL_BUT_UNRESERVED;

/// The `type` of a [`CloudEvents`](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md)
/// event.
const EVENT_TYPE: &str = "net.wawp.label.chat";

/// The format of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// No JSON: the fields of an entry of a Redis Stream. Only a packed message's ids are JSON.
    Fields,
    /// `{"chat_id":…,"label_id":…,"run_id":…}`.
    Json,
    /// A `CloudEvents` 1.0 event in structured JSON, with the [`Format::Json`] object as its data.
    CloudEvents,
}

/// The layout of a run's messages.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The format.
    pub format: Format,
    /// The maximum number of ids in one message. With 1, each chat is a message.
    pub ids_per_message: u32,
    /// Whether names are published.
    pub include_names: bool,
}

/// A message about a run, on the queue of its chats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// The run has started.
    Started,
    /// All chats of the run are on the queue.
    Completed,
}

impl Marker {
    /// Returns the marker's `event` in a message.
    pub fn event(self) -> &'static str {
        match self {
            Self::Started => "run.started",
            Self::Completed => "run.completed",
        }
    }
}

/// An encoder for the messages of one run.
pub struct Encoder {
    layout: Layout,
    source: String,
    label_id: String,
    run_id: Uuid,
    /// The part before the event's id. Empty unless the message is an event.
    event_start: Vec<u8>,
    /// The part between the event's id and its data. Empty unless the message is an event.
    event_middle: Vec<u8>,
    /// The part after the id or ids, up to the names.
    ids_end: Vec<u8>,
    /// The closing brackets.
    end: &'static [u8],
}

impl Encoder {
    /// Creates an encoder for a run over a label of an account.
    pub fn new(layout: &Layout, instance_id: &str, label_id: &str, run_id: Uuid) -> Self {
        let mut ids_end = b",\"label_id\":\"".to_vec();
        push_escaped(&mut ids_end, label_id.as_bytes());
        ids_end.extend_from_slice(format!("\",\"run_id\":\"{run_id}\"").as_bytes());
        let (mut event_start, mut event_middle) = (Vec::new(), Vec::new());
        let source = source_of_label(instance_id, label_id);
        if layout.format == Format::CloudEvents {
            event_start = format!(
                r#"{{"specversion":"1.0","type":"{EVENT_TYPE}","source":"{source}","id":"{run_id}:"#
            )
            .into_bytes();
            let time = humantime::format_rfc3339_millis(snapshot_time(run_id));
            event_middle =
                format!(r#"","time":"{time}","datacontenttype":"application/json","data":"#)
                    .into_bytes();
        }
        Self {
            layout: layout.clone(),
            source,
            label_id: label_id.to_owned(),
            run_id,
            event_start,
            event_middle,
            ids_end,
            end: match layout.format {
                Format::Fields | Format::Json => b"}",
                Format::CloudEvents => b"}}",
            },
        }
    }

    /// Appends the messages of a batch, each followed by `after`, and returns their number.
    pub fn batch(&self, batch: &Batch, after: &[u8], out: &mut Vec<u8>) -> u64 {
        let mut messages = 0;
        if self.layout.ids_per_message == 1 {
            for chat in batch.iter() {
                self.one(&chat, out);
                out.extend_from_slice(after);
                messages += 1;
            }
            return messages;
        }
        let mut chats = batch.iter().peekable();
        while chats.peek().is_some() {
            self.packed(&mut chats, out);
            out.extend_from_slice(after);
            messages += 1;
        }
        messages
    }

    /// Calls `emit` for each message with its JSON. For packed [`Format::Fields`] messages, passes
    /// the JSON array of ids and, with names, the JSON array of names.
    pub fn each<'a>(&self, chats: impl Iterator<Item = Chat<'a>>, mut emit: impl FnMut(&[&[u8]])) {
        let mut chats = chats.peekable();
        let mut message = Vec::new();
        while let Some(chat) = chats.peek() {
            message.clear();
            if self.layout.format == Format::Fields {
                let names = self.arrays(&mut chats, &mut message);
                match &names {
                    Some(names) => emit(&[&message, names]),
                    None => emit(&[&message]),
                }
                continue;
            }
            if self.layout.ids_per_message == 1 {
                self.one(chat, &mut message);
                chats.next();
            } else {
                self.packed(&mut chats, &mut message);
            }
            emit(&[&message]);
        }
    }

    /// Returns a marker as fields and values. `chats` is the number of chats of a complete run.
    pub fn marker(&self, marker: Marker, chats: u64) -> Vec<String> {
        let event = marker.event().to_owned();
        let mut fields = vec!["event".to_owned(), event];
        if self.layout.format == Format::Fields {
            fields.extend(["label_id".to_owned(), self.label_id.clone()]);
            fields.extend(["run_id".to_owned(), self.run_id.to_string()]);
            if marker == Marker::Completed {
                fields.extend(["chats".to_owned(), chats.to_string()]);
            }
        } else {
            fields.extend(["data".to_owned(), self.marker_json(marker, chats)]);
        }
        fields
    }

    /// Returns a marker as JSON.
    pub fn marker_json(&self, marker: Marker, chats: u64) -> String {
        let event = marker.event();
        let (label_id, run_id) = (&self.label_id, self.run_id.to_string());
        let mut data = serde_json::json!({"event": event, "label_id": label_id, "run_id": run_id});
        if marker == Marker::Completed {
            data["chats"] = chats.into();
        }
        if self.layout.format != Format::CloudEvents {
            return data.to_string();
        }
        let time = humantime::format_rfc3339_millis(snapshot_time(self.run_id));
        let event = serde_json::json!({
            "specversion": "1.0",
            "type": format!("net.wawp.label.{event}"),
            "source": self.source,
            "id": format!("{run_id}:{event}"),
            "time": time.to_string(),
            "datacontenttype": "application/json",
            "data": data,
        });
        event.to_string()
    }

    fn one(&self, chat: &Chat<'_>, out: &mut Vec<u8>) {
        if self.layout.format == Format::CloudEvents {
            out.extend_from_slice(&self.event_start);
            push_escaped(out, chat.id);
            out.extend_from_slice(&self.event_middle);
        }
        out.extend_from_slice(b"{\"chat_id\":\"");
        push_escaped(out, chat.id);
        out.push(b'"');
        out.extend_from_slice(&self.ids_end);
        if let Some(name) = chat.name {
            out.extend_from_slice(b",\"name\":\"");
            push_escaped(out, name);
            out.push(b'"');
        }
        out.extend_from_slice(self.end);
    }

    /// Appends one message with several chats. With names, a second array has the names in the same
    /// order, with null for a chat without a name.
    fn packed<'a>(
        &self,
        chats: &mut std::iter::Peekable<impl Iterator<Item = Chat<'a>>>,
        out: &mut Vec<u8>,
    ) {
        let position = chats.peek().map_or(0, |first| first.position);
        let mut ids = Vec::new();
        let names = self.arrays(chats, &mut ids);
        if self.layout.format == Format::CloudEvents {
            // If the list changed, other chats may start at this position. The hash distinguishes
            // such messages.
            out.extend_from_slice(&self.event_start);
            out.extend_from_slice(format!("{position}:{:016x}", xxh3_64(&ids)).as_bytes());
            out.extend_from_slice(&self.event_middle);
        }
        out.extend_from_slice(b"{\"chat_ids\":");
        out.extend_from_slice(&ids);
        out.extend_from_slice(&self.ids_end);
        if let Some(names) = names {
            out.extend_from_slice(b",\"names\":");
            out.extend_from_slice(&names);
        }
        out.extend_from_slice(self.end);
    }

    /// Appends the array of one message's ids and returns the array of their names, if names are
    /// published.
    fn arrays<'a>(
        &self,
        chats: &mut std::iter::Peekable<impl Iterator<Item = Chat<'a>>>,
        out: &mut Vec<u8>,
    ) -> Option<Vec<u8>> {
        let mut names = self.layout.include_names.then(|| b"[".to_vec());
        out.push(b'[');
        for chat in chats.take(self.layout.ids_per_message as usize) {
            out.push(b'"');
            push_escaped(out, chat.id);
            out.extend_from_slice(b"\",");
            if let Some(names) = &mut names {
                push_name(names, chat.name);
            }
        }
        close(out);
        names.as_mut().map(close);
        names
    }
}

/// Closes an array by replacing its last comma with a bracket.
fn close(array: &mut Vec<u8>) {
    if array.ends_with(b",") {
        array.pop();
    }
    array.push(b']');
}

fn push_name(names: &mut Vec<u8>, name: Option<&[u8]>) {
    match name {
        Some(name) => {
            names.push(b'"');
            push_escaped(names, name);
            names.push(b'"');
        }
        None => names.extend_from_slice(b"null"),
    }
    names.push(b',');
}

/// The `source` of a label's `CloudEvents`.
fn source_of_label(instance_id: &str, label_id: &str) -> String {
    let account = source_of_account(instance_id);
    let label_id = utf8_percent_encode(label_id, ALL_BUT_UNRESERVED);
    format!("{account}/labels/{label_id}")
}

/// The `source` of `CloudEvents` that belong to no label.
fn source_of_account(instance_id: &str) -> String {
    let instance_id = utf8_percent_encode(instance_id, ALL_BUT_UNRESERVED);
    format!("/labelcast/{instance_id}")
}

/// Returns the time of a snapshot, which is part of the run id, in milliseconds (RFC 9562, 5.7).
pub fn snapshot_time(run_id: Uuid) -> SystemTime {
    let (seconds, nanos) = run_id
        .get_timestamp()
        .map_or((0, 0), |timestamp| timestamp.to_unix());
    UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// Appends UTF-8 as the content of a JSON string.
#[inline]
fn push_escaped(out: &mut Vec<u8>, text: &[u8]) {
    let is_plain = |byte: &u8| *byte >= 0x20 && *byte != b'"' && *byte != b'\\';
    // The loop has no early exit, so that it is vectorised.
    if text.iter().fold(true, |plain, byte| plain & is_plain(byte)) {
        out.extend_from_slice(text);
    } else {
        let quoted = serde_json::Value::from(String::from_utf8_lossy(text)).to_string();
        out.extend_from_slice(&quoted.as_bytes()[1..quoted.len() - 1]);
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn messages(layout: &Layout, chats: &[(&str, Option<&str>)]) -> Vec<Value> {
        let run_id: Uuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        let mut batch = Batch::new();
        batch.restart(40);
        for (id, name) in chats {
            let name = layout.include_names.then_some(name.map(str::as_bytes));
            batch.push(id.as_bytes(), name);
        }
        let mut out = Vec::new();
        let encoder = Encoder::new(layout, "my instance", "1\"2", run_id);
        let count = encoder.batch(&batch, b"\n", &mut out);
        let lines: Vec<Value> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(lines.len() as u64, count);
        lines
    }

    // The example of RFC 9562, A.6: 22 February 2022, 19:22:22 UTC.
    const RUN: &str = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f";

    #[test]
    fn each_chat_is_one_message() {
        let layout = Layout {
            format: Format::Json,
            ids_per_message: 1,
            include_names: true,
        };
        assert_eq!(
            messages(
                &layout,
                &[("1@c.us", Some("Zoë \"\u{1}\\")), ("2@lid", None)]
            ),
            [
                json!({"chat_id": "1@c.us", "label_id": "1\"2", "run_id": RUN, "name": "Zoë \"\u{1}\\"}),
                json!({"chat_id": "2@lid", "label_id": "1\"2", "run_id": RUN}),
            ]
        );
    }

    #[test]
    fn packed_messages_hold_up_to_n_ids() {
        let mut layout = Layout {
            format: Format::Json,
            ids_per_message: 2,
            include_names: false,
        };
        let chats = [("a", Some("A")), ("b", None), ("c", Some("C"))];
        assert_eq!(
            messages(&layout, &chats),
            [
                json!({"chat_ids": ["a", "b"], "label_id": "1\"2", "run_id": RUN}),
                json!({"chat_ids": ["c"], "label_id": "1\"2", "run_id": RUN}),
            ]
        );
        layout.include_names = true;
        let names: Vec<_> = messages(&layout, &chats)
            .into_iter()
            .map(|message| message["names"].clone())
            .collect();
        assert_eq!(names, [json!(["A", null]), json!(["C"])]);
    }

    #[test]
    fn events_have_a_stable_id_and_the_time_of_the_snapshot() {
        let mut layout = Layout {
            format: Format::CloudEvents,
            ids_per_message: 1,
            include_names: false,
        };
        let data = json!({"chat_id": "a", "label_id": "1\"2", "run_id": RUN});
        assert_eq!(
            messages(&layout, &[("a", None)]),
            [json!({
                "specversion": "1.0",
                "type": "net.wawp.label.chat",
                "source": "/labelcast/my%20instance/labels/1%222",
                "id": format!("{RUN}:a"),
                "time": "2022-02-22T19:22:22.000Z",
                "datacontenttype": "application/json",
                "data": data,
            })]
        );
        layout.ids_per_message = 2;
        let packed = messages(&layout, &[("a", None), ("b", None), ("c", None)]);
        let id = |message: &Value| message["id"].as_str().unwrap().to_owned();
        assert!(
            id(&packed[0]).starts_with(&format!("{RUN}:40:")),
            "{packed:?}"
        );
        assert!(
            id(&packed[1]).starts_with(&format!("{RUN}:42:")),
            "{packed:?}"
        );
        let same = messages(&layout, &[("a", None), ("b", None)]);
        assert_eq!(id(&same[0]), id(&packed[0]));
        let other = messages(&layout, &[("b", None), ("a", None)]);
        assert_ne!(id(&other[0]), id(&packed[0]));
    }
}
