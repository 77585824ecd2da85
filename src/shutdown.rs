//! Signals and the deadline, as one token that every wait selects on.
//!
//! The first SIGTERM or SIGINT requests an orderly end; the second ends the process at once.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;

/// How long the sink may take after a stop to confirm its batches. With the report this stays under the
/// guaranteed ten seconds.
pub const DRAIN: Duration = Duration::from_secs(8);

/// Why a run was cut short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM.
    Terminated,
    /// SIGINT.
    Interrupt,
    /// `--deadline`.
    Deadline,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminated => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::Deadline => "the deadline",
        })
    }
}

/// The stop signal and its cause, shared by all clones.
#[derive(Clone)]
pub struct Shutdown {
    token: CancellationToken,
    stopped: Arc<OnceLock<(Cause, Instant)>>,
    deadline: Option<Instant>,
}

/// Time after the stop at which the process exits even if it is blocked, by a pipe that nobody reads or a
/// disk that does not respond.
const GIVE_UP: Duration = Duration::from_millis(9500);

/// Listens for signals and the deadline as long as it lives.
pub struct Listener {
    over: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.over.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
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
        let deadline = deadline.and_then(|deadline| Instant::now().checked_add(deadline));
        let shutdown = Self::manual(deadline);
        // A thread and a runtime of its own: the main one may be stuck in a write.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (terminate, interrupt) = {
            let _context = runtime.enter();
            (
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            )
        };
        let over = CancellationToken::new();
        let (ours, ended) = (shutdown.clone(), over.clone());
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = ours.serve(terminate, interrupt) => {}
                        () = ended.cancelled() => {}
                    }
                });
            })?;
        let thread = Some(thread);
        Ok((shutdown, Listener { over, thread }))
    }

    /// Stops at the first signal or the deadline; ends the process at the next signal, or when the
    /// orderly end takes too long.
    async fn serve(&self, mut terminate: Signal, mut interrupt: Signal) {
        let mut signalled = async || {
            tokio::select! {
                _ = terminate.recv() => Cause::Terminated,
                _ = interrupt.recv() => Cause::Interrupt,
            }
        };
        let deadline = async {
            match self.deadline {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let cause = tokio::select! {
            cause = signalled() => cause,
            () = deadline => Cause::Deadline,
        };
        self.stop(cause);
        let at_once = async {
            if cause == Cause::Deadline {
                // The first signal after the deadline lets the orderly end continue.
                signalled().await;
            }
            signalled().await;
        };
        tokio::select! {
            () = at_once => {}
            () = tokio::time::sleep(GIVE_UP) => {}
        }
        std::process::exit(i32::from(Exit::Interrupted.code()));
    }

    /// Requests an orderly end. The first cause is kept.
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

    /// The cause of the stop, if there is one.
    pub fn cause(&self) -> Option<Cause> {
        self.stopped.get().map(|(cause, _)| *cause)
    }

    /// The deadline.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
