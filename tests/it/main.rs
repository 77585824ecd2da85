//! Tests from the user's perspective: the real binary against real HTTP, with one module per
//! guarantee.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on has failed"
)]

mod api;
mod chunks;
mod cli;
mod concurrency;
mod conformance;
mod contacts;
mod counts;
mod dashboard;
mod enrich;
mod events;
mod exits;
mod field;
mod file;
mod guards;
mod kubernetes;
mod labels;
mod limits;
mod listen;
mod membership_model;
mod metrics;
mod purge;
mod rabbitmq;
mod recovery;
mod redis;
mod report;
mod resume;
mod schedule;
mod secrets;
mod settings;
mod shapes;
mod signals;
mod state;
mod support;
mod truncation;
mod urls;
mod workers;
