//! The body of an answer: a stream of bytes with its content coding undone.
//!
//! The codings are undone here and not in the HTTP client, which sets no bounds: zstd lets a sender ask
//! for a window of 128 MiB, and RFC 9659 allows 8 for HTTP.

use std::io;
use std::pin::Pin;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, HeaderMap};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::{ApiError, headers};
use crate::decode::Paging;
use crate::http::causes;

/// The largest zstd window, as a power of two: 8 MiB, by RFC 9659.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Uncompressed bytes that are handed on at once.
const DECODED_CHUNK: usize = 32 * 1024;

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A body that is still arriving.
pub struct Body {
    stream: Chunks,
    paging: Paging,
}

impl Body {
    pub(super) fn new(response: Response) -> Result<Self, ApiError> {
        let coding = coding(response.headers());
        let paging = headers::paging(response.headers());
        let raw = response
            .bytes_stream()
            .map_err(|error| io::Error::other(cut(error)));
        let stream: Chunks = match coding.as_deref() {
            None => Box::pin(raw),
            Some("gzip" | "x-gzip") => {
                let reader: Reader = Box::pin(StreamReader::new(Box::pin(raw)));
                decoded(
                    "gzip",
                    GzipDecoder::new(reader),
                    GzipDecoder::into_inner,
                    gzip_rest,
                )
            }
            Some("br") => {
                let raw = raw.scan(true, |is_first, chunk| {
                    std::future::ready(Some(small_window(is_first, chunk)))
                });
                let reader: Reader = Box::pin(StreamReader::new(Box::pin(raw)));
                decoded(
                    "br",
                    BrotliDecoder::new(reader),
                    BrotliDecoder::into_inner,
                    no_rest,
                )
            }
            Some("zstd") => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
                let reader: Reader = Box::pin(StreamReader::new(Box::pin(raw)));
                let mut decoder = ZstdDecoder::with_params(reader, &window);
                decoder.multiple_members(true);
                decoded("zstd", decoder, ZstdDecoder::into_inner, no_rest)
            }
            Some(other) => return Err(ApiError::Coding(other.chars().take(40).collect())),
        };
        Ok(Self { stream, paging })
    }

    /// What the headers say of pages.
    pub fn paging(&self) -> &Paging {
        &self.paging
    }

    /// The next bytes, or `None` when the framing says that this was all.
    ///
    /// # Errors
    ///
    /// [`ApiError::Cut`] or [`ApiError::Connection`], when the body does not come whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) => Err(error
                .downcast::<ApiError>()
                .unwrap_or_else(|error| ApiError::Cut(causes(&error)))),
        }
    }

    /// All of a body that is short by nature.
    pub(super) async fn bounded(mut self, limit: usize) -> Result<Vec<u8>, ApiError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(ApiError::LabelsTooLong(limit));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// The first bytes of a body, as many as come without an error and are within the limit.
    pub(super) async fn start(mut self, limit: usize) -> Vec<u8> {
        let mut start = Vec::new();
        while start.len() < limit
            && let Ok(Some(bytes)) = self.next().await
        {
            let left = limit - start.len();
            start.extend_from_slice(&bytes[..bytes.len().min(left)]);
        }
        start
    }
}

/// The coding that the headers name. Some senders name what is none: a character set, or that there is no coding.
fn coding(headers: &HeaderMap) -> Option<String> {
    const NONE: [&str; 7] = ["", "identity", "none", "utf-8", "utf8", "binary", "8bit"];
    let value = headers.get(CONTENT_ENCODING)?;
    let value = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
    let codings = value.split(',').map(str::trim);
    let codings: Vec<&str> = codings.filter(|coding| !NONE.contains(coding)).collect();
    (!codings.is_empty()).then(|| codings.join(", "))
}

type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

/// What may follow the end of a coding.
enum Rest<D> {
    Nothing,
    /// Another member of the same coding.
    Member(D),
}

/// The uncompressed bytes, until both the decoder and the body under it have ended. A decoder finds its end by
/// itself, and would leave the rest of the body, and how that ends, unread; `rest` reads it.
fn decoded<D, R>(
    coding: &'static str,
    decoder: D,
    into_inner: fn(D) -> Reader,
    rest: fn(Reader) -> R,
) -> Chunks
where
    D: AsyncRead + Unpin + Send + 'static,
    R: Future<Output = io::Result<Rest<D>>> + Send + 'static,
{
    let state = Some((decoder, true));
    Box::pin(stream::try_unfold(state, move |state| async move {
        let Some((mut decoder, is_start)) = state else {
            return Ok(None);
        };
        let mut chunk = BytesMut::with_capacity(DECODED_CHUNK);
        let count = match decoder.read_buf(&mut chunk).await {
            Ok(count) => count,
            Err(error) if is_start => return Err(not_coded(coding, error)),
            Err(error) => return Err(error),
        };
        if count > 0 {
            return Ok(Some((chunk.freeze(), Some((decoder, false)))));
        }
        let next = match rest(into_inner(decoder)).await? {
            Rest::Nothing => None,
            Rest::Member(decoder) => Some((decoder, false)),
        };
        Ok(Some((Bytes::new(), next)))
    }))
}

/// A decoder that fails on the first bytes was given something else than its coding, unless these were cut off, or
/// the body under it has failed.
fn not_coded(coding: &'static str, error: io::Error) -> io::Error {
    let is_below = error.get_ref().is_some_and(|inner| inner.is::<ApiError>());
    if is_below || error.kind() == io::ErrorKind::UnexpectedEof {
        return error;
    }
    io::Error::other(ApiError::NotCoded(coding))
}

/// Behind a gzip member another may follow, or zeros, with which some senders fill up their blocks.
async fn gzip_rest(mut reader: Reader) -> io::Result<Rest<GzipDecoder<Reader>>> {
    const MEMBER_BEGINS_WITH: u8 = 0x1f;
    loop {
        let bytes = reader.fill_buf().await?;
        match bytes.iter().position(|byte| *byte != 0) {
            _ if bytes.is_empty() => return Ok(Rest::Nothing),
            Some(0) if bytes[0] == MEMBER_BEGINS_WITH => {
                return Ok(Rest::Member(GzipDecoder::new(reader)));
            }
            Some(0) => return Err(something_follows()),
            found => {
                let zeros = found.unwrap_or(bytes.len());
                reader.consume(zeros);
            }
        }
    }
}

async fn no_rest<D>(mut reader: Reader) -> io::Result<Rest<D>> {
    match reader.read(&mut [0]).await? {
        0 => Ok(Rest::Nothing),
        _ => Err(something_follows()),
    }
}

fn something_follows() -> io::Error {
    let text = "something follows the end of the content coding".to_owned();
    io::Error::other(ApiError::Cut(text))
}

/// Refuses brotli's large windows, of up to 1 GiB, which are no part of the coding `br`: RFC 7932,
/// section 9.1 leaves their first bits unused.
fn small_window(is_first: &mut bool, chunk: io::Result<Bytes>) -> io::Result<Bytes> {
    const LARGE_WINDOW: u8 = 0b001_0001;
    let chunk = chunk?;
    if *is_first
        && chunk
            .first()
            .is_some_and(|byte| byte & 0x7f == LARGE_WINDOW)
    {
        let error = ApiError::Coding("br with a large window".to_owned());
        return Err(io::Error::other(error));
    }
    *is_first &= chunk.is_empty();
    Ok(chunk)
}

fn cut(error: reqwest::Error) -> ApiError {
    if error.is_timeout() {
        return ApiError::Cut("no byte came within --read-timeout".to_owned());
    }
    ApiError::Cut(causes(&error.without_url()))
}
