//! Messages about the contact behind a chat id, and about ids that could not be looked up.

use std::sync::Arc;

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
