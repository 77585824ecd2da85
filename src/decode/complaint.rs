//! The subject of a refusal, by its words: the contact, the session, or the address of the request.
//!
//! A contact is missing only if a text says so of the contact. "Not found" alone could also be the
//! answer to a wrong address, and then every contact would look missing.

use super::answer::Answer;

/// The subject of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Complaint {
    /// The contact, or something of it, does not exist.
    MissingContact,
    /// The session or the account does not exist or cannot be used.
    Session,
    /// The login is refused.
    Login,
    /// Too many requests.
    Rate,
    /// The server has no such endpoint.
    Route,
    /// Anything else.
    Other,
}

/// Phrases that say that something is missing. Apostrophes are left out.
const MISSING: [&[&str]; 16] = [
    &["not", "found"],
    &["not", "be", "found"],
    &["no", "longer", "exists"],
    &["not", "exist"],
    &["doesnt", "exist"],
    &["dont", "exist"],
    &["not", "registered"],
    &["isnt", "registered"],
    &["not", "on", "whatsapp"],
    &["not", "find"],
    &["couldnt", "find"],
    &["didnt", "find"],
    &["cannot", "find"],
    &["nonexistent"],
    &["unknown"],
    &["no", "such"],
];
/// Words for a contact and what belongs to it.
const CONTACT: [&str; 13] = [
    "avatar",
    "chat",
    "contact",
    "contacts",
    "jid",
    "lid",
    "number",
    "numbers",
    "phone",
    "photo",
    "picture",
    "recipient",
    "wid",
];
/// The mask of an id.
const MASK: &str = "***";
/// The number of digits from which a number may be an id.
const ID_DIGITS: usize = 7;
/// Words that may stand between the contact and the phrase.
const FILLERS: [&str; 29] = [
    "a", "an", "any", "are", "be", "been", "by", "could", "code", "does", "do", "for", "given",
    "has", "have", "id", "in", "is", "of", "on", "that", "the", "this", "to", "was", "were",
    "whatsapp", "with", "your",
];
const SESSION: [&str; 5] = ["instance", "instances", "session", "sessions", "sessionid"];
/// Words about a session that cannot be used.
const UNUSABLE: [&str; 15] = [
    "disconnected",
    "expected",
    "expired",
    "failed",
    "inactive",
    "invalid",
    "logged",
    "missing",
    "not",
    "offline",
    "required",
    "scan",
    "starting",
    "stopped",
    "unauthorized",
];
const ROUTE: [&str; 7] = [
    "endpoint", "page", "path", "resource", "route", "uri", "url",
];

impl Answer {
    /// Returns what this complains of.
    pub fn complaint(&self) -> Complaint {
        let texts = self.texts();
        let any = |says: fn(&[&str]) -> bool| {
            texts.iter().any(|words| {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                says(&words)
            })
        };
        let is_contact = any(says_contact_is_missing);
        if is_contact && !any(names_session) && !any(names_route) {
            return Complaint::MissingContact;
        }
        if !is_contact && any(says_session_is_unusable) {
            return Complaint::Session;
        }
        if any(says_route_is_missing) {
            return Complaint::Route;
        }
        match self.number() {
            Some(401 | 403) => Complaint::Login,
            Some(429) => Complaint::Rate,
            _ if any(|words| contains(words, &["unauthorized"])) => Complaint::Login,
            _ if any(|words| contains(words, &["too", "many", "requests"])) => Complaint::Rate,
            _ => Complaint::Other,
        }
    }

    /// Returns the words of each text.
    fn texts(&self) -> Vec<Vec<String>> {
        let members = [&self.code, &self.status, &self.message, &self.error];
        let doubts = self.doubts.iter();
        let doubts = doubts.filter(|doubt| doubt.is_statement || doubt.is_prose());
        let texts = members.into_iter().flatten();
        texts
            .chain(doubts.map(|doubt| &doubt.value))
            .map(|text| words(text))
            .collect()
    }

    /// Returns the status that this states as a number.
    fn number(&self) -> Option<u16> {
        [&self.status, &self.code]
            .into_iter()
            .flatten()
            .find_map(|text| text.split_whitespace().next()?.parse().ok())
    }
}

/// Returns the words of a text in lower case: `contactNotFound`, `contact_not_found` and
/// "Contact not found" are the same. A masked id, `***`, is a word.
///
/// The server of an id is left out.
fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let (mut was_lower, mut in_server) = (false, false);
    // Its hump is not the start of a word.
    for c in text.replace("WhatsApp", "whatsapp").chars() {
        let is_part = c.is_alphanumeric() || c == '*';
        in_server = c == '@' || (in_server && (is_part || c == '.'));
        if in_server {
            continue;
        }
        let is_hump = was_lower && c.is_uppercase();
        if (!is_part && !"'’".contains(c)) || is_hump {
            words.push(String::new());
        }
        if is_part && let Some(word) = words.last_mut() {
            word.extend(c.to_lowercase());
        }
        was_lower = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Returns the positions at which a phrase stands.
fn positions<'w>(words: &'w [&str], phrase: &'w [&str]) -> impl Iterator<Item = usize> + 'w {
    let windows = words.windows(phrase.len()).enumerate();
    windows.filter_map(move |(at, window)| (window == phrase).then_some(at))
}

fn contains(words: &[&str], phrase: &[&str]) -> bool {
    positions(words, phrase).next().is_some()
}

fn names(words: &[&str], known: &[&str]) -> bool {
    words.iter().any(|word| known.contains(word))
}

fn says_missing(words: &[&str]) -> bool {
    MISSING.iter().any(|phrase| contains(words, phrase))
}

/// Returns whether a text says of a contact that it is missing: "contact … not found", "no such
/// contact".
fn says_contact_is_missing(words: &[&str]) -> bool {
    let of_phrase = |phrase: &&[&str]| {
        positions(words, phrase).any(|at| {
            let before = is_contact(words[..at].iter().rev());
            let after = is_contact(words[at + phrase.len()..].iter());
            let looks_ahead = matches!(phrase, [.., "find" | "such" | "unknown" | "nonexistent"]);
            let (first, second) = if looks_ahead {
                (after, before)
            } else {
                (before, after)
            };
            first.or(second).unwrap_or(false)
        })
    };
    MISSING.iter().any(of_phrase)
        || ["contact", "lid"]
            .iter()
            .any(|contact| contains(words, &["no", contact]))
}

/// Returns whether the first noun is a contact. An id counts only if no noun says what it is of.
fn is_contact<'w>(words: impl Iterator<Item = &'w &'w str>) -> Option<bool> {
    let mut has_id = false;
    for word in words {
        if CONTACT.contains(word) {
            return Some(true);
        }
        let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
        let is_id = *word == MASK || (is_number && word.len() >= ID_DIGITS);
        if !is_id && !is_number && !FILLERS.contains(word) {
            return Some(false);
        }
        has_id |= is_id;
    }
    has_id.then_some(true)
}

fn names_session(words: &[&str]) -> bool {
    names(words, &SESSION)
}

fn says_session_is_unusable(words: &[&str]) -> bool {
    names_session(words) && (says_missing(words) || names(words, &UNUSABLE))
}

fn names_route(words: &[&str]) -> bool {
    names(words, &ROUTE) || contains(words, &["cannot", "get"])
}

fn says_route_is_missing(words: &[&str]) -> bool {
    contains(words, &["cannot", "get"])
        || contains(words, &["no", "route"])
        || (names(words, &["route", "endpoint"]) && says_missing(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::refusal;

    #[track_caller]
    fn check(expected: Complaint, bodies: &[&str]) {
        for body in bodies {
            assert_eq!(refusal(body.as_bytes()).complaint(), expected, "{body}");
        }
    }

    #[test]
    fn a_contact_is_missing_if_a_text_says_so_of_it() {
        check(
            Complaint::MissingContact,
            &[
                r#"{"statusCode":404,"message":"Contact not found","error":"Not Found"}"#,
                r#"{"success":false,"data":{"message":"Contact was not found"}}"#,
                r#"{"code":"contact_not_found","message":"Try another."}"#,
                r#"{"error":{"code":"contactNotFound"}}"#,
                r#"{"message":"The contact with id ***@c.us does not exist"}"#,
                r#"{"message":"*** does not exist"}"#,
                r#"{"message":"4915112345678@c.us was not found"}"#,
                r#"{"message":"No such contact"}"#,
                r#"{"error":"Unknown contact"}"#,
                r#"{"error":"The number is unknown"}"#,
                r#"{"message":"The phone number isn’t registered on WhatsApp"}"#,
                r#"{"message":"Number is not on WhatsApp"}"#,
                r#"{"message":"Could not find the contact"}"#,
                r#"{"message":"Profile picture not found"}"#,
                "No contact with this id",
            ],
        );
    }

    #[test]
    fn other_texts_do_not_say_that_a_contact_is_missing() {
        check(
            Complaint::Other,
            &[
                "",
                "<html><h1>Contact not found</h1></html>",
                r#"{"statusCode":404,"message":"Not Found"}"#,
                r#"{"detail":"Not Found"}"#,
                "404 page not found",
                r#"{"message":"The requested URL was not found on this server"}"#,
                r#"{"message":"Unknown error while reading the contact"}"#,
                r#"{"message":"Failed to read the contact: module not found"}"#,
                r#"{"message":"Contact service failed: unknown error"}"#,
                r#"{"message":"Label not found"}"#,
                r#"{"message":"Access token *** not found"}"#,
                r#"{"message":"Contact not found in session default"}"#,
                r#"{"message":"Session closed. Most likely the page has been closed."}"#,
            ],
        );
    }

    #[test]
    fn sessions_routes_logins_and_rates_are_told_apart() {
        check(
            Complaint::Session,
            &[
                r#"{"code":"invalid_session","message":"Session not found. Check the id."}"#,
                r#"{"message":"Instance *** does not exist"}"#,
                r#"{"message":"Session not found for contact ***"}"#,
                r#"{"message":"We didn't find a session with name 'a'."}"#,
                r#"{"success":false,"message":"Session is not connected"}"#,
                "Session “a” not found",
            ],
        );
        check(
            Complaint::Route,
            &[
                r#"{"statusCode":404,"message":"Cannot GET /api/contacts?contactId=***","error":"Not Found"}"#,
                r#"{"code":"rest_no_route","message":"No route was found","data":{"status":404}}"#,
                "Endpoint not found",
            ],
        );
        check(
            Complaint::Login,
            &[
                r#"{"status":401,"message":"Invalid access token"}"#,
                r#"{"error":"Unauthorized"}"#,
            ],
        );
        check(
            Complaint::Rate,
            &[r#"{"status":429}"#, r#"{"message":"Too many requests"}"#],
        );
    }
}
