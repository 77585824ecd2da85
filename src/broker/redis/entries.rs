//! Entries of a stream, as consumers receive them.

use redis::Value;
use serde_json::Map;

use super::link::reply_text;
use crate::broker::Delivery;
use crate::broker::consumer::DeliveryTag;

/// An entry of a stream.
pub(super) struct Entry {
    pub(super) id: String,
    fields: Vec<(String, String)>,
}

impl Entry {
    /// Reads an entry. Returns `None` for an entry that was deleted and has no id any more.
    pub(super) fn read(entry: &Value) -> Option<Self> {
        let Value::Array(parts) = entry else {
            return None;
        };
        // An entry that was deleted while it was pending has no fields.
        let fields = match parts.get(1) {
            Some(Value::Array(fields)) => fields.as_slice(),
            _ => &[],
        };
        let pairs = fields.chunks_exact(2);
        Some(Self {
            id: reply_text(parts.first()?),
            fields: pairs
                .map(|pair| (reply_text(&pair[0]), reply_text(&pair[1])))
                .collect(),
        })
    }

    /// Converts the entry to the delivery with this number.
    pub(super) fn delivered(self, deliveries: u64) -> Delivery {
        Delivery {
            deliveries,
            ..Delivery::from(self)
        }
    }
}

/// Fields that are JSON are shown as JSON.
impl From<Entry> for Delivery {
    fn from(entry: Entry) -> Self {
        let mut message = Map::new();
        message.insert("entry_id".to_owned(), entry.id.clone().into());
        for (name, text) in entry.fields {
            let json = match name.as_str() {
                "data" | "chat_ids" | "names" => serde_json::from_str(&text).ok(),
                _ => None,
            };
            message.insert(name, json.unwrap_or_else(|| text.into()));
        }
        Self {
            tag: DeliveryTag::Entry(entry.id),
            deliveries: 1,
            message,
        }
    }
}

/// Returns the id of the entry of a delivery.
pub(super) fn entry_id(delivery: &Delivery) -> Option<&str> {
    match &delivery.tag {
        DeliveryTag::Entry(id) => Some(id),
        DeliveryTag::Number { .. } => None,
    }
}

/// Extracts the entries from a reply: a list of streams in RESP2, a map of them in RESP3.
pub(super) fn entries(reply: &Value) -> Vec<Entry> {
    let entries: Vec<&Value> = match reply {
        Value::Map(streams) => streams.iter().map(|(_, entries)| entries).collect(),
        Value::Array(streams) => streams
            .iter()
            .filter_map(|stream| match stream {
                Value::Array(parts) => parts.get(1),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    entries
        .into_iter()
        .filter_map(|entries| match entries {
            Value::Array(entries) => Some(entries),
            _ => None,
        })
        .flatten()
        .filter_map(Entry::read)
        .collect()
}
