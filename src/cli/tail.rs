//! The command line of `tail`.

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Taken, switch, with_settings};
use crate::broker::TAIL_GROUP;
use crate::config::table::Group;

/// The flags of `tail`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailFlags {
    /// The consumer group.
    pub group: String,
    /// The consumer's name in the group.
    pub consumer: String,
    /// Whether to acknowledge messages that were read.
    pub ack: bool,
    /// Whether to delete messages that were read.
    pub delete: bool,
    /// Whether to wait for more messages.
    pub follow: bool,
    /// The number of messages after which to stop.
    pub count: Option<u64>,
}

pub(super) const SETTINGS: Taken = Taken {
    groups: &[Group::Sink, Group::Log],
    keys: &[],
};

pub(super) fn command() -> Command {
    let text = |name: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name)
            .long(name)
            .value_name("NAME")
            .default_value(default)
            .help(help)
    };
    with_settings(
        Command::new("tail").about("Read messages from the queue, as a consumer would"),
        SETTINGS,
    )
    .arg(text("group", TAIL_GROUP, "Consumer group (Redis)"))
    .arg(text(
        "consumer",
        "labelcast",
        "Consumer's name in the group (Redis)",
    ))
    .arg(switch("ack", "Acknowledge messages that were read"))
    .arg(switch(
        "delete",
        "Acknowledge and delete messages that were read",
    ))
    .arg(switch(
        "follow",
        "Wait for more messages until a signal arrives",
    ))
    .arg(
        Arg::new("count")
            .long("count")
            .value_name("N")
            .value_parser(value_parser!(u64))
            .help("Stop after N messages"),
    )
}

impl TailFlags {
    pub(super) fn read(matches: &ArgMatches) -> Self {
        Self {
            group: matches.get_one("group").cloned().unwrap_or_default(),
            consumer: matches.get_one("consumer").cloned().unwrap_or_default(),
            ack: matches.get_flag("ack"),
            delete: matches.get_flag("delete"),
            follow: matches.get_flag("follow"),
            count: matches.get_one("count").copied(),
        }
    }
}
