//! What the API says is quoted in errors; what must not be quoted is taken out here.

use secrecy::{ExposeSecret, SecretString};

/// As much of a text as is looked at, in characters. The rest may begin in the middle of a secret.
const MAX_KEPT: usize = 4096;
/// As much of a text as is shown, in characters.
const MAX_SHOWN: usize = 300;
/// A run of digits from this length on may be a phone number.
const PHONE_DIGITS: usize = 7;
/// What stands in place of what was taken out.
const MASK: &str = "***";

/// Takes out the token, and whatever looks like a chat id or phone number.
pub(super) struct Redact {
    /// The token as it is, and as it stands in a URL.
    tokens: Vec<SecretString>,
}

impl Redact {
    pub(super) fn new(token: &str) -> Self {
        let in_url = reqwest::Url::parse_with_params("x:y", [("t", token)])
            .ok()
            .and_then(|url| Some(url.query()?.strip_prefix("t=")?.to_owned()))
            .unwrap_or_default();
        let in_html = token.replace('&', "&amp;").replace('<', "&lt;");
        let mut tokens = vec![token.to_owned()];
        for spelling in [in_url.replace('+', "%20"), in_url, in_html] {
            if !spelling.is_empty() && !tokens.contains(&spelling) {
                tokens.push(spelling);
            }
        }
        Self {
            tokens: tokens.into_iter().map(SecretString::from).collect(),
        }
    }

    pub(super) fn text(&self, text: &str) -> String {
        // In bytes or characters: either way, no shorter one was cut.
        let was_cut = text.len() >= MAX_KEPT;
        let mut text = text.to_owned();
        for token in &self.tokens {
            text = without(&text, token.expose_secret());
        }
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

/// Takes out what may be a chat id or a phone number: the word before an `@`, and words and numbers with so many
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
    let is_masked = after.starts_with('@') || digits >= PHONE_DIGITS;
    if is_masked { length } else { 0 }
}

/// The length of the number that a text begins with, if it is to be masked. Its digits may be grouped by up to
/// three characters at a time, as in `+44 (0) 7911-123456`.
fn number(text: &str) -> usize {
    const MOST_BETWEEN: usize = 3;
    if !text.starts_with(|c: char| c.is_numeric() || "+(".contains(c)) {
        return 0;
    }
    let (mut end, mut digits, mut between) = (0, 0, 0);
    for (at, c) in text.char_indices() {
        if c.is_numeric() {
            (end, between) = (at + c.len_utf8(), 0);
            digits += 1;
        } else if is_between_digits(c) && between < MOST_BETWEEN {
            between += 1;
        } else {
            break;
        }
    }
    if digits >= PHONE_DIGITS { end } else { 0 }
}

/// Whether a character may stand between the digits of one number: spaces, dashes and dots of all kinds.
fn is_between_digits(c: char) -> bool {
    c.is_whitespace()
        || "+-.,()/_·*".contains(c)
        || matches!(c, '\u{2010}'..='\u{2015}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
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
