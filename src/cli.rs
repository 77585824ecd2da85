//! The command line: commands and their flags, built from the table of settings.
//!
//! Flags are kept as text here. [`crate::config`] checks and converts them and reports all errors
//! together. Only an unknown flag or command is an error here.

mod demo;
mod enrich;
mod labels;
mod listen;
mod purge;
mod tail;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::Styles;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use clap_complete::Shell;

pub use self::demo::Demo;
pub use self::labels::LabelsFlags;
pub use self::listen::ListenFlags;
pub use self::purge::PurgeFlags;
pub use self::tail::TailFlags;
use crate::config::table::{Group, Setting};
use crate::config::{CONFIG_VARIABLE, RunMode, TOKEN_VARIABLE, settings_of};

/// The command to execute, with its own flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Publish the chats of labels.
    Run {
        /// What to do with them.
        mode: RunMode,
    },
    /// Check whether a run could work.
    Check,
    /// Receive webhooks.
    Listen(ListenFlags),
    /// Look up contacts.
    Enrich,
    /// Show the account's labels.
    Labels(LabelsFlags),
    /// Read messages from the queue.
    Tail(TailFlags),
    /// Delete stored identifiers.
    Purge(PurgeFlags),
    /// Run against the stand-in for the API.
    Demo {
        /// What is shown.
        demo: Demo,
        /// The address that the stand-in listens on.
        listen: SocketAddr,
    },
    /// Print a completion script.
    Completions(Shell),
    /// Print the manual page.
    Man,
}

/// A parsed command line.
#[derive(Debug)]
pub struct Invocation {
    /// The command.
    pub action: Action,
    /// The flags that were set, by the setting's key.
    pub flags: BTreeMap<&'static str, String>,
    /// The value of `--config`.
    pub config: Option<PathBuf>,
}

/// The settings that a command takes.
#[derive(Clone, Copy)]
struct Taken {
    groups: &'static [Group],
    /// Further settings, by their keys.
    keys: &'static [&'static str],
}

/// The settings of a run.
const ALL: Taken = Taken {
    groups: &[
        Group::Api,
        Group::Run,
        Group::Sink,
        Group::State,
        Group::Report,
        Group::Log,
    ],
    keys: &[],
};
/// Key of `--report-file`.
const REPORT_FILE: &str = "report.file";

/// Builds the whole command line.
pub fn command() -> Command {
    Command::new("labelcast")
        .version(env!("CARGO_PKG_VERSION"))
        .about(env!("CARGO_PKG_DESCRIPTION"))
        .after_help(format!(
            "The access token is never a flag: it comes from {TOKEN_VARIABLE} or a file.\n\
             Exit codes: 0 complete, 64 wrong command line, 65 invalid data, 69 unavailable, 70 bug, \
             74 file error, 75 cut short (run again to resume), 76 API error, 77 credentials, \
             78 settings, 80 stopped by a guard, 81 locked by another run."
        ))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .styles(Styles::plain())
        .subcommand(
            with_settings(
                Command::new("run").about("Fetch the chats of labels and publish each chat id"),
                ALL,
            )
            .arg(
                Arg::new("dry-run")
                    .long("dry-run")
                    .action(ArgAction::SetTrue)
                    .help("Fetch, decode and count, but publish nothing"),
            )
            .arg(
                Arg::new("baseline")
                    .long("baseline")
                    .action(ArgAction::SetTrue)
                    .conflicts_with("dry-run")
                    .help("Record the list as known, and publish nothing"),
            ),
        )
        .subcommand(with_settings(
            Command::new("check")
                .about("Check settings, login, labels and sink without publishing"),
            ALL,
        ))
        .subcommand(listen::command())
        .subcommand(enrich::command())
        .subcommand(labels::command())
        .subcommand(tail::command())
        .subcommand(purge::command())
        .subcommand(demo::command())
        .subcommand(
            Command::new("completions")
                .about("Print a completion script")
                .arg(
                    Arg::new("shell")
                        .required(true)
                        .value_parser(value_parser!(Shell)),
                ),
        )
        .subcommand(Command::new("man").about("Print the manual page"))
}

fn switch(name: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .action(ArgAction::SetTrue)
        .help(help)
}

fn with_settings(command: Command, taken: Taken) -> Command {
    let command = command.arg(config_flag()).arg(
        Arg::new("verbose")
            .short('v')
            .long("verbose")
            .action(ArgAction::Count)
            .help("Log debug messages; -vv also logs trace messages"),
    );
    settings_of(taken.groups, taken.keys).fold(command, |command, setting| {
        command.arg(argument(setting).help_heading(setting.group.heading()))
    })
}

fn config_flag() -> Arg {
    Arg::new("config")
        .long("config")
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help(format!("TOML file with settings [env: {CONFIG_VARIABLE}]"))
}

fn argument(setting: &'static Setting) -> Arg {
    let arg = Arg::new(setting.key)
        .long(setting.flag)
        .help(help(setting))
        .allow_hyphen_values(true);
    if setting.is_switch() {
        arg.num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("BOOL")
            .hide_possible_values(true)
    } else if setting.is_list {
        arg.value_name(setting.takes).action(ArgAction::Append)
    } else {
        arg.value_name(setting.takes).overrides_with(setting.key)
    }
}

fn help(setting: &Setting) -> String {
    let mut help = setting.help.to_owned();
    if !setting.default.is_empty() {
        help.push_str(&format!(" [default: {}]", setting.default));
    }
    format!("{help} [env: {}]", setting.env)
}

/// Reads a command line.
///
/// # Errors
///
/// Clap's error, which may also be the help.
pub fn parse(
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
) -> Result<Invocation, clap::Error> {
    let matches = command().try_get_matches_from(arguments)?;
    let (name, matches) = match matches.subcommand() {
        Some(found) => found,
        None => return Err(command().error(clap::error::ErrorKind::MissingSubcommand, "")),
    };
    let is_set = |id: &str| matches.get_flag(id);
    let action = match name {
        "run" => Action::Run {
            mode: match (is_set("dry-run"), is_set("baseline")) {
                (true, _) => RunMode::Dry,
                (false, true) => RunMode::Baseline,
                (false, false) => RunMode::Publish,
            },
        },
        "check" => Action::Check,
        "listen" => Action::Listen(ListenFlags::read(matches)),
        "enrich" => Action::Enrich,
        "labels" => Action::Labels(LabelsFlags::read(matches)),
        "tail" => Action::Tail(TailFlags::read(matches)),
        "purge" => Action::Purge(PurgeFlags::read(matches)),
        "demo" => Action::Demo {
            demo: Demo::read(matches),
            listen: *matches
                .get_one("listen")
                .unwrap_or(&SocketAddr::from(([127, 0, 0, 1], 0))),
        },
        "completions" => {
            let shell = matches.get_one("shell").copied();
            return Ok(Invocation::bare(Action::Completions(
                shell.unwrap_or(Shell::Bash),
            )));
        }
        _ => return Ok(Invocation::bare(Action::Man)),
    };
    Ok(Invocation {
        flags: flags(matches, taken_by(&action)),
        config: matches.get_one("config").cloned(),
        action,
    })
}

/// Reads `--report-file` and `--config` of a `run` whose command line is wrong.
///
/// Returns `None` for other commands.
pub(crate) fn report_flags(arguments: &[OsString]) -> Option<Invocation> {
    let report_file =
        settings_of(&[Group::Report], &[]).find(|setting| setting.key == REPORT_FILE)?;
    // All other arguments are accepted as positional ones, because clap stops at a wrong argument.
    let others = (0..arguments.len()).map(|number| {
        Arg::new(format!("other-{number}"))
            .allow_hyphen_values(true)
            .value_parser(value_parser!(OsString))
    });
    let run = Command::new("run")
        .args([argument(report_file), config_flag()])
        .args(others);
    let matches = Command::new("labelcast")
        .subcommand(run)
        .disable_help_flag(true)
        .ignore_errors(true)
        .try_get_matches_from(arguments)
        .ok()?;
    let matches = matches.subcommand_matches("run")?;
    let path = matches.get_one::<String>(REPORT_FILE).cloned();
    Some(Invocation {
        action: Action::Run {
            mode: RunMode::Publish,
        },
        flags: path.into_iter().map(|path| (REPORT_FILE, path)).collect(),
        config: matches.get_one("config").cloned(),
    })
}

fn taken_by(action: &Action) -> Taken {
    match action {
        Action::Demo { .. } => demo::SETTINGS,
        Action::Listen(_) => listen::SETTINGS,
        Action::Enrich => enrich::SETTINGS,
        Action::Labels(_) => labels::SETTINGS,
        Action::Tail(_) => tail::SETTINGS,
        Action::Purge(_) => purge::SETTINGS,
        _ => ALL,
    }
}

fn flags(matches: &ArgMatches, taken: Taken) -> BTreeMap<&'static str, String> {
    let mut flags = BTreeMap::new();
    match matches.get_count("verbose") {
        0 => {}
        1 => drop(flags.insert("log.level", "debug".to_owned())),
        _ => drop(flags.insert("log.level", "trace".to_owned())),
    }
    for setting in settings_of(taken.groups, taken.keys) {
        if let Some(values) = matches.get_many::<String>(setting.key) {
            let values: Vec<&str> = values.map(String::as_str).collect();
            flags.insert(setting.key, values.join(","));
        }
    }
    flags
}

impl Invocation {
    fn bare(action: Action) -> Self {
        Self {
            action,
            flags: BTreeMap::new(),
            config: None,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn flags(line: &str) -> BTreeMap<&'static str, String> {
        let arguments = line.split(' ').map(Into::into);
        parse(arguments).unwrap().flags
    }

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn flags_are_kept_as_text() {
        let flags = flags("labelcast run --label 1 --label 2,3 --include-names --retries x -v");
        assert_eq!(flags["run.labels"], "1,2,3");
        assert_eq!(flags["sink.include_names"], "true");
        assert_eq!(flags["api.retries"], "x");
        assert_eq!(flags["log.level"], "debug");
        assert_eq!(flags.len(), 4);
    }

    #[test]
    fn a_switch_can_be_turned_off() {
        let flags = flags("labelcast run --include-names=false");
        assert_eq!(flags["sink.include_names"], "false");
    }
}
