//! The HTTP server of `labelcast listen`: webhooks, dashboard, metrics and health; and the metrics of
//! `labelcast enrich`.

pub mod dashboard;
mod health;
pub mod http;
pub mod signature;
pub mod webhook;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::IntoResponse as _;
use axum::routing::get;
use tokio::sync::watch;

use self::dashboard::Dashboard;
use self::dashboard::access::{Access, Decision, is_proxied};
use self::webhook::Webhooks;
use crate::enrich;
use crate::live::metrics::Metrics;
use crate::live::overview::Overview;

/// Returns all routes.
pub fn routes(
    webhooks: Webhooks,
    dashboard: Dashboard,
    overview: watch::Receiver<Arc<Overview>>,
    metrics: Arc<Metrics>,
) -> Router {
    let access = dashboard.access();
    webhooks
        .routes()
        .merge(dashboard.routes())
        .route("/healthz", get(health::healthz))
        .route(
            "/readyz",
            get(async move |headers: HeaderMap| health::readyz(&overview, is_proxied(&headers))),
        )
        .route(
            "/metrics",
            get(
                async move |headers: HeaderMap| match may_scrape(&access, &headers) {
                    true => health::metrics(metrics.text()),
                    false => StatusCode::FORBIDDEN.into_response(),
                },
            ),
        )
}

/// Returns the routes of a worker: its metrics, which have neither ids nor names, and its health.
pub fn worker_routes(metrics: Arc<enrich::metrics::Metrics>) -> Router {
    Router::new().route("/healthz", get(health::healthz)).route(
        "/metrics",
        get(async move || health::metrics(metrics.text())),
    )
}

/// Whether a request may read the metrics, which have ids of labels and counts. Prometheus asks
/// directly. Through a proxy, which may face the internet, the token of the dashboard is needed.
fn may_scrape(access: &Access, headers: &HeaderMap) -> bool {
    !is_proxied(headers) || access.decide(headers, &Uri::default()) == Decision::Allowed
}
