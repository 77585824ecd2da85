//! The supervisors' dashboard: a page, its data, and server-sent events.
//!
//! The page is complete without scripts. Its script applies the events, which contain the HTML of
//! what changed; so there is only one renderer, in Rust.

pub mod access;
mod api;
mod assets;
mod attention;
mod charts;
mod fragments;
mod login;
mod page;
mod rows;
mod summary;
mod text;
mod updates;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware;
use axum::response::sse::{KeepAlive, Sse};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::get;
use secrecy::SecretString;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use self::access::Access;
use self::updates::{Snapshots, events};
use crate::live::overview::Overview;

/// The most open streams of events.
const MAX_STREAMS: usize = 64;
/// Time between two comments that keep a stream open.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// What a page may load: only its own files. There are no inline scripts and styles.
const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                   connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The dashboard.
pub struct Dashboard {
    /// The data. A new value is sent to all open pages.
    pub overview: watch::Receiver<Arc<Overview>>,
    /// The token that it asks for, if there is one.
    pub token: Option<SecretString>,
    /// Whether the server is bound to a loopback address.
    pub is_loopback: bool,
    /// Ends the streams of events.
    pub stop: CancellationToken,
}

#[derive(Clone)]
struct Served {
    snapshots: Arc<Snapshots>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Dashboard {
    /// Returns the rules for access, for other routes that need them.
    pub fn access(&self) -> Access {
        Access::new(self.token.as_ref(), self.is_loopback)
    }

    /// Returns the routes `/`, `/login`, `/api/labels`, `/api/runs`, `/events`, and those of the
    /// page's own files.
    pub fn routes(self) -> Router {
        let access = self.access();
        let served = Served {
            snapshots: Arc::new(Snapshots::new(self.overview)),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            stop: self.stop,
        };
        let data = Router::new()
            .route("/", get(page))
            .route("/api/labels", get(labels))
            .route("/api/runs", get(runs))
            .route("/events", get(stream))
            .with_state(served);
        access
            .protect(data)
            .merge(login::routes(access))
            .merge(assets::routes())
            .layer(middleware::map_response(secured))
    }
}

async fn page(State(served): State<Served>) -> Html<String> {
    let snapshot = served.snapshots.current();
    let now = SystemTime::now();
    Html(page::page(&snapshot.fragments, snapshot.overview.at, now))
}

async fn labels(State(served): State<Served>) -> Response {
    json(api::labels(&served.snapshots.current().overview))
}

async fn runs(State(served): State<Served>) -> Response {
    json(api::runs(&served.snapshots.current().overview))
}

fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

/// `?from=VERSION` is what a page shows already, so that it does not get all of it again.
async fn stream(State(served): State<Served>, RawQuery(query): RawQuery) -> Response {
    let Ok(place) = served.streams.try_acquire_owned() else {
        let text = "Too many open pages. Try again later.\n";
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response();
    };
    let query = query.unwrap_or_default();
    let known = query.strip_prefix("from=");
    let events = events(&served.snapshots, known, served.stop, place);
    let heartbeat = KeepAlive::new().interval(HEARTBEAT);
    Sse::new(events).keep_alive(heartbeat).into_response()
}

/// Adds the headers that all answers have.
async fn secured(mut response: Response) -> Response {
    let headers = [
        ("content-security-policy", CSP),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    for (name, value) in headers {
        let (name, value) = (
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
        response.headers_mut().insert(name, value);
    }
    // Data are not kept; the page's own files say something else. SSE says `no-cache`.
    let is_data = !response.headers().contains_key(ETAG);
    if is_data {
        let no_store = HeaderValue::from_static("no-store");
        response.headers_mut().insert(CACHE_CONTROL, no_store);
    }
    response
}
