//! Lone surrogates: `\ud83d` without its other half.
//!
//! JavaScript can cut a string, such as a long name, between the two halves and writes the
//! remaining half as an escape. JSON's grammar allows that, but the escape is not a character, and
//! the parser refuses it. It is replaced by `\ufffd`, the replacement character, which has the same
//! length.

use memchr::memchr;

/// The length of `\uXXXX`.
const ESCAPE: usize = 6;

/// Replaces lone surrogates in a piece of JSON that does not start within an escape.
///
/// Returns the length of the part that is done. The rest is the start of an escape, at most 11
/// bytes, and must be passed again with the bytes that follow. At the end of the input nothing
/// remains.
pub(crate) fn replace_lone(json: &mut [u8], at_end: bool) -> usize {
    let mut done = 0;
    while let Some(found) = memchr(b'\\', &json[done..]) {
        let start = done + found;
        match escape_at(&json[start..]) {
            Escape::Incomplete if at_end => break,
            Escape::Incomplete => return start,
            Escape::Fine(length) => done = start + length,
            Escape::Lone => {
                json[start + 2..start + ESCAPE].copy_from_slice(b"fffd");
                done = start + ESCAPE;
            }
        }
    }
    json.len()
}

enum Escape {
    Incomplete,
    /// An escape of this length that is left unchanged, valid or not.
    Fine(usize),
    Lone,
}

fn escape_at(json: &[u8]) -> Escape {
    match json.get(1) {
        None => return Escape::Incomplete,
        Some(b'u') => {}
        Some(_) => return Escape::Fine(2),
    }
    if json.len() < ESCAPE {
        return Escape::Incomplete;
    }
    match code_unit(&json[2..ESCAPE]) {
        Some(0xdc00..=0xdfff) => Escape::Lone,
        Some(0xd800..=0xdbff) => match second_half(&json[ESCAPE..]) {
            None => Escape::Incomplete,
            Some(true) => Escape::Fine(2 * ESCAPE),
            Some(false) => Escape::Lone,
        },
        _ => Escape::Fine(2),
    }
}

/// Returns whether the low half of a pair starts here, or `None` if more bytes are needed.
fn second_half(json: &[u8]) -> Option<bool> {
    let start = &json[..json.len().min(2)];
    if !b"\\u".starts_with(start) {
        return Some(false);
    }
    let digits = json.get(2..ESCAPE)?;
    Some(matches!(code_unit(digits), Some(0xdc00..=0xdfff)))
}

fn code_unit(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |unit, digit| {
        Some(unit * 16 + char::from(*digit).to_digit(16)?)
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Processes a text that arrives in two parts.
    fn replaced(json: &str, split: usize) -> String {
        let (first, second) = json.as_bytes().split_at(split);
        let mut buffer = first.to_vec();
        let done = replace_lone(&mut buffer, false);
        assert!(buffer.len() - done <= 11);
        let mut out = buffer[..done].to_vec();
        let mut rest = buffer[done..].to_vec();
        rest.extend_from_slice(second);
        assert_eq!(replace_lone(&mut rest, true), rest.len());
        out.extend_from_slice(&rest);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn only_lone_surrogates_are_replaced() {
        for (json, expected) in [
            (r#""a\ud83d""#, r#""a\ufffd""#),
            (r#""\uD83D\uDE00""#, r#""\uD83D\uDE00""#),
            (r#""\uDE00\uD83D""#, r#""\ufffd\ufffd""#),
            (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
            (r#""\ud83d\n\ude00""#, r#""\ufffd\n\ufffd""#),
            (r#""\\ud83d""#, r#""\\ud83d""#),
            (r#""\\\ud83d""#, r#""\\\ufffd""#),
            (r#""\u00e9\"\u12""#, r#""\u00e9\"\u12""#),
            (r#""\ud83d\u"#, r#""\ud83d\u"#),
            (r#""\"#, r#""\"#),
        ] {
            for split in 0..=json.len() {
                assert_eq!(replaced(json, split), expected, "{json} split at {split}");
            }
        }
    }
}
