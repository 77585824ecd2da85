//! The bytes under the JSON parser: where they come from, and what is known about how they ended.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::DecodeError;

/// The longest member name or scalar of an envelope that is held, in bytes. Longer ones are
/// refused.
const MAX_TOKEN_BYTES: usize = 64 * 1024;

/// A body that arrives in chunks over a bounded channel, as a blocking [`Read`].
///
/// The end of the body is an item of its own, an empty chunk: a sender that is dropped without it
/// has failed, and what came so far must not pass for the whole.
pub struct ChunkReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    ended: bool,
}

impl ChunkReader {
    /// Reads what is sent on `chunks`.
    pub fn new(chunks: mpsc::Receiver<io::Result<Bytes>>) -> Self {
        Self {
            chunks,
            current: Bytes::new(),
            ended: false,
        }
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) => {
                    self.ended = chunk.is_empty();
                    self.current = chunk;
                }
                Some(Err(error)) => return Err(error),
                None => {
                    return Err(io::Error::new(
                        io::ErrorKind::BrokenPipe,
                        "reading was stopped",
                    ));
                }
            }
        }
        let count = buf.len().min(self.current.len());
        self.current.copy_to_slice(&mut buf[..count]);
        Ok(count)
    }
}

/// The parser's reader.
///
/// It passes over a byte-order mark, bounds single tokens, and keeps what the parser's own errors
/// do not tell: whether the bytes had run out, or the reader below had failed.
pub(super) struct Input<R> {
    below: R,
    /// A byte that was looked at by [`Input::open`], still to be given to the parser.
    first: Option<u8>,
    /// Bytes before the parser's first.
    offset: u64,
    /// Bytes given to the parser.
    given: u64,
    at_end: bool,
    failure: Option<io::Error>,
    /// How many more bytes the current token may take, where it is bounded.
    token: Option<usize>,
    token_too_long: bool,
}

impl<R: Read> Input<R> {
    pub(super) fn new(below: R) -> Self {
        Self {
            below,
            first: None,
            offset: 0,
            given: 0,
            at_end: false,
            failure: None,
            token: None,
            token_too_long: false,
        }
    }

    /// Passes over a byte-order mark and white space, and looks at the first byte of the JSON.
    pub(super) fn open(&mut self) -> Result<u8, DecodeError> {
        const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
        loop {
            let Some(byte) = self.below_byte()? else {
                return Err(DecodeError::Empty);
            };
            if self.offset == 0 && byte == BYTE_ORDER_MARK[0] {
                for expected in &BYTE_ORDER_MARK[1..] {
                    match self.below_byte()? {
                        Some(byte) if byte == *expected => {}
                        _ => return Err(DecodeError::NotAList(byte)),
                    }
                }
                self.offset = 3;
            } else if byte.is_ascii_whitespace() {
                self.offset += 1;
            } else {
                self.first = Some(byte);
                return Ok(byte);
            }
        }
    }

    fn below_byte(&mut self) -> Result<Option<u8>, DecodeError> {
        let mut byte = [0];
        loop {
            return match self.below.read(&mut byte) {
                Ok(0) => Ok(None),
                Ok(_) => Ok(Some(byte[0])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(DecodeError::Input {
                    at: self.offset,
                    error,
                }),
            };
        }
    }

    /// From here to [`Input::end_token`] the parser reads one token, which it holds in memory.
    pub(super) fn begin_token(&mut self) {
        self.token = Some(MAX_TOKEN_BYTES);
    }

    pub(super) fn end_token(&mut self) {
        self.token = None;
    }

    /// What a failure of the parser at its position `at` really was.
    pub(super) fn explain(&mut self, at: u64, what: impl FnOnce() -> String) -> DecodeError {
        let at = self.offset + at;
        let came = self.offset + self.given;
        if let Some(error) = self.failure.take() {
            DecodeError::Input { at: came, error }
        } else if self.token_too_long {
            DecodeError::Shape {
                at,
                what: "a member name is over 64 KiB long",
            }
        } else if self.at_end {
            DecodeError::Truncated { at: came }
        } else {
            DecodeError::Malformed { at, what: what() }
        }
    }

    /// The parser's position as one in the body.
    pub(super) fn position(&self, at: u64) -> u64 {
        self.offset + at
    }
}

impl<R: Read> Read for Input<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if let Some(left) = &mut self.token {
            if *left == 0 {
                self.token_too_long = true;
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            *left = left.saturating_sub(buf.len());
        }
        if let (Some(first), [place, ..]) = (self.first.take(), &mut *buf) {
            *place = first;
            self.given += 1;
            return Ok(1);
        }
        match self.below.read(buf) {
            Ok(count) => {
                self.at_end = count == 0 && !buf.is_empty();
                self.given += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                // The parser wraps errors, and not always in the same way: keep it here.
                self.failure = Some(error);
                Err(io::Error::other("the input failed"))
            }
        }
    }
}
