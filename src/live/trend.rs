//! The trend of a number: samples that get rarer with age.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::overview::Sample;

/// Ages up to which samples are kept, and how far apart they are then. A full trend has about 230
/// samples.
const STEPS: [(Duration, Duration); 3] = [
    (Duration::from_secs(3600), Duration::from_secs(60)),
    (Duration::from_secs(24 * 3600), Duration::from_secs(15 * 60)),
    (
        Duration::from_secs(14 * 24 * 3600),
        Duration::from_secs(4 * 3600),
    ),
];

/// Adds the newest sample, and drops those that are too old or too close together for their age. Of
/// samples in the same slot of time, the last one is kept.
pub(super) fn add_sample(trend: &mut Vec<Sample>, newest: Sample) {
    trend.push(newest);
    let slots: Vec<Option<(u64, u64)>> = trend.iter().map(|it| slot(it.at, newest.at)).collect();
    let mut number = 0;
    trend.retain(|_| {
        let (slot, next) = (slots[number], slots.get(number + 1));
        number += 1;
        slot.is_some() && next != Some(&slot)
    });
}

/// The slot of time that a sample falls into: its length in seconds, and its number. `None` if the
/// sample is too old.
fn slot(at: SystemTime, now: SystemTime) -> Option<(u64, u64)> {
    let age = now.duration_since(at).unwrap_or_default();
    let (_, length) = STEPS.iter().find(|(limit, _)| age <= *limit)?;
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some((length.as_secs(), since.as_secs() / length.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_get_rarer_with_age_and_the_newest_is_there() {
        let mut trend = Vec::new();
        let start = 1_800_000_000;
        // A sample every 20 seconds, for 20 days.
        for number in 0..20 * 24 * 180 {
            let at = UNIX_EPOCH + Duration::from_secs(start + number * 20);
            add_sample(&mut trend, Sample { at, chats: number });
            assert_eq!(trend.last().map(|sample| sample.chats), Some(number));
        }
        let last = trend.last().map_or(UNIX_EPOCH, |sample| sample.at);
        let count = |from: u64, to: u64| {
            let ages = trend.iter().map(|sample| last.duration_since(sample.at));
            let hours = ages.map(|age| age.unwrap_or_default().as_secs() / 3600);
            hours.filter(|hours| (from..to).contains(hours)).count()
        };
        assert!((59..=61).contains(&count(0, 1)), "{}", count(0, 1));
        assert!((91..=93).contains(&count(1, 24)), "{}", count(1, 24));
        assert!(
            (77..=80).contains(&count(24, 24 * 14)),
            "{}",
            count(24, 24 * 14)
        );
        assert_eq!(count(24 * 14 + 1, 24 * 365), 0);
        assert!(trend.is_sorted_by_key(|sample| sample.at));
    }
}
