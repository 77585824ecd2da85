//! The number of chats of a label, as it is stored.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// The number of chats that carried a label at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelCount {
    /// The label.
    pub label_id: String,
    /// Its name, if it is known.
    pub label_name: Option<String>,
    /// Its colour, as the API writes it.
    pub color_hex: Option<String>,
    /// The number of chats; `None` if they were not counted yet.
    pub chats: Option<u64>,
    /// When they were counted, in milliseconds.
    pub counted_at: SystemTime,
    /// When the label was deleted, if that was reported.
    pub deleted_at: Option<SystemTime>,
}

/// What is stored of a count, beside the label's id.
#[derive(Serialize, Deserialize)]
struct Stored {
    name: Option<String>,
    color: Option<String>,
    chats: Option<u64>,
    counted_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deleted_at: Option<String>,
}

impl LabelCount {
    /// Returns the JSON that is stored under the label's id.
    pub fn to_json(&self) -> String {
        let stored = Stored {
            name: self.label_name.clone(),
            color: self.color_hex.clone(),
            chats: self.chats,
            counted_at: rfc3339(self.counted_at),
            deleted_at: self.deleted_at.map(rfc3339),
        };
        serde_json::json!(stored).to_string()
    }

    /// Parses what [`LabelCount::to_json`] returns; `None` for anything else.
    pub fn from_json(label_id: &str, json: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_str(json).ok()?;
        Some(Self {
            label_id: label_id.to_owned(),
            label_name: stored.name,
            color_hex: stored.color,
            chats: stored.chats,
            counted_at: humantime::parse_rfc3339(&stored.counted_at).ok()?,
            deleted_at: stored
                .deleted_at
                .and_then(|at| humantime::parse_rfc3339(&at).ok()),
        })
    }

    /// Sorts counts by their labels' ids: those that are numbers by their value, before all others.
    pub fn sort(counts: &mut [Self]) {
        counts.sort_by(|a, b| {
            let number = |count: &Self| count.label_id.parse().unwrap_or(u64::MAX);
            (number(a), &a.label_id).cmp(&(number(b), &b.label_id))
        });
    }
}

fn rfc3339(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn count(label_id: &str) -> LabelCount {
        LabelCount {
            label_id: label_id.to_owned(),
            label_name: Some("a \"b\" ü".to_owned()),
            color_hex: None,
            chats: Some(7),
            counted_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_764_209_000_123),
            deleted_at: (label_id == "4").then_some(SystemTime::UNIX_EPOCH),
        }
    }

    #[test]
    fn a_count_is_read_as_it_was_written() {
        let count = count("4");
        let json = count.to_json();
        assert_eq!(LabelCount::from_json("4", &json), Some(count));
        for other in ["", "{}", &json.replace('7', "-7"), &json.replace("T", "?")] {
            assert_eq!(LabelCount::from_json("4", other), None, "{other}");
        }
    }

    #[test]
    fn counts_are_in_the_order_of_numbers() {
        let mut counts = ["b", "10", "9", "a", ""].map(count);
        LabelCount::sort(&mut counts);
        let ids = counts.each_ref().map(|count| count.label_id.as_str());
        assert_eq!(ids, ["9", "10", "", "a", "b"]);
    }
}
