//! A bar for each label, in its own colour: for a terminal, and as a picture.

use clap::builder::styling::{RgbColor, Style};

use super::counts::Counted;
use crate::chart::{self, Bar, Color, scaled};
use crate::report::printable;

/// The longest bar, in columns of a terminal.
const COLUMNS: u64 = 40;
/// Eighths of a column, from one to seven.
const EIGHTHS: [char; 7] = ['▏', '▎', '▍', '▌', '▋', '▊', '▉'];

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
        let Color([red, green, blue]) = color(counted);
        let style = Style::new().fg_color(Some(RgbColor(red, green, blue).into()));
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
    let bars: Vec<Bar> = counted
        .iter()
        .map(|counted| Bar {
            name: name(counted),
            count: counted.chats,
            color: color(counted),
        })
        .collect();
    chart::document("Chats by label", &bars)
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

fn bar(chats: u64, most: u64) -> String {
    let eighths = scaled(chats, most, COLUMNS * 8);
    let full = std::iter::repeat_n('█', usize::try_from(eighths / 8).unwrap_or(0));
    let rest = usize::try_from(eighths % 8).unwrap_or(0);
    full.chain(rest.checked_sub(1).map(|rest| EIGHTHS[rest]))
        .collect()
}

fn color(counted: &Counted) -> Color {
    Color::parse(counted.label.color.as_deref())
}
