//! The object in an answer about a contact, in any envelope.

use serde_json::Value;

use super::{ENVELOPES, LookupError, Object, status_is_about};
use crate::decode::answer::Answer;
use crate::decode::envelope::Envelope;
use crate::decode::members::Kind;
use crate::decode::paging::Paging;
use crate::decode::{refusal, replace_lone_surrogates};

/// The maximum number of envelopes around an answer.
const MAX_ENVELOPES: usize = 4;

/// Finds the object that `is_wanted` in a body, in any envelope. Returns `None` for an empty answer.
pub(super) fn find(
    body: &[u8],
    is_wanted: impl Fn(&Object) -> bool,
    missing: &'static str,
) -> Result<Option<Object>, LookupError> {
    let value = parse(body)?;
    match unwrap(&value, &is_wanted, 0) {
        Found::Object(object) => {
            let answer = answer(object);
            match answer.is_error() {
                true => Err(answered(answer)),
                false => Ok(Some(object.clone())),
            }
        }
        Found::Nothing => Ok(None),
        Found::Refused(answer) => Err(answered(answer)),
        Found::Other => {
            let answer = whole_answer(&value);
            match answer.replaces_list() {
                true => Err(answered(answer)),
                false => Err(LookupError::Shape(missing)),
            }
        }
    }
}

pub(super) fn answered(answer: Answer) -> LookupError {
    LookupError::Answered(Box::new(answer))
}

fn parse(body: &[u8]) -> Result<Value, LookupError> {
    let json = trim(body);
    match json.first() {
        None => return Err(LookupError::Empty),
        Some(b'<') => return Err(LookupError::NotJson("“<” (HTML or XML)")),
        Some(_) => {}
    }
    let mut json = json.to_vec();
    replace_lone_surrogates(&mut json, true);
    serde_json::from_slice(&json).map_err(|error| match json.first() {
        Some(b'{' | b'[' | b'"') if error.is_eof() => LookupError::Truncated(body.len()),
        Some(b'{' | b'[' | b'"') => LookupError::Malformed(error.to_string()),
        _ => answered(refusal(&json)),
    })
}

/// Skips white space and byte-order marks.
fn trim(mut body: &[u8]) -> &[u8] {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    loop {
        let trimmed = body.trim_ascii();
        match trimmed.strip_prefix(BYTE_ORDER_MARK) {
            Some(rest) => body = rest,
            None => return trimmed,
        }
    }
}

/// The content of an answer.
enum Found<'v> {
    /// The wanted object.
    Object(&'v Object),
    /// An empty answer.
    Nothing,
    /// An envelope that reports an error.
    Refused(Answer),
    /// Anything else.
    Other,
}

fn unwrap<'v>(
    value: &'v Value,
    is_wanted: &impl Fn(&Object) -> bool,
    envelopes: usize,
) -> Found<'v> {
    if envelopes > MAX_ENVELOPES {
        return Found::Other;
    }
    match value {
        Value::Null => Found::Nothing,
        Value::Array(values) => match values.as_slice() {
            [] => Found::Nothing,
            [Value::Null] => Found::Other,
            [value] => unwrap(value, is_wanted, envelopes + 1),
            _ => Found::Other,
        },
        Value::Object(object) if object.is_empty() => Found::Nothing,
        Value::Object(object) if is_wanted(object) => Found::Object(object),
        Value::Object(object) => in_envelope(object, is_wanted, envelopes),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => Found::Other,
    }
}

/// Looks into an envelope, or into a map with one index. It counts only if nothing beside the
/// content reports an error.
fn in_envelope<'v>(
    object: &'v Object,
    is_wanted: &impl Fn(&Object) -> bool,
    envelopes: usize,
) -> Found<'v> {
    let index = if object.contains_key("1") {
        None
    } else {
        Some("0")
    };
    for name in ENVELOPES.into_iter().chain(index) {
        let Some(content) = object.get(name) else {
            continue;
        };
        let found = unwrap(content, is_wanted, envelopes + 1);
        let beside = || answer(&without(object, name));
        match found {
            Found::Object(_) => {
                let beside = beside();
                return if beside.is_error() {
                    Found::Refused(beside)
                } else {
                    found
                };
            }
            Found::Nothing => {
                let beside = beside();
                let is_refusal = beside.replaces_list() || beside.is_doubtful;
                return if is_refusal {
                    Found::Refused(beside)
                } else {
                    found
                };
            }
            Found::Refused(_) => return found,
            Found::Other => {}
        }
    }
    Found::Other
}

fn without(object: &Object, name: &str) -> Object {
    let mut rest = object.clone();
    rest.remove(name);
    rest
}

/// Returns what an object says about the request. What it says about the person is left out: it may
/// contain any word, and must not be quoted.
pub(super) fn answer(object: &Object) -> Answer {
    let is_about = status_is_about(object);
    let is_stated = |(name, value): &(&String, &Value)| {
        let is_personal = match Kind::of(name) {
            Kind::Unknown | Kind::Name | Kind::Identity => !value.is_object(),
            Kind::Status => is_about,
            _ => false,
        };
        !is_personal
    };
    let stated = object.iter().filter(is_stated);
    let stated: Object = stated
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    whole_answer(&Value::Object(stated))
}

/// Returns what a body without a contact says about the request.
fn whole_answer(value: &Value) -> Answer {
    let json = value.to_string();
    let mut answer = Envelope::of_json(json.as_bytes(), Paging::default()).into_answer();
    answer.doubts.retain(|doubt| {
        let name = doubt.path.rsplit('.').next().unwrap_or_default();
        !matches!(Kind::of(name), Kind::Unknown | Kind::Name | Kind::Identity)
    });
    answer
}
