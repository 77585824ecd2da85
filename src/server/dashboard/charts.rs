//! The pictures of the page, as SVG inside HTML. They contain numbers only; a text beside each says
//! the same.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use super::text::{Number, Rough};
use crate::chart::{self, Color, scaled};
use crate::live::overview::{LabelView, Sample};

/// The length of the longest bar, in parts of its space.
const FULL: u64 = 1000;
/// The most points of a trend. More would not be visible.
const MAX_POINTS: usize = 24;
/// The size of a trend's picture, in its own units.
const TREND: (u64, u64) = (120, 24);
/// The height of the columns, and the width of one, in their own units.
const COLUMNS: (u64, u64) = (100, 10);

/// Draws one bar on a scale that ends at `end`.
pub(super) fn bar(count: u64, end: u64, color: Color) -> String {
    let length = scaled(count, end, FULL);
    let (percent, tenth) = (length / 10, length % 10);
    let size = format_args!("width=\"{percent}.{tenth}%\" height=\"100%\" rx=\"3\"");
    let rectangle = chart::rectangle(size, color);
    format!("<svg class=\"bar\" aria-hidden=\"true\">{rectangle}</svg>")
}

/// Returns the end of a scale for counts up to `most`: a round number, so that it seldom changes
/// and an update contains only the bars that changed.
pub(super) fn round_up(most: u64) -> u64 {
    const STEPS: [u64; 11] = [10, 12, 15, 20, 25, 30, 40, 50, 60, 80, 100];
    let mut power: u64 = 1;
    while most.div_ceil(power) > 100 {
        power = power.saturating_mul(10);
    }
    let leading = most.div_ceil(power);
    let step = STEPS.into_iter().find(|step| *step >= leading);
    step.unwrap_or(100).saturating_mul(power)
}

/// The trend of a label: earlier numbers and the current one.
pub(super) struct Trend {
    samples: Vec<Sample>,
}

impl Trend {
    /// Returns the trend; `None` if there are not two numbers at different times.
    pub(super) fn of(label: &LabelView) -> Option<Self> {
        let mut samples = thinned(&label.trend, MAX_POINTS);
        if let (Some(chats), Some(at)) = (label.chats, label.counted_at) {
            samples.retain(|sample| sample.at < at);
            samples.push(Sample { at, chats });
        }
        let (first, last) = (samples.first()?, samples.last()?);
        (first.at < last.at).then_some(Self { samples })
    }

    /// Returns the change from the first number to the last, with its sign.
    pub(super) fn change(&self) -> String {
        let (first, last) = self.ends();
        match first.chats.cmp(&last.chats) {
            std::cmp::Ordering::Less => format!("+{}", Number(last.chats - first.chats)),
            std::cmp::Ordering::Equal => "±0".to_owned(),
            std::cmp::Ordering::Greater => format!("−{}", Number(first.chats - last.chats)),
        }
    }

    /// Returns the time that it covers.
    pub(super) fn span(&self) -> Rough {
        let (first, last) = self.ends();
        Rough(since(first.at, last.at))
    }

    /// Draws it, with a text that says the same.
    pub(super) fn svg(&self) -> String {
        let (width, height) = TREND;
        let (first, last) = self.ends();
        let chats = self.samples.iter().map(|sample| sample.chats);
        let (least, most) = (chats.clone().min().unwrap_or(0), chats.max().unwrap_or(0));
        let span = since(first.at, last.at).as_secs().max(1);
        // One path is line and area. It begins and ends outside of the picture, where its other
        // edges are not visible.
        let mut path = String::with_capacity(16 * self.samples.len());
        let _ = write!(path, "M-9 {}", height + 9);
        for (index, sample) in self.samples.iter().enumerate() {
            let x = since(first.at, sample.at).as_secs().saturating_mul(width) / span;
            // A level trend is in the middle. A margin keeps the line within the picture.
            let y = match most - least {
                0 => height / 2,
                range => height - 3 - scaled(sample.chats - least, range, height - 6),
            };
            if index == 0 {
                let _ = write!(path, "V{y}");
            }
            let _ = write!(path, "L{x} {y}");
        }
        format!(
            "<svg class=\"trend\" viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"In {}: from {} to {}, lowest {}, highest {}\">\
             <path d=\"{path}h9V{}\"/></svg>",
            self.span(),
            Number(first.chats),
            Number(last.chats),
            Number(least),
            Number(most),
            height + 9,
        )
    }

    fn ends(&self) -> (Sample, Sample) {
        let first = self.samples[0];
        (first, self.samples[self.samples.len() - 1])
    }
}

/// Returns at most `most` samples, with the first and the last.
fn thinned(samples: &[Sample], most: usize) -> Vec<Sample> {
    let last = samples.len().saturating_sub(1);
    if last < most {
        return samples.to_vec();
    }
    let index = |point: usize| point * last / (most - 1);
    (0..most).map(|point| samples[index(point)]).collect()
}

fn since(earlier: SystemTime, later: SystemTime) -> Duration {
    later.duration_since(earlier).unwrap_or_default()
}

/// Draws a column for each number, on a scale that ends at `end`.
pub(super) fn columns(numbers: &[u64], end: u64, description: &str) -> String {
    let (height, step) = COLUMNS;
    let width = step * u64::try_from(numbers.len()).unwrap_or(1);
    let mut columns = String::new();
    for (x, number) in (0_u64..).step_by(10).zip(numbers) {
        let length = scaled(*number, end, height);
        if length > 0 {
            let (top, x, width) = (height - length, x + 1, step - 2);
            let _ = write!(
                columns,
                "<rect x=\"{x}\" y=\"{top}\" width=\"{width}\" height=\"{length}\"/>"
            );
        }
    }
    format!(
        "<svg class=\"columns\" viewBox=\"0 0 {width} {height}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{description}\">{columns}</svg>"
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{MAX_POINTS, columns, round_up, thinned};
    use crate::live::overview::Sample;

    #[test]
    fn scales_end_at_round_numbers() {
        let table = [
            (0, 10),
            (1, 10),
            (10, 10),
            (11, 12),
            (101, 120),
            (120, 120),
            (999, 1000),
            (12_345, 15_000),
            (80_001, 100_000),
        ];
        for (most, end) in table {
            let found = round_up(most);
            assert!(found >= most, "{most}");
            assert_eq!(found, end, "{most}");
        }
        assert!(round_up(u64::MAX) > u64::MAX / 10);
    }

    #[test]
    fn long_trends_keep_their_ends() {
        let sample = |at: u64| Sample {
            at: UNIX_EPOCH + Duration::from_secs(at),
            chats: at,
        };
        let long: Vec<Sample> = (0..1000).map(sample).collect();
        let thin = thinned(&long, MAX_POINTS);
        assert_eq!(thin.len(), MAX_POINTS);
        assert_eq!((thin[0], thin[MAX_POINTS - 1]), (sample(0), sample(999)));
        assert!(thin.is_sorted_by_key(|sample| sample.at));
        assert_eq!(thinned(&long[..3], MAX_POINTS).len(), 3);
        assert_eq!(thinned(&[], MAX_POINTS), []);
    }

    #[test]
    fn each_number_over_zero_has_a_column() {
        let drawn = columns(&[0, 5, 10], 10, "three minutes");
        assert!(drawn.contains("viewBox=\"0 0 30 100\""), "{drawn}");
        assert!(
            drawn.contains("<rect x=\"11\" y=\"50\" width=\"8\" height=\"50\"/>"),
            "{drawn}"
        );
        assert_eq!(drawn.matches("<rect").count(), 2);
    }
}
