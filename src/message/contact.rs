//! Messages about the contact behind a chat id, and about ids that could not be looked up.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::event::rfc3339;
use super::{Format, MessageBody, ReadyMessage, source_of_account, source_of_label};

/// The AMQP `type` of a record.
const RECORD_KIND: &str = "labelcast.contact";
/// The AMQP `type` of a message about an id that could not be looked up.
const FAILED_KIND: &str = "labelcast.contact.failed";
/// The start of the `type` of `CloudEvents`.
const EVENT_TYPE: &str = "net.wawp.label.contact";

/// A chat id that was taken from a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuedChat {
    /// The chat.
    pub chat_id: String,
    /// The message that it was in.
    pub origin: Arc<Origin>,
}

/// The message that chat ids were taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The label; `None` if the message does not name it.
    pub label_id: Option<String>,
    /// The identity of the message.
    pub source: Source,
}

/// What published a chat id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A run, by its id.
    Run(String),
    /// An event, by its id.
    Event(String),
    /// Something else. The text is the same each time the message is delivered.
    Other(String),
}

impl Source {
    /// Returns the text that identifies it.
    fn id(&self) -> &str {
        match self {
            Self::Run(id) | Self::Event(id) | Self::Other(id) => id,
        }
    }
}

/// What the API knows of a contact; `None` is unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// The name in the account's address book.
    pub name: Option<String>,
    /// The name that the person has chosen.
    pub push_name: Option<String>,
    /// The phone number, as the API writes it.
    pub number: Option<String>,
    /// Whether it is a business.
    pub is_business: Option<bool>,
    /// The text about the person.
    pub about: Option<String>,
    /// The URL of the picture.
    pub picture_url: Option<String>,
    /// The chat id with the phone number, if the chat id was an `@lid` and could be resolved.
    pub resolved_id: Option<String>,
}

/// The outcome of a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// The contact exists.
    Found(Contact),
    /// The contact does not exist.
    Missing,
    /// The API was not asked: a group, a newsletter or a broadcast has no contact.
    NotAsked,
}

/// A member of a record that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContactField {
    /// [`Contact::name`].
    Name,
    /// [`Contact::push_name`].
    PushName,
    /// [`Contact::number`], and the chat id that contains it.
    Number,
    /// [`Contact::is_business`].
    IsBusiness,
    /// [`Contact::about`].
    About,
    /// [`Contact::picture_url`].
    PictureUrl,
}

impl ContactField {
    /// All fields, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::Name,
        Self::PushName,
        Self::Number,
        Self::IsBusiness,
        Self::About,
        Self::PictureUrl,
    ];

    /// Returns the name of the member, which is also its name in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::PushName => "push_name",
            Self::Number => "number",
            Self::IsBusiness => "is_business",
            Self::About => "about",
            Self::PictureUrl => "picture_url",
        }
    }

    /// Returns the value of a contact; null if it is unknown.
    fn value(self, contact: &Contact) -> Value {
        match self {
            Self::Name => json!(contact.name),
            Self::PushName => json!(contact.push_name),
            Self::Number => json!(contact.number),
            Self::IsBusiness => json!(contact.is_business),
            Self::About => json!(contact.about),
            Self::PictureUrl => json!(contact.picture_url),
        }
    }
}

/// The maximum length of the contents of a message that cannot be used, in bytes. With all characters
/// escaped twice, the message about it stays below the 16 MiB that RabbitMQ takes.
const MAX_CONTENTS: usize = 1024 * 1024;

/// A message that contains no chat id, or an entry of one that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// A text that is the same each time the message is delivered.
    pub identity: String,
    /// Why it cannot be used.
    pub reason: &'static str,
    /// Its contents, as JSON. The message about it has the first MiB of them.
    pub contents: String,
}

fn start_of(contents: &str) -> &str {
    let ends = contents
        .char_indices()
        .map(|(at, char)| at + char.len_utf8());
    let end = ends.take_while(|end| *end <= MAX_CONTENTS).last();
    &contents[..end.unwrap_or(0)]
}

/// Writes records and messages about failures.
#[derive(Clone, Debug)]
pub struct ContactEncoder {
    format: Format,
    instance_id: String,
    fields: Vec<ContactField>,
}

impl ContactEncoder {
    /// For an account. Records have these fields.
    pub fn new(format: Format, instance_id: &str, fields: &[ContactField]) -> Self {
        Self {
            format,
            instance_id: instance_id.to_owned(),
            fields: fields.to_vec(),
        }
    }

    /// Returns the record of a chat. Unknown members are null.
    pub fn record(&self, chat: &QueuedChat, lookup: &Lookup, at: SystemTime) -> ReadyMessage {
        let mut members = identification(chat);
        let unknown = Contact::default();
        let (found, contact) = match lookup {
            Lookup::Found(contact) => (Value::from(true), contact),
            Lookup::Missing => (Value::from(false), &unknown),
            Lookup::NotAsked => (Value::Null, &unknown),
        };
        members.push(("found", found));
        for field in &self.fields {
            members.push((field.name(), field.value(contact)));
        }
        if let Some(resolved) = &contact.resolved_id
            && self.fields.contains(&ContactField::Number)
        {
            members.push(("resolved_id", resolved.as_str().into()));
        }
        let fetched_at = match lookup {
            Lookup::NotAsked => Value::Null,
            Lookup::Found(_) | Lookup::Missing => rfc3339(at).into(),
        };
        members.push(("fetched_at", fetched_at));
        let label_id = chat.origin.label_id.as_deref();
        let id = format!("{}:{}:contact", chat.origin.source.id(), chat.chat_id);
        self.message(RECORD_KIND, EVENT_TYPE, id, label_id, at, members)
    }

    /// Returns the message about a chat that could not be looked up.
    pub fn failed(
        &self,
        chat: &QueuedChat,
        reason: &str,
        attempts: u32,
        at: SystemTime,
    ) -> ReadyMessage {
        let mut members = identification(chat);
        members.extend(failure(reason, attempts, at));
        let label_id = chat.origin.label_id.as_deref();
        let id = format!("{}:{}:failed", chat.origin.source.id(), chat.chat_id);
        self.failure(id, label_id, at, members)
    }

    /// Returns the message about one that cannot be used.
    pub fn unusable(&self, unusable: &Unusable, at: SystemTime) -> ReadyMessage {
        let mut members = vec![("chat_id", Value::Null)];
        members.extend(failure(unusable.reason, 0, at));
        members.push(("message", start_of(&unusable.contents).into()));
        let id = format!("{}:failed", unusable.identity);
        self.failure(id, None, at, members)
    }

    fn failure(
        &self,
        id: String,
        label_id: Option<&str>,
        at: SystemTime,
        members: Members,
    ) -> ReadyMessage {
        let event_type = format!("{EVENT_TYPE}.failed");
        self.message(FAILED_KIND, &event_type, id, label_id, at, members)
    }

    fn message(
        &self,
        kind: &'static str,
        event_type: &str,
        id: String,
        label_id: Option<&str>,
        at: SystemTime,
        members: Members,
    ) -> ReadyMessage {
        let body = match self.format {
            Format::Fields => MessageBody::Fields(fields(members)),
            Format::Json => MessageBody::Json(object(members).to_string()),
            Format::CloudEvents => {
                let event = json!({
                    "specversion": "1.0",
                    "type": event_type,
                    "source": match label_id {
                        Some(label_id) => source_of_label(&self.instance_id, label_id),
                        None => source_of_account(&self.instance_id),
                    },
                    "id": id,
                    "time": rfc3339(at),
                    "datacontenttype": "application/json",
                    "data": object(members),
                });
                MessageBody::Json(event.to_string())
            }
        };
        ReadyMessage { id, kind, body }
    }
}

/// Names and values.
type Members = Vec<(&'static str, Value)>;

/// The members that say which chat it is, and where its id came from.
fn identification(chat: &QueuedChat) -> Members {
    let mut members = vec![
        ("chat_id", chat.chat_id.as_str().into()),
        ("label_id", json!(chat.origin.label_id)),
    ];
    match &chat.origin.source {
        Source::Run(id) => members.push(("run_id", id.as_str().into())),
        Source::Event(id) => members.push(("event_id", id.as_str().into())),
        Source::Other(_) => {}
    }
    members
}

fn failure(reason: &str, attempts: u32, at: SystemTime) -> Members {
    vec![
        ("reason", reason.into()),
        ("attempts", attempts.into()),
        ("failed_at", rfc3339(at).into()),
    ]
}

fn object(members: Members) -> Value {
    let members = members.into_iter();
    let members: Map<String, Value> = members
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    members.into()
}

/// Fields and values, in turns. Redis has no null: what is unknown is left out.
fn fields(members: Members) -> Vec<String> {
    let text = |value: Value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    let members = members.into_iter();
    members
        .filter_map(|(name, value)| Some([name.to_owned(), text(value)?]))
        .flatten()
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic)]
mod tests;
