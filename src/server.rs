//! The HTTP server of `labelcast listen`: webhooks, dashboard, metrics and health.

pub mod dashboard;
mod health;
pub mod http;
pub mod signature;
pub mod webhook;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use tokio::sync::watch;

use self::dashboard::Dashboard;
use self::webhook::Webhooks;
use crate::live::metrics::Metrics;
use crate::live::overview::Overview;

/// Returns all routes.
pub fn routes(
    webhooks: Webhooks,
    dashboard: Dashboard,
    overview: watch::Receiver<Arc<Overview>>,
    metrics: Arc<Metrics>,
) -> Router {
    webhooks
        .routes()
        .merge(dashboard.routes())
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(async move || health::readyz(&overview)))
        .route("/metrics", get(async move || health::metrics(&metrics)))
}
