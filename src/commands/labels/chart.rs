//! A bar for each label, in its own colour: for a terminal, and as a picture.

use clap::builder::styling::{RgbColor, Style};
use svg::Document;
use svg::node::element::{Rectangle, Text, Title};

use super::counts::Counted;
use crate::report::printable;

/// The longest bar, in columns of a terminal.
const COLUMNS: u64 = 40;
/// Eighths of a column, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// What a label without a colour of its own gets.
const GREY: RgbColor = RgbColor(0x88, 0x88, 0x88);

/// A table with a bar in each row, and with the time of each count if `has_times`.
pub(super) fn text(counted: &[Counted], is_coloured: bool, has_times: bool) -> String {
    let ids = counted.iter().map(|c| c.label.id.chars().count());
    let chats: Vec<String> = counted.iter().map(shown).collect();
    let id_width = ids.max().unwrap_or(0).max("LABEL".len());
    let chats_width = chats.iter().map(String::len).max();
    let chats_width = chats_width.unwrap_or(0).max("CHATS".len());
    let name_width = counted.iter().map(|c| name(c).chars().count()).max();
    let name_width = name_width.unwrap_or(0).max("NAME".len());
    let most = most(counted);
    let mut table = format!(
        "{:id_width$}  {:name_width$}  {:>chats_width$}{}\n",
        "LABEL",
        "NAME",
        "CHATS",
        if has_times { "  COUNTED AT" } else { "" }
    );
    for (counted, chats) in counted.iter().zip(&chats) {
        let style = Style::new().fg_color(Some(color(counted).into()));
        let (start, end) = match is_coloured {
            true => (style.render().to_string(), style.render_reset().to_string()),
            false => (String::new(), String::new()),
        };
        let bar = bar(counted.chats.unwrap_or(0), most);
        let time = match has_times {
            true => format!("  {}", humantime::format_rfc3339_seconds(counted.at)),
            false => String::new(),
        };
        let row = format!(
            "{:id_width$}  {:name_width$}  {chats:>chats_width$}{time}  {start}{bar}{end}",
            printable(&counted.label.id),
            name(counted),
        );
        table.push_str(row.trim_end());
        table.push('\n');
    }
    table
}

/// A picture of the same, as an SVG document.
pub(super) fn svg(counted: &[Counted]) -> String {
    const ROW: usize = 28;
    const NAMES: usize = 220;
    const BARS: u64 = 400;
    const WIDTH: usize = 720;
    const FONT: &str = "system-ui, sans-serif";
    let height = ROW * (counted.len() + 1);
    let most = most(counted);
    let mut document = Document::new()
        .set("viewBox", (0, 0, WIDTH, height))
        .set("width", WIDTH)
        .set("height", height)
        .set("role", "img")
        .set("font-family", FONT)
        .set("font-size", 14)
        .add(Title::new("Chats by label"))
        .add(
            Rectangle::new()
                .set("width", "100%")
                .set("height", "100%")
                .set("fill", "#ffffff"),
        );
    for (row, counted) in counted.iter().enumerate() {
        let top = ROW / 2 + row * ROW;
        let baseline = top + 18;
        let RgbColor(red, green, blue) = color(counted);
        let length = scaled(counted.chats.unwrap_or(0), most, BARS);
        document = document
            .add(
                Text::new(name(counted))
                    .set("x", NAMES - 12)
                    .set("y", baseline)
                    .set("text-anchor", "end"),
            )
            .add(
                Rectangle::new()
                    .set("x", NAMES)
                    .set("y", top + 4)
                    .set("width", length)
                    .set("height", ROW - 8)
                    .set("fill", format!("#{red:02x}{green:02x}{blue:02x}")),
            )
            .add(
                Text::new(shown(counted))
                    .set("x", NAMES as u64 + length + 8)
                    .set("y", baseline),
            );
    }
    format!("{document}\n")
}

/// Its name, or its id where it has none.
fn name(counted: &Counted) -> String {
    let label = &counted.label;
    printable(label.name.as_deref().unwrap_or(&label.id))
}

fn shown(counted: &Counted) -> String {
    counted
        .chats
        .map_or_else(|| "?".to_owned(), |chats| chats.to_string())
}

fn most(counted: &[Counted]) -> u64 {
    counted.iter().filter_map(|c| c.chats).max().unwrap_or(0)
}

/// A count on a scale on which the largest is `full`. What is not nothing can be seen.
fn scaled(chats: u64, most: u64, full: u64) -> u64 {
    if chats == 0 {
        return 0;
    }
    let scaled = u128::from(chats) * u128::from(full) / u128::from(most.max(1));
    u64::try_from(scaled).unwrap_or(full).max(1)
}

fn bar(chats: u64, most: u64) -> String {
    let eighths = scaled(chats, most, COLUMNS * 8);
    let full = std::iter::repeat_n('█', usize::try_from(eighths / 8).unwrap_or(0));
    let rest = usize::try_from(eighths % 8).unwrap_or(0);
    full.chain(rest.checked_sub(1).map(|rest| EIGHTHS[rest]))
        .collect()
}

/// A label's own colour, which the API writes as `#rrggbb`.
fn color(counted: &Counted) -> RgbColor {
    let parse = |text: &str| {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
        let [_, red, green, blue] = u32::from_str_radix(digits, 16).ok()?.to_be_bytes();
        Some(RgbColor(red, green, blue))
    };
    let color = counted.label.color.as_deref().and_then(parse);
    color.unwrap_or(GREY)
}
