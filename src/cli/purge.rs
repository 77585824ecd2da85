//! The command line of `purge`.

use std::time::Duration;

use clap::{Arg, ArgGroup, ArgMatches, Command};

use super::{Taken, switch, with_settings};
use crate::broker::PurgeSelection;
use crate::config::table::Group;

/// The flags of `purge`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeFlags {
    /// What is deleted.
    pub selection: PurgeSelection,
    /// Whether to delete nothing, and only say how much there is.
    pub dry_run: bool,
    /// Whether to print JSON.
    pub json: bool,
}

pub(super) const SETTINGS: Taken = Taken {
    groups: &[Group::Log],
    keys: &[
        "api.instance_id",
        "api.retries",
        "run.labels",
        "run.all_labels",
        "sink.url",
        "sink.url_file",
        "sink.queue",
        "sink.partitions",
        "state.url",
    ],
};

pub(super) fn command() -> Command {
    let command = Command::new("purge")
        .about("Delete stored identifiers: messages, and what is kept beside the queues")
        .after_help(
            "Without --label, everything on the queue is deleted; a queue with {label_id} in its \
             name stands for the queues of all labels that are found. The API is not asked, so \
             that labels can be purged that do not exist any more. A queue and label that a run \
             holds is left alone, and the exit code is 81.",
        );
    let said = |help: &'static str| move |arg: Arg| arg.help(help);
    with_settings(command, SETTINGS)
        .mut_arg(
            "run.labels",
            said(
                "Label to purge; for several, repeat the flag or separate them with commas \
                 [env: LABELCAST_LABELS]",
            ),
        )
        .mut_arg(
            "run.all_labels",
            said("Purge everything on the queue, as without --label [env: LABELCAST_ALL_LABELS]"),
        )
        .mut_arg(
            "sink.partitions",
            said(
                "Number of streams that the runs spread the chats over (Redis) \
                 [env: LABELCAST_PARTITIONS]",
            ),
        )
        .arg(
            Arg::new("older-than")
                .long("older-than")
                .value_name("DURATION")
                .value_parser(duration)
                .help("Delete what is older than this, such as 30d; 0s deletes everything"),
        )
        .arg(switch(
            "acknowledged",
            "Delete only messages, and of them only those that every consumer group has \
             acknowledged (Redis)",
        ))
        .group(
            ArgGroup::new("selected")
                .args(["older-than", "acknowledged"])
                .multiple(true)
                .required(true),
        )
        .arg(switch(
            "dry-run",
            "Delete nothing, and say how much would be",
        ))
        .arg(switch("json", "Print one JSON line"))
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "is not a duration such as 30s, 15m, 2h or 7d".to_owned())
}

impl PurgeFlags {
    pub(super) fn read(matches: &ArgMatches) -> Self {
        Self {
            selection: PurgeSelection {
                older_than: matches.get_one("older-than").copied(),
                acknowledged: matches.get_flag("acknowledged"),
            },
            dry_run: matches.get_flag("dry-run"),
            json: matches.get_flag("json"),
        }
    }
}
