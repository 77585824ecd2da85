//! The parts above the tables: what needs attention, totals, and events by minute.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

use super::attention::{Attention, Reason, Severity, attention};
use super::charts::{columns, round_up};
use super::rows::name;
use super::text::{Escaped, Known, Moment, Number};
use crate::live::overview::{LabelView, Overview};

/// Entries that are always visible. The others are behind a summary.
const VISIBLE: usize = 6;
/// The most entries of the list.
const MAX_LISTED: usize = 100;

/// What needs attention, as a list.
pub(super) fn attention_list(overview: &Overview, now: SystemTime) -> String {
    let all = attention(overview, now);
    if all.is_empty() {
        return "<p class=\"calm\">Nothing needs attention.</p>".to_owned();
    }
    let items: Vec<String> = all.iter().take(MAX_LISTED).map(item).collect();
    let (visible, hidden) = items.split_at(items.len().min(VISIBLE));
    let mut list = format!("<ul>{}</ul>", visible.concat());
    if !hidden.is_empty() {
        let more = all.len() - visible.len();
        let unlisted = match all.len() - items.len() {
            0 => String::new(),
            unlisted => format!("<p>{unlisted} are not listed.</p>"),
        };
        let hidden = hidden.concat();
        let _ = write!(
            list,
            "<details><summary>{more} more</summary><ul>{hidden}</ul>{unlisted}</details>"
        );
    }
    list
}

fn item(attention: &Attention<'_>) -> String {
    let (class, word) = match attention.reason.severity() {
        Severity::Error => ("error", "Error"),
        Severity::Warning => ("warning", "Warning"),
        Severity::Note => ("note", "Note"),
    };
    let label = attention.label.map_or_else(String::new, |label| {
        format!("<strong>{}</strong> ", name(label))
    });
    format!(
        "<li><span class=\"mark {class}\">{word}</span> <span>{label}{}</span></li>",
        text(&attention.reason)
    )
}

fn text(reason: &Reason<'_>) -> String {
    let because = |what: &str, error: Option<&str>| match error {
        Some(error) => format!("{what}: <bdi>{}</bdi>", Escaped(error)),
        None => what.to_owned(),
    };
    match reason {
        Reason::Unreadable(error) => because("The numbers below are not current", Some(error)),
        Reason::Failed(error) => because("The last run failed", *error),
        Reason::Guarded(error) => because("A guard stopped the last run", *error),
        Reason::Deleted => "The label was deleted in WhatsApp".to_owned(),
        Reason::Fell { from, to } => {
            format!(
                "The number of chats fell from {} to {}",
                Number(*from),
                Number(*to)
            )
        }
        Reason::Overdue(at) => format!("The last run is overdue. It ended {}", Moment(*at)),
        Reason::NotExact => "The number is not exact until the next whole list is read".to_owned(),
    }
}

/// Totals of all labels.
pub(super) fn numbers(overview: &Overview) -> String {
    let labels = overview.labels.iter().filter(|label| !label.is_deleted);
    let chats = labels.clone().map(|label| label.chats);
    // Several labels may share a queue.
    let queues: BTreeMap<&str, &LabelView> = labels
        .clone()
        .map(|label| (label.queue.as_str(), label))
        .collect();
    let minutes = overview.events_by_minute.len();
    let tile = |name: &str, number: Option<u64>| {
        format!("<div><dt>{name}</dt><dd>{}</dd></div>", Known(number))
    };
    [
        tile("Labels", u64::try_from(labels.count()).ok()),
        tile("Chats in labels", sum(chats)),
        tile(
            &format!("Events in {minutes} min"),
            Some(overview.events_by_minute.iter().sum()),
        ),
        tile(
            "Messages on queues",
            sum(queues.values().map(|it| it.messages)),
        ),
        tile(
            "Waiting for consumers",
            sum(queues.values().map(|it| it.lag)),
        ),
    ]
    .concat()
}

/// Adds numbers; `None` if none is known.
fn sum(numbers: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    numbers.flatten().reduce(u64::saturating_add)
}

/// Events of each minute, as columns. A table has the numbers.
pub(super) fn minutes(overview: &Overview) -> String {
    let events = &overview.events_by_minute;
    let Some(most) = events.iter().max() else {
        return "<p class=\"unknown\">No events are counted yet.</p>".to_owned();
    };
    let end = round_up(*most);
    let description = format!(
        "{} events in {} minutes, at most {} in one",
        Number(events.iter().sum()),
        events.len(),
        Number(*most)
    );
    let ago = events.len() - 1;
    format!(
        "<div class=\"plot\"><span class=\"end\">{}</span>{}<span class=\"from\">{ago} min ago</span>\
         <span class=\"to\">now</span></div><p>{description}.</p>",
        Number(end),
        columns(events, end, &description),
    )
}
