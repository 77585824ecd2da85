//! The commands: each builds its parts from settings, and calls the library.

mod check;
mod demo;
mod enrich;
mod labels;
mod listen;
mod purge;
mod replay;
mod run;
mod tail;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt as _, stream};
use tracing::error;

use crate::cli::{self, Action, Invocation};
use crate::config::table::Group;
use crate::config::{ConfigSources, settings_of};
use crate::error::Error;
use crate::exit::Exit;
use crate::progress::Progress;
use crate::report::{self, Report, ReportFormat, ReportSettings};
use crate::shutdown::{Listener, Shutdown};
use crate::telemetry::{self, LogSettings};

/// Does what the command line says, and returns the exit code.
pub fn main(invocation: Invocation) -> ExitCode {
    let Invocation {
        action,
        flags,
        config,
    } = invocation;
    match action {
        Action::Completions(shell) => return completions(shell).into(),
        Action::Man => return man().into(),
        _ => {}
    }
    let sources = match action {
        // The demo publishes synthetic chats: only its own flags may send them to a broker.
        Action::Demo { .. } => ConfigSources::new(flags, of_the_log, config.as_deref()),
        _ => ConfigSources::new(flags, |name| std::env::var_os(name), config.as_deref()),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = Error::Bug(format!("the runtime could not be set up: {error}"));
            return fail(&error).into();
        }
    };
    let exit = runtime.block_on(async {
        match action {
            Action::Run { mode } => run::run(sources, mode).await,
            Action::Check => check::check(sources).await,
            Action::Listen(flags) => listen::listen(sources, flags).await,
            Action::Enrich => enrich::enrich(sources).await,
            Action::Labels(flags) => labels::labels(sources, flags).await,
            Action::Demo { demo, listen } => demo::demo(sources, demo, listen).await,
            Action::Tail(flags) => tail::tail(sources, flags).await,
            Action::Purge(flags) => purge::purge(sources, flags).await,
            Action::Completions(_) | Action::Man => Exit::Complete,
        }
    });
    // A thread may still be stuck in a write to a pipe that nobody reads.
    runtime.shutdown_background();
    exit.into()
}

/// A variable of the environment, if it is about the log.
fn of_the_log(name: &str) -> Option<OsString> {
    let mut variables = settings_of(&[Group::Log], &[]).map(|setting| setting.env);
    variables
        .any(|variable| variable == name)
        .then(|| std::env::var_os(name))?
}

/// Writes the report of a run whose command line is wrong, if a report file is named.
pub fn report_usage(arguments: &[OsString]) -> Exit {
    let Some(Invocation { flags, config, .. }) = cli::report_flags(arguments) else {
        return Exit::Usage;
    };
    let env = |name: &str| std::env::var_os(name);
    let mut sources = ConfigSources::new(flags, env, config.as_deref());
    if let Some(path) = sources.report().unwrap_or_else(|report| *report).file {
        let (report, _) = Report::new(SystemTime::now(), Vec::new(), Some(&Error::Usage));
        if let Err(error) = report.write(&path) {
            fail(&unwritten(&path, error));
        }
    }
    Exit::Usage
}

/// Says what went wrong where there is no log yet.
fn fail(error: &Error) -> Exit {
    let mut text = format!("labelcast: {error}\n");
    if let Some(hint) = error.hint() {
        text.push_str(&format!("  {hint}\n"));
    }
    let _ = io::stderr().write_all(text.as_bytes());
    error.exit()
}

/// Ends a command that came as far as having a log.
fn logged(error: &Error) -> Exit {
    let (exit_code, hint) = (error.exit().code(), error.hint().unwrap_or_default());
    error!(exit_code, hint, "{error}");
    error.exit()
}

/// Listens for signals and the deadline, as long as the listener lives.
fn listen(deadline: Option<Duration>) -> Result<(Shutdown, Listener), Error> {
    Shutdown::listen(deadline)
        .map_err(|error| Error::Bug(format!("signals cannot be listened for: {error}")))
}

/// Ends reading settings: gives what `read` needs, or says all that is wrong.
fn load<T>(
    mut sources: ConfigSources,
    read: impl FnOnce(&mut ConfigSources) -> Option<T>,
) -> Result<T, Error> {
    let settings = read(&mut sources);
    sources.finish()?;
    settings.ok_or_else(|| Error::Bug("a fault of the settings was not noted".to_owned()))
}

/// Does the work of several labels, at most `limit` at once. Returns the results in the order of the
/// work, in whichever order it ended.
async fn several_at_once<T, F: Future<Output = T>>(
    work: impl Iterator<Item = F>,
    limit: usize,
) -> Vec<T> {
    let numbered = work
        .enumerate()
        .map(async |(number, work)| (number, work.await));
    let mut results: Vec<(usize, T)> = stream::iter(numbered)
        .buffer_unordered(limit)
        .collect()
        .await;
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

fn init_log(log: &LogSettings, progress: &Progress) {
    telemetry::init(log, progress.lines());
}

/// A report in both of its forms.
struct ReportTexts {
    /// A line of JSON.
    json: String,
    /// For people.
    text: String,
}

impl From<&Report> for ReportTexts {
    fn from(report: &Report) -> Self {
        Self {
            json: report.json() + "\n",
            text: report.text(),
        }
    }
}

/// Gives the report in each form that was asked for. What was done is not undone by a report that
/// cannot be written, but it is said.
fn write_report(texts: &ReportTexts, exit: Exit, settings: &ReportSettings, quiet: bool) -> Exit {
    let mut exit = exit;
    if let Some(path) = &settings.file
        && let Err(error) = report::replace_or_write(path, texts.json.as_bytes())
    {
        exit = exit.heavier(logged(&unwritten(path, error)));
    }
    let written = match settings.format {
        ReportFormat::Json => print(&texts.json),
        ReportFormat::Text if !quiet => {
            let _ = io::stderr().write_all(texts.text.as_bytes());
            Ok(())
        }
        ReportFormat::Text | ReportFormat::None => Ok(()),
    };
    match written {
        Ok(()) => exit,
        Err(error) => exit.heavier(logged(&error)),
    }
}

/// Looks whether the report could be written where it should go: to be asked before a run, since
/// one that ends with 74 only because of its report would be run, and publish, again.
fn check_report_path(settings: &ReportSettings) -> Result<(), Error> {
    let Some(path) = &settings.file else {
        return Ok(());
    };
    report::check_writable(path).map_err(|error| unwritten(path, error))
}

fn unwritten(path: &Path, error: io::Error) -> Error {
    Error::File {
        what: "could not write the report to",
        path: path.to_owned(),
        error,
    }
}

/// Writes the report of a run that did not begin, where its destination is known.
fn report_config_errors(errors: &Error, settings: &ReportSettings) -> Exit {
    let exit = fail(errors);
    let (report, _) = Report::new(SystemTime::now(), Vec::new(), Some(errors));
    // As text, the errors were listed already.
    write_report(&(&report).into(), exit, settings, true)
}

/// Prints data on stdout. A reader that has gone is a normal end.
fn print(text: &str) -> Result<(), Error> {
    print_open(text).map(drop)
}

/// Prints data on stdout, and tells whether it is still read.
fn print_open(text: &str) -> Result<bool, Error> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::Stdout(error)),
    }
}

fn printed(result: Result<(), Error>) -> Exit {
    match result {
        Ok(()) => Exit::Complete,
        Err(error) => fail(&error),
    }
}

fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "labelcast", &mut script);
    printed(print(&String::from_utf8_lossy(&script)))
}

fn man() -> Exit {
    let mut page = Vec::new();
    let mut command = cli::command();
    command.build();
    let subcommands: Vec<clap::Command> = command.get_subcommands().cloned().collect();
    let rendered = clap_mangen::Man::new(command)
        .render(&mut page)
        .and_then(|()| {
            subcommands
                .into_iter()
                .filter(|command| command.get_name() != "help")
                .try_for_each(|command| {
                    // So that it is seen whose the section is that follows.
                    writeln!(page, ".SH LABELCAST {}", command.get_name().to_uppercase())?;
                    clap_mangen::Man::new(command).render_options_section(&mut page)
                })
        });
    match rendered {
        Ok(()) => printed(print(&String::from_utf8_lossy(&page))),
        Err(error) => fail(&Error::Stdout(error)),
    }
}
