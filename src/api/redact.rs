//! Removal of secrets and ids from API texts that are quoted in errors.

use percent_encoding::utf8_percent_encode;
use secrecy::{ExposeSecret, SecretString};

use crate::http::ALL_BUT_UNRESERVED;

/// The number of characters of a text that are examined. A longer text may have been cut inside a
/// secret.
const MAX_KEPT: usize = 4096;
/// The number of characters of a text that are shown.
const MAX_SHOWN: usize = 300;
/// The number of digits from which a number may be a phone number.
const PHONE_DIGITS: usize = 7;
/// The maximum gap between two digits of one number, in bytes.
const MAX_GAP: usize = 24;
/// The replacement for removed text.
const MASK: &str = "***";

/// Removes the token and everything that may be a chat id or a phone number.
pub(super) struct Redact {
    /// The token in plain, URL and HTML spelling.
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

    /// Returns a text without the token.
    pub(super) fn secrets(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for token in &self.tokens {
            text = remove_token(&text, token.expose_secret());
        }
        text
    }

    /// Returns the start of a text, without the token, ids and numbers.
    pub(super) fn text(&self, text: &str) -> String {
        // Some texts are limited by bytes and others by characters. A text below the limit in bytes
        // was not cut in either case.
        let was_cut = text.len() >= MAX_KEPT;
        let mut text = self.secrets(text);
        if was_cut {
            // The end of the text may be part of a token that was cut.
            let longest = |token: &SecretString| token.expose_secret().chars().count();
            let longest = self.tokens.iter().map(longest).max().unwrap_or(0);
            let kept = text.chars().count().saturating_sub(longest);
            text = text.chars().take(kept).collect();
        }
        let clean: String = text
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        mask_ids(&clean).chars().take(MAX_SHOWN).collect()
    }
}

/// Removes a token, ignoring the case of its letters.
fn remove_token(text: &str, token: &str) -> String {
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

/// Masks chat ids and possible phone numbers: the word before an `@`, and words and numbers with
/// seven or more digits, whatever separates the digits.
pub(crate) fn mask_ids(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = [number_length(rest), word_length(rest)]
            .into_iter()
            .max()
            .unwrap_or(0);
        if length > 0 {
            out.push_str(MASK);
        }
        let (shown, after) = match length {
            0 => rest.split_at(plain_length(rest).max(c.len_utf8())),
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

/// Returns the length of the word at the start of a text, up to a number in it. This part is shown.
fn plain_length(text: &str) -> usize {
    let end = text.find(|c| !is_word(c)).unwrap_or(text.len());
    match text[..end].find(char::is_numeric) {
        Some(number @ 1..) => number,
        _ => end,
    }
}

/// Returns the length of the word at the start of a text, or 0 if it need not be masked.
fn word_length(text: &str) -> usize {
    let length = text.find(|c| !is_word(c)).unwrap_or(text.len());
    let (word, after) = text.split_at(length);
    let digits = word.chars().filter(|c| c.is_numeric()).count();
    let is_id = after.trim_start().starts_with('@') || after.starts_with("%40");
    let is_masked = is_id || digits >= PHONE_DIGITS;
    if is_masked { length } else { 0 }
}

/// Returns the length of the number at the start of a text, or 0 if it need not be masked. Anything
/// but letters may separate the digits, as in `+44 (0) 7911-123456`.
fn number_length(text: &str) -> usize {
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
            match separator_length(&text[at..]) {
                length if length > 0 && at + length - end <= MAX_GAP => at += length,
                _ => break,
            }
        }
    }
    if digits >= PHONE_DIGITS { end } else { 0 }
}

/// Returns the length of a separator between two digits of one number: any character but a letter,
/// a space in HTML notation, or an HTML tag.
fn separator_length(text: &str) -> usize {
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
    fn tokens_and_ids_are_removed() {
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
