//! Answers about one contact: the contact, its text, its picture, its number.
//!
//! A value is accepted unless an error stands beside it. The absence of a value is accepted only if
//! nothing else is said, because it could also hide an error.

mod find;

use serde_json::{Map, Value};

use self::find::{answer, answered, find};
use super::answer::Answer;
use super::is_chat_id;
use super::members::Kind;
use super::words::{is_other_state, is_starting_state};
use crate::message::Contact;

/// The members that contain an answer.
const ENVELOPES: [&str; 4] = ["data", "contact", "result", "response"];
/// The number of digits from which a number may be a contact.
const MIN_DIGITS: usize = 5;

type Object = Map<String, Value>;

/// Reasons why an answer about a contact cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No content under status 200.
    #[error("the body is empty")]
    Empty,
    /// HTML or XML.
    #[error("the body is not JSON: it begins with {0}")]
    NotJson(&'static str),
    /// An error under status 200.
    #[error("the API answered with an error under status 200: {0}")]
    Answered(Box<Answer>),
    /// JSON without the expected members.
    #[error("the body has an unknown shape: {0}")]
    Shape(&'static str),
    /// Malformed JSON.
    #[error("the body is malformed JSON: {0}")]
    Malformed(String),
    /// The bytes ended before the JSON did.
    #[error("the body was cut off after {0} bytes")]
    Truncated(usize),
}

/// Reads a contact. Returns `None` if it does not exist.
///
/// # Errors
///
/// Fails if the body is neither a contact nor an empty answer.
pub fn contact(body: &[u8]) -> Result<Option<Contact>, LookupError> {
    const NO_ID: &str = "no contact with an id";
    let Some(object) = find(body, has_chat_id, NO_ID)? else {
        return Ok(None);
    };
    Ok(Some(Contact {
        name: text(&object, &["name"]),
        push_name: text(&object, &["pushname", "pushName", "push_name", "notify"]),
        number: text(&object, &["number"]),
        is_business: flag(&object, &["isBusiness", "is_business"]),
        about: text(&object, &["about"]),
        picture_url: None,
        resolved_id: None,
    }))
}

/// Reads the text about a person.
///
/// # Errors
///
/// Fails if the body does not contain it and is not an empty answer.
pub fn about(body: &[u8]) -> Result<Option<String>, LookupError> {
    let is_about = |object: &Object| {
        object.contains_key("about") || has_chat_id(object) || status_is_about(object)
    };
    let object = find(body, is_about, "no text about the person")?;
    optional(object, |object| match object.contains_key("about") {
        true => text(object, &["about"]),
        false => text(object, &["status"]).filter(|_| status_is_about(object)),
    })
}

/// Reads the URL of a picture.
///
/// # Errors
///
/// Fails if the body does not contain it and is not an empty answer.
pub fn picture_url(body: &[u8]) -> Result<Option<String>, LookupError> {
    const MEMBERS: [&str; 4] = ["profilePictureURL", "profilePictureUrl", "url", "picture"];
    let object = find(body, |object| has_any(object, &MEMBERS), "no picture")?;
    let is_url = |url: &String| url.starts_with("https://") || url.starts_with("http://");
    optional(object, |object| text(object, &MEMBERS).filter(is_url))
}

/// Reads the chat id with the phone number that belongs to an `@lid`.
///
/// # Errors
///
/// Fails if the body is not about an `@lid` and is not an empty answer.
pub fn chat_of_lid(body: &[u8]) -> Result<Option<String>, LookupError> {
    const MEMBERS: [&str; 4] = ["pn", "number", "phone", "jid"];
    let is_lid = |object: &Object| object.contains_key("lid") || has_any(object, &MEMBERS);
    let object = find(body, is_lid, "no lid")?;
    optional(object, |object| {
        let members = MEMBERS.iter().filter_map(|name| object.get(*name));
        members.filter_map(id_text).find_map(|id| phone_chat(&id))
    })
}

/// Reads whether a phone number has an account.
///
/// # Errors
///
/// Fails if the body does not say it.
pub fn number_exists(body: &[u8]) -> Result<bool, LookupError> {
    const MEMBERS: [&str; 3] = ["numberExists", "exists", "number_exists"];
    const MISSING: &str = "no statement about the number";
    let object = find(body, |object| has_any(object, &MEMBERS), MISSING)?;
    let exists = object.and_then(|object| flag(&object, &MEMBERS));
    exists.ok_or(LookupError::Shape(MISSING))
}

/// Returns the value of a member that may be absent, if nothing speaks of an error.
fn optional(
    object: Option<Object>,
    read: impl Fn(&Object) -> Option<String>,
) -> Result<Option<String>, LookupError> {
    let Some(object) = object else {
        return Ok(None);
    };
    let found = read(&object);
    let answer = answer(&object);
    match found.is_none() && answer.replaces_list() {
        true => Err(answered(answer)),
        false => Ok(found),
    }
}

/// Returns whether the member `status` is the text about a person and not the status of an answer.
fn status_is_about(object: &Object) -> bool {
    const STATUSES: [&str; 5] = ["success", "ok", "error", "fail", "failed"];
    let is_of_answer = |(name, value): (&String, &Value)| match Kind::of(name) {
        Kind::Success => *value == Value::Bool(false),
        Kind::Code | Kind::Message | Kind::Error => !value.is_null(),
        _ => ENVELOPES.contains(&name.as_str()),
    };
    let is_status = |text: &str| {
        text.trim_start().starts_with(|c: char| c.is_ascii_digit())
            || STATUSES
                .iter()
                .any(|known| text.eq_ignore_ascii_case(known))
            || is_other_state(text)
            || is_starting_state(text)
    };
    match object.get("status") {
        Some(Value::String(text)) => !is_status(text) && !object.iter().any(is_of_answer),
        _ => false,
    }
}

fn has_any(object: &Object, names: &[&str]) -> bool {
    names.iter().any(|name| object.contains_key(*name))
}

fn has_chat_id(object: &Object) -> bool {
    object.get("id").and_then(id_text).is_some()
}

/// Returns an id: a text, a number, or an object that contains the id.
fn id_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Object(id) => match id.get("_serialized") {
            Some(whole) => scalar(whole)?,
            None => {
                let (user, server) = (scalar(id.get("user")?)?, scalar(id.get("server")?)?);
                format!("{user}@{server}")
            }
        },
        other => scalar(other)?,
    };
    (is_chat_id(&text) || is_number(&text)).then_some(text)
}

/// Returns the id of the chat with a phone number, `digits@c.us`.
fn phone_chat(id: &str) -> Option<String> {
    let user = match id.split_once('@') {
        Some((user, "c.us" | "s.whatsapp.net")) => user,
        None => id,
        Some(_) => return None,
    };
    // The number of a device may follow the phone number.
    let number = user.split(':').next().unwrap_or_default();
    let number = number.strip_prefix('+').unwrap_or(number);
    let is_digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| format!("{number}@c.us"))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('+').unwrap_or(text);
    digits.len() >= MIN_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the first of these members that has a text.
fn text(object: &Object, names: &[&str]) -> Option<String> {
    let values = names.iter().filter_map(|name| object.get(*name));
    values
        .filter_map(scalar)
        .find(|text| !text.trim().is_empty())
}

fn flag(object: &Object, names: &[&str]) -> Option<bool> {
    let values = names.iter().filter_map(|name| object.get(*name));
    values.filter_map(Value::as_bool).next()
}

/// Returns a text, or a whole number as text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
