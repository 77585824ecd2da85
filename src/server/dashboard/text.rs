//! Texts of the page: escaping, numbers and times.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Text of others, escaped for HTML content and quoted attributes.
///
/// Control characters become spaces. Explicit changes of the writing direction are left out, because
/// an attribute cannot isolate them.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0;
        let mut copied = 0;
        for (at, character) in text.char_indices() {
            let replacement = match character {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' => "&quot;",
                '\'' => "&#39;",
                character if character.is_control() => " ",
                character if is_direction(character) => "",
                _ => continue,
            };
            formatter.write_str(&text[copied..at])?;
            formatter.write_str(replacement)?;
            copied = at + character.len_utf8();
        }
        formatter.write_str(&text[copied..])
    }
}

/// Whether a character starts or ends an embedding, override or isolate.
fn is_direction(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether nothing of a text can be seen.
pub(super) fn is_invisible(text: &str) -> bool {
    text.chars().all(|character| {
        character.is_whitespace()
            || character.is_control()
            || is_direction(character)
            || matches!(
                character,
                '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{061c}' | '\u{feff}' | '\u{00ad}'
            )
    })
}

/// A number with a comma after each thousand.
pub(super) struct Number(pub(super) u64);

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                formatter.write_str(",")?;
            }
            write!(formatter, "{digit}")?;
        }
        Ok(())
    }
}

/// A number that may not be known.
pub(super) struct Known(pub(super) Option<u64>);

impl fmt::Display for Known {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => Number(number).fmt(formatter),
            None => formatter.write_str("<span class=\"unknown\" title=\"not known\">–</span>"),
        }
    }
}

/// A time, in UTC. The script of the page replaces it with the age.
///
/// The text does not depend on the current time, so that equal data are equal texts.
pub(super) struct Moment(pub(super) SystemTime);

impl fmt::Display for Moment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = rfc3339(self.0);
        let (day, clock) = (&time[..10], &time[11..16]);
        write!(
            formatter,
            "<time datetime=\"{time}\">{day} {clock} UTC</time>"
        )
    }
}

/// Returns a time as RFC 3339 text in seconds. Times that it cannot express become 1970.
pub(super) fn rfc3339(time: SystemTime) -> String {
    // The formatter has no text for years after 9999.
    let latest = UNIX_EPOCH + Duration::from_secs(253_402_300_799);
    let time = if time < UNIX_EPOCH || time > latest {
        UNIX_EPOCH
    } else {
        time
    };
    humantime::format_rfc3339_seconds(time).to_string()
}

/// Returns milliseconds since 1970.
pub(super) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A duration in its largest unit, rounded down, as the script of the page writes it too.
pub(super) struct Rough(pub(super) Duration);

impl fmt::Display for Rough {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..60 => write!(formatter, "{seconds} s"),
            60..3600 => write!(formatter, "{} min", seconds / 60),
            3600..172_800 => write!(formatter, "{} h", seconds / 3600),
            _ => write!(formatter, "{} d", seconds / 86_400),
        }
    }
}

/// The time that something took: short ones with tenths.
pub(super) struct Took(pub(super) Duration);

impl fmt::Display for Took {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = self.0.as_millis() / 100;
        match tenths {
            0 => formatter.write_str("under 0.1 s"),
            1..100 => write!(formatter, "{}.{} s", tenths / 10, tenths % 10),
            _ => Rough(self.0).fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{Escaped, Known, Moment, Number, Rough, Took, is_invisible};

    #[test]
    fn texts_of_others_are_escaped() {
        let table = [
            ("VIP", "VIP"),
            ("", ""),
            ("<b>&\"'", "&lt;b&gt;&amp;&quot;&#39;"),
            ("a\u{0}b\u{7f}c\n", "a b c "),
            ("\u{202e}abc\u{2066}", "abc"),
            ("عملاء", "عملاء"),
            ("👩\u{200d}👩", "👩\u{200d}👩"),
        ];
        for (text, escaped) in table {
            assert_eq!(Escaped(text).to_string(), escaped, "{text:?}");
        }
    }

    #[test]
    fn names_of_which_nothing_can_be_seen_are_found() {
        for text in ["", " ", "\u{200b}", "\u{200e}\u{feff}", "\n\u{202e}"] {
            assert!(is_invisible(text), "{text:?}");
        }
        for text in ["a", "\u{200b}a", "ع", "👍"] {
            assert!(!is_invisible(text), "{text:?}");
        }
    }

    #[test]
    fn numbers_have_commas() {
        let table = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ];
        for (number, text) in table {
            assert_eq!(Number(number).to_string(), text);
        }
        assert!(Known(None).to_string().contains('–'));
    }

    #[test]
    fn durations_are_rounded_down() {
        let table = [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ];
        for (seconds, text) in table {
            assert_eq!(Rough(Duration::from_secs(seconds)).to_string(), text);
        }
    }

    #[test]
    fn short_times_have_tenths() {
        let table = [
            (99, "under 0.1 s"),
            (100, "0.1 s"),
            (1550, "1.5 s"),
            (9999, "9.9 s"),
            (10_000, "10 s"),
            (60_000, "1 min"),
        ];
        for (millis, text) in table {
            assert_eq!(Took(Duration::from_millis(millis)).to_string(), text);
        }
    }

    #[test]
    fn times_are_utc() {
        let time = UNIX_EPOCH + Duration::from_millis(1_764_223_478_900);
        assert_eq!(
            Moment(time).to_string(),
            "<time datetime=\"2025-11-27T06:04:38Z\">2025-11-27 06:04 UTC</time>"
        );
        let far = UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1000);
        assert!(Moment(far).to_string().contains("1970"));
    }
}
