//! Bars of labels, each in its own colour: as a picture, and as parts of the dashboard.

use std::fmt;

use svg::Document;
use svg::node::Blob;
use svg::node::element::{Rectangle, Text, Title};

/// A label's own colour, which the API writes as `#rrggbb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Color(pub(crate) [u8; 3]);

impl Color {
    /// The colour of a label that has none.
    const GREY: Self = Self([0x88, 0x88, 0x88]);

    /// Parses `#rrggbb`. Anything else gives grey, so text of the API never gets into a picture.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let parse = |text: &str| {
            let digits = text.strip_prefix('#')?;
            let is_hex = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            let number = u32::from_str_radix(digits, 16).ok().filter(|_| is_hex)?;
            let [_, red, green, blue] = number.to_be_bytes();
            Some(Self([red, green, blue]))
        };
        text.and_then(parse).unwrap_or(Self::GREY)
    }
}

impl fmt::Display for Color {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [red, green, blue] = self.0;
        write!(formatter, "#{red:02x}{green:02x}{blue:02x}")
    }
}

/// A row of a bar chart.
pub(crate) struct Bar {
    pub(crate) name: String,
    /// The length; `None` if it is not known.
    pub(crate) count: Option<u64>,
    pub(crate) color: Color,
}

/// Returns a count on a scale on which the largest is `full`. Every count over zero is visible.
pub(crate) fn scaled(count: u64, most: u64, full: u64) -> u64 {
    if count == 0 {
        return 0;
    }
    let most = most.max(1);
    let scaled = match count.checked_mul(full) {
        Some(product) => product / most,
        None => {
            u64::try_from(u128::from(count) * u128::from(full) / u128::from(most)).unwrap_or(full)
        }
    };
    scaled.max(1)
}

/// Returns the element of a bar, with these attributes for place and size. An outline shows colours
/// that are close to the background.
pub(crate) fn rectangle(size: fmt::Arguments<'_>, color: Color) -> String {
    format!("<rect {size} fill=\"{color}\" stroke=\"#808080\"/>")
}

/// Draws a bar chart as an SVG document.
pub(crate) fn document(title: &str, bars: &[Bar]) -> String {
    const ROW: usize = 28;
    const NAMES: usize = 220;
    const BARS: u64 = 400;
    const WIDTH: usize = 720;
    const FONT: &str = "system-ui, sans-serif";
    let height = ROW * (bars.len() + 1);
    let most = bars.iter().filter_map(|bar| bar.count).max().unwrap_or(0);
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("role", "img")
        .set("font-family", FONT)
        .set("font-size", 14)
        .add(Title::new(title))
        .add(
            Rectangle::new()
                .set("width", "100%")
                .set("height", "100%")
                .set("fill", "#ffffff"),
        );
    for (row, bar) in bars.iter().enumerate() {
        let top = ROW / 2 + row * ROW;
        let baseline = top + 18;
        let length = scaled(bar.count.unwrap_or(0), most, BARS);
        let count = bar.count.map(|count| count.to_string());
        let text = |text: &str| Text::new(text).set("y", baseline);
        let (y, height) = (top + 4, ROW - 8);
        let size = format_args!("x=\"{NAMES}\" y=\"{y}\" width=\"{length}\" height=\"{height}\"");
        document = document
            .add(
                text(&bar.name)
                    .set("x", NAMES - 12)
                    .set("text-anchor", "end"),
            )
            .add(Blob::new(rectangle(size, bar.color)))
            .add(text(count.as_deref().unwrap_or("?")).set("x", NAMES as u64 + length + 8));
    }
    format!("{document}\n")
}

#[cfg(test)]
mod tests {
    use super::{Color, scaled};

    #[test]
    fn only_six_hexadecimal_digits_are_a_colour() {
        let table = [
            (Some("#64c4ff"), "#64c4ff"),
            (Some("#64C4FF"), "#64c4ff"),
            (Some("#+4c4ff"), "#888888"),
            (Some("64c4ff"), "#888888"),
            (Some("#64c4f"), "#888888"),
            (Some("#64c4ff0"), "#888888"),
            (Some("red\" onload=\""), "#888888"),
            (Some("#é1234"), "#888888"),
            (None, "#888888"),
        ];
        for (text, color) in table {
            assert_eq!(Color::parse(text).to_string(), color, "{text:?}");
        }
    }

    #[test]
    fn every_count_over_zero_is_visible() {
        let table = [
            (0, 10, 0),
            (0, 0, 0),
            (1, 1_000_000, 1),
            (10, 10, 400),
            (3, 7, 171),
            (u64::MAX, u64::MAX, 400),
        ];
        for (count, most, length) in table {
            assert_eq!(scaled(count, most, 400), length, "{count} of {most}");
        }
    }
}
