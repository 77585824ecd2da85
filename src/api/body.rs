//! The body of an answer: a stream of bytes with its content coding undone.
//!
//! The codings are undone here and not in the HTTP client for the bounds' sake: zstd lets a
//! sender ask for a window of 128 MiB, and RFC 9659 allows 8 for HTTP.

use std::io;
use std::pin::Pin;

use async_compression::tokio::bufread::{BrotliDecoder, GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt};
use reqwest::Response;
use reqwest::header::CONTENT_ENCODING;
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use super::{ApiError, causes};

/// The largest zstd window, as a power of two: 8 MiB, by RFC 9659.
const ZSTD_WINDOW_LOG: u32 = 23;
/// Uncompressed bytes that are handed on at once.
const DECODED_CHUNK: usize = 32 * 1024;

/// A body that is still arriving.
pub struct Body {
    stream: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
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
        let stream: Pin<Box<dyn Stream<Item = _> + Send>> = match coding.as_deref() {
            None | Some("" | "identity") => Box::pin(raw),
            Some("gzip" | "x-gzip") => {
                let mut decoder = GzipDecoder::new(StreamReader::new(raw));
                decoder.multiple_members(true);
                decoded(decoder)
            }
            Some("br") => decoded(BrotliDecoder::new(StreamReader::new(raw))),
            Some("zstd") => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG)];
                let mut decoder = ZstdDecoder::with_params(StreamReader::new(raw), &window);
                decoder.multiple_members(true);
                decoded(decoder)
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

fn decoded(
    reader: impl AsyncRead + Send + 'static,
) -> Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>> {
    Box::pin(ReaderStream::with_capacity(reader, DECODED_CHUNK))
}

fn cut(error: reqwest::Error) -> ApiError {
    if error.is_timeout() {
        return ApiError::Cut("no byte came within --read-timeout".to_owned());
    }
    ApiError::Cut(causes(&error.without_url()))
}
