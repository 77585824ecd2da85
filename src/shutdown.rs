//! Signals and the deadline, as one token that everything which waits looks at.
//!
//! The first SIGTERM or SIGINT asks for an orderly end; the second ends the process at once.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Exit;

/// How long the sink may take, after the stop, to confirm what it was handed. With the report
/// this stays under the ten seconds that are promised.
pub const DRAIN: Duration = Duration::from_secs(8);

/// What cut a run short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    KeyPressed,
    /// `--deadline`.
    Deadline,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminated => "SIGTERM",
            Self::KeyPressed => "SIGINT",
            Self::Deadline => "the deadline",
        })
    }
}

/// Tells when to stop, and why. Clones tell the same.
#[derive(Clone)]
pub struct Shutdown {
    token: CancellationToken,
    stopped: Arc<OnceLock<(Cause, Instant)>>,
    deadline: Option<Instant>,
}

/// Listens for signals and the deadline as long as it lives.
pub struct Listener {
    task: JoinHandle<()>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shutdown {
    /// One that only [`Shutdown::stop`] ends.
    pub fn manual(deadline: Option<Instant>) -> Self {
        Self {
            token: CancellationToken::new(),
            stopped: Arc::default(),
            deadline,
        }
    }

    /// Listens for signals, and for the end of `deadline` from now on.
    ///
    /// # Errors
    ///
    /// When the operating system refuses the signal handlers.
    pub fn listen(deadline: Option<Duration>) -> std::io::Result<(Self, Listener)> {
        let shutdown = Self::manual(deadline.map(|deadline| Instant::now() + deadline));
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let ours = shutdown.clone();
        let task = tokio::spawn(async move {
            let deadline = async {
                match ours.deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let cause = tokio::select! {
                _ = terminate.recv() => Cause::Terminated,
                _ = interrupt.recv() => Cause::KeyPressed,
                () = deadline => Cause::Deadline,
            };
            ours.stop(cause);
            if cause == Cause::Deadline {
                // The first signal after it still finds an orderly end under way.
                tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
            }
            tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
            std::process::exit(i32::from(Exit::Interrupted.code()));
        });
        Ok((shutdown, Listener { task }))
    }

    /// Asks for an orderly end. The first cause stays.
    pub fn stop(&self, cause: Cause) {
        let _ = self.stopped.set((cause, Instant::now()));
        self.token.cancel();
    }

    /// Waits for the stop.
    pub async fn stopped(&self) -> Cause {
        self.token.cancelled().await;
        self.cause().unwrap_or(Cause::Terminated)
    }

    /// Waits until the sink has had [`DRAIN`] since the stop.
    pub async fn drained(&self) -> Cause {
        let cause = self.stopped().await;
        if let Some((_, at)) = self.stopped.get() {
            tokio::time::sleep_until(*at + DRAIN).await;
        }
        cause
    }

    /// Why there is to be an end, if there is.
    pub fn cause(&self) -> Option<Cause> {
        self.stopped.get().map(|(cause, _)| *cause)
    }

    /// When the run has to end by itself.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
