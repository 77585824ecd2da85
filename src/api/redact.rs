//! What the API says is quoted in errors; what must not be quoted is taken out here.

use secrecy::{ExposeSecret, SecretString};

use super::answer::MAX_KEPT;
use crate::decode::Answer;

/// As much of a text as is shown, in characters.
const MAX_SHOWN: usize = 300;
/// A run of digits from this length on may be a phone number.
const PHONE_DIGITS: usize = 7;

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

    pub(super) fn answer(&self, answer: Answer) -> Answer {
        let text = |text: Option<String>| text.map(|text| self.text(&text));
        Answer {
            success: answer.success,
            code: text(answer.code),
            status: text(answer.status),
            message: text(answer.message),
            error: text(answer.error),
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
        out.push_str("***");
        from += found + token.len();
    }
    out.push_str(&text[from..]);
    out
}

fn without_ids(text: &str) -> String {
    let is_word = |c: char| c.is_alphanumeric() || "._+-".contains(c);
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length.max(if length == 0 { c.len_utf8() } else { 0 }));
        let digits = word.chars().filter(char::is_ascii_digit).count();
        if length > 0 && (after.starts_with('@') || digits >= PHONE_DIGITS) {
            out.push_str("***");
        } else {
            out.push_str(word);
        }
        rest = after;
    }
    out
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
}
