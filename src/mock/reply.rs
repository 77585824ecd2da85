//! Scripted replies: the content, how it is split, and how it ends.

use std::io;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use tokio_util::sync::CancellationToken;

use super::Chats;

/// The chunk size of a generated list, in bytes.
const GENERATED_CHUNK: usize = 64 * 1024;
/// The smallest number of a generated chat.
const FIRST_NUMBER: u64 = 4_900_000_000_000;
/// The factor between positions and numbers, and its inverse modulo 2^32.
const FACTOR: u64 = 2_654_435_761;
const INVERSE: u64 = 244_002_641;
/// The largest position whose chat has a number of its own.
const LAST_POSITION: u64 = 0xffff_ffff;

/// A part of a body.
#[derive(Clone, Debug)]
pub enum Piece {
    /// Bytes, in a chunk of their own.
    Bytes(Bytes),
    /// All chats of the label.
    Chats(Chats),
    /// A pause without end.
    Hold,
    /// A pause until this is cancelled.
    Until(CancellationToken),
    /// A broken connection.
    Cut,
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    pieces: Vec<Piece>,
}

impl Reply {
    /// Creates a reply with status 200 and a body in these pieces.
    pub fn pieces(pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self {
            status: 200,
            headers: vec![("content-type", "application/json".to_owned())],
            pieces: pieces.into_iter().collect(),
        }
    }

    /// Creates a reply with status 200 and this body, with its length.
    pub fn json(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        let length = body.len().to_string();
        Self::pieces([Piece::Bytes(body)]).header("content-length", length)
    }

    /// Creates a reply with status 200 and a list.
    pub fn chats(chats: Chats) -> Self {
        match chats {
            Chats::Body(body) => Self::json(body),
            generated @ Chats::Generated(_) => Self::pieces([Piece::Chats(generated)]),
        }
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn into_response(self) -> Response {
        let body = stream::iter(self.pieces).flat_map(chunks);
        let mut response = Response::new(Body::from_stream(body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::IM_A_TEAPOT);
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        }
        response
    }
}

type Chunks = stream::BoxStream<'static, io::Result<Bytes>>;

fn chunks(piece: Piece) -> Chunks {
    match piece {
        Piece::Bytes(bytes) => stream::iter([Ok(bytes)]).boxed(),
        Piece::Chats(Chats::Body(bytes)) => stream::iter([Ok(bytes)]).boxed(),
        Piece::Chats(Chats::Generated(count)) => generated(count).map(Ok).boxed(),
        Piece::Hold => stream::pending().boxed(),
        Piece::Until(gate) => stream::once(gate.cancelled_owned())
            .filter_map(async |()| None)
            .boxed(),
        // Yield first, so that the pieces before are sent before the connection breaks.
        Piece::Cut => stream::once(tokio::task::yield_now())
            .map(|()| Err(io::ErrorKind::ConnectionReset.into()))
            .boxed(),
    }
}

/// Generates a map of `count` chats while it is sent.
fn generated(count: u64) -> impl Stream<Item = Bytes> + Send {
    stream::unfold(0, move |from| async move {
        let mut chunk = BytesMut::with_capacity(GENERATED_CHUNK + 256);
        let mut index = from;
        if index > count {
            return None;
        }
        if index == 0 {
            chunk.put_u8(b'{');
        }
        while index < count && chunk.len() < GENERATED_CHUNK {
            let separator = if index == 0 { "" } else { "," };
            put(
                &mut chunk,
                format_args!(
                    r#"{separator}"{index}":{{"id":"{}","name":"Chat {index}"}}"#,
                    chat_id(index)
                ),
            );
            index += 1;
        }
        if index == count {
            chunk.put_u8(b'}');
            index += 1;
        }
        Some((chunk.freeze(), index))
    })
}

fn put(chunk: &mut BytesMut, text: std::fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _ = std::fmt::Write::write_fmt(chunk, text);
}

/// Returns the id of the chat at a position of a generated list: digits and one of the servers that
/// occur.
pub(crate) fn chat_id(index: u64) -> String {
    let ending = match index % 10 {
        0 => "lid",
        1 => "g.us",
        _ => "c.us",
    };
    // Multiplication by an odd number permutes the numbers below 2^32, so that all ids differ.
    let number = FIRST_NUMBER + (index.wrapping_mul(FACTOR) & LAST_POSITION);
    format!("{number}@{ending}")
}

/// Returns the position of a chat in a generated list, by its id. Any other id has its number for a
/// position.
pub(super) fn position(id: &str) -> u64 {
    let user = id.split('@').next().unwrap_or_default();
    let digits: String = user.chars().filter(char::is_ascii_digit).collect();
    let number = digits.parse().unwrap_or(0);
    match u64::checked_sub(number, FIRST_NUMBER) {
        Some(permuted @ ..=LAST_POSITION) => permuted.wrapping_mul(INVERSE) & LAST_POSITION,
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_id_tells_its_position() {
        for index in (0..1000).chain([99_999, u64::from(u32::MAX)]) {
            assert_eq!(position(&chat_id(index)), index);
        }
        for (id, expected) in [
            ("17@c.us", 17),
            ("+4915112345678", 4_915_112_345_678),
            ("x", 0),
        ] {
            assert_eq!(position(id), expected);
        }
    }
}
