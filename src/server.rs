//! The HTTP server of `labelcast listen`: webhooks, dashboard, metrics and health.

pub mod dashboard;
pub mod signature;
