//! The parser with bounded tokens and errors that state the actual cause.

use std::io::Read as _;

use struson::reader::{JsonReader, JsonStreamReader, ReaderError, ReaderSettings};

use super::input::{Input, MAX_TOKEN_BYTES};
use super::{DecodeError, MAX_NESTING};

pub(super) type Parser<'i, 's> = JsonStreamReader<&'i mut Input<'s>>;

/// Creates a parser for an input that starts with a JSON value.
pub(super) fn parser<'i, 's>(input: &'i mut Input<'s>) -> Parser<'i, 's> {
    JsonStreamReader::new_custom(input, settings())
}

fn settings() -> ReaderSettings {
    ReaderSettings {
        // Tracking paths makes the parser two to four times slower. Errors contain positions
        // without it.
        track_path: false,
        max_nesting_depth: Some(MAX_NESTING),
        // Numbers are only skipped or read as text.
        restrict_number_values: false,
        ..ReaderSettings::default()
    }
}

/// Runs one step of the parser and converts an error to its actual cause.
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
        // The text names types and positions, never values.
        other => other.to_string(),
    })
}

#[inline]
pub(super) fn position(parser: &Parser<'_, '_>) -> u64 {
    parser.current_position(false).data_pos.unwrap_or(0)
}

/// Reads one token with a bound, because the parser holds it in memory.
#[inline]
pub(super) fn token<T>(
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

/// Reads a member's name. It is held in memory only while `what` runs.
#[inline]
pub(super) fn name<T>(
    parser: &mut Parser<'_, '_>,
    what: impl FnOnce(&str) -> T,
) -> Result<T, DecodeError> {
    token(parser, |p| p.next_name().map(what))
}

/// Reads a string into `buf` and returns its length, or `None` if it does not fit. A string that
/// does not fit is read to its end and dropped.
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

/// Reads a string like [`string`], without the cause of an error.
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
    // The buffer is full: check whether the string ends here.
    let mut fits = true;
    while text.read(&mut [0; 64]).map_err(drop)? > 0 {
        fits = false;
    }
    Ok(fits.then_some(length))
}
