//! The members beside a list, read and evaluated at constant memory.
//!
//! A list that is not empty is published unless a member right beside it reports an error. An empty
//! list could also hide a failure, so it is trusted only if everything beside it is known to be
//! harmless.

use struson::reader::{JsonReader as _, ValueType};

use super::DecodeError;
use super::answer::{Answer, Doubt, text_of};
use super::chat::is_chat_id;
use super::input::Input;
use super::members::Kind;
use super::paging::{Paging, PagingMember, Scalar};
use super::parse::{Parser, name, parser, string, token, wrap};
use super::place::{Place, is_harmless};
use super::words::{is_other_state, is_starting_state, says_session_is_starting};

/// The maximum length of a text that is kept, in bytes. It is shortened for display only after
/// secrets were removed, because part of a token is a secret too.
const MAX_TEXT_BYTES: usize = 4096;
/// The maximum depth of objects and arrays that are examined. Deeper ones are skipped and make an
/// empty list untrustworthy.
const MAX_DEPTH: usize = 16;
/// The maximum length of a member's path that is kept, in bytes. Like a text, it is shortened for
/// display later.
const MAX_PATH: usize = 4096;

/// Findings from the members beside a list so far.
pub(super) struct Envelope {
    pub(super) answer: Answer,
    pub(super) paging: Paging,
    /// Whether a member with an unknown name contained a chat id.
    pub(super) saw_chat_id: bool,
    /// Whether a session state other than starting was named.
    has_other_state: bool,
    mentions_starting: bool,
    /// The path of the current member, and the length of its first part, the member right beside
    /// the list.
    path: String,
    top_length: usize,
    text: Vec<u8>,
}

impl Envelope {
    /// Creates an envelope with what the headers say about pages.
    pub(super) fn new(paging: Paging) -> Self {
        Self {
            answer: Answer::default(),
            paging,
            saw_chat_id: false,
            has_other_state: false,
            mentions_starting: false,
            path: String::new(),
            top_length: 0,
            text: Vec::new(),
        }
    }

    /// Reads JSON that is not a list. If it is cut off or malformed, the part before that counts.
    pub(super) fn of_json(json: &[u8], paging: Paging) -> Self {
        let mut envelope = Self::new(paging);
        let mut source = json;
        let on_stall = || Ok(());
        let mut input = Input::new(&mut source, &on_stall);
        if input.open().is_ok() {
            let _ = envelope.read_members(&mut parser(&mut input));
        }
        envelope
    }

    /// Returns the answer after everything was read.
    pub(super) fn into_answer(self) -> Answer {
        let mentions = self.mentions_starting && !self.has_other_state;
        Answer {
            is_starting: self.answer.is_starting || mentions,
            ..self.answer
        }
    }

    /// Records the name of a member right beside the list. Its value is read next.
    pub(super) fn enter(&mut self, name: &str) {
        self.path.clear();
        push_bounded(&mut self.path, name);
        self.top_length = self.path.len();
    }

    /// Records the name of a member within the one that [`Envelope::enter`] recorded.
    pub(super) fn enter_within(&mut self, name: &str) {
        self.path.truncate(self.top_length);
        push_bounded(&mut self.path, ".");
        push_bounded(&mut self.path, name);
    }

    /// Reads the value of a member right beside the list. [`Envelope::enter`] has recorded its
    /// name.
    pub(super) fn read(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
    ) -> Result<(), DecodeError> {
        self.value(parser, kind, Place::Top, 0)
    }

    /// Reads a body that is not a list: an object, or an array of objects.
    fn read_members(&mut self, parser: &mut Parser<'_, '_>) -> Result<(), DecodeError> {
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

    /// Reads the value of a member of an object right beside the list.
    pub(super) fn read_within(
        &mut self,
        parser: &mut Parser<'_, '_>,
        object: Kind,
        kind: Kind,
    ) -> Result<(), DecodeError> {
        self.value(parser, kind, Place::Top.within(object), 1)
    }

    /// Records that something not known to be harmless stands beside the list.
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
            // A human-readable text is neither a flag nor a number.
            (Kind::Message | Kind::Prose, text) if !text.is_empty() => Scalar::Text(text),
            (_, text) => Scalar::of_text(text),
        };
        self.saw_chat_id |= kind == Kind::Unknown && is_chat_id(text.as_bytes());
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
        let inside = place.within(kind);
        // The elements of `errors` are errors, those of `messages` are messages.
        let element = match kind {
            Kind::Paging(_) => Kind::Paging(PagingMember::Other),
            Kind::Meta | Kind::Technical | Kind::Identity => Kind::Unknown,
            kind => kind,
        };
        wrap(parser, |p| p.begin_array())?;
        let mut is_empty = true;
        while wrap(parser, |p| p.has_next())? {
            is_empty = false;
            self.value(parser, element, inside, depth + 1)?;
        }
        if is_empty {
            self.scalar(kind, place, Scalar::Nothing);
        }
        wrap(parser, |p| p.end_array())
    }

    fn object(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
        place: Place,
        depth: usize,
    ) -> Result<(), DecodeError> {
        let inside = place.within(kind);
        wrap(parser, |p| p.begin_object())?;
        let mut is_empty = true;
        let length = self.path.len();
        while wrap(parser, |p| p.has_next())? {
            is_empty = false;
            let path = &mut self.path;
            let member = name(parser, |name| {
                push_bounded(path, ".");
                push_bounded(path, name);
                Kind::of(name)
            })?;
            self.value(parser, member, inside, depth + 1)?;
            self.path.truncate(length);
        }
        if is_empty {
            self.scalar(kind, place, Scalar::Nothing);
        }
        wrap(parser, |p| p.end_object())
    }

    fn scalar(&mut self, kind: Kind, place: Place, value: Scalar<'_>) {
        self.note_state(kind, value);
        self.note_expected(value);
        match (kind, place) {
            (_, Place::NextPage) => {
                self.note_next(value);
                return;
            }
            (_, Place::Error) => {
                self.note_within_error(kind, value);
                return;
            }
            // The end of this page, which does not say whether another page follows.
            (Kind::Paging(PagingMember::Cursor), Place::Paging) if self.path.ends_with("after") => {
            }
            (_, Place::Total) => self.paging.note(PagingMember::Total, &self.path, value),
            (Kind::Paging(member), Place::Top | Place::Meta | Place::Paging) => {
                self.paging.note(member, &self.path, value);
            }
            (Kind::Paging(member), Place::Nested) if self.is_unambiguous(member) => {
                self.paging.note(member, &self.path, value);
            }
            (Kind::Message, Place::Prose) | (_, Place::Top) => self.answer.note(kind, value),
            _ => {}
        }
        // A link may be active or not.
        let is_flag_of_link = place == Place::Paging && self.path.ends_with("active");
        if is_flag_of_link || is_harmless(kind, place, value) {
            return;
        }
        self.answer.is_doubtful = true;
        // These have fields of their own.
        let is_noted = match kind {
            Kind::Success | Kind::Code | Kind::Status | Kind::Error => place == Place::Top,
            Kind::Message => matches!(place, Place::Top | Place::Prose),
            _ => false,
        };
        if let Some(text) = text_of(value).filter(|_| !is_noted) {
            let is_prose = match kind {
                Kind::Error => true,
                Kind::Message | Kind::Prose | Kind::Failure => {
                    matches!(place, Place::Top | Place::Prose)
                }
                Kind::Health => place == Place::Top && matches!(value, Scalar::Bool(false)),
                _ => false,
            };
            self.doubt(text, is_prose);
        }
    }

    /// Records a link to the next page: an object whose target may be empty.
    fn note_next(&mut self, value: Scalar<'_>) {
        const PLACES: [&str; 9] = [
            "cursor", "href", "link", "number", "offset", "page", "token", "uri", "url",
        ];
        let member = self.path.rsplit('.').next().unwrap_or_default();
        if PLACES
            .iter()
            .any(|place| member.eq_ignore_ascii_case(place))
        {
            self.paging.note(PagingMember::Next, &self.path, value);
        }
    }

    fn note_within_error(&mut self, kind: Kind, value: Scalar<'_>) {
        match value {
            Scalar::Bool(false) => {}
            value if is_harmless(kind, Place::Error, value) => {}
            Scalar::Text(text) => {
                let is_prose = matches!(kind, Kind::Message | Kind::Prose);
                self.answer.note_text_of_error(text, is_prose);
            }
            _ => self.answer.note_nested_error(),
        }
    }

    /// Returns whether a member is about pages even within an object with an unknown name.
    fn is_unambiguous(&self, member: PagingMember) -> bool {
        let is_bare = self.path.ends_with(".next") || self.path.ends_with(".more");
        matches!(
            member,
            PagingMember::Next | PagingMember::HasMore | PagingMember::LastPage
        ) && !is_bare
    }

    /// Records that a session is starting, in any of the forms that occur, because such a session
    /// is waited for.
    fn note_state(&mut self, kind: Kind, value: Scalar<'_>) {
        let Scalar::Text(text) = value else { return };
        if self.path.ends_with("expected") {
            return;
        }
        match kind {
            Kind::Message | Kind::Prose => self.mentions_starting |= says_session_is_starting(text),
            Kind::Error => {
                self.mentions_starting |= says_session_is_starting(text) || is_starting_state(text);
            }
            Kind::Name | Kind::Technical => {}
            _ => {
                self.answer.is_starting |= is_starting_state(text);
                self.has_other_state |= is_other_state(text);
            }
        }
    }

    /// Records that a member `expected` names a state of the session. Right in the answer or in its
    /// error the member means nothing else.
    fn note_expected(&mut self, value: Scalar<'_>) {
        let Scalar::Text(text) = value else { return };
        let (parent, member) = self.path.rsplit_once('.').unwrap_or(("", &self.path));
        if member.eq_ignore_ascii_case("expected") {
            let is_plain = matches!(Kind::of(parent), Kind::Message | Kind::Error);
            self.answer.names_expected_state |=
                parent.is_empty() || is_plain || is_other_state(text) || is_starting_state(text);
        }
    }

    fn doubt(&mut self, value: String, is_statement: bool) {
        self.answer.note_doubt(Doubt {
            path: self.path.clone(),
            value,
            is_statement,
        });
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
