//! The body of a response: a stream of bytes with the content coding removed.
//!
//! Codings are decoded here because the HTTP client sets no bounds. In zstd a sender may request a
//! window of 128 MiB, but RFC 9659 allows only 8 MiB for HTTP.

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
/// The size of a decoded chunk, in bytes.
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
            .map_err(|error| io::Error::other(read_error(error)));
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
                    std::future::ready(Some(refuse_large_window(is_first, chunk)))
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

    /// Returns what the headers say about pages.
    pub fn paging(&self) -> &Paging {
        &self.paging
    }

    /// Returns the next bytes, or `None` at the end of the body according to the HTTP framing.
    ///
    /// # Errors
    ///
    /// [`ApiError::Cut`] or [`ApiError::Connection`], if the body does not arrive whole.
    pub async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        match self.stream.next().await {
            None => Ok(None),
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(error)) => Err(error
                .downcast::<ApiError>()
                .unwrap_or_else(|error| ApiError::Cut(causes(&error)))),
        }
    }

    /// Reads the whole body if it is no longer than a limit.
    pub(super) async fn read_all(
        mut self,
        limit: usize,
        too_long: fn(usize) -> ApiError,
    ) -> Result<Vec<u8>, ApiError> {
        let mut all = Vec::new();
        while let Some(bytes) = self.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(too_long(limit));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// Returns the first bytes of a body, up to a limit or to an error.
    pub(super) async fn read_start(mut self, limit: usize) -> Vec<u8> {
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

/// Returns the coding that the headers name. Some senders name something else there: a character
/// set, or the absence of a coding.
fn coding(headers: &HeaderMap) -> Option<String> {
    const NONE: [&str; 7] = ["", "identity", "none", "utf-8", "utf8", "binary", "8bit"];
    let value = headers.get(CONTENT_ENCODING)?;
    let value = String::from_utf8_lossy(value.as_bytes()).to_lowercase();
    let codings = value.split(',').map(str::trim);
    let codings: Vec<&str> = codings.filter(|coding| !NONE.contains(coding)).collect();
    (!codings.is_empty()).then(|| codings.join(", "))
}

type Reader = Pin<Box<dyn AsyncBufRead + Send>>;

/// The data after the end of a coding.
enum Rest<D> {
    Nothing,
    /// Another member of the same coding.
    Member(D),
}

/// Returns the uncompressed bytes until both the decoder and the body below it have ended. A
/// decoder stops at the end of its own data and does not read how the body ends. `rest` reads that.
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

/// Reports a wrong coding if the decoder fails on the first bytes, unless those were cut off or the
/// body below it failed.
fn not_coded(coding: &'static str, error: io::Error) -> io::Error {
    let is_below = error.get_ref().is_some_and(|inner| inner.is::<ApiError>());
    if is_below || error.kind() == io::ErrorKind::UnexpectedEof {
        return error;
    }
    io::Error::other(ApiError::NotCoded(coding))
}

/// Reads what follows a gzip member: another member, or zeros, with which some senders fill their
/// blocks.
async fn gzip_rest(mut reader: Reader) -> io::Result<Rest<GzipDecoder<Reader>>> {
    const MEMBER_BEGINS_WITH: u8 = 0x1f;
    loop {
        let bytes = reader.fill_buf().await?;
        match bytes.iter().position(|byte| *byte != 0) {
            _ if bytes.is_empty() => return Ok(Rest::Nothing),
            Some(0) if bytes[0] == MEMBER_BEGINS_WITH => {
                return Ok(Rest::Member(GzipDecoder::new(reader)));
            }
            Some(0) => return Err(trailing_data()),
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
        _ => Err(trailing_data()),
    }
}

fn trailing_data() -> io::Error {
    let text = "something follows the end of the content coding".to_owned();
    io::Error::other(ApiError::Cut(text))
}

/// Refuses brotli's large windows of up to 1 GiB. They are not part of the coding `br`: RFC 7932,
/// section 9.1 does not assign their first bits.
fn refuse_large_window(is_first: &mut bool, chunk: io::Result<Bytes>) -> io::Result<Bytes> {
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

fn read_error(error: reqwest::Error) -> ApiError {
    if error.is_timeout() {
        return ApiError::Cut("no data within --read-timeout".to_owned());
    }
    ApiError::Cut(causes(&error.without_url()))
}
