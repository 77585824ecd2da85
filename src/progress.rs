//! Progress lines on stderr, one for each label that is published.

use std::io::IsTerminal;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::broker::PauseObserver;

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

/// The progress of a run, on stderr or nowhere.
#[derive(Clone)]
pub struct Progress {
    lines: MultiProgress,
}

impl Progress {
    /// Creates visible or hidden lines on stderr.
    pub fn new(mode: ProgressMode, quiet: bool) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let is_visible = match mode {
            _ if quiet => false,
            ProgressMode::Always => true,
            ProgressMode::Never => false,
            ProgressMode::Auto => is_terminal,
        };
        let target = if !is_visible {
            ProgressDrawTarget::hidden()
        } else if is_terminal {
            ProgressDrawTarget::stderr_with_hz(MAX_REDRAWS)
        } else {
            // `always` also applies without a terminal, on which indicatif does not draw by itself.
            ProgressDrawTarget::term_like_with_hz(Box::new(Plain), 1)
        };
        Self {
            lines: MultiProgress::with_draw_target(target),
        }
    }

    /// The lines themselves, for the log to write above them.
    pub fn lines(&self) -> &MultiProgress {
        &self.lines
    }

    /// Adds a line: chats so far. The total is unknown.
    pub fn line(&self, title: &str) -> LabelLine {
        let bar = self.lines.add(ProgressBar::no_length());
        let style = ProgressStyle::with_template(
            "{prefix} {spinner} {human_pos} chats, {per_sec}, {elapsed} {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_owned());
        bar.tick();
        LabelLine {
            lines: self.lines.clone(),
            bar,
        }
    }
}

/// The line of one label.
#[derive(Clone)]
pub struct LabelLine {
    lines: MultiProgress,
    bar: ProgressBar,
}

impl LabelLine {
    pub(crate) fn add(&self, chats: u64) {
        self.bar.inc(chats);
    }

    /// Removes the line.
    pub fn end(self) {
        self.bar.finish_and_clear();
        self.lines.remove(&self.bar);
    }
}

impl PauseObserver for LabelLine {
    fn paused(&self, reason: &'static str) {
        self.bar.set_message(reason);
    }

    fn resumed(&self) {
        self.bar.set_message("");
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
