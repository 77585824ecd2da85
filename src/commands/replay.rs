//! `labelcast listen --replay`: stored webhooks, by the same path as new ones.

use std::io;
use std::path::Path;

use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tracing::{info, warn};

use crate::error::Error;
use crate::exit::Exit;
use crate::live::receive::{NotReceived, Receiver};
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;

/// Lines that are under way at once, so that their events share round trips.
const AT_ONCE: usize = 256;
/// Retries of a line whose events could not be made durable.
const RETRIES: usize = 5;

/// The outcome of a line.
enum Line {
    Received,
    /// It is no event, and why.
    Refused(String),
}

/// Takes the lines of a file.
///
/// # Errors
///
/// If the file cannot be read, or the broker or the state stays away. Taking the file again doubles
/// nothing.
pub(super) async fn replay(
    receiver: &Receiver,
    path: &Path,
    shutdown: &Shutdown,
) -> Result<Exit, Error> {
    let unreadable = |error: io::Error| Error::File {
        what: "could not read",
        path: path.to_owned(),
        error,
    };
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let lines = stream::unfold(BufReader::new(file).lines(), async |mut lines| {
        lines
            .next_line()
            .await
            .transpose()
            .map(|line| (line, lines))
    });
    let numbered = lines.enumerate().map(async |(number, line)| {
        let line = line.map_err(unreadable)?;
        Ok::<_, Error>((number + 1, take(receiver, line, shutdown).await?))
    });
    let mut taken = std::pin::pin!(numbered.buffered(AT_ONCE));
    let (mut received, mut refused) = (0_u64, 0_u64);
    while let Some(line) = taken.next().await {
        match line? {
            (_, Line::Received) => received += 1,
            (line, Line::Refused(problem)) => {
                refused += 1;
                warn!(line, "line passed over: {problem}");
            }
        }
    }
    info!(received, refused, "replayed");
    Ok(match refused {
        0 => Exit::Complete,
        _ => Exit::Data,
    })
}

/// Takes one line, with retries. An empty one is nothing.
async fn take(receiver: &Receiver, line: String, shutdown: &Shutdown) -> Result<Line, Error> {
    if line.trim().is_empty() {
        return Ok(Line::Received);
    }
    let mut retries = RetryPolicy::new(RETRIES, shutdown.clone()).retries();
    loop {
        if let Some(cause) = shutdown.cause() {
            return Err(Error::Interrupted(cause));
        }
        match receiver.receive(line.clone().into_bytes()).await {
            Ok(()) => return Ok(Line::Received),
            Err(NotReceived::NotDurable(error)) => {
                retries.pause(Error::from(error.into_error())).await?;
            }
            Err(error) => return Ok(Line::Refused(error.to_string())),
        }
    }
}
