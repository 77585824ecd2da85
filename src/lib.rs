//! labelcast takes the chats that carry a `WhatsApp` label from the Wawp API, as a byte stream, and
//! publishes each chat id, at constant memory whatever the length of the list.
//!
//! ```text
//!  API ──bytes──▶ api ──bounded channel──▶ decode ──bounded channel of batches──▶ broker
//!                                                                                   │
//!  commands::run ──▶ pipeline (attempts, resume, guards) ◀── position, digest ───────┘──▶ report
//! ```
//!
//! Data goes one way. A slow broker pushes back through the bounded channels to the TCP
//! window of the HTTP body: nothing grows.
//!
//! | module | contents |
//! | --- | --- |
//! | [`cli`], [`config`] | from flags, environment and file to settings, with all faults at once |
//! | [`api`], [`http`] | the client: dialects, login, errors, proxies, the list as a stream of bytes |
//! | [`decode`], [`batch`] | from bytes to batches of chat ids, and the digest over them |
//! | [`message`], [`broker`] | what consumers see, and where it goes |
//! | [`state`] | what is known between runs |
//! | [`enrich`] | the second worker: from chat ids on a queue to records of contacts on another |
//! | [`live`], [`server`] | changes reported by webhooks, and what supervisors see of them |
//! | [`pipeline`] | one label's run: attempts, resume, guards, an orderly end |
//! | [`retry`], [`shutdown`] | when to try again, and when to stop |
//! | [`report`], [`telemetry`], [`error`] | report, metrics, progress, logging; exit codes |
//! | `chart` | bars of labels, for a picture and for the dashboard |
//! | [`commands`] | the commands, built from the above |
//! | [`mock`] | the stand-in for the API, for the demo and the tests |

pub mod api;
pub mod batch;
pub mod broker;
mod chart;
pub mod cli;
pub mod commands;
pub mod config;
pub mod config_error;
pub mod decode;
pub mod enrich;
pub mod error;
pub mod exit;
pub mod http;
pub mod live;
pub mod message;
pub mod mock;
pub mod pipeline;
pub mod progress;
pub mod report;
pub mod retry;
pub mod server;
pub mod shard;
pub mod shutdown;
pub mod state;
pub mod telemetry;
mod tls;
