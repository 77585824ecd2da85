//! `labelcast listen --replay`: stored webhooks, by the same path as new ones.

use std::io;
use std::path::Path;

use futures_util::{StreamExt as _, stream};
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tracing::{info, warn};

use crate::error::Error;
use crate::exit::Exit;
use crate::live::receive::{NotReceived, Receiver};
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;

/// The longest line, in bytes, which is that of a webhook's body.
const MAX_LINE: usize = 1024 * 1024;
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
    let file = File::open(path).await.map_err(unreadable)?;
    let lines = stream::unfold(BufReader::new(file), async |mut file| {
        let line = next_line(&mut file).await.transpose()?;
        Some((line, file))
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

/// Reads a line, without its end. Of a line that is too long, reads as much as shows that. Returns
/// `None` at the end of the file.
async fn next_line(file: &mut BufReader<File>) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = MAX_LINE as u64 + 2;
    if (&mut *file)
        .take(limit)
        .read_until(b'\n', &mut line)
        .await?
        == 0
    {
        return Ok(None);
    }
    let mut rest = Vec::new();
    while line.len() > MAX_LINE + 1 && !line.ends_with(b"\n") && !rest.ends_with(b"\n") {
        rest.clear();
        if (&mut *file)
            .take(limit)
            .read_until(b'\n', &mut rest)
            .await?
            == 0
        {
            break;
        }
    }
    Ok(Some(line))
}

/// Takes one line, with retries. An empty one is nothing.
async fn take(receiver: &Receiver, line: Vec<u8>, shutdown: &Shutdown) -> Result<Line, Error> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(Line::Received);
    }
    if line.len() > MAX_LINE {
        return Ok(Line::Refused("the line is over 1 MiB".to_owned()));
    }
    let mut retries = RetryPolicy::new(RETRIES, shutdown.clone()).retries();
    loop {
        if let Some(cause) = shutdown.cause() {
            return Err(Error::Interrupted(cause));
        }
        match receiver.receive(line.to_vec()).await {
            Ok(()) => return Ok(Line::Received),
            Err(NotReceived::NotDurable(error)) => {
                retries.pause(Error::from(error.into_error())).await?;
            }
            Err(error) => return Ok(Line::Refused(error.to_string())),
        }
    }
}
