//! The page as a whole.

use std::fmt::Write as _;
use std::time::SystemTime;

use super::assets;
use super::fragments::Fragments;
use super::text::{Moment, Rough, millis, rfc3339};

/// Renders the page. The fragments are rendered before, once for all requests.
pub(super) fn page(fragments: &Fragments, at: SystemTime, now: SystemTime) -> String {
    filled(include_str!("assets/page.html"), |name, page| {
        let _ = match name {
            "version" => write!(page, "{}", fragments.version),
            "build" => write!(page, "{}", assets::build()),
            "now" => write!(page, "{}", millis(now)),
            "at" => write!(page, "{}", rfc3339(at)),
            "age" => {
                let age = now.duration_since(at).unwrap_or_default();
                write!(page, "{} ago", Rough(age))
            }
            "loaded" => write!(page, "{}", Moment(now)),
            part => push(fragments, part, page),
        };
    })
}

fn push(fragments: &Fragments, part: &str, page: &mut String) -> std::fmt::Result {
    if let Some(part) = fragments.parts.get(part) {
        page.push_str(part);
    }
    for row in fragments.tables.get(part).into_iter().flatten() {
        page.push_str(&row.html);
    }
    Ok(())
}

/// Replaces each `{{name}}` of a template.
pub(super) fn filled(template: &str, push: impl Fn(&str, &mut String)) -> String {
    let mut page = String::new();
    let mut pieces = template.split("{{");
    page.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (name, text) = piece.split_once("}}").unwrap_or((piece, ""));
        push(name, &mut page);
        page.push_str(text);
    }
    page
}
