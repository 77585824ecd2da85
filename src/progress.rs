//! The progress line on stderr.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// When to show progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressMode {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The maximum number of redraws per second.
const MAX_REDRAWS: u8 = 10;

/// The progress of a run: the number of chats so far. The total is unknown until the list ends.
#[derive(Clone)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Creates a line on stderr, or a hidden one.
    pub fn new(mode: ProgressMode, quiet: bool) -> Self {
        let is_visible = match mode {
            _ if quiet => false,
            ProgressMode::Always => true,
            ProgressMode::Never => false,
            ProgressMode::Auto => std::io::stderr().is_terminal(),
        };
        if !is_visible {
            return Self::of(ProgressBar::hidden());
        }
        let bar = if std::io::stderr().is_terminal() {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(MAX_REDRAWS))
        } else {
            // `always` also applies without a terminal, on which indicatif does not draw by itself.
            let target = ProgressDrawTarget::term_like_with_hz(Box::new(Plain), 1);
            ProgressBar::with_draw_target(None, target)
        };
        let style = ProgressStyle::with_template(
            "{prefix} {spinner} {human_pos} chats, {per_sec}, {elapsed} {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        Self::of(bar)
    }

    fn of(bar: ProgressBar) -> Self {
        Self { bar }
    }

    /// Returns the line, so that the log can be written above it.
    pub fn bar(&self) -> &ProgressBar {
        &self.bar
    }

    pub(crate) fn begin(&self, label_id: &str) {
        self.bar.reset();
        self.bar.set_prefix(format!("label {label_id}"));
        self.bar.tick();
    }

    pub(crate) fn add(&self, chats: u64) {
        self.bar.inc(chats);
    }

    /// Shows what the run is waiting for. An empty text clears it.
    pub(crate) fn say(&self, text: &'static str) {
        self.bar.set_message(text);
    }

    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// stderr without a terminal: each update is a new line.
#[derive(Debug)]
struct Plain;

impl indicatif::TermLike for Plain {
    fn width(&self) -> u16 {
        120
    }
    fn move_cursor_up(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> std::io::Result<()> {
        Ok(())
    }
    fn write_line(&self, line: &str) -> std::io::Result<()> {
        self.write_str(line)
    }
    fn write_str(&self, text: &str) -> std::io::Result<()> {
        if text.trim().is_empty() {
            return Ok(());
        }
        use std::io::Write as _;
        writeln!(std::io::stderr(), "{}", text.trim_end())
    }
    fn clear_line(&self) -> std::io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> std::io::Result<()> {
        Ok(())
    }
}
