//! What stands beside a list: walked through at constant memory, and judged.
//!
//! A list that is not empty is published unless something right beside it says error. An empty list could also
//! be a failure in disguise, so it is trusted only if all that stands beside it is known to be harmless.

use struson::reader::{JsonReader as _, ValueType};

use super::DecodeError;
use super::answer::{Answer, Doubt, text_of};
use super::members::Kind;
use super::paging::{Paging, PagingMember, Scalar, is_next};
use super::parse::{Parser, name, string, token, wrap};
use super::words::{is_success, mentions_starting};

/// As much of a text as is kept, in bytes. It is cut to what is shown only after secrets were taken out of it:
/// half a token is a secret too.
const MAX_TEXT_BYTES: usize = 4096;
/// How deep objects and arrays are looked into. What lies deeper is passed over, and casts doubt.
const MAX_DEPTH: usize = 16;
/// The longest path of a member that is quoted, in bytes.
const MAX_PATH: usize = 100;

/// Where a member stands, which decides what it may say.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Right beside the list, or within `data`.
    Top,
    /// Within `meta` and its like.
    Meta,
    /// Within `links`, `pagination` and their like: pages only.
    Paging,
    /// Within the link to the next page.
    NextPage,
    /// Within `session`, `me` and their like: names and texts are theirs, and say nothing of the list.
    Technical,
    /// Within an error right beside the list.
    Error,
    /// Within anything else.
    Nested,
}

/// What was found beside a list so far.
pub(super) struct Envelope {
    pub(super) answer: Answer,
    pub(super) paging: Paging,
    /// Whether a state other than starting was named.
    has_other_state: bool,
    mentions_starting: bool,
    /// The path of the member that is looked at.
    path: String,
    text: Vec<u8>,
}

impl Envelope {
    /// With what the headers say of pages.
    pub(super) fn new(paging: Paging) -> Self {
        Self {
            answer: Answer::default(),
            paging,
            has_other_state: false,
            mentions_starting: false,
            path: String::new(),
            text: Vec::new(),
        }
    }

    /// The answer, once all was read.
    pub(super) fn into_answer(self) -> Answer {
        let mentions = self.mentions_starting && !self.has_other_state;
        Answer {
            is_starting: self.answer.is_starting || mentions,
            ..self.answer
        }
    }

    /// Notes the name of a member right beside the list, whose value is read next.
    pub(super) fn enter(&mut self, name: &str) {
        self.path.clear();
        push_bounded(&mut self.path, name);
    }

    /// Reads the value of a member right beside the list; [`Envelope::enter`] has noted its name.
    pub(super) fn read(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
    ) -> Result<(), DecodeError> {
        self.value(parser, kind, Place::Top, 0)
    }

    /// Reads a body that is no list: an object, or an array of objects.
    pub(super) fn read_members(&mut self, parser: &mut Parser<'_, '_>) -> Result<(), DecodeError> {
        if wrap(parser, |p| p.peek())? == ValueType::Array {
            wrap(parser, |p| p.begin_array())?;
            while wrap(parser, |p| p.has_next())? {
                self.value(parser, Kind::Unknown, Place::Top, 1)?;
            }
            return wrap(parser, |p| p.end_array());
        }
        wrap(parser, |p| p.begin_object())?;
        while wrap(parser, |p| p.has_next())? {
            let kind = name(parser, |name| {
                self.enter(name);
                Kind::of(name)
            })?;
            self.read(parser, kind)?;
        }
        wrap(parser, |p| p.end_object())
    }

    /// Reads the value of a member of an object beside the list.
    pub(super) fn read_nested(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
    ) -> Result<(), DecodeError> {
        self.value(parser, kind, Place::Nested, 1)
    }

    /// Notes that something not known to be harmless stands beside the list.
    pub(super) fn note_doubt(&mut self, value: &str) {
        self.doubt(value.to_owned(), false);
    }

    fn value(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
        place: Place,
        depth: usize,
    ) -> Result<(), DecodeError> {
        match wrap(parser, |p| p.peek())? {
            ValueType::Null => {
                wrap(parser, |p| p.next_null())?;
                self.scalar(kind, place, Scalar::Nothing);
            }
            ValueType::Boolean => {
                let flag = wrap(parser, |p| p.next_bool())?;
                self.scalar(kind, place, Scalar::Bool(flag));
            }
            ValueType::Number => {
                let text = token(parser, |p| p.next_number_as_string())?;
                let number = text.parse().unwrap_or(f64::NAN);
                let shown = &text[..text.len().min(40)];
                self.scalar(kind, place, Scalar::Number(shown, number));
            }
            ValueType::String => self.string(parser, kind, place)?,
            ValueType::Array | ValueType::Object if depth >= MAX_DEPTH => {
                wrap(parser, |p| p.skip_value())?;
                self.doubt(Answer::NESTED.to_owned(), false);
            }
            ValueType::Array => self.array(parser, kind, place, depth)?,
            ValueType::Object => self.object(parser, kind, place, depth)?,
        }
        Ok(())
    }

    fn string(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
        place: Place,
    ) -> Result<(), DecodeError> {
        let mut buffer = std::mem::take(&mut self.text);
        buffer.resize(MAX_TEXT_BYTES, 0);
        let length = string(parser, &mut buffer)?.unwrap_or(MAX_TEXT_BYTES);
        let text = String::from_utf8_lossy(&buffer[..length]);
        let value = match (kind, text.trim()) {
            // What is said to people is no flag and no number.
            (Kind::Message | Kind::Speech, text) if !text.is_empty() => Scalar::Text(text),
            (_, text) => Scalar::of_text(text),
        };
        self.scalar(kind, place, value);
        drop(text);
        self.text = buffer;
        Ok(())
    }

    fn array(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
        place: Place,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let inside = self.inside(kind, place);
        // The elements of `errors` are errors, those of `messages` are messages.
        let element = match kind {
            Kind::Paging(_) => Kind::Paging(PagingMember::Other),
            Kind::Meta | Kind::Technical => Kind::Unknown,
            kind => kind,
        };
        wrap(parser, |p| p.begin_array())?;
        let mut is_empty = true;
        while wrap(parser, |p| p.has_next())? {
            is_empty = false;
            self.value(parser, element, inside, depth + 1)?;
        }
        self.leave(kind, place, is_empty);
        wrap(parser, |p| p.end_array())
    }

    fn object(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
        place: Place,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let inside = self.inside(kind, place);
        wrap(parser, |p| p.begin_object())?;
        let mut is_empty = true;
        let length = self.path.len();
        while wrap(parser, |p| p.has_next())? {
            is_empty = false;
            let path = &mut self.path;
            let member = name(parser, |name| {
                push_bounded(path, ".");
                push_bounded(path, name);
                // The link to the next page may have any form.
                if is_next(name) && inside == Place::Paging {
                    Kind::Paging(PagingMember::Next)
                } else {
                    Kind::of(name)
                }
            })?;
            self.value(parser, member, inside, depth + 1)?;
            self.path.truncate(length);
        }
        self.leave(kind, place, is_empty);
        wrap(parser, |p| p.end_object())
    }

    /// Where the members of an object or an array stand.
    fn inside(&self, kind: Kind, place: Place) -> Place {
        match (kind, place) {
            (_, Place::Error | Place::NextPage) => place,
            (Kind::Error, Place::Top) => Place::Error,
            (Kind::Paging(PagingMember::Next), Place::Top | Place::Meta | Place::Paging) => {
                Place::NextPage
            }
            (Kind::Paging(PagingMember::Total), Place::Top | Place::Meta | Place::Paging) => {
                Place::Nested
            }
            (Kind::Paging(_), Place::Top | Place::Meta) | (_, Place::Paging) => Place::Paging,
            (Kind::Meta, Place::Top | Place::Meta) => Place::Meta,
            (Kind::Technical, _) | (_, Place::Technical) => Place::Technical,
            _ => Place::Nested,
        }
    }

    /// An object or an array has ended.
    fn leave(&mut self, kind: Kind, place: Place, is_empty: bool) {
        if is_empty {
            self.scalar(kind, place, Scalar::Nothing);
        } else if kind == Kind::Error && place == Place::Top {
            self.answer.note_nested_error();
        }
    }

    fn scalar(&mut self, kind: Kind, place: Place, value: Scalar<'_>) {
        self.note_state(kind, value);
        match (kind, place) {
            (_, Place::NextPage) => {
                self.paging.note(PagingMember::Next, &self.path, value);
                return;
            }
            (_, Place::Error) => {
                if let Scalar::Text(_) = value {
                    self.answer.note(Kind::Error, value);
                }
                return;
            }
            (Kind::Paging(member), Place::Top | Place::Meta | Place::Paging) => {
                self.paging.note(member, &self.path, value);
            }
            (_, Place::Top) => self.answer.note(kind, value),
            _ => {}
        }
        if !is_harmless(kind, place, value)
            && let Some(text) = text_of(value)
        {
            let is_statement = place == Place::Top
                && match kind {
                    Kind::Message | Kind::Speech | Kind::Failure => true,
                    Kind::Success | Kind::Health => matches!(value, Scalar::Bool(false)),
                    _ => false,
                };
            self.doubt(text, is_statement);
        }
    }

    /// A session that is starting is waited for, in whatever form the API says so.
    fn note_state(&mut self, kind: Kind, value: Scalar<'_>) {
        let Scalar::Text(text) = value else { return };
        match kind {
            Kind::Status | Kind::State if text.eq_ignore_ascii_case("starting") => {
                self.answer.is_starting = true;
            }
            Kind::Status | Kind::State => self.has_other_state |= is_session_state(text),
            Kind::Message | Kind::Error | Kind::Speech => {
                self.mentions_starting |= mentions_starting(text);
            }
            _ => {}
        }
    }

    fn doubt(&mut self, value: String, is_statement: bool) {
        let is_first = self.answer.doubt.as_ref();
        // A statement says more than the member of some object.
        if is_first.is_none_or(|doubt| is_statement && !doubt.is_statement) {
            self.answer.doubt = Some(Doubt {
                path: self.path.clone(),
                value,
                is_statement,
            });
        }
    }
}

/// Whether a text is the state of a WAHA session, and not its name.
fn is_session_state(text: &str) -> bool {
    ["SCAN_QR_CODE", "WORKING", "FAILED", "STOPPED", "STARTING"]
        .iter()
        .any(|state| text.eq_ignore_ascii_case(state))
}

/// Whether a value beside an empty list is known to mean nothing bad.
fn is_harmless(kind: Kind, place: Place, value: Scalar<'_>) -> bool {
    // Links have titles and flags of their own.
    if place == Place::Paging && matches!(kind, Kind::Health | Kind::Speech) {
        return true;
    }
    // What these mean does not depend on where they stand.
    match (kind, value) {
        (_, Scalar::Nothing) => return true,
        (Kind::Success, Scalar::Number(_, number)) => return number > 0.0 && number < 400.0,
        (Kind::Code | Kind::Status | Kind::State, Scalar::Number(_, number)) => {
            return number == 0.0 || number == 200.0;
        }
        (Kind::Error | Kind::Failure, Scalar::Bool(flag)) => return !flag,
        (
            Kind::Success | Kind::Health | Kind::Status | Kind::State | Kind::Code,
            Scalar::Bool(flag),
        ) => return flag,
        (_, Scalar::Number(_, 0.0)) => return true,
        (_, Scalar::Text(text)) if is_success(text) => return true,
        (
            Kind::Success
            | Kind::Code
            | Kind::Status
            | Kind::State
            | Kind::Message
            | Kind::Error
            | Kind::Failure
            | Kind::Speech
            | Kind::Health,
            _,
        ) => return false,
        _ => {}
    }
    match (kind, value) {
        (Kind::Neutral, value) => matches!(value, Scalar::Bool(_)),
        (Kind::Technical, Scalar::Text(text)) => !is_session_state(text),
        (Kind::Technical, _) => true,
        (Kind::Paging(_), _) if matches!(place, Place::Top | Place::Meta) => true,
        _ => matches!(place, Place::Technical | Place::Paging),
    }
}

fn push_bounded(path: &mut String, text: &str) {
    for c in text.chars() {
        if path.len() + c.len_utf8() > MAX_PATH {
            break;
        }
        path.push(c);
    }
}
