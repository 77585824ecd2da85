//! The places where members beside a list can stand, and the meaning of their values there.

use super::members::Kind;
use super::paging::{PagingMember, Scalar};
use super::words::{indicates_problem, is_other_state, is_success};

/// The place of a member. It decides what the member can mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Right beside the list, or within `data`.
    Top,
    /// Within `meta` and similar members.
    Meta,
    /// Within `links`, `pagination` and similar members: only about pages.
    Paging,
    /// Within the link to the next page.
    NextPage,
    /// Within a total of entries.
    Total,
    /// Within `session`, `me` and similar members: their names and texts say nothing about the
    /// list.
    Technical,
    /// Within an error right beside the list.
    Error,
    /// Within another human-readable member.
    Prose,
    /// Within anything else.
    Nested,
}

impl Place {
    /// Returns the place of the members of an object or array that stands here.
    pub(super) fn within(self, kind: Kind) -> Self {
        match (kind, self) {
            (_, Self::Error | Self::NextPage | Self::Prose) => self,
            (Kind::Error, Self::Top) => Self::Error,
            (Kind::Message | Kind::Prose | Kind::Failure, Self::Top) => Self::Prose,
            (Kind::Paging(PagingMember::Next), Self::Top | Self::Meta | Self::Paging) => {
                Self::NextPage
            }
            (Kind::Paging(PagingMember::Total), Self::Top | Self::Meta | Self::Paging)
            | (_, Self::Total) => Self::Total,
            (Kind::Paging(_), Self::Top | Self::Meta | Self::Nested) | (_, Self::Paging) => {
                Self::Paging
            }
            (Kind::Meta, Self::Top | Self::Meta) => Self::Meta,
            (Kind::Technical | Kind::Identity | Kind::Name, _) | (_, Self::Technical) => {
                Self::Technical
            }
            _ => Self::Nested,
        }
    }
}

/// Returns whether a value beside an empty list is known to be harmless.
pub(super) fn is_harmless(kind: Kind, place: Place, value: Scalar<'_>) -> bool {
    match (kind, value) {
        (_, Scalar::Nothing) => true,
        (Kind::Success, Scalar::Number(_, number)) => number > 0.0 && number < 400.0,
        (Kind::Health, Scalar::Number(_, number)) => number == 1.0,
        (Kind::Code | Kind::Status | Kind::State, Scalar::Number(_, number)) => {
            number == 0.0 || number == 200.0
        }
        (Kind::Error | Kind::Failure, Scalar::Bool(flag)) => !flag,
        (
            Kind::Success | Kind::Health | Kind::Status | Kind::State | Kind::Code,
            Scalar::Bool(flag),
        ) => flag,
        (_, Scalar::Number(_, 0.0)) => true,
        (_, Scalar::Text(text)) if is_success(text) => true,
        (Kind::Neutral, value) => matches!(value, Scalar::Bool(_)),
        (Kind::Name, value) => value != Scalar::Bool(false),
        (Kind::Technical | Kind::Identity, Scalar::Text(text)) => {
            !indicates_problem(text)
                && !is_other_state(text)
                && !text.eq_ignore_ascii_case("starting")
        }
        (Kind::Technical | Kind::Identity, value) => value != Scalar::Bool(false),
        (Kind::Paging(member), value)
            if matches!(place, Place::Top | Place::Meta | Place::Paging) =>
        {
            match value {
                Scalar::Text(text) => !member.is_number() && !text.contains(char::is_whitespace),
                _ => true,
            }
        }
        (Kind::Unknown | Kind::Meta | Kind::Paging(_), Scalar::Text(text)) => match place {
            Place::Technical => !indicates_problem(text),
            Place::Paging => !text.contains(char::is_whitespace),
            _ => false,
        },
        (Kind::Unknown | Kind::Meta | Kind::Paging(_), _) => {
            matches!(place, Place::Technical | Place::Paging)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn harmless(name: &str, place: Place, text: &str) -> bool {
        is_harmless(Kind::of(name), place, Scalar::of_text(text))
    }

    #[test]
    fn only_known_values_are_harmless() {
        for (name, place, text) in [
            ("success", Place::Top, "true"),
            ("connected", Place::Top, "1"),
            ("code", Place::Top, "200"),
            ("message", Place::Top, "OK"),
            ("expired", Place::Top, "false"),
            ("requestId", Place::Top, "a1"),
            ("session", Place::Top, "my session"),
            ("limit", Place::Top, "100"),
            ("last", Place::Top, "/chats?page=1"),
            ("unheard_of", Place::Top, "0"),
            ("unheard_of", Place::Technical, "GOWS"),
            ("size", Place::Paging, "20"),
        ] {
            assert!(harmless(name, place, text), "{name}: {text}");
        }
        for (name, place, text) in [
            ("success", Place::Top, "pending"),
            ("connected", Place::Top, "0"),
            ("code", Place::Top, "202"),
            ("message", Place::Top, "Device is offline"),
            ("expired", Place::Top, "true"),
            ("requestId", Place::Top, "Session not found"),
            ("session", Place::Top, "STOPPED"),
            ("session", Place::Top, "false"),
            ("limit", Place::Top, "exceeded"),
            ("last", Place::Top, "scan the code"),
            ("unheard_of", Place::Top, "7"),
            ("unheard_of", Place::Top, "true"),
            ("unheard_of", Place::Technical, "disconnected"),
            ("note", Place::Paging, "session stopped"),
        ] {
            assert!(!harmless(name, place, text), "{name}: {text}");
        }
    }
}
