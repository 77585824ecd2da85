//! Shares of the labels for several processes.

use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

/// One of several shares of the labels.
///
/// A label's share does not depend on other labels, so processes that list the labels at different
/// times never both take or both skip one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: u64,
    count: u64,
}

impl Shard {
    /// Returns whether a label is in this share.
    pub fn has(self, label_id: &str) -> bool {
        xxh3_64(label_id.as_bytes()) % self.count == self.index
    }
}

/// The error for a text that is not `INDEX/COUNT`, with an index from 0 to below the count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAShard;

impl FromStr for Shard {
    type Err = NotAShard;

    fn from_str(text: &str) -> Result<Self, NotAShard> {
        let (index, count) = text.split_once('/').ok_or(NotAShard)?;
        let number = |text: &str| text.parse().map_err(|_| NotAShard);
        let (index, count) = (number(index)?, number(count)?);
        (index < count)
            .then_some(Self { index, count })
            .ok_or(NotAShard)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_label_is_in_one_shard() {
        let shards: Vec<Shard> = (0..7).map(|i| format!("{i}/7").parse().unwrap()).collect();
        for id in 0..1000 {
            let id = id.to_string();
            assert_eq!(shards.iter().filter(|shard| shard.has(&id)).count(), 1);
        }
    }

    #[test]
    fn other_texts_are_not_shards() {
        for text in [
            "", "1", "/", "1/", "/4", "4/4", "-1/4", "0/0", "1/4/4", "a/b",
        ] {
            assert_eq!(text.parse::<Shard>(), Err(NotAShard), "{text}");
        }
    }
}
