//! The input of the JSON parser, with a record of how it ended.

use std::io::{self, Read};

use super::{DecodeError, Source, surrogates};

/// The maximum length of a member name or a scalar beside the list, in bytes. Longer ones are
/// refused.
pub(super) const MAX_TOKEN_BYTES: u64 = 64 * 1024 + QUOTES;
/// The two quotes of a member name.
const QUOTES: u64 = 2;
/// The maximum number of bytes that the parser may read for one token, including its read-ahead.
const MAX_READ_BYTES: usize = 68 * 1024;

/// The maximum number of bytes that are quoted from a body that is not JSON.
const MAX_BEGINNING: usize = 200;
/// The maximum number of bytes that are read from the source at once.
const BUFFER_BYTES: usize = 16 * 1024;

/// The reader below the parser.
///
/// It skips byte-order marks, replaces lone surrogates and bounds single tokens. It also records
/// what the parser's errors do not say: whether the bytes ended or the source failed.
pub(super) struct Input<'s> {
    source: &'s mut dyn Source,
    /// Called before waiting for the source.
    on_stall: &'s dyn Fn() -> Result<(), DecodeError>,
    buffer: Box<[u8]>,
    /// End of the bytes that the parser has consumed.
    consumed_end: usize,
    /// End of the bytes that the parser may consume.
    ready_end: usize,
    /// End of the filled part. From `ready_end` to here lies the start of an escape.
    filled_end: usize,
    /// Bytes that were skipped before the parser's first byte.
    offset: u64,
    /// Bytes that the parser has consumed.
    consumed: u64,
    at_end: bool,
    failure: Option<DecodeError>,
    /// The number of bytes that the current token may still take, if it is bounded.
    token: Option<usize>,
    was_refused: bool,
}

impl<'s> Input<'s> {
    pub(super) fn new(
        source: &'s mut dyn Source,
        on_stall: &'s dyn Fn() -> Result<(), DecodeError>,
    ) -> Self {
        Self {
            source,
            on_stall,
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            consumed_end: 0,
            ready_end: 0,
            filled_end: 0,
            offset: 0,
            consumed: 0,
            at_end: false,
            failure: None,
            token: None,
            was_refused: false,
        }
    }

    /// Skips white space and byte-order marks and returns the first byte of the JSON.
    pub(super) fn open(&mut self) -> Result<u8, DecodeError> {
        const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
        loop {
            match self.peek()? {
                b' ' | b'\t' | b'\n' | b'\r' => self.skip_byte(),
                first if first == BYTE_ORDER_MARK[0] => {
                    for expected in BYTE_ORDER_MARK {
                        if self.peek()? != expected {
                            return Err(DecodeError::NotAList(self.beginning()));
                        }
                        self.skip_byte();
                    }
                }
                other => return Ok(other),
            }
        }
    }

    /// Returns the start of a body that is not JSON, as far as it has arrived.
    pub(super) fn beginning(&self) -> String {
        let bytes = &self.buffer[self.consumed_end..self.filled_end];
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
        if self.consumed_end == self.ready_end {
            return Err(DecodeError::Empty);
        }
        Ok(self.buffer[self.consumed_end])
    }

    fn skip_byte(&mut self) {
        self.consumed_end += 1;
        self.offset += 1;
    }

    /// Reads until there are bytes for the parser or the source has ended.
    fn fill(&mut self) -> io::Result<()> {
        while self.consumed_end == self.ready_end && !self.at_end {
            self.buffer.copy_within(self.ready_end..self.filled_end, 0);
            self.filled_end -= self.ready_end;
            (self.consumed_end, self.ready_end) = (0, 0);
            if self.source.would_wait() {
                (self.on_stall)().map_err(io::Error::other)?;
            }
            match self.source.read(&mut self.buffer[self.filled_end..]) {
                Ok(count) => {
                    self.filled_end += count;
                    self.at_end = count == 0;
                    let filled = &mut self.buffer[..self.filled_end];
                    self.ready_end = surrogates::replace_lone(filled, self.at_end);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Marks the start of a token, which the parser holds in memory.
    #[inline]
    pub(super) fn begin_token(&mut self) {
        self.token = Some(MAX_READ_BYTES);
    }

    /// Marks the end of a token. Returns whether the rest of the token was refused because it is
    /// too long.
    #[inline]
    pub(super) fn end_token(&mut self) -> bool {
        self.token = None;
        self.was_refused
    }

    /// Converts a position of the parser to a position in the body.
    pub(super) fn position(&self, at: u64) -> u64 {
        self.offset + at
    }

    /// Returns the actual cause of a parser error at position `at`.
    pub(super) fn explain(&mut self, at: u64, what: impl FnOnce() -> String) -> DecodeError {
        let at = self.position(at);
        let arrived = self.position(self.consumed);
        if let Some(failure) = self.failure.take() {
            failure
        } else if self.at_end && self.consumed_end == self.ready_end {
            DecodeError::Truncated { at: arrived }
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
            // The parser wraps errors, and not always in the same way, so keep the error here.
            let at = self.position(self.consumed);
            self.failure = Some(match error.downcast::<DecodeError>() {
                Ok(error) => error,
                Err(error) => DecodeError::Input { at, error },
            });
            return Err(io::ErrorKind::Other.into());
        }
        let ready = &self.buffer[self.consumed_end..self.ready_end];
        let count = ready.len().min(buf.len());
        buf[..count].copy_from_slice(&ready[..count]);
        self.consumed_end += count;
        self.consumed += count as u64;
        if let Some(left) = &mut self.token {
            *left = left.saturating_sub(count);
        }
        Ok(count)
    }
}
