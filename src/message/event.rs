//! Messages about single changes of a label: a chat was added to it, or removed from it.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::{EVENT_TYPE, Format, snapshot_time, source_of_label};

/// A chat was added to a label, or removed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelEvent {
    /// Identity of the event, the same each time it is sent.
    pub id: String,
    /// What happened.
    pub change: Change,
    /// The chat.
    pub chat_id: String,
    /// When it happened.
    pub occurred_at: SystemTime,
    /// The run whose list shows the change; `None` if a sender reported it.
    pub listed_by: Option<Uuid>,
}

/// What happened to a chat in a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was added.
    Added,
    /// It was removed.
    Deleted,
}

impl Change {
    /// The name of the event.
    pub fn event_name(self) -> &'static str {
        match self {
            Self::Added => "label.chat.added",
            Self::Deleted => "label.chat.deleted",
        }
    }

    /// The change that takes this one back.
    pub fn opposite(self) -> Self {
        match self {
            Self::Added => Self::Deleted,
            Self::Deleted => Self::Added,
        }
    }

    /// The last part of the event's name.
    fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Deleted => "deleted",
        }
    }
}

impl LabelEvent {
    /// A chat has left the label: the whole list of a run does not contain it.
    pub fn missing_in(run_id: Uuid, chat_id: String) -> Self {
        Self {
            // The message of the chat itself has the part before.
            id: format!("{run_id}:{chat_id}:deleted"),
            change: Change::Deleted,
            chat_id,
            occurred_at: snapshot_time(run_id),
            listed_by: Some(run_id),
        }
    }

    /// Returns the run id of the event's message: the run whose list shows the change, else a
    /// `UUIDv7` whose time is that of the event, and which is the same each time the event is sent.
    pub fn run_id(&self) -> Uuid {
        if let Some(run_id) = self.listed_by {
            return run_id;
        }
        let since = self.occurred_at.duration_since(UNIX_EPOCH);
        let millis = u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
        let [_, _, _, _, _, _, random @ ..] = xxh3_128(self.id.as_bytes()).to_be_bytes();
        uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
    }
}

/// Writes the messages of events of one label.
#[derive(Clone, Debug)]
pub struct EventEncoder {
    format: Format,
    source: String,
    label_id: String,
}

impl EventEncoder {
    /// For a label of an account.
    pub fn new(format: Format, instance_id: &str, label_id: &str) -> Self {
        Self {
            format,
            source: source_of_label(instance_id, label_id),
            label_id: label_id.to_owned(),
        }
    }

    /// Returns the message as fields and values, in turns.
    pub fn fields(&self, event: &LabelEvent) -> Vec<String> {
        let fields = match self.format {
            Format::Fields => self.members(event),
            Format::Json | Format::CloudEvents => vec![
                ("event", event.change.event_name().to_owned()),
                ("data", self.json(event)),
            ],
        };
        fields
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }

    /// Returns the message as JSON.
    pub fn json(&self, event: &LabelEvent) -> String {
        let members = self.members(event);
        let data: serde_json::Map<String, serde_json::Value> = members
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        match self.format {
            Format::Fields | Format::Json => serde_json::Value::from(data).to_string(),
            Format::CloudEvents => json!({
                "specversion": "1.0",
                "type": format!("{EVENT_TYPE}.{}", event.change.name()),
                "source": self.source,
                "id": event.id,
                "time": rfc3339(event.occurred_at),
                "datacontenttype": "application/json",
                "data": data,
            })
            .to_string(),
        }
    }

    /// Names and values. A change that a list shows has no identity and no time of its own.
    fn members(&self, event: &LabelEvent) -> Vec<(&'static str, String)> {
        let mut members = vec![("event", event.change.event_name().to_owned())];
        if event.listed_by.is_none() {
            members.push(("event_id", event.id.clone()));
            members.push(("occurred_at", rfc3339(event.occurred_at)));
        }
        members.push(("chat_id", event.chat_id.clone()));
        members.push(("label_id", self.label_id.clone()));
        members.push(("run_id", event.run_id().to_string()));
        members
    }
}

pub(super) fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event() -> LabelEvent {
        LabelEvent {
            id: "evt_1".to_owned(),
            change: Change::Added,
            chat_id: "1@c.us".to_owned(),
            occurred_at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            listed_by: None,
        }
    }

    #[test]
    fn the_run_id_has_the_time_of_the_event_and_is_the_same_each_time() {
        let first = event();
        let other = LabelEvent {
            id: "evt_2".to_owned(),
            ..event()
        };
        assert_eq!(first.run_id().get_version_num(), 7);
        assert_eq!(snapshot_time(first.run_id()), first.occurred_at);
        assert_eq!(first.run_id(), event().run_id());
        assert_ne!(first.run_id(), other.run_id());
    }

    #[test]
    fn each_format_has_the_same_members() {
        let run_id = event().run_id().to_string();
        let members = json!({
            "event": "label.chat.added", "event_id": "evt_1",
            "occurred_at": "2023-11-14T22:13:20.123Z",
            "chat_id": "1@c.us", "label_id": "7", "run_id": run_id,
        });
        let encoder = |format| EventEncoder::new(format, "i", "7");
        let json: serde_json::Value =
            serde_json::from_str(&encoder(Format::Json).json(&event())).unwrap();
        assert_eq!(json, members);
        let fields = encoder(Format::Fields).fields(&event());
        let fields: serde_json::Map<String, serde_json::Value> = fields
            .chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone().into()))
            .collect();
        assert_eq!(serde_json::Value::from(fields), members);
        let cloud: serde_json::Value =
            serde_json::from_str(&encoder(Format::CloudEvents).json(&event())).unwrap();
        assert_eq!(cloud["type"], "net.wawp.label.chat.added");
        assert_eq!(cloud["source"], "/labelcast/i/labels/7");
        assert_eq!(cloud["id"], "evt_1");
        assert_eq!(cloud["time"], "2023-11-14T22:13:20.123Z");
        assert_eq!(cloud["data"], members);
    }

    #[test]
    fn a_chat_that_a_list_does_not_contain_has_left_with_the_run() {
        // The example of RFC 9562, A.6: 22 February 2022, 19:22:22 UTC.
        let run_id: Uuid = "017f22e2-79b0-7cc3-98c4-dc0c0c07398f".parse().unwrap();
        let event = LabelEvent::missing_in(run_id, "1@c.us".to_owned());
        let members = json!({
            "event": "label.chat.deleted", "chat_id": "1@c.us", "label_id": "7", "run_id": run_id,
        });
        let json: serde_json::Value =
            serde_json::from_str(&EventEncoder::new(Format::Json, "i", "7").json(&event)).unwrap();
        assert_eq!(json, members);
        let fields = EventEncoder::new(Format::Fields, "i", "7").fields(&event);
        let run_id = run_id.to_string();
        assert_eq!(
            fields,
            [
                "event",
                "label.chat.deleted",
                "chat_id",
                "1@c.us",
                "label_id",
                "7",
                "run_id",
                &run_id
            ]
        );
        let cloud = EventEncoder::new(Format::CloudEvents, "i", "7").json(&event);
        let cloud: serde_json::Value = serde_json::from_str(&cloud).unwrap();
        assert_eq!(
            cloud,
            json!({
                "specversion": "1.0",
                "type": "net.wawp.label.chat.deleted",
                "source": "/labelcast/i/labels/7",
                "id": format!("{run_id}:1@c.us:deleted"),
                "time": "2022-02-22T19:22:22.000Z",
                "datacontenttype": "application/json",
                "data": members,
            })
        );
    }
}
