//! Logging, and panics that show no data.

use std::io::{self, IsTerminal, Write};

use indicatif::MultiProgress;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The settings of the log.
#[derive(Clone, Debug)]
pub struct LogSettings {
    /// Whether the log is JSON; `None` for text on a terminal, else JSON.
    pub json: Option<bool>,
    /// The most detailed level.
    pub level: tracing::Level,
    /// Errors only.
    pub quiet: bool,
}

/// Sets up logging for the whole process.
///
/// Below warnings, only labelcast's own events are logged. At more detailed levels the HTTP client
/// and other crates log whole URLs and buffers, which contain tokens and chat ids.
pub fn init(settings: &LogSettings, progress: &MultiProgress) {
    let level = if settings.quiet {
        tracing::Level::ERROR
    } else {
        settings.level
    };
    let others = level.min(tracing::Level::WARN);
    let filter = Targets::new()
        .with_default(others)
        // lapin logs whole returned messages.
        .with_target("lapin", LevelFilter::OFF)
        .with_target(env!("CARGO_CRATE_NAME"), level);
    let is_terminal = io::stderr().is_terminal();
    let lines = progress.clone();
    let layer = tracing_subscriber::fmt::layer().with_writer(move || AboveProgress(lines.clone()));
    let layer = if settings.json.unwrap_or(!is_terminal) {
        layer.json().flatten_event(true).boxed()
    } else {
        layer.with_ansi(is_terminal).with_target(false).boxed()
    };
    // Fails only if logging is already set up, as in tests.
    let _ = tracing_subscriber::registry()
        .with(layer.with_filter(filter))
        .try_init();
}

/// A writer to stderr that keeps the progress lines at the bottom.
struct AboveProgress(MultiProgress);

impl Write for AboveProgress {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| io::stderr().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Makes a panic report its location instead of its message, which may contain data.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
        let _ = writeln!(
            io::stderr(),
            "labelcast has a bug{place}; please report it, with the version {}",
            env!("CARGO_PKG_VERSION")
        );
    }));
}
