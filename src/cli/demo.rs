//! The command line of `demo`.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use clap::{Arg, ArgMatches, Command, value_parser};

use super::{Taken, switch, with_settings};
use crate::config::table::Group;

/// What a demo shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demo {
    /// A run.
    Run {
        /// The number of chats of the stand-in's label.
        chats: u64,
    },
    /// Only the stand-in.
    Serve {
        /// The number of chats of the stand-in's label.
        chats: u64,
        /// The number of look-ups of contacts that are answered in a second.
        contact_limit: Option<NonZeroU32>,
    },
    /// Webhooks and the dashboard.
    Live,
}

/// The settings of a demo, which may listen.
pub(super) const SETTINGS: Taken = Taken {
    groups: &[
        Group::Api,
        Group::Run,
        Group::Sink,
        Group::State,
        Group::Listen,
        Group::Report,
        Group::Log,
    ],
    keys: &[],
};

pub(super) fn command() -> Command {
    let command = Command::new("demo").about("Run against a built-in stand-in for the API");
    with_settings(command, SETTINGS)
        .arg(
            Arg::new("chats")
                .long("chats")
                .value_name("N")
                .default_value("100000")
                .value_parser(value_parser!(u64))
                .help("Number of chats of the stand-in's label"),
        )
        .arg(switch(
            "serve",
            "Only serve the stand-in, until a signal arrives",
        ))
        .arg(
            Arg::new("contact-limit")
                .long("contact-limit")
                .value_name("N")
                .requires("serve")
                .value_parser(value_parser!(NonZeroU32))
                .help("Answer look-ups of contacts over N in a second with status 429"),
        )
        .arg(
            switch(
                "live",
                "Receive synthetic webhooks and serve the dashboard, until a signal arrives",
            )
            .conflicts_with("serve"),
        )
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("ADDR")
                .default_value("127.0.0.1:0")
                .value_parser(value_parser!(SocketAddr))
                .help("Address that the stand-in listens on; port 0 selects a free port"),
        )
}

impl Demo {
    pub(super) fn read(matches: &ArgMatches) -> Self {
        let chats = matches.get_one("chats").copied().unwrap_or_default();
        match (matches.get_flag("live"), matches.get_flag("serve")) {
            (true, _) => Self::Live,
            (false, true) => Self::Serve {
                chats,
                contact_limit: matches.get_one("contact-limit").copied(),
            },
            (false, false) => Self::Run { chats },
        }
    }
}
