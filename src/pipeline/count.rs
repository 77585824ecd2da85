//! Counts the chats of a label. The list is streamed, and nothing of it is kept.

use tokio_util::sync::CancellationToken;

use super::attempt::{explain, feed};
use crate::api::Client;
use crate::decode::{Plan, chunks, decode};
use crate::error::Error;
use crate::progress::LabelLine;
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;

/// Entries that are counted at once.
const BATCH_ENTRIES: u32 = 2048;

/// Counts the chats of a label, and retries transient errors. Entries without a valid chat id do not
/// count.
///
/// # Errors
///
/// The last error if no attempt received the whole list, or [`Error::Interrupted`].
pub async fn count_chats(
    client: &Client,
    label_id: &str,
    retry: &RetryPolicy,
    line: &LabelLine,
) -> Result<u64, Error> {
    let mut retries = retry.retries();
    loop {
        match attempt(client, label_id, retry.shutdown(), line).await {
            Ok(chats) => return Ok(chats),
            Err(error) => retries.pause(error).await?,
        }
    }
}

async fn attempt(
    client: &Client,
    label_id: &str,
    shutdown: &Shutdown,
    line: &LabelLine,
) -> Result<u64, Error> {
    let mut body = tokio::select! {
        biased;
        cause = shutdown.stopped() => return Err(Error::Interrupted(cause)),
        answer = client.chats(label_id) => answer?,
    };
    let plan = Plan {
        batch_entries: BATCH_ENTRIES,
        trust: client.trust(),
        paging: body.paging().clone(),
        ..Plan::whole_list()
    };
    let (chunks, received) = chunks();
    let line = line.clone();
    let decoder = tokio::task::spawn_blocking(move || {
        decode(received, &plan, |batch| {
            line.add(u64::from(batch.chats()));
            Some(batch)
        })
    });
    feed(&mut body, chunks, shutdown, &CancellationToken::new()).await;
    let (seen, decoded) = decoder
        .await
        .map_err(|_| Error::Bug("the decoder ended early".to_owned()))?;
    decoded.map_err(|error| explain(client, shutdown, error))?;
    Ok(seen.chats())
}
