//! What the API says is quoted in errors; what must not be quoted is taken out here.

use percent_encoding::utf8_percent_encode;
use secrecy::{ExposeSecret, SecretString};

use crate::http::ALL_BUT_UNRESERVED;

/// As much of a text as is looked at, in characters. The rest may begin in the middle of a secret.
const MAX_KEPT: usize = 4096;
/// As much of a text as is shown, in characters.
const MAX_SHOWN: usize = 300;
/// A run of digits from this length on may be a phone number.
const PHONE_DIGITS: usize = 7;
/// As much as may stand between two digits of one number, in bytes.
const MOST_BETWEEN: usize = 24;
/// What stands in place of what was taken out.
const MASK: &str = "***";

/// Takes out the token, and whatever looks like a chat id or phone number.
pub(super) struct Redact {
    /// The token as it is, and as it stands in a URL.
    tokens: Vec<SecretString>,
}

impl Redact {
    pub(super) fn new(token: &str) -> Self {
        let in_query = url::form_urlencoded::byte_serialize(token.as_bytes()).collect();
        let in_uri = utf8_percent_encode(token, ALL_BUT_UNRESERVED).to_string();
        let in_html = token.replace('&', "&amp;").replace('<', "&lt;");
        let mut tokens = vec![token.to_owned()];
        for spelling in [in_query, in_uri, in_html] {
            if !spelling.is_empty() && !tokens.contains(&spelling) {
                tokens.push(spelling);
            }
        }
        Self {
            tokens: tokens.into_iter().map(SecretString::from).collect(),
        }
    }

    /// A text without the token.
    pub(super) fn secrets(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for token in &self.tokens {
            text = without(&text, token.expose_secret());
        }
        text
    }

    /// The start of a text, without the token, ids and numbers.
    pub(super) fn text(&self, text: &str) -> String {
        // In bytes or characters: either way, no shorter one was cut.
        let was_cut = text.len() >= MAX_KEPT;
        let mut text = self.secrets(text);
        if was_cut {
            // What is left of a token that stood across the cut.
            let longest = |token: &SecretString| token.expose_secret().chars().count();
            let longest = self.tokens.iter().map(longest).max().unwrap_or(0);
            let kept = text.chars().count().saturating_sub(longest);
            text = text.chars().take(kept).collect();
        }
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        without_ids(&clean).chars().take(MAX_SHOWN).collect()
    }
}

/// Takes a token out, whatever the case of its letters.
fn without(text: &str, token: &str) -> String {
    let (lower, token) = (text.to_ascii_lowercase(), token.to_ascii_lowercase());
    let mut out = String::with_capacity(text.len());
    let mut from = 0;
    while let Some(found) = lower[from..].find(&token) {
        out.push_str(&text[from..from + found]);
        out.push_str(MASK);
        from += found + token.len();
    }
    out.push_str(&text[from..]);
    out
}

/// Masks what may be a chat id or a phone number: the word before an `@`, and words and numbers with seven or more
/// digits, however they are grouped.
fn without_ids(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = [number(rest), word(rest)].into_iter().max().unwrap_or(0);
        if length > 0 {
            out.push_str(MASK);
        }
        let (shown, after) = match length {
            0 => rest.split_at(plain(rest).max(c.len_utf8())),
            length => ("", &rest[length..]),
        };
        out.push_str(shown);
        rest = after;
    }
    out
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || "._+-".contains(c)
}

/// The length of what a text begins with and that is shown: a word, up to a number in it.
fn plain(text: &str) -> usize {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    match text[..end].find(char::is_numeric) {
        Some(number @ 1..) => number,
        _ => end,
    }
}

/// The length of the word that a text begins with, if it is to be masked.
fn word(text: &str) -> usize {
    let length = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (word, after) = text.split_at(length);
    let digits = word.chars().filter(|c| c.is_numeric()).count();
    let is_id = after.trim_start().starts_with('@') || after.starts_with("%40");
    let is_masked = is_id || digits >= PHONE_DIGITS;
    if is_masked { length } else { 0 }
}

/// The length of the number that a text begins with, if it is to be masked. Its digits may be grouped in any way
/// that has no letters, as in `+44 (0) 7911-123456`.
fn number(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_numeric() || "+(".contains(c)) {
        return 0;
    }
    let (mut at, mut end, mut digits) = (0, 0, 0);
    while let Some(c) = text[at..].chars().next() {
        if c.is_numeric() {
            at += c.len_utf8();
            end = at;
            digits += 1;
        } else {
            match between_digits(&text[at..]) {
                length if length > 0 && at + length - end <= MOST_BETWEEN => at += length,
                _ => break,
            }
        }
    }
    if digits >= PHONE_DIGITS { end } else { 0 }
}

/// The length of what a text begins with and may stand between the digits of one number: any character but a
/// letter, a space as HTML writes it, or one of its tags.
fn between_digits(text: &str) -> usize {
    const NBSP: &str = "&nbsp;";
    match text.chars().next() {
        Some('&') if text.starts_with(NBSP) => NBSP.len(),
        Some('<') => text.find('>').map_or(1, |end| end + 1),
        Some(c) if !c.is_alphanumeric() => c.len_utf8(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_token_nor_ids_remain() {
        let redact = Redact::new("s3cret/+token");
        assert_eq!(
            redact
                .text("bad s3cret/+token, access_token=s3cret%2F%2Btoken\nfor 4915112345678@c.us"),
            "bad ***, access_token=*** for ***@c.us"
        );
        assert_eq!(redact.text("S3CRET/+TOKEN s3cret%2f%2btoken"), "*** ***");
        let redact_marks = Redact::new("a b*~");
        for spelling in ["a b*~", "a+b*%7E", "a%20b%2A~"] {
            assert_eq!(redact_marks.text(spelling), "***");
        }
        assert_eq!(redact.text(&"x ".repeat(200)).len(), 300);
        let long = "k3y".repeat(22);
        let echoed: String = long.repeat(70).chars().take(MAX_KEPT).collect();
        let shown = Redact::new(&long).text(&echoed);
        assert!(
            !shown.contains("k3y") && shown.starts_with("***"),
            "{shown}"
        );
        assert_eq!(
            redact.text("call +49 151 or 4915112345678: Session “x” not found, code 404"),
            "call +49 151 or ***: Session “x” not found, code 404"
        );
    }

    #[test]
    fn numbers_are_masked_however_they_are_grouped() {
        let redact = Redact::new("token");
        for number in [
            "4915112345678",
            "+44 7911 123456",
            "+44 (0) 7911-123456",
            "(555) 123-4567",
            "555.123.4567",
            "07911/123456",
            "+49 \u{2013} 151 \u{2013} 123 45",
            "49\u{a0}151\u{a0}12345",
            "1 2 3 4 5 6 7",
            "1,234,567",
            "٤٩١٥١١٢٣",
            "15551234567-1400",
            "+44     7911 -- 123456",
            "44:7911|123=456",
            "[44][7911][123]",
            "44%207911%201234",
            "44&nbsp;7911&nbsp;1234",
            "44<b>7911</b>1234",
            "12345%40c.us",
            "12345 @c.us",
            "12345678@c.us",
            "john.doe@c.us",
        ] {
            let shown = redact.text(&format!("contact {number} is blocked"));
            assert!(
                !shown.contains(|c: char| c.is_numeric()),
                "{number}: {shown}"
            );
            assert!(!shown.contains("doe"), "{shown}");
            assert!(
                shown.starts_with("contact ") && shown.ends_with(" is blocked"),
                "{shown}"
            );
        }
        for text in [
            "404 Not Found",
            "5 of 250 chats",
            "code 422, try 3",
            "v2.3.1",
        ] {
            assert_eq!(redact.text(text), text);
        }
    }
}
