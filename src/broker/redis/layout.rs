//! The streams that what is known of a queue is spread over. Another number of them is an error: a
//! chat would be looked up where it is not.

use super::RedisSettings;
use super::connect::Endpoint;
use super::keys::Keys;
use super::link::{Link, StoredState};
use super::members::{load_set, members_lost};
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
        context.selection.membership =
            Some(Membership::recorded_only(context.selection.max_change));
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
    let own = with_retry!(first, load_spread(&endpoint, &keys))?;
    let other = with_retry!(first, load_spread(&endpoint, &other_keys))?;
    let layouts = Layouts {
        is_spread,
        streams: streams.len(),
    };
    let has_times = context.selection.suppress_for.is_some();
    let mismatches = layouts.mismatches(own, other, has_times);
    let is_baseline = (context.selection.membership)
        .is_some_and(|membership| membership.publish == Publish::Nothing);
    if let Some(partitions) = mismatches.first()
        && !is_baseline
    {
        return Err(other_partitions(&keys, *partitions).into());
    }
    for partitions in mismatches {
        delete_layout(context, streams, partitions).await?;
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
    let own = load_spread(endpoint, &first).await?;
    let other = load_spread(endpoint, &other).await?;
    let layouts = Layouts {
        is_spread: partitions.is_some(),
        streams,
    };
    let has_times = selection.suppress_for.is_some();
    if let Some(partitions) = layouts.mismatches(own, other, has_times).first() {
        return Err(other_partitions(&first, *partitions).into());
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

/// Whether a list can be compared with the set of members. The start script decides in the same way.
async fn is_comparable(endpoint: &Endpoint, keys: &Keys) -> Result<bool, Failure> {
    let mut link = Link::new(endpoint.clone(), keys.note.clone());
    let noted = load_set(&mut link, keys).await?;
    Ok(noted.is_first_use() || noted.usable(true).is_some())
}

/// Number of streams that what is known was spread over, as noted beside one of them.
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    /// The members of the label, or the times of publication of its runs.
    label: Option<usize>,
    /// The times of publication of all labels of the queue.
    queue: Option<usize>,
}

/// The streams of a queue now: whether it has partitions, and their number.
#[derive(Clone, Copy, Debug)]
struct Layouts {
    is_spread: bool,
    streams: usize,
}

impl Layouts {
    /// Returns the other numbers of partitions that what is known was spread over; `None` is a
    /// queue without partitions. `own` is noted beside the first stream, and `other` beside the
    /// first one of a queue with partitions if this one has none, or the other way round.
    fn mismatches(self, own: Spread, other: Spread, has_times: bool) -> Vec<Option<usize>> {
        // What other labels have published concerns a label that has no note of its own.
        let is_new_label = own.label.is_none() && other.label.is_none();
        let counts = |spread: Spread| match is_new_label && has_times {
            true => spread.queue,
            false => spread.label,
        };
        let own = counts(own).filter(|count| *count != self.streams);
        let own = own.map(|count| self.is_spread.then_some(count));
        let other = counts(other).map(|count| (!self.is_spread).then_some(count));
        own.into_iter().chain(other).collect()
    }
}

/// Loads what is noted beside a stream, which may be on another server of a cluster.
async fn load_spread(endpoint: &Endpoint, keys: &Keys) -> Result<Spread, Failure> {
    let mut link = Link::new(endpoint.clone(), keys.note.clone());
    let (members, published, queue): (Option<usize>, Option<usize>, Option<usize>) = redis::pipe()
        .cmd("HGET")
        .arg(&keys.note)
        .arg("partitions")
        .cmd("HGET")
        .arg(&keys.checkpoint)
        .arg("published_over")
        .cmd("HGET")
        .arg(&keys.published)
        .arg(":streams")
        .query_async(link.connection().await?)
        .await?;
    Ok(Spread {
        label: members.or(published),
        queue,
    })
}

/// Deletes what is known of a queue that had another number of streams.
async fn delete_layout(
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
        with_retry!(first, delete_state(&endpoint, &keys))?;
    }
    Ok(())
}

async fn delete_state(endpoint: &Endpoint, keys: &Keys) -> Result<(), Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_spread_in_another_way_is_found() {
        let spread = |label: usize, queue: usize| Spread {
            label: (label > 0).then_some(label),
            queue: (queue > 0).then_some(queue),
        };
        let with = |is_spread, streams| Layouts { is_spread, streams };
        for (layouts, own, other, has_times, expected) in [
            (with(false, 1), spread(0, 0), spread(0, 0), true, vec![]),
            (with(false, 1), spread(1, 1), spread(0, 0), true, vec![]),
            (
                with(false, 1),
                spread(0, 0),
                spread(3, 0),
                false,
                vec![Some(3)],
            ),
            (with(true, 3), spread(3, 3), spread(0, 0), true, vec![]),
            (
                with(true, 3),
                spread(2, 0),
                spread(0, 0),
                true,
                vec![Some(2)],
            ),
            (with(true, 3), spread(0, 0), spread(1, 1), true, vec![None]),
            (
                with(true, 3),
                spread(2, 0),
                spread(1, 0),
                true,
                vec![Some(2), None],
            ),
            // Another label has published to the queue.
            (with(true, 3), spread(0, 0), spread(0, 1), true, vec![None]),
            (
                with(true, 3),
                spread(0, 2),
                spread(0, 0),
                true,
                vec![Some(2)],
            ),
            (with(true, 3), spread(0, 2), spread(0, 1), false, vec![]),
            (with(true, 3), spread(3, 2), spread(0, 1), true, vec![]),
        ] {
            let found = layouts.mismatches(own, other, has_times);
            assert_eq!(found, expected, "{layouts:?} {own:?} {other:?} {has_times}");
        }
    }
}
