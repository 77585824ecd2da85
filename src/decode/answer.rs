//! JSON errors under status 200, or in the body of another status.
//!
//! Forms that occur: `{"status":401,"message":…,"error":…}`, `{"code":"invalid_session",
//! "message":…}`, `{"success":false,…}`, `{"result":false}`, WordPress's `{"code":…,"message":…,
//! "data":{"status":404}}` and WAHA's `{"statusCode":500,"exception":{…}}`.

use std::fmt;

use super::members::Kind;
use super::paging::Scalar;
use super::words::{is_failure, is_success};

/// The API's statements about the request, beside a list or instead of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// `success`, `result` or `ok`. Once false, it stays false. The fields below keep the worst
    /// value, because a member may occur again under another name or within `data`.
    pub success: Option<bool>,
    /// `code`.
    pub code: Option<String>,
    /// `status` or `statusCode`.
    pub status: Option<String>,
    /// `message`.
    pub message: Option<String>,
    /// `error`, `errors` or `exception`.
    pub error: Option<String>,
    /// The first few other members that are not known to be harmless, statements first.
    pub doubts: Vec<Doubt>,
    /// Whether any member is not known to be harmless.
    pub is_doubtful: bool,
    /// Whether the session is starting.
    pub is_starting: bool,
    /// Whether a member `expected` names the state that the session should be in. So the session is
    /// not ready, whatever its state.
    pub names_expected_state: bool,
    /// Whether the body is a page for people: of a proxy, or of a server of something else.
    pub is_page: bool,
}

/// The maximum number of doubts that are quoted.
const MAX_DOUBTS: usize = 4;

/// A member that makes an empty list beside it untrustworthy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The path of the member, as in `meta.error`.
    pub path: String,
    /// The value, as text.
    pub value: String,
    /// Whether the member is human-readable text or a yes or no. Such a member is an answer even
    /// without a list.
    pub is_statement: bool,
}

impl Doubt {
    /// Returns whether the member is human-readable text, wherever it stands.
    pub(super) fn is_prose(&self) -> bool {
        let name = self.path.rsplit('.').next().unwrap_or_default();
        matches!(Kind::of(name), Kind::Message | Kind::Prose)
    }
}

impl Answer {
    /// The text that is kept for an array or an object that is not empty.
    pub(crate) const NESTED: &'static str = "(an object or array)";

    /// Records a member right beside the list.
    pub(super) fn note(&mut self, kind: Kind, value: Scalar<'_>) {
        match kind {
            Kind::Success => self.note_success(value),
            Kind::Code => keep_worst(&mut self.code, value),
            Kind::Status => keep_worst(&mut self.status, value),
            Kind::Message => {
                if let Some(text) = text_of(value)
                    && self.message.as_deref().is_none_or(is_success)
                {
                    self.message = Some(text);
                }
            }
            Kind::Error => self.note_error(value),
            _ => {}
        }
    }

    fn note_success(&mut self, value: Scalar<'_>) {
        match value {
            Scalar::Nothing => {}
            Scalar::Bool(false) => self.success = Some(false),
            Scalar::Number(_, 0.0) => self.success = Some(false),
            Scalar::Bool(true) => drop(self.success.get_or_insert(true)),
            Scalar::Number(..) | Scalar::Text(_) => keep_worst(&mut self.status, value),
        }
    }

    /// Records an error, unless the value says that there is none.
    fn note_error(&mut self, value: Scalar<'_>) {
        let says_none = match value {
            Scalar::Nothing | Scalar::Bool(false) => true,
            Scalar::Number(_, number) => number == 0.0,
            Scalar::Bool(true) => false,
            Scalar::Text(text) => is_success(text),
        };
        if !says_none
            && self
                .error
                .as_deref()
                .is_none_or(|error| error == Self::NESTED)
        {
            self.error = text_of(value);
        }
    }

    /// Records a text within an error object. A human-readable text takes precedence over other
    /// texts.
    pub(super) fn note_text_of_error(&mut self, text: &str, is_prose: bool) {
        if is_prose
            || self
                .error
                .as_deref()
                .is_none_or(|error| error == Self::NESTED)
        {
            self.error = Some(text.to_owned());
        }
    }

    /// Records a member that is not known to be harmless.
    pub(super) fn note_doubt(&mut self, doubt: Doubt) {
        self.is_doubtful = true;
        if self.doubts.len() == MAX_DOUBTS && doubt.is_statement {
            self.doubts.pop_if(|last| !last.is_statement);
        }
        if self.doubts.len() < MAX_DOUBTS {
            let statements = self.doubts.iter().take_while(|known| known.is_statement);
            let at = match doubt.is_statement {
                true => statements.count(),
                false => self.doubts.len(),
            };
            self.doubts.insert(at, doubt);
        }
    }

    /// Records an error that is an object or an array.
    pub(super) fn note_nested_error(&mut self) {
        self.error.get_or_insert_with(|| Self::NESTED.to_owned());
    }

    /// Returns whether this reports an error, regardless of any list beside it.
    pub fn is_error(&self) -> bool {
        let fails = |text: &Option<String>| text.as_deref().map(meaning) == Some(Meaning::Failure);
        self.success == Some(false)
            || self.error.is_some()
            || fails(&self.code)
            || fails(&self.status)
    }

    /// Returns whether this is an answer instead of a list: an error, an unknown code, or a text
    /// that is not clearly a success.
    pub fn replaces_list(&self) -> bool {
        self.is_error()
            || self.code.as_deref().map(meaning) == Some(Meaning::Unknown)
            || self
                .message
                .as_deref()
                .is_some_and(|text| !is_success(text))
            || self.doubts.iter().any(|doubt| doubt.is_statement)
    }
}

/// The meaning of a code or a status, in ascending order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    Success,
    Unknown,
    Failure,
}

fn meaning(text: &str) -> Meaning {
    match leading_number(text) {
        Some(400..=599) => Meaning::Failure,
        Some(..400) => Meaning::Success,
        None if text.is_empty() || is_success(text) => Meaning::Success,
        None if is_failure(text) => Meaning::Failure,
        _ => Meaning::Unknown,
    }
}

fn keep_worst(slot: &mut Option<String>, value: Scalar<'_>) {
    let Some(new) = text_of(value) else { return };
    if slot.as_ref().is_none_or(|old| meaning(&new) > meaning(old)) {
        *slot = Some(new);
    }
}

/// Returns the number that a text starts with, as in `404 Not Found`.
fn leading_number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

pub(super) fn text_of(value: Scalar<'_>) -> Option<String> {
    match value {
        Scalar::Nothing => None,
        Scalar::Bool(flag) => Some(flag.to_string()),
        Scalar::Number(text, _) | Scalar::Text(text) => Some(text.to_owned()),
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = [
            ("code", &self.code),
            ("status", &self.status),
            ("message", &self.message),
            ("error", &self.error),
        ];
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let states_reason = self
            .message
            .as_deref()
            .is_some_and(|text| !is_success(text))
            || self
                .error
                .as_deref()
                .is_some_and(|text| text != Self::NESTED);
        let doubts = self.doubts.iter();
        let doubts =
            doubts.filter(|doubt| doubt.is_statement || doubt.is_prose() || !states_reason);
        let mut separator = "";
        for (name, value) in fields.chain(doubts.map(|doubt| (doubt.path.as_str(), &doubt.value))) {
            write!(f, "{separator}{name} “{value}”")?;
            separator = ", ";
        }
        match self.success {
            Some(success) if separator.is_empty() => write!(f, "success {success}"),
            None if separator.is_empty() => f.write_str("no code and no message"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(members: &[(Kind, &str)]) -> Answer {
        let mut answer = Answer::default();
        for (kind, text) in members {
            answer.note(*kind, Scalar::of_text(text));
        }
        answer
    }

    #[test]
    fn a_false_success_flag_stays_false() {
        let twice = [(Kind::Success, "False"), (Kind::Success, "true")];
        assert_eq!(answer(&twice).success, Some(false));
        assert_eq!(answer(&[(Kind::Success, "null")]).success, None);
    }

    #[test]
    fn failing_codes_statuses_and_flags_are_errors() {
        for members in [
            &[(Kind::Success, "false")][..],
            &[(Kind::Success, "error")],
            &[(Kind::Success, "404 Not Found")],
            &[(Kind::Code, "invalid_session")],
            &[(Kind::Code, "404")],
            &[(Kind::Status, "401")],
            &[(Kind::Status, "401 Unauthorized")],
            &[(Kind::Success, "true"), (Kind::Code, "invalid_session")],
            &[(Kind::Success, "true"), (Kind::Status, "500")],
            &[(Kind::Status, "error"), (Kind::Status, "200")],
            &[(Kind::Error, "dropped")],
        ] {
            assert!(answer(members).is_error(), "{members:?}");
        }
        for members in [
            &[][..],
            &[(Kind::Code, "unheard_of")],
            &[(Kind::Code, "20000"), (Kind::Status, "1000")],
            &[(Kind::Code, "200"), (Kind::Status, "200")],
            &[(Kind::Code, "OK"), (Kind::Status, "success")],
            &[
                (Kind::Error, "false"),
                (Kind::Error, "0"),
                (Kind::Error, ""),
            ],
        ] {
            assert!(!answer(members).is_error(), "{members:?}");
        }
    }
}
