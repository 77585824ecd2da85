//! The bytes under the JSON parser: where they come from, and what is known about how they ended.

use std::io::{self, Read};

use super::{DecodeError, Source, surrogates};

/// The longest member name or scalar of an envelope that is held, in bytes. Longer ones are
/// refused.
pub(super) const MAX_TOKEN_BYTES: u64 = 64 * 1024 + QUOTES;
/// The quotes of a member name.
const QUOTES: u64 = 2;
/// As much as the parser may read for one token, with what it reads ahead.
const MAX_READ_BYTES: usize = 68 * 1024;

/// As much of a body that is no JSON as is quoted, in bytes.
const MAX_BEGINNING: usize = 200;
/// Bytes that are taken from the source at once, at the most.
const BUFFER_BYTES: usize = 16 * 1024;

/// The parser's reader.
///
/// It skips byte-order marks, replaces lone surrogates, bounds single tokens, and keeps what
/// the parser's own errors do not tell: whether the bytes had run out, or the source had failed.
pub(super) struct Input<'s> {
    source: &'s mut dyn Source,
    /// Called before waiting for the source.
    when_dry: &'s dyn Fn() -> Result<(), DecodeError>,
    buffer: Box<[u8]>,
    /// End of the bytes that the parser has consumed.
    given_end: usize,
    /// End of the bytes that the parser may consume.
    ready_end: usize,
    /// End of the filled part; between `ready_end` and here lies the start of an escape.
    filled_end: usize,
    /// Bytes before the parser's first.
    offset: u64,
    /// Bytes given to the parser.
    given: u64,
    at_end: bool,
    failure: Option<DecodeError>,
    /// How many more bytes the current token may take, where it is bounded.
    token: Option<usize>,
    was_refused: bool,
}

impl<'s> Input<'s> {
    pub(super) fn new(
        source: &'s mut dyn Source,
        when_dry: &'s dyn Fn() -> Result<(), DecodeError>,
    ) -> Self {
        Self {
            source,
            when_dry,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            given_end: 0,
            ready_end: 0,
            filled_end: 0,
            offset: 0,
            given: 0,
            at_end: false,
            failure: None,
            token: None,
            was_refused: false,
        }
    }

    /// Passes over white space and byte-order marks, and looks at the first byte of the JSON.
    pub(super) fn open(&mut self) -> Result<u8, DecodeError> {
        const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.pass_over(),
                first if first == BYTE_ORDER_MARK[0] => {
                    for expected in BYTE_ORDER_MARK {
                        if self.peek()? != expected {
                            return Err(DecodeError::NotAList(self.beginning()));
                        }
                        self.pass_over();
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// What a body that is no JSON begins with, as far as it has arrived.
    pub(super) fn beginning(&self) -> String {
        let bytes = &self.buffer[self.given_end..self.filled_end];
        match bytes.first() {
            Some(b'<') => "“<” (HTML or XML)".to_owned(),
            Some(byte) if !byte.is_ascii() || byte.is_ascii_control() => {
                format!("the byte {byte:#04x}")
            }
            _ => {
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_BEGINNING)]);
                format!("“{}”", text.trim_end())
            }
        }
    }

    fn peek(&mut self) -> Result<u8, DecodeError> {
        self.fill().map_err(|error| DecodeError::Input {
            at: self.offset,
            error,
        })?;
        if self.given_end == self.ready_end {
            return Err(DecodeError::Empty);
        }
        Ok(self.buffer[self.given_end])
    }

    fn pass_over(&mut self) {
        self.given_end += 1;
        self.offset += 1;
    }

    /// Sees to it that there is something to give, unless the source has ended.
    fn fill(&mut self) -> io::Result<()> {
        while self.given_end == self.ready_end && !self.at_end {
            self.buffer.copy_within(self.ready_end..self.filled_end, 0);
            self.filled_end -= self.ready_end;
            (self.given_end, self.ready_end) = (0, 0);
            if self.source.would_wait() {
                (self.when_dry)().map_err(io::Error::other)?;
            }
            match self.source.read(&mut self.buffer[self.filled_end..]) {
                Ok(count) => {
                    self.filled_end += count;
                    self.at_end = count == 0;
                    let filled = &mut self.buffer[..self.filled_end];
                    self.ready_end = surrogates::mend(filled, self.at_end);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// From here on the parser reads one token, which it holds in memory.
    #[inline]
    pub(super) fn begin_token(&mut self) {
        self.token = Some(MAX_READ_BYTES);
    }

    /// The token has ended; whether its end was refused, because it is too long.
    #[inline]
    pub(super) fn end_token(&mut self) -> bool {
        self.token = None;
        self.was_refused
    }

    /// The parser's position as one in the body.
    pub(super) fn position(&self, at: u64) -> u64 {
        self.offset + at
    }

    /// What a failure of the parser at its position `at` really was.
    pub(super) fn explain(&mut self, at: u64, what: impl FnOnce() -> String) -> DecodeError {
        let at = self.position(at);
        let came = self.position(self.given);
        if let Some(failure) = self.failure.take() {
            failure
        } else if self.at_end && self.given_end == self.ready_end {
            DecodeError::Truncated { at: came }
        } else {
            DecodeError::Malformed { at, what: what() }
        }
    }
}

impl Read for Input<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.token == Some(0) {
            self.was_refused = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if let Err(error) = self.fill() {
            // The parser wraps errors, and not always in the same way: keep this one here.
            let at = self.position(self.given);
            self.failure = Some(match error.downcast::<DecodeError>() {
                Ok(error) => error,
                Err(error) => DecodeError::Input { at, error },
            });
            return Err(io::ErrorKind::Other.into());
        }
        let ready = &self.buffer[self.given_end..self.ready_end];
        let count = ready.len().min(buf.len());
        buf[..count].copy_from_slice(&ready[..count]);
        self.given_end += count;
        self.given += count as u64;
        if let Some(left) = &mut self.token {
            *left = left.saturating_sub(count);
        }
        Ok(count)
    }
}
