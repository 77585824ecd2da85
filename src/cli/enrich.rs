//! `labelcast enrich` on the command line.

use clap::Command;

use super::{Taken, with_settings};
use crate::config::table::Group;

/// The settings that it takes.
pub(super) const SETTINGS: Taken = Taken {
    groups: &[Group::Enrich, Group::Api, Group::Log],
    keys: &[
        "sink.url",
        "sink.url_file",
        "sink.format",
        "sink.retain",
        "sink.exchange",
        "sink.queue_type",
        "sink.no_declare",
        "sink.min_replicas",
        "report.format",
        "report.file",
        "report.progress",
    ],
};

pub(super) fn command() -> Command {
    with_settings(
        Command::new("enrich").about(
            "Take chat ids from a queue, look up the contacts, and publish records to another queue",
        ),
        SETTINGS,
    )
}
