//! The rows of the tables.

use std::time::SystemTime;

use super::charts::{Trend, bar};
use super::fragments::Row;
use super::text::{Escaped, Known, Moment, Number, Took, is_invisible, rfc3339};
use crate::chart::Color;
use crate::live::overview::{EnrichedView, LabelView, LastRun, RunStatus};

/// Labels that are named beside a queue that many share.
const MAX_NAMES: usize = 3;

/// Returns the name of a label, or its id where it has no visible name.
pub(super) fn name(label: &LabelView) -> String {
    let name = label.label_name.as_deref();
    let name = name.filter(|name| !is_invisible(name));
    // Names may have any writing direction.
    format!("<bdi>{}</bdi>", Escaped(name.unwrap_or(&label.label_id)))
}

/// A label with its bar, its number and its trend.
pub(super) fn chats(label: &LabelView, end: u64) -> Row {
    let bar = bar(
        label.chats.unwrap_or(0),
        end,
        Color::parse(label.color_hex.as_deref()),
    );
    let mark = match label {
        LabelView {
            is_deleted: true, ..
        } => "<span class=\"mark warning\">deleted</span>",
        LabelView {
            is_exact: false, ..
        } => "<span class=\"mark note\">not exact</span>",
        _ => "",
    };
    let counted = label
        .counted_at
        .map_or_else(String::new, |at| format!("<small>{}</small>", Moment(at)));
    let (change, trend) = match Trend::of(label) {
        Some(trend) => (
            format!(
                "<small>{}<span> in {}</span></small>",
                trend.change(),
                trend.span()
            ),
            trend.svg(),
        ),
        None => (
            "<small></small>".to_owned(),
            "<span class=\"unknown\">no trend yet</span>".to_owned(),
        ),
    };
    row(
        &label.label_id,
        &format!(
            "<th scope=\"row\"><div class=\"label\"><span class=\"name\">{}{mark}</span>{bar}</div></th>\
             <td class=\"number\">{}{change}</td><td class=\"history\">{trend}{counted}</td>",
            name(label),
            Known(label.chats),
        ),
    )
}

/// A queue, with the labels that use it.
pub(super) fn queue(queue: &str, labels: &[&LabelView]) -> Row {
    let names: Vec<String> = labels
        .iter()
        .take(MAX_NAMES)
        .map(|label| name(label))
        .collect();
    let more = match labels.len().saturating_sub(MAX_NAMES) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let first = labels.first();
    row(
        queue,
        &format!(
            "<th scope=\"row\"><bdi class=\"queue\">{}</bdi><small>{}{more}</small></th>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td>",
            Escaped(queue),
            names.join(", "),
            Known(first.and_then(|label| label.messages)),
            Known(first.and_then(|label| label.lag)),
        ),
    )
}

/// What is enriched from a queue.
pub(super) fn enriched(enriched: &EnrichedView) -> Row {
    let EnrichedView { queue, totals } = enriched;
    row(
        queue,
        &format!(
            "<th scope=\"row\"><bdi class=\"queue\">{}</bdi></th><td class=\"number\">{}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td>",
            Escaped(queue),
            Number(totals.records()),
            Number(totals.missing),
            Number(totals.failed + totals.unusable),
        ),
    )
}

/// The last run of a label. Narrow screens show the status below the name, and not in its column.
pub(super) fn run(label: &LabelView, run: &LastRun) -> Row {
    let severity = match run.status {
        RunStatus::Complete => "good",
        RunStatus::Partial => "warning",
        RunStatus::Failed | RunStatus::Guarded => "error",
    };
    let status = format!(
        "<span class=\"mark {severity}\">{}</span>",
        run.status.name()
    );
    let error = run.error.as_deref().map_or_else(String::new, |error| {
        format!(
            "<small class=\"reason\"><bdi>{}</bdi></small>",
            Escaped(error)
        )
    });
    row(
        &label.label_id,
        &format!(
            "<th scope=\"row\"><span class=\"name\">{}</span><div class=\"narrow\">{status}</div>{error}</th>\
             <td class=\"status\">{status}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td>\
             <td class=\"time\">{}<small>took {}</small></td>",
            name(label),
            Number(run.chats),
            Number(run.published),
            Moment(run.finished_at),
            Took(run.elapsed),
        ),
    )
}

/// The events of one minute.
pub(super) fn minute(at: SystemTime, events: u64) -> Row {
    let clock = &rfc3339(at)[11..16];
    let events = Number(events);
    row(
        clock,
        &format!("<th scope=\"row\">{clock}</th><td class=\"number\">{events}</td>"),
    )
}

fn row(key: &str, cells: &str) -> Row {
    Row {
        key: key.to_owned(),
        html: format!("<tr data-key=\"{}\">{cells}</tr>", Escaped(key)),
    }
}
