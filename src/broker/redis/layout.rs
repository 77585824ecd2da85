//! The streams that what is known of a queue is spread over. Another number of them is an error: a
//! chat would be looked up where it is not.

use super::RedisSettings;
use super::connect::Endpoint;
use super::keys::Keys;
use super::link::{Link, StoredState, load};
use super::members::members_lost;
use super::stream::Stream;
use crate::broker::error::{Failure, SessionError};
use crate::broker::retries::{Retrying as _, with_retry};
use crate::broker::{BrokerError, SessionContext, Target};
use crate::state::{Membership, Publish, Selection};

/// Selects the chats that are appended. Keeps the membership of a tracked queue, whatever the
/// settings say.
///
/// # Errors
///
/// [`BrokerError::Misconfigured`] if what is known was spread over another number of streams.
pub(super) async fn prepare_selection(
    settings: &RedisSettings,
    context: &mut SessionContext,
    streams: &mut [Stream],
    stored: &[StoredState],
) -> Result<(), SessionError> {
    let is_tracked = stored.iter().any(|stored| stored.selection.is_tracked);
    if is_tracked && context.selection.membership.is_none() {
        context.selection.membership = Some(Membership::recorded_only());
    }
    if !context.selection.is_active() {
        return Ok(());
    }
    let [first, ..] = streams else { return Ok(()) };
    let (endpoint, keys) = (first.link.endpoint().clone(), first.keys.clone());
    if context.layout.ids_per_message > 1 {
        return Err(BrokerError::Misconfigured {
            problem: format!("{}: the members of this queue are tracked", keys.stream),
            fix: "leave out --ids-per-message",
        }
        .into());
    }
    let is_spread = settings.partitions.is_some();
    let other_keys = Keys::new(&context.target, (!is_spread).then_some(0));
    let own = with_retry!(first, spread_over(&endpoint, &keys))?;
    let other = with_retry!(first, spread_over(&endpoint, &other_keys))?;
    let own = own.filter(|count| *count != streams.len());
    let is_baseline = (context.selection.membership)
        .is_some_and(|membership| membership.publish == Publish::Nothing);
    for (was_spread, count) in [(is_spread, own), (!is_spread, other)] {
        let Some(count) = count else { continue };
        let partitions = was_spread.then_some(count);
        if !is_baseline {
            return Err(other_partitions(&keys, partitions).into());
        }
        forget_layout(context, streams, partitions).await?;
    }
    for stream in streams {
        stream.select(&context.selection);
    }
    Ok(())
}

/// Checks that what is known of a queue fits a selection, as a run would find.
///
/// # Errors
///
/// The error that a run would end with.
pub(super) async fn check_selection(
    endpoint: &Endpoint,
    partitions: Option<u32>,
    target: &Target,
    selection: &Selection,
) -> Result<(), Failure> {
    let is_baseline = (selection.membership).is_some_and(|it| it.publish == Publish::Nothing);
    if !selection.is_active() || is_baseline {
        return Ok(());
    }
    let streams = partitions.map_or(1, |count| usize::try_from(count).unwrap_or(1));
    let first = Keys::new(target, partitions.map(|_| 0));
    let other = Keys::new(target, partitions.is_none().then_some(0));
    let own = spread_over(endpoint, &first).await?;
    let other = spread_over(endpoint, &other).await?;
    if let Some(count) = own.filter(|count| *count != streams) {
        return Err(other_partitions(&first, partitions.map(|_| count)).into());
    }
    if let Some(count) = other {
        return Err(other_partitions(&first, partitions.is_none().then_some(count)).into());
    }
    if selection
        .membership
        .is_none_or(|it| it.publish != Publish::New)
    {
        return Ok(());
    }
    for index in 0..streams {
        let partition = partitions.and_then(|_| u32::try_from(index).ok());
        let keys = Keys::new(target, partition);
        if !is_comparable(endpoint, &keys).await? {
            return Err(members_lost(&keys).into());
        }
    }
    Ok(())
}

/// Whether a list can be compared with the set of members: it is the one that is noted, or there
/// was none yet. The start script decides in the same way.
async fn is_comparable(endpoint: &Endpoint, keys: &Keys) -> Result<bool, Failure> {
    let mut link = Link::new(endpoint.clone(), keys.note.clone());
    let (noted, found): (Vec<Option<String>>, Option<String>) = redis::pipe()
        .cmd("HMGET")
        .arg(&keys.note)
        .arg(&["set", "building"])
        .cmd("HGET")
        .arg(&keys.members)
        .arg(":")
        .query_async(link.connection().await?)
        .await?;
    let is_first_use = noted.iter().all(Option::is_none);
    Ok(is_first_use || (found.is_some() && noted.first() == Some(&found)))
}

/// Returns the number of streams that the members or the times of publication were spread over, as
/// noted beside one of them, which may be on another server of a cluster.
async fn spread_over(endpoint: &Endpoint, keys: &Keys) -> Result<Option<usize>, Failure> {
    let mut link = Link::new(endpoint.clone(), keys.note.clone());
    let members: Option<usize> = redis::cmd("HGET")
        .arg(&keys.note)
        .arg("partitions")
        .query_async(link.connection().await?)
        .await?;
    let stored = load(&mut link, keys).await?;
    Ok(members.or(stored.selection.published_over))
}

/// Deletes what is known of a queue that had another number of streams.
async fn forget_layout(
    context: &SessionContext,
    streams: &mut [Stream],
    partitions: Option<usize>,
) -> Result<(), SessionError> {
    let partitions: Vec<Option<u32>> = match partitions {
        None => vec![None],
        Some(count) => (0..u32::try_from(count).unwrap_or(0)).map(Some).collect(),
    };
    for partition in partitions {
        let keys = Keys::new(&context.target, partition);
        let Some(first) = streams.first_mut() else {
            return Ok(());
        };
        let endpoint = first.link.endpoint().clone();
        with_retry!(first, forget(&endpoint, &keys))?;
    }
    Ok(())
}

async fn forget(endpoint: &Endpoint, keys: &Keys) -> Result<(), Failure> {
    let mut link = Link::new(endpoint.clone(), keys.note.clone());
    redis::pipe()
        .cmd("UNLINK")
        .arg(&[&keys.members, &keys.note])
        .cmd("HDEL")
        .arg(&keys.checkpoint)
        .arg("published_over")
        .exec_async(link.connection().await?)
        .await?;
    Ok(())
}

fn other_partitions(keys: &Keys, known: Option<usize>) -> BrokerError {
    let known = match known {
        Some(count) => format!("--partitions {count}"),
        None => "no --partitions".to_owned(),
    };
    BrokerError::Misconfigured {
        problem: format!(
            "{}: what is known of its chats was recorded with {known}",
            keys.stream
        ),
        fix: "use that setting again, or record the list anew with --baseline",
    }
}
