//! `labelcast listen`: an event is acknowledged only when it is durable, and nothing that senders
//! do doubles a message.

mod demo;
mod faults;
mod labels;
mod load;
mod model;
mod replay;
mod requests;
mod settings;
mod sinks;

use crate::support::Stage;
use crate::support::listener::Listener;
use crate::support::program::Running;
use crate::support::redis::Server;

/// Builds a process that follows the stage's labels on a Redis server.
fn command(stage: &Stage, server: &Server) -> Running {
    stage.program("listen").args(["--sink", &server.url()])
}

fn listen(stage: &Stage, server: &Server) -> Listener {
    Listener::start(command(stage, server))
}
