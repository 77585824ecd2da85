//! Bodies of webhooks, as events.
//!
//! Senders agree on `event`, `session` and `payload`, and differ in the rest: WAHA sends `id` and
//! `timestamp`, older versions neither; Wawp nests a label in its payload; forwarders post arrays.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use crate::api::mask_ids;
use crate::decode::{is_chat_id, replace_lone_surrogates};
use crate::message::{Change, LabelEvent};

/// Length of the longest id of an event or a label that is kept as it is, in bytes.
const MAX_ID: usize = 256;
/// Length of the longest name or colour of a label that is kept, in bytes.
const MAX_NAME: usize = 1024;
/// Numbers from here on are milliseconds: in seconds, this is the year 5138.
const MILLISECONDS_FROM: f64 = 1e11;
/// The time within which senders of events without id and time repeat them: 15 tries, 2 seconds
/// apart.
const REPEATED_WITHIN: Duration = Duration::from_secs(60);
/// First arrivals that are remembered. More events without a time within a minute are unlikely; what
/// is forgotten arrives anew.
const MAX_ARRIVALS: usize = 10_000;

/// An event of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// A chat was added to a label, or removed from it.
    Chat(ChatEvent),
    /// A label was created or changed.
    LabelChanged(LabelInfo),
    /// A label was deleted, as of a time.
    LabelDeleted {
        /// The label.
        label_id: String,
        /// When.
        occurred_at: SystemTime,
    },
    /// An event of another kind: its name.
    OtherKind(String),
    /// An event of another session: its name.
    OtherSession(String),
    /// It is of a kind that is known, and what is missing or wrong.
    Invalid(&'static str),
}

/// A chat was added to a label, or removed from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatEvent {
    /// The label.
    pub label_id: String,
    /// The change.
    pub event: LabelEvent,
    /// The sender's own time, if it sent one: not corrected by our clock.
    pub sent_at: Option<SystemTime>,
}

/// The name and colour of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelInfo {
    /// The label.
    pub label_id: String,
    /// Its name.
    pub label_name: Option<String>,
    /// Its colour.
    pub color_hex: Option<String>,
}

/// The error for a body that is no event and no array of events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotEvents {
    /// It is not JSON. The text has a position, and nothing of the body.
    #[error("the body is not JSON, at line {line}, column {column}")]
    NotJson {
        /// The line, from 1 on.
        line: usize,
        /// The column, from 1 on.
        column: usize,
    },
    /// It is JSON of another shape.
    #[error("the body is not an event, which has “event” and “payload”, and no array of events")]
    Shape,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: Option<Text>,
    timestamp: Option<Timestamp>,
    event: String,
    session: Option<Text>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Timestamp {
    Number(f64),
    String(String),
    Other(serde::de::IgnoredAny),
}

/// A text, or a number in its place.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    String(String),
    Number(i64),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct ChatPayload {
    #[serde(rename = "labelId")]
    label_id: Option<Text>,
    #[serde(rename = "chatId")]
    chat_id: Option<ChatId>,
    label: Option<LabelPayload>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ChatId {
    Text(String),
    Object { _serialized: String },
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct LabelPayload {
    id: Option<Text>,
    #[serde(rename = "labelId")]
    label_id: Option<Text>,
    name: Option<Text>,
    #[serde(rename = "colorHex")]
    color_hex: Option<Text>,
    label: Option<Box<LabelPayload>>,
}

/// Reads the events of webhooks for one session.
pub struct InboundReader {
    session: String,
    arrivals: HashMap<u128, SystemTime>,
}

impl InboundReader {
    /// For a session. Events that name none are taken as its own.
    pub fn new(session: &str) -> Self {
        Self {
            session: session.to_owned(),
            arrivals: HashMap::new(),
        }
    }

    /// Reads a body that arrived at a time.
    ///
    /// # Errors
    ///
    /// If it is not JSON, or neither an event nor an array of events.
    pub fn read(
        &mut self,
        mut body: Vec<u8>,
        arrived_at: SystemTime,
    ) -> Result<Vec<Inbound>, NotEvents> {
        replace_lone_surrogates(&mut body, true);
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&body);
        let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
        if !is_array {
            let envelope: Envelope<'_> =
                serde_json::from_slice(body).map_err(|error| not_events(&error))?;
            return Ok(vec![self.event(&envelope, arrived_at)]);
        }
        let events: Vec<&RawValue> =
            serde_json::from_slice(body).map_err(|error| not_events(&error))?;
        let read = |event: &&RawValue| match serde_json::from_str::<Envelope<'_>>(event.get()) {
            Ok(envelope) => self.event(&envelope, arrived_at),
            Err(_) => Inbound::Invalid("an element of the array is not an event"),
        };
        let mut read: Vec<Inbound> = events.iter().map(read).collect();
        keep_order(&mut read);
        Ok(read)
    }

    fn event(&mut self, envelope: &Envelope<'_>, arrived_at: SystemTime) -> Inbound {
        let read = match envelope.event.as_str() {
            "label.chat.added" => Self::chat_event,
            "label.chat.deleted" => Self::chat_event,
            "label.upsert" => Self::label_changed,
            "label.deleted" => Self::label_deleted,
            other => return Inbound::OtherKind(shortened(other)),
        };
        match envelope
            .session
            .as_ref()
            .map(|session| session.as_id().unwrap_or_default())
        {
            Some(session) if session != self.session => Inbound::OtherSession(shortened(&session)),
            _ => read(self, envelope, arrived_at).unwrap_or_else(Inbound::Invalid),
        }
    }

    fn chat_event(
        &mut self,
        envelope: &Envelope<'_>,
        arrived_at: SystemTime,
    ) -> Result<Inbound, &'static str> {
        let payload: ChatPayload = payload_of(envelope)?;
        let of_label = payload.label.as_ref().and_then(LabelPayload::id);
        let label_id = payload.label_id.as_ref().and_then(Text::as_id).or(of_label);
        let label_id = label_id.ok_or("the payload has no labelId")?;
        let chat_id = match payload.chat_id {
            Some(ChatId::Text(id) | ChatId::Object { _serialized: id }) => id,
            Some(ChatId::Other(_)) | None => return Err("the payload has no chatId"),
        };
        if !is_chat_id(&chat_id) {
            return Err("the payload's chatId is not a chat id, which is user@server");
        }
        let change = match envelope.event.as_str() {
            "label.chat.added" => Change::Added,
            _ => Change::Deleted,
        };
        let (sent_at, sent_id) = (
            sent_at(envelope),
            envelope.id.as_ref().and_then(Text::as_id),
        );
        let content = |change: Change| {
            let parts = [change.event_name(), &label_id, &chat_id];
            content_hash(&parts, sent_at, sent_id.as_deref())
        };
        let occurred_at = match sent_at {
            Some(sent_at) if sent_at <= arrived_at => sent_at,
            // A clock that is ahead must not make an event beat all later ones.
            Some(_) => self.first_arrival(content(change), arrived_at),
            None => {
                // From here on, the opposite event is another change.
                let opposite = self.arrivals.remove(&content(change.opposite()));
                let after = opposite.map_or(UNIX_EPOCH, |at| at + Duration::from_millis(1));
                self.first_arrival(content(change), arrived_at.max(after))
            }
        };
        let id = sent_id.clone().unwrap_or_else(|| {
            let told = sent_at.unwrap_or(occurred_at);
            let parts = [change.event_name(), &label_id, &chat_id];
            format!("{:032x}", content_hash(&parts, Some(told), None))
        });
        Ok(Inbound::Chat(ChatEvent {
            label_id,
            event: LabelEvent {
                id,
                change,
                chat_id,
                occurred_at,
                listed_by: None,
            },
            sent_at,
        }))
    }

    fn label_changed(
        &mut self,
        envelope: &Envelope<'_>,
        _: SystemTime,
    ) -> Result<Inbound, &'static str> {
        let payload: LabelPayload = payload_of(envelope)?;
        let label_id = payload.id().ok_or("the payload has no id of a label")?;
        let label = payload.label.as_deref().unwrap_or(&payload);
        let text = |text: &Option<Text>| match text {
            Some(Text::String(text)) if text.len() <= MAX_NAME => Some(text.clone()),
            _ => None,
        };
        Ok(Inbound::LabelChanged(LabelInfo {
            label_id,
            label_name: text(&label.name),
            color_hex: text(&label.color_hex),
        }))
    }

    fn label_deleted(
        &mut self,
        envelope: &Envelope<'_>,
        arrived_at: SystemTime,
    ) -> Result<Inbound, &'static str> {
        let payload: LabelPayload = payload_of(envelope)?;
        let label_id = payload.id().ok_or("the payload has no id of a label")?;
        Ok(Inbound::LabelDeleted {
            label_id,
            occurred_at: sent_at(envelope).map_or(arrived_at, |at| at.min(arrived_at)),
        })
    }

    /// Returns when an event without a time of the past first arrived. The same event is a repeat for a
    /// minute, and a new one from then on.
    fn first_arrival(&mut self, content: u128, arrived_at: SystemTime) -> SystemTime {
        let is_recent = |first: &SystemTime| {
            let age = arrived_at.duration_since(*first).unwrap_or_default();
            age < REPEATED_WITHIN
        };
        if self.arrivals.len() >= MAX_ARRIVALS {
            self.arrivals.retain(|_, first| is_recent(first));
        }
        if self.arrivals.len() >= MAX_ARRIVALS {
            return arrived_at;
        }
        let first = self.arrivals.entry(content).or_insert(arrived_at);
        if !is_recent(first) {
            *first = arrived_at;
        }
        *first
    }
}

impl Text {
    fn as_id(&self) -> Option<String> {
        let id = match self {
            Self::String(text) => text.clone(),
            Self::Number(number) => number.to_string(),
            Self::Other(_) => return None,
        };
        let is_usable = !id.is_empty() && id.len() <= MAX_ID && !id.chars().any(char::is_control);
        is_usable.then_some(id)
    }
}

impl LabelPayload {
    /// The label's id, from whichever place has it.
    fn id(&self) -> Option<String> {
        let own = self.id.as_ref().or(self.label_id.as_ref());
        let nested = || self.label.as_ref()?.id();
        own.and_then(Text::as_id).or_else(nested)
    }
}

/// Keeps the order of the events of one body that have no time of their own, or one ahead of our
/// clock: of each chat, they are a millisecond apart at least.
fn keep_order(events: &mut [Inbound]) {
    let mut latest: HashMap<(String, String), SystemTime> = HashMap::new();
    for inbound in events {
        let Inbound::Chat(chat) = inbound else {
            continue;
        };
        let event = &mut chat.event;
        let key = (chat.label_id.clone(), event.chat_id.clone());
        let is_estimated = chat.sent_at != Some(event.occurred_at);
        if let Some(before) = latest.get(&key).filter(|_| is_estimated) {
            event.occurred_at = event.occurred_at.max(*before + Duration::from_millis(1));
        }
        latest.insert(key, event.occurred_at);
    }
}

/// A hash of what an event says.
fn content_hash(parts: &[&str], sent_at: Option<SystemTime>, id: Option<&str>) -> u128 {
    let mut hash = Xxh3::new();
    for part in parts.iter().chain(&id) {
        hash.update(part.as_bytes());
        hash.update(&[0]);
    }
    hash.update(&sent_at.map_or(0, millis).to_be_bytes());
    hash.digest128()
}

fn payload_of<'a, T: Deserialize<'a>>(envelope: &Envelope<'a>) -> Result<T, &'static str> {
    let payload = envelope.payload.ok_or("the event has no payload")?;
    serde_json::from_str(payload.get()).map_err(|_| "the payload does not have its usual members")
}

fn not_events(error: &serde_json::Error) -> NotEvents {
    match error.classify() {
        serde_json::error::Category::Data => NotEvents::Shape,
        _ => NotEvents::NotJson {
            line: error.line(),
            column: error.column(),
        },
    }
}

/// The sender's time: `timestamp` in seconds or milliseconds, else that of the ULID in `id`.
fn sent_at(envelope: &Envelope<'_>) -> Option<SystemTime> {
    let number = match &envelope.timestamp {
        Some(Timestamp::Number(number)) => Some(*number),
        Some(Timestamp::String(text)) => text.trim().parse().ok(),
        Some(Timestamp::Other(_)) | None => None,
    };
    let millis = number.map(|number| match number < MILLISECONDS_FROM {
        true => number * 1000.0,
        false => number,
    });
    let millis = millis.filter(|millis| *millis > 0.0);
    // The conversion that checks the range.
    let whole = millis.and_then(|millis| Duration::try_from_secs_f64(millis.round()).ok());
    let stamped =
        whole.and_then(|whole| UNIX_EPOCH.checked_add(Duration::from_millis(whole.as_secs())));
    stamped.or_else(|| match &envelope.id {
        Some(Text::String(id)) => time_of_ulid(id),
        _ => None,
    })
}

/// Returns the time of a ULID, which may have a prefix that ends with an underscore: its first ten
/// characters are 48 bits of milliseconds in Crockford's base 32
/// (<https://github.com/ulid/spec>).
fn time_of_ulid(id: &str) -> Option<SystemTime> {
    const DIGITS: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let (_, ulid) = id.rsplit_once('_').unwrap_or(("", id));
    if ulid.len() != 26 {
        return None;
    }
    let digit = |char: char| DIGITS.find(char.to_ascii_uppercase());
    let digits: Option<Vec<usize>> = ulid.chars().map(digit).collect();
    let millis = digits?.iter().take(10).try_fold(0_u64, |sum, digit| {
        sum.checked_mul(32)?.checked_add(*digit as u64)
    })?;
    UNIX_EPOCH.checked_add(Duration::from_millis(millis))
}

fn millis(at: SystemTime) -> u128 {
    at.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis()
}

/// A text of a sender, for the log: without numbers that may be those of a person.
fn shortened(text: &str) -> String {
    let text = mask_ids(text);
    text.chars()
        .filter(|char| !char.is_control())
        .take(40)
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic)]
mod tests;
