//! The list of an account's labels. It is read like a list of chats.

use struson::reader::{JsonReader, ValueType};

use super::envelope::Envelope;
use super::input::Input;
use super::list::{Candidate, Entries, read_body};
use super::members::Kind;
use super::paging::Paging;
use super::parse::{Parser, name, string, token, wrap};
use super::{DecodeError, Trust};

/// The maximum length of a label's id, name or colour, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// A label of the account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// The id, as in `--label`.
    pub id: String,
    /// The name, as set by the account's owner.
    pub name: Option<String>,
    /// The colour, as `#rrggbb`.
    pub color: Option<String>,
}

/// The labels in a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelList {
    /// The usable labels, in the order of the body.
    pub labels: Vec<Label>,
    /// Entries without an id.
    pub unusable: u64,
    /// Why this list is one page of several, if it is.
    pub page: Option<String>,
}

impl LabelList {
    /// Returns all labels.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Page`], if there may be more.
    pub fn whole(self) -> Result<Vec<Label>, DecodeError> {
        match self.page {
            Some(why) => Err(DecodeError::Page(why)),
            None => Ok(self.labels),
        }
    }

    /// Returns the label with this id, or `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// [`DecodeError::Page`], if it may be on another page.
    pub fn find(&self, id: &str) -> Result<Option<&Label>, DecodeError> {
        let found = self.labels.iter().find(|label| label.id == id);
        match (&self.page, found) {
            (Some(why), None) => Err(DecodeError::Page(why.clone())),
            (_, found) => Ok(found),
        }
    }
}

/// Reads the labels in a body. `paging` contains what its headers say about pages.
///
/// Labels that are marked as deleted are left out.
///
/// # Errors
///
/// Fails if the body is not a list of labels, or is an empty list that cannot be trusted.
pub fn labels(body: &[u8], paging: Paging) -> Result<LabelList, DecodeError> {
    let mut source = body;
    let on_stall = || Ok(());
    let mut input = Input::new(&mut source, &on_stall);
    let mut entries = LabelEntries::default();
    // A label that is found on one page of several exists, so the list is read in any case.
    let trust = Trust {
        ignore_paging: true,
        accept_empty: false,
    };
    let page = read_body(&mut input, &mut entries, trust, paging)?;
    if entries.list.unusable > 0 && entries.list.unusable == entries.count {
        return Err(DecodeError::Shape {
            at: 0,
            what: "no entry of the list has an id",
        });
    }
    Ok(LabelList {
        page,
        ..entries.list
    })
}

#[derive(Default)]
struct LabelEntries {
    list: LabelList,
    count: u64,
}

/// A label, and whether it is marked as deleted.
#[derive(Default)]
struct RawLabel {
    id: Option<String>,
    name: Option<String>,
    color: Option<String>,
    is_deleted: bool,
}

enum Member {
    Id,
    Name,
    Color,
    /// A flag or a time that marks a deleted label.
    Deleted,
    State,
    Other(Kind),
}

impl Member {
    fn of(name: &str) -> Self {
        const DELETED: [&str; 8] = [
            "deleted",
            "isDeleted",
            "is_deleted",
            "deletedAt",
            "deleted_at",
            "deletedOn",
            "removed",
            "isRemoved",
        ];
        match name {
            "id" => Self::Id,
            "name" => Self::Name,
            "colorHex" => Self::Color,
            "status" | "state" => Self::State,
            name if DELETED.iter().any(|known| name.eq_ignore_ascii_case(known)) => Self::Deleted,
            name => Self::Other(Kind::of(name)),
        }
    }
}

impl Entries for LabelEntries {
    type Held = (Label, bool);

    fn read(&mut self, parser: &mut Parser<'_, '_>) -> Result<bool, DecodeError> {
        let found = if wrap(parser, |p| p.peek())? == ValueType::Object {
            read_label(parser, |parser, _| wrap(parser, |p| p.skip_value()))?
        } else {
            wrap(parser, |p| p.skip_value())?;
            None
        };
        let is_valid = found.is_some();
        self.take(found).map(|()| is_valid)
    }

    fn read_maybe(
        &mut self,
        parser: &mut Parser<'_, '_>,
        kind: Kind,
        envelope: &mut Envelope,
    ) -> Result<Candidate<Self::Held>, DecodeError> {
        let found = read_label(parser, |parser, other| {
            envelope.read_within(parser, kind, other)
        })?;
        Ok(found.map_or(Candidate::Broken, Candidate::Entry))
    }

    fn take(&mut self, held: Option<Self::Held>) -> Result<(), DecodeError> {
        self.count += 1;
        match held {
            Some((label, false)) => self.list.labels.push(label),
            Some((_, true)) => {}
            None => self.list.unusable += 1,
        }
        Ok(())
    }

    fn count(&self) -> u64 {
        self.count
    }
}

/// Reads a label and whether it is marked as deleted. `other` reads members that are not part of a
/// label.
fn read_label(
    parser: &mut Parser<'_, '_>,
    mut other: impl FnMut(&mut Parser<'_, '_>, Kind) -> Result<(), DecodeError>,
) -> Result<Option<(Label, bool)>, DecodeError> {
    let mut raw = RawLabel::default();
    wrap(parser, |p| p.begin_object())?;
    while wrap(parser, |p| p.has_next())? {
        match name(parser, Member::of)? {
            Member::Id => raw.id = text(parser)?,
            Member::Name => raw.name = text(parser)?,
            Member::Color => raw.color = text(parser)?,
            Member::Deleted => {
                let mark = text(parser)?.unwrap_or_default().to_lowercase();
                raw.is_deleted |= !["", "0", "false", "no", "null"].contains(&mark.as_str());
            }
            Member::State => {
                let state = text(parser)?.unwrap_or_default();
                raw.is_deleted |= state.eq_ignore_ascii_case("deleted");
            }
            Member::Other(kind) => other(parser, kind)?,
        }
    }
    wrap(parser, |p| p.end_object())?;
    let RawLabel {
        id,
        name,
        color,
        is_deleted,
    } = raw;
    let id = id.filter(|id| !id.trim().is_empty());
    Ok(id.map(|id| (Label { id, name, color }, is_deleted)))
}

/// Reads a string, number or flag as text, since ids may be numbers. Skips anything else.
fn text(parser: &mut Parser<'_, '_>) -> Result<Option<String>, DecodeError> {
    match wrap(parser, |p| p.peek())? {
        ValueType::String => {
            let mut text = vec![0; MAX_TEXT_BYTES];
            let Some(length) = string(parser, &mut text)? else {
                return Ok(None);
            };
            text.truncate(length);
            Ok(String::from_utf8(text).ok())
        }
        ValueType::Number => token(parser, |p| p.next_number_as_string()).map(Some),
        ValueType::Boolean => wrap(parser, |p| p.next_bool()).map(|flag| Some(flag.to_string())),
        _ => wrap(parser, |p| p.skip_value()).map(|()| None),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<LabelList, DecodeError> {
        labels(body.as_bytes(), Paging::default())
    }

    fn ids(body: &str) -> Vec<String> {
        let list = read(body).unwrap();
        list.labels.into_iter().map(|label| label.id).collect()
    }

    #[test]
    fn labels_are_read_from_all_shapes_of_lists() {
        assert_eq!(ids(r#"[{"id":"1","name":"a"},{"id":22}]"#), ["1", "22"]);
        assert_eq!(ids(r#"{"0":{"id":"1"},"1":{"id":"2"}}"#), ["1", "2"]);
        assert_eq!(ids(r#"{"success":true,"data":[{"id":"1"}]}"#), ["1"]);
        assert_eq!(ids(r#"{"success":true,"0":{"id":"1"}}"#), ["1"]);
        assert_eq!(ids(r#"{"VIP":{"id":"1"},"new":{"id":"2"}}"#), ["1", "2"]);
        assert!(ids("[]").is_empty());
    }

    #[test]
    fn byte_order_marks_and_lone_surrogates_are_tolerated() {
        let half = "\u{feff}\n[{\"id\":\"1\",\"name\":\"hot \\ud83d\",\"color\":1e999}]";
        let list = read(half).unwrap();
        assert_eq!(list.labels[0].name.as_deref(), Some("hot \u{fffd}"));
    }

    #[test]
    fn unusable_labels_are_counted_and_skipped() {
        let list = read(r#"[{"id":"1"},{"name":"x"},{"id":null},{"id":" "},7]"#).unwrap();
        assert_eq!((list.labels.len(), list.unusable), (1, 4));
    }

    #[test]
    fn labels_marked_as_deleted_are_left_out() {
        let body = r#"[{"id":"1","deleted":true},{"id":"2","deleted":false},{"id":"3","deletedAt":null},
            {"id":"4","deletedAt":"2026-01-01"},{"id":"5","isDeleted":1},{"id":"6","status":"DELETED"}]"#;
        assert_eq!(ids(body), ["2", "3"]);
    }

    #[test]
    fn one_page_of_several_is_reported() {
        let list =
            read(r#"{"data":[{"id":"1"}],"meta":{"current_page":1,"last_page":3}}"#).unwrap();
        assert_eq!(list.page.as_deref(), Some("it is page 1 of 3"));
    }

    #[test]
    fn an_error_is_not_a_list_of_labels() {
        for body in [
            r#"{"code":"invalid_session","message":"Session not found."}"#,
            r#"{"message":"Unauthenticated."}"#,
        ] {
            let error = read(body).unwrap_err();
            assert!(matches!(error, DecodeError::Answered(_)), "{body}: {error}");
        }
        let error = read(r#"{"success":false,"data":[]}"#).unwrap_err();
        assert!(matches!(error, DecodeError::UntrustedEmpty(_)), "{error}");
        let error = read(r#"{"success":true,"labels":[{"id":"1"}]}"#).unwrap_err();
        assert!(matches!(error, DecodeError::Shape { .. }), "{error}");
        let error = read(r#"[{"name":"x"}]"#).unwrap_err();
        assert!(matches!(error, DecodeError::Shape { .. }), "{error}");
        assert!(matches!(
            read(r#"[{"id":"1"}"#),
            Err(DecodeError::Truncated { .. })
        ));
        assert!(matches!(read("<html>"), Err(DecodeError::NotAList(_))));
    }
}
