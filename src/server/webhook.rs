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
/// Memory for the bodies of all requests under way, in bytes.
const MAX_BODIES: usize = 16 * MAX_BODY;
/// The time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The time from a whole body to its answer. Gateways send again when they are not answered within
/// two seconds.
const ANSWER_WITHIN: Duration = Duration::from_millis(1800);
/// What a sender is asked to wait after a 503.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// Receives webhooks.
pub struct Webhooks {
    /// Who may send them.
    pub auth: WebhookAuth,
    /// What takes them.
    pub receiver: Arc<Receiver>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    bodies: Semaphore,
}

/// The answer to a request.
enum Answer {
    Received,
    Refused(String),
    Unauthorized,
    TooLarge,
    /// The body did not arrive in time, or was cut off.
    NotWhole,
    Unavailable(String),
}

impl Webhooks {
    /// Receives webhooks from those who can prove who they are.
    pub fn new(auth: WebhookAuth, receiver: Arc<Receiver>, metrics: Arc<Metrics>) -> Self {
        Self {
            auth,
            receiver,
            metrics,
            bodies: Semaphore::new(MAX_BODIES),
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
            Ok(Err(NotReceived::NotDurable(error))) => Answer::Unavailable(error.to_string()),
            Err(_) => Answer::Unavailable("the events are not durable yet".to_owned()),
        }
    }

    /// Reads a whole body, with the memory that it holds. A sender that announces much and sends
    /// little holds little.
    async fn read(&self, body: Body) -> Result<(Vec<u8>, SemaphorePermit<'_>), Answer> {
        let announced = body.size_hint().exact();
        let length = announced.and_then(|length| usize::try_from(length).ok());
        if announced.is_some() && length.is_none_or(|length| length > MAX_BODY) {
            return Err(Answer::TooLarge);
        }
        let until = Instant::now() + BODY_TIMEOUT;
        let (mut read, mut memory) = (Vec::new(), self.take_memory(0, until).await?);
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
            memory.merge(self.take_memory(piece.len(), until).await?);
            read.extend_from_slice(&piece);
        }
    }

    async fn take_memory(
        &self,
        bytes: usize,
        until: Instant,
    ) -> Result<SemaphorePermit<'_>, Answer> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        match timeout_at(until, self.bodies.acquire_many(bytes)).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(Answer::Unavailable("too many requests".to_owned())),
        }
    }
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
            // The rest of a body that was not read would be taken for a request.
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
                (StatusCode::SERVICE_UNAVAILABLE, [header], problem + "\n").into_response()
            }
        }
    }
}
