//! Messages that are written before they are handed to a broker.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// A message that can be published as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyMessage {
    /// The identity of the message, the same each time it is published.
    pub id: String,
    /// The kind of the message: the `type` of an AMQP message.
    pub kind: &'static str,
    /// The contents.
    pub body: MessageBody,
}

/// The contents of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageBody {
    /// Fields and values, in turns: an entry of a Redis Stream.
    Fields(Vec<String>),
    /// JSON. In an entry of a Redis Stream it is the field `data`.
    Json(String),
}

impl MessageBody {
    /// Returns the contents as fields and values, in turns.
    pub fn fields(&self) -> Cow<'_, [String]> {
        match self {
            Self::Fields(fields) => Cow::Borrowed(fields),
            Self::Json(text) => Cow::Owned(vec!["data".to_owned(), text.clone()]),
        }
    }

    /// Returns the contents as JSON: of fields, an object of texts.
    pub fn json(&self) -> Cow<'_, str> {
        match self {
            Self::Json(text) => Cow::Borrowed(text),
            Self::Fields(fields) => {
                let pairs = fields.chunks_exact(2);
                let pairs = pairs.map(|pair| (pair[0].clone(), pair[1].as_str().into()));
                Cow::Owned(Value::Object(pairs.collect::<Map<_, _>>()).to_string())
            }
        }
    }
}
