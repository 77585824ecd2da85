//! `labelcast listen` on the command line.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Taken, with_settings};
use crate::config::table::Group;

/// The settings that it takes.
pub(super) const SETTINGS: Taken = Taken {
    groups: &[
        Group::Api,
        Group::Sink,
        Group::State,
        Group::Listen,
        Group::Log,
    ],
    // Those of a reconciliation.
    keys: &[
        "run.labels",
        "run.all_labels",
        "run.shard",
        "run.concurrency",
        "run.resume_window",
        "run.suppress_for",
        "run.removed",
        "run.max_change",
        "run.min_chats",
        "run.max_shrink",
        "run.max_invalid",
    ],
};

/// The flags of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenFlags {
    /// A file with stored events to take in place of webhooks.
    pub replay: Option<PathBuf>,
}

impl ListenFlags {
    pub(super) fn read(matches: &ArgMatches) -> Self {
        Self {
            replay: matches.get_one("replay").cloned(),
        }
    }
}

pub(super) fn command() -> Command {
    with_settings(
        Command::new("listen")
            .about("Receive label webhooks, publish each change, and serve the dashboard"),
        SETTINGS,
    )
    .arg(
        Arg::new("replay")
            .long("replay")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Take stored webhooks, one JSON text a line, in place of new ones, and exit"),
    )
}
