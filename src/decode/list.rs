//! The shapes of a body: a map keyed by index, an array, `{}`, `[]`, and either inside an
//! envelope.
//!
//! Envelope members and index members are read by one loop, since some senders put
//! `"success": true` right beside `"0": {…}`.

use std::cell::RefCell;
use std::io::Read as _;

use struson::reader::{JsonReader, JsonStreamReader, ReaderError, ReaderSettings, ValueType};

use super::answer::Answer;
use super::entry::EntryReader;
use super::input::{Input, MAX_TOKEN_BYTES};
use super::{DecodeError, MAX_NESTING, Output, Source};

/// As much of an error's message as is kept, in bytes. It is cut to what is shown only after secrets
/// were taken out of it: half a token is a secret too.
const MAX_MESSAGE_BYTES: usize = 4096;

pub(super) type Parser<'i, 's> = JsonStreamReader<&'i mut Input<'s>>;

/// What entries are put into.
pub(super) type Out<'p> = RefCell<Output<'p>>;

/// Reads a whole body, and proves that it is whole.
pub(super) fn read_body(
    source: &mut dyn Source,
    include_names: bool,
    out: &Out<'_>,
) -> Result<(), DecodeError> {
    let when_dry = || out.borrow_mut().when_dry();
    let mut input = Input::new(source, &when_dry);
    let first = input.open()?;
    let mut body = Body {
        parser: JsonStreamReader::new_custom(&mut input, settings()),
        entries: EntryReader::new(include_names),
        answer: Answer::default(),
        is_list: false,
        out,
    };
    match first {
        b'[' => body.array()?,
        b'{' => body.object(Level::Body)?,
        other => return Err(DecodeError::NotAList(other)),
    }
    let Body {
        parser,
        answer,
        is_list,
        ..
    } = body;
    let at = position(&parser);
    let end = parser.consume_trailing_whitespace();
    end.map_err(|_| input.explain(at, || "something follows the end of the list".to_owned()))?;
    let is_empty = out.borrow().batch.end() == 0;
    verdict(answer, is_list, is_empty, input.position(at))
}

fn settings() -> ReaderSettings {
    ReaderSettings {
        // Costs a factor of two to four, and positions are in the errors all the same.
        track_path: false,
        max_nesting_depth: Some(MAX_NESTING),
        // Numbers are never read as numbers, only passed over.
        restrict_number_values: false,
        ..ReaderSettings::default()
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Body,
    Data,
}

enum Member {
    Index,
    Data,
    Success,
    Code,
    Status,
    Message,
    Error,
    Other,
}

impl Member {
    #[inline]
    fn of(name: &str) -> Self {
        if name.as_bytes().first().is_some_and(u8::is_ascii_digit)
            && name.bytes().all(|b| b.is_ascii_digit())
        {
            return Self::Index;
        }
        match name {
            "data" => Self::Data,
            "success" | "result" | "ok" => Self::Success,
            "code" => Self::Code,
            "status" | "statusCode" => Self::Status,
            "message" => Self::Message,
            "error" | "errors" | "exception" => Self::Error,
            _ => Self::Other,
        }
    }
}

struct Body<'i, 's, 'o, 'p> {
    parser: Parser<'i, 's>,
    entries: EntryReader,
    answer: Answer,
    /// Whether a list was seen, if only an empty one.
    is_list: bool,
    out: &'o Out<'p>,
}

impl Body<'_, '_, '_, '_> {
    fn array(&mut self) -> Result<(), DecodeError> {
        self.is_list = true;
        wrap(&mut self.parser, |p| p.begin_array())?;
        if self.answer.is_error() {
            // What is beside an error is not a list to publish; its message may still come.
            while wrap(&mut self.parser, |p| p.has_next())? {
                wrap(&mut self.parser, |p| p.skip_value())?;
            }
        } else {
            while wrap(&mut self.parser, |p| p.has_next())? {
                self.entries.read(&mut self.parser, self.out)?;
            }
        }
        wrap(&mut self.parser, |p| p.end_array())
    }

    fn object(&mut self, level: Level) -> Result<(), DecodeError> {
        wrap(&mut self.parser, |p| p.begin_object())?;
        let mut is_empty = true;
        while wrap(&mut self.parser, |p| p.has_next())? {
            is_empty = false;
            let member = name(&mut self.parser, Member::of)?;
            self.member(level, &member)?;
        }
        self.is_list |= is_empty;
        wrap(&mut self.parser, |p| p.end_object())
    }

    #[inline]
    fn member(&mut self, level: Level, member: &Member) -> Result<(), DecodeError> {
        match member {
            Member::Index if !self.answer.is_empty() && self.answer.is_error() => {
                wrap(&mut self.parser, |p| p.skip_value())
            }
            Member::Index => {
                self.is_list = true;
                self.entries.read(&mut self.parser, self.out)
            }
            Member::Data if level == Level::Body => self.data(),
            Member::Success => self.scalar().map(|text| self.answer.add_success(text)),
            Member::Code => self.scalar().map(|text| self.answer.add_code(text)),
            Member::Status => self.scalar().map(|text| self.answer.add_status(text)),
            Member::Message => self.scalar().map(|text| self.answer.add_message(text)),
            Member::Error => self.scalar().map(|text| self.answer.add_error(text)),
            Member::Data | Member::Other => wrap(&mut self.parser, |p| p.skip_value()),
        }
    }

    fn data(&mut self) -> Result<(), DecodeError> {
        match wrap(&mut self.parser, |p| p.peek())? {
            ValueType::Array => self.array(),
            ValueType::Object => self.object(Level::Data),
            _ => wrap(&mut self.parser, |p| p.skip_value()),
        }
    }

    /// A scalar as text, cut to [`MAX_MESSAGE_BYTES`]; `None` for null, and for `[]` and `{}`, which say
    /// nothing.
    fn scalar(&mut self) -> Result<Option<String>, DecodeError> {
        let parser = &mut self.parser;
        match wrap(parser, |p| p.peek())? {
            ValueType::String => {
                let mut text = vec![0; MAX_MESSAGE_BYTES];
                let length = string(parser, &mut text)?.unwrap_or(MAX_MESSAGE_BYTES);
                text.truncate(length);
                Ok(Some(String::from_utf8_lossy(&text).into_owned()))
            }
            ValueType::Number => {
                let text = token(parser, |p| p.next_number_as_string())?;
                Ok(Some(text.chars().take(40).collect()))
            }
            ValueType::Boolean => Ok(Some(wrap(parser, |p| p.next_bool())?.to_string())),
            ValueType::Null => wrap(parser, |p| p.skip_value()).map(|()| None),
            kind @ (ValueType::Array | ValueType::Object) => {
                let is_empty = self.pass_over(kind == ValueType::Object)?;
                Ok((!is_empty).then(|| Answer::NESTED.to_owned()))
            }
        }
    }

    /// Passes over an object or an array, and tells whether it was empty.
    fn pass_over(&mut self, is_object: bool) -> Result<bool, DecodeError> {
        let parser = &mut self.parser;
        wrap(parser, |p| match is_object {
            true => p.begin_object(),
            false => p.begin_array(),
        })?;
        let mut is_empty = true;
        while wrap(parser, |p| p.has_next())? {
            is_empty = false;
            if is_object {
                wrap(parser, |p| p.skip_name())?;
            }
            wrap(parser, |p| p.skip_value())?;
        }
        wrap(parser, |p| match is_object {
            true => p.end_object(),
            false => p.end_array(),
        })?;
        Ok(is_empty)
    }
}

/// What stood beside the list may not be an error, and there has to be a list.
fn verdict(answer: Answer, is_list: bool, is_empty: bool, at: u64) -> Result<(), DecodeError> {
    let is_doubtful = is_empty && answer.casts_doubt();
    if answer.is_error() || is_doubtful || (!is_list && answer.message.is_some()) {
        return Err(DecodeError::Answered(Box::new(answer)));
    }
    if !is_list {
        return Err(DecodeError::Shape {
            at,
            what: "the object ends without a list of chats in it",
        });
    }
    Ok(())
}

/// Runs one step of the parser, and says what its failure really was.
#[inline]
pub(super) fn wrap<T>(
    parser: &mut Parser<'_, '_>,
    step: impl FnOnce(&mut Parser<'_, '_>) -> Result<T, ReaderError>,
) -> Result<T, DecodeError> {
    match step(parser) {
        Ok(value) => Ok(value),
        Err(error) => Err(explain(parser, &error)),
    }
}

#[cold]
fn explain(parser: &mut Parser<'_, '_>, error: &ReaderError) -> DecodeError {
    let at = position(parser);
    parser.reader_mut().explain(at, || match error {
        ReaderError::SyntaxError(error) => error.kind.to_string(),
        ReaderError::MaxNestingDepthExceeded { .. } => {
            format!("nested deeper than {MAX_NESTING} levels")
        }
        ReaderError::IoError { .. } => "invalid UTF-8".to_owned(),
        // Its text names types and places, never values.
        other => other.to_string(),
    })
}

#[inline]
pub(super) fn position(parser: &Parser<'_, '_>) -> u64 {
    parser.current_position(false).data_pos.unwrap_or(0)
}

/// Reads one token, which the parser holds in memory, and which is bounded for that.
#[inline]
fn token<T>(
    parser: &mut Parser<'_, '_>,
    read: impl FnOnce(&mut Parser<'_, '_>) -> Result<T, ReaderError>,
) -> Result<T, DecodeError> {
    let start = position(parser);
    parser.reader_mut().begin_token();
    let found = read(parser);
    let was_refused = parser.reader_mut().end_token();
    match found {
        Ok(found) if position(parser) - start <= MAX_TOKEN_BYTES => Ok(found),
        Err(error) if !was_refused => Err(explain(parser, &error)),
        _ => Err(DecodeError::Shape {
            at: parser.reader_mut().position(start),
            what: "a member name or a number is over 64 KiB long",
        }),
    }
}

/// Reads a member's name, which is held in memory only as long as `what` looks at it.
#[inline]
pub(super) fn name<T>(
    parser: &mut Parser<'_, '_>,
    what: impl FnOnce(&str) -> T,
) -> Result<T, DecodeError> {
    token(parser, |p| p.next_name().map(what))
}

/// Reads a string into `buf`, and returns its length, or `None` where it does not fit; what does
/// not fit is read and dropped.
#[inline]
pub(super) fn string(
    parser: &mut Parser<'_, '_>,
    buf: &mut [u8],
) -> Result<Option<usize>, DecodeError> {
    read_string(parser, buf).map_err(|()| {
        let at = position(parser);
        let what = || "a string with an invalid escape, control character or UTF-8".to_owned();
        parser.reader_mut().explain(at, what)
    })
}

/// [`string`], with its error still to be explained.
#[inline]
fn read_string(parser: &mut Parser<'_, '_>, buf: &mut [u8]) -> Result<Option<usize>, ()> {
    let mut text = parser.next_string_reader().map_err(drop)?;
    let mut length = 0;
    while length < buf.len() {
        match text.read(&mut buf[length..]).map_err(drop)? {
            0 => return Ok(Some(length)),
            count => length += count,
        }
    }
    // Full: find out whether this was all.
    let mut fits = true;
    while text.read(&mut [0; 64]).map_err(drop)? > 0 {
        fits = false;
    }
    Ok(fits.then_some(length))
}
