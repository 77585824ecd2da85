//! Server-sent events: the state at first, then what has changed.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::response::sse::Event;
use futures_util::stream::{self, Stream};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::api::LabelJson;
use super::assets;
use super::fragments::{Fragments, Row};
use super::text::{millis, rfc3339};
use crate::live::overview::Overview;

/// The least time between two events of a stream.
const INTERVAL: Duration = Duration::from_millis(250);

/// An overview and its HTML, which all requests and streams share.
pub(super) struct Snapshot {
    pub(super) overview: Arc<Overview>,
    pub(super) fragments: Fragments,
}

/// The newest snapshot. An overview is rendered once, when it is first asked for.
pub(super) struct Snapshots {
    overview: watch::Receiver<Arc<Overview>>,
    newest: Mutex<Option<Arc<Snapshot>>>,
}

impl Snapshots {
    pub(super) fn new(overview: watch::Receiver<Arc<Overview>>) -> Self {
        Self {
            overview,
            newest: Mutex::new(None),
        }
    }

    /// Returns the current snapshot.
    pub(super) fn current(&self) -> Arc<Snapshot> {
        let overview = Arc::clone(&self.overview.borrow());
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*newest {
            Some(snapshot) if Arc::ptr_eq(&snapshot.overview, &overview) => Arc::clone(snapshot),
            _ => {
                let fragments = Fragments::of(&overview, SystemTime::now());
                let snapshot = Arc::new(Snapshot {
                    overview,
                    fragments,
                });
                *newest = Some(Arc::clone(&snapshot));
                snapshot
            }
        }
    }
}

/// The data of one event.
#[derive(Serialize)]
struct Update<'a> {
    /// When the numbers were read.
    at: String,
    /// The labels whose numbers changed, as in `/api/labels`.
    labels: Vec<LabelJson<'a>>,
    /// The labels that are not followed any more.
    removed: Vec<&'a str>,
    /// What the page needs.
    page: PageUpdate<'a>,
}

#[derive(Serialize)]
struct PageUpdate<'a> {
    version: &'a str,
    build: &'a str,
    /// The server's clock, in milliseconds.
    now: u64,
    parts: BTreeMap<&'a str, &'a str>,
    tables: BTreeMap<&'a str, TableUpdate<'a>>,
}

#[derive(Serialize)]
struct TableUpdate<'a> {
    /// The rows that changed, by their keys.
    rows: BTreeMap<&'a str, &'a str>,
    /// The keys of all rows, if there are others or their order changed.
    order: Option<Vec<&'a str>>,
}

/// Returns the JSON that leads from one snapshot to another; all of it without an old one.
fn update(old: Option<&Snapshot>, new: &Snapshot) -> String {
    let (mut labels, mut removed) = (Vec::new(), Vec::new());
    let before = old.map_or(&[][..], |old| &old.overview.labels);
    let mut before: HashMap<&str, LabelJson<'_>> = before
        .iter()
        .map(|label| (label.label_id.as_str(), label.into()))
        .collect();
    for label in new.overview.labels.iter().map(LabelJson::from) {
        if before.remove(label.label_id).as_ref() != Some(&label) {
            labels.push(label);
        }
    }
    removed.extend(before.into_keys());
    removed.sort_unstable();
    let page = page_update(old.map(|old| &old.fragments), &new.fragments);
    let at = rfc3339(new.overview.at);
    serde_json::json!(Update {
        at,
        labels,
        removed,
        page
    })
    .to_string()
}

fn page_update<'a>(old: Option<&Fragments>, new: &'a Fragments) -> PageUpdate<'a> {
    let changed = |(id, html): &(&&'static str, &String)| {
        old.is_none_or(|old| old.parts.get(*id) != Some(*html))
    };
    let parts = new.parts.iter().filter(changed);
    let tables = new.tables.iter().filter_map(|(id, rows)| {
        let old = old.and_then(|old| old.tables.get(id));
        let update = table_update(old.map(Vec::as_slice), rows)?;
        Some((*id, update))
    });
    PageUpdate {
        version: &new.version,
        build: assets::build(),
        now: millis(SystemTime::now()),
        parts: parts.map(|(id, html)| (*id, html.as_str())).collect(),
        tables: tables.collect(),
    }
}

fn table_update<'a>(old: Option<&[Row]>, new: &'a [Row]) -> Option<TableUpdate<'a>> {
    let before: HashMap<&str, &str> = old
        .unwrap_or_default()
        .iter()
        .map(|row| (row.key.as_str(), row.html.as_str()))
        .collect();
    let rows: BTreeMap<&str, &str> = new
        .iter()
        .map(|row| (row.key.as_str(), row.html.as_str()))
        .filter(|(key, html)| before.get(key) != Some(html))
        .collect();
    let keys = |rows: &'a [Row]| rows.iter().map(|row| row.key.as_str());
    let is_same_order = old.is_some_and(|old| old.iter().map(|row| row.key.as_str()).eq(keys(new)));
    let order = (!is_same_order).then(|| keys(new).collect());
    (!rows.is_empty() || !is_same_order).then_some(TableUpdate { rows, order })
}

/// What one open stream holds.
struct Open {
    snapshots: Arc<Snapshots>,
    changes: watch::Receiver<Arc<Overview>>,
    stop: CancellationToken,
    sent: Option<Arc<Snapshot>>,
    next_at: Instant,
    _place: OwnedSemaphorePermit,
}

/// Returns the events of one stream. `known` is the version that a page already shows.
///
/// A slow reader holds nothing back: the next event leads from what it has to the newest state.
pub(super) fn events(
    snapshots: &Arc<Snapshots>,
    known: Option<&str>,
    stop: CancellationToken,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let mut changes = snapshots.overview.clone();
    changes.mark_changed();
    let current = snapshots.current();
    let is_known = known.is_some_and(|known| known == current.fragments.version);
    let open = Open {
        snapshots: Arc::clone(snapshots),
        changes,
        stop,
        sent: is_known.then_some(current),
        next_at: Instant::now(),
        _place: place,
    };
    stream::unfold(open, |mut open| async move {
        let event = open.next().await?;
        Some((Ok(event), open))
    })
}

impl Open {
    /// Waits for a change; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Event> {
        let changed = async {
            tokio::time::sleep_until(self.next_at).await;
            self.changes.changed().await
        };
        tokio::select! {
            () = self.stop.cancelled() => return None,
            changed = changed => changed.ok()?,
        }
        self.changes.mark_unchanged();
        let new = self.snapshots.current();
        let data = update(self.sent.as_deref(), &new);
        self.sent = Some(new);
        self.next_at = Instant::now() + INTERVAL;
        Some(Event::default().data(data))
    }
}

#[cfg(test)]
#[path = "updates/tests.rs"]
mod tests;
