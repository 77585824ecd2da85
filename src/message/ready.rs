//! Messages that are written before they are handed to a broker.

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
