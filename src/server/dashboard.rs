//! The supervisors' dashboard: a page, its data, and server-sent events.

use std::sync::Arc;

use axum::Router;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::live::overview::Overview;

/// What the dashboard needs.
pub struct Dashboard {
    /// What it shows. A new value is sent to all open pages.
    pub overview: watch::Receiver<Arc<Overview>>,
    /// The token that it asks for, if there is one.
    pub token: Option<SecretString>,
    /// Whether the server is bound to a loopback address.
    pub is_loopback: bool,
    /// Ends the streams of events.
    pub stop: CancellationToken,
}

impl Dashboard {
    /// Returns the routes `/`, `/api/labels`, `/api/runs`, `/events`, and those of the page's own
    /// files.
    pub fn routes(self) -> Router {
        Router::new()
    }
}
