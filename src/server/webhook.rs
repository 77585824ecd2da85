//! `POST /webhook`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use futures_util::StreamExt as _;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::signature::WebhookAuth;
use crate::live::metrics::Metrics;
use crate::live::receive::{NotReceived, Receiver};

/// The longest body, in bytes.
const MAX_BODY: usize = 1024 * 1024;
/// The longest body that counts as small, in bytes. A single event has a few hundred.
const SMALL_BODY: u64 = 64 * 1024;
/// Memory for the small bodies of all requests under way, in bytes, so that large ones do not keep
/// them out.
const SMALL_BODIES: usize = 8 * 1024 * 1024;
/// Memory for the other bodies of all requests under way, in bytes.
const LARGE_BODIES: usize = 16 * MAX_BODY;
/// The time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The time from a whole body to its answer. Gateways send again when they are not answered within
/// two seconds.
const ANSWER_WITHIN: Duration = Duration::from_millis(1800);
/// Seconds that a sender should wait after a 503.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");
/// The text of the answer when events cannot be made durable.
const AWAY: &str = "the broker or the state is away; send the webhook again";

/// Receives webhooks.
pub struct Webhooks {
    /// The authentication of senders.
    pub auth: WebhookAuth,
    /// The receiver of their bodies.
    pub receiver: Arc<Receiver>,
    /// Metrics of requests.
    pub metrics: Arc<Metrics>,
    small_bodies: Semaphore,
    large_bodies: Semaphore,
}

/// The answer to a request.
enum Answer {
    Received,
    Refused(String),
    Unauthorized,
    TooLarge,
    /// The body did not arrive in time, or was cut off.
    NotWhole,
    Unavailable(&'static str),
}

impl Webhooks {
    /// Receives webhooks from those who can prove who they are.
    pub fn new(auth: WebhookAuth, receiver: Arc<Receiver>, metrics: Arc<Metrics>) -> Self {
        Self {
            auth,
            receiver,
            metrics,
            small_bodies: Semaphore::new(SMALL_BODIES),
            large_bodies: Semaphore::new(LARGE_BODIES),
        }
    }

    /// Returns the route.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/webhook", post(receive))
            .with_state(Arc::new(self))
    }

    async fn answer(&self, request: Request) -> Answer {
        let (head, body) = request.into_parts();
        let announced = body.size_hint().exact();
        if announced.is_some_and(|length| length > MAX_BODY as u64) {
            return Answer::TooLarge;
        }
        if !self.auth.may_accept(&head.headers, &head.uri) {
            return Answer::Unauthorized;
        }
        let (body, _memory) = match self.read(body).await {
            Ok(read) => read,
            Err(answer) => return answer,
        };
        if !self.auth.accepts(&head.headers, &head.uri, &body) {
            return Answer::Unauthorized;
        }
        let until = Instant::now() + ANSWER_WITHIN;
        match timeout_at(until, self.receiver.receive(body)).await {
            Ok(Ok(())) => Answer::Received,
            Ok(Err(error @ (NotReceived::NotEvents(_) | NotReceived::Invalid(_)))) => {
                Answer::Refused(error.to_string())
            }
            // The cause is in the log: it may name servers and files.
            Ok(Err(NotReceived::NotDurable(_))) => Answer::Unavailable(AWAY),
            Err(_) => Answer::Unavailable("the events are not durable yet"),
        }
    }

    /// Reads a whole body, with the memory that it holds. A sender that announces much and sends
    /// little holds little.
    async fn read(&self, body: Body) -> Result<(Vec<u8>, SemaphorePermit<'_>), Answer> {
        let memory_for_bodies = match body.size_hint().exact() {
            Some(length) if length <= SMALL_BODY => &self.small_bodies,
            _ => &self.large_bodies,
        };
        let until = Instant::now() + BODY_TIMEOUT;
        let (mut read, mut memory) = (Vec::new(), take_memory(memory_for_bodies, 0)?);
        let mut pieces = body.into_data_stream();
        loop {
            let piece = match timeout_at(until, pieces.next()).await {
                Ok(Some(Ok(piece))) => piece,
                Ok(None) => return Ok((read, memory)),
                Ok(Some(Err(_))) | Err(_) => return Err(Answer::NotWhole),
            };
            if read.len() + piece.len() > MAX_BODY {
                return Err(Answer::TooLarge);
            }
            memory.merge(take_memory(memory_for_bodies, piece.len())?);
            read.extend_from_slice(&piece);
        }
    }
}

/// Takes memory at once or not at all: bodies that wait for each other would all fail.
fn take_memory(bodies: &Semaphore, bytes: usize) -> Result<SemaphorePermit<'_>, Answer> {
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let busy = |_| Answer::Unavailable("too many requests are under way");
    bodies.try_acquire_many(bytes).map_err(busy)
}

async fn receive(State(webhooks): State<Arc<Webhooks>>, request: Request) -> Response {
    let answer = webhooks.answer(request).await;
    webhooks.metrics.count_request(answer.name());
    answer.into_response()
}

impl Answer {
    /// The spelling in metrics.
    fn name(&self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::Refused(_) => "refused",
            Self::Unauthorized => "unauthorized",
            Self::TooLarge => "too_large",
            Self::NotWhole => "not_whole",
            Self::Unavailable(_) => "unavailable",
        }
    }

    fn into_response(self) -> Response {
        let plain = |status, text: String| {
            // The rest of the body was not read, so the connection ends with the answer.
            let close = (header::CONNECTION, HeaderValue::from_static("close"));
            (status, [close], text + "\n").into_response()
        };
        match self {
            Self::Received => (StatusCode::OK, "ok\n").into_response(),
            Self::Refused(problem) => (StatusCode::BAD_REQUEST, problem + "\n").into_response(),
            Self::Unauthorized => {
                let text = "the signature or the secret is missing or wrong\n";
                (StatusCode::UNAUTHORIZED, text).into_response()
            }
            Self::TooLarge => plain(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is over 1 MiB".to_owned(),
            ),
            Self::NotWhole => plain(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not arrive in time".to_owned(),
            ),
            Self::Unavailable(problem) => {
                let header: (HeaderName, HeaderValue) = (header::RETRY_AFTER, RETRY_AFTER);
                let text = format!("{problem}\n");
                (StatusCode::SERVICE_UNAVAILABLE, [header], text).into_response()
            }
        }
    }
}
