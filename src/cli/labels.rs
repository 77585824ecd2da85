//! The command line of `labels`.

use std::path::PathBuf;

use clap::{Arg, ArgGroup, ArgMatches, Command, value_parser};

use super::{Taken, switch, with_settings};
use crate::config::table::Group;

/// The flags of `labels`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelsFlags {
    /// Whether to print JSON.
    pub json: bool,
    /// Whether to count the chats that carry each label.
    pub counts: bool,
    /// Whether to show the stored counts, without asking the API.
    pub cached: bool,
    /// The file for a chart of the counts.
    pub svg: Option<PathBuf>,
}

pub(super) const SETTINGS: Taken = Taken {
    groups: &[Group::Api, Group::Log],
    keys: &["sink.url", "sink.url_file", "sink.retain", "state.url"],
};

pub(super) fn command() -> Command {
    let command = Command::new("labels").about("Show the labels of the account");
    with_settings(command, SETTINGS)
        .arg(switch("json", "Print one JSON line per label"))
        .arg(switch(
            "counts",
            "Also count the chats of each label, and show a bar chart",
        ))
        .arg(switch(
            "cached",
            "Show the counts that were stored by earlier runs and --counts, without asking the API \
             (no access token needed); implies --counts",
        ))
        .group(
            ArgGroup::new("counted")
                .args(["counts", "cached"])
                .multiple(true),
        )
        .arg(
            Arg::new("svg")
                .long("svg")
                .value_name("FILE")
                .requires("counted")
                .value_parser(value_parser!(PathBuf))
                .help("Also write the bar chart to an SVG file"),
        )
}

impl LabelsFlags {
    pub(super) fn read(matches: &ArgMatches) -> Self {
        Self {
            json: matches.get_flag("json"),
            counts: matches.get_flag("counts"),
            cached: matches.get_flag("cached"),
            svg: matches.get_one("svg").cloned(),
        }
    }
}
