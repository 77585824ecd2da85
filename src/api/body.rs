//! The body of an answer: a stream of bytes with its content coding undone.
//!
//! The codings are undone here and not in the HTTP client for the bounds' sake: zstd lets a
//! sender ask for a window of 128 MiB, and RFC 9659 allows 8 for HTTP.

use std::io;
use std::pin::Pin;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use reqwest::Response;
use reqwest::header::CONTENT_ENCODING;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

use super::{ApiError, causes};

/// The largest zstd window, as a power of two: 8 MiB, by RFC 9659.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Uncompressed bytes that are handed on at once.
const DECODED_CHUNK: usize = 32 * 1024;

type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A body that is still arriving.
pub struct Body {
    stream: Chunks,
}

impl Body {
    pub(super) fn new(response: Response) -> Result<Self, ApiError> {
        let coding = response
            .headers()
            .get(CONTENT_ENCODING)
            .map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase());
        let raw = response
            .bytes_stream()
            .map_err(|error| io::Error::other(cut(error)));
        let stream: Chunks = match coding.as_deref() {
            None | Some("" | "identity") => Box::pin(raw),
            Some("gzip" | "x-gzip") => {
                let mut decoder = GzipDecoder::new(StreamReader::new(raw));
                decoder.multiple_members(true);
                decoded(decoder, GzipDecoder::into_inner)
            }
            Some("br") => {
                let raw = raw.scan(true, |is_first, chunk| {
                    std::future::ready(Some(small_window(is_first, chunk)))
                });
                let decoder = BrotliDecoder::new(StreamReader::new(Box::pin(raw)));
                decoded(decoder, BrotliDecoder::into_inner)
            }
            Some("zstd") => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
                let mut decoder = ZstdDecoder::with_params(StreamReader::new(raw), &window);
                decoder.multiple_members(true);
                decoded(decoder, ZstdDecoder::into_inner)
            }
            Some(other) => return Err(ApiError::Coding(other.chars().take(40).collect())),
        };
        Ok(Self { stream })
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
                return Err(ApiError::Labels(format!("it is over {limit} bytes long")));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

/// What a decoder gives, until it and the body under it have both come to their end. A decoder
/// knows its end by itself, and would leave the rest of the body, and how that ends, unread.
fn decoded<D, R>(decoder: D, into_inner: fn(D) -> R) -> Chunks
where
    D: AsyncRead + Unpin + Send + 'static,
    R: AsyncRead + Unpin + Send + 'static,
{
    Box::pin(stream::try_unfold(Some(decoder), move |state| async move {
        let Some(mut decoder) = state else {
            return Ok(None);
        };
        let mut chunk = BytesMut::with_capacity(DECODED_CHUNK);
        if decoder.read_buf(&mut chunk).await? > 0 {
            return Ok(Some((chunk.freeze(), Some(decoder))));
        }
        if into_inner(decoder).read(&mut [0]).await? > 0 {
            let error = ApiError::Cut("something follows the end of the content coding".to_owned());
            return Err(io::Error::other(error));
        }
        Ok(Some((Bytes::new(), None)))
    }))
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
