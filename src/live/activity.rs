//! Events by minute, and senders whose clock is off.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Minutes that are kept.
const MINUTES: usize = 60;
/// A difference between the arrival of an event and its own time that is more than the way takes.
const OFF: Duration = Duration::from_secs(60);
/// Events after which a sender's clock is judged.
const ENOUGH_EVENTS: u64 = 20;

/// Events that arrived lately.
#[derive(Debug, Default)]
pub struct Activity {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Events of the last minutes, the newest last.
    minutes: VecDeque<u64>,
    /// The minute of the newest count, since 1970.
    newest: u64,
    clock: Clock,
}

/// How many events with a time of their own arrived far from it.
#[derive(Debug, Default)]
struct Clock {
    events: u64,
    off: u64,
    is_reported: bool,
}

impl Activity {
    /// Counts an event, with the sender's own time if it has one. Returns whether to warn that the
    /// sender's clock is off, which is once.
    pub fn count(&self, arrived_at: SystemTime, sent_at: Option<SystemTime>) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(arrived_at);
        if let Some(newest) = state.minutes.back_mut() {
            *newest += 1;
        }
        sent_at.is_some_and(|sent_at| state.clock.is_off(arrived_at, sent_at))
    }

    /// Events of each of the last minutes, the oldest first.
    pub fn by_minute(&self, now: SystemTime) -> Vec<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(now);
        state.minutes.iter().copied().collect()
    }
}

impl State {
    /// Begins the minutes up to now.
    fn advance(&mut self, now: SystemTime) {
        let minute = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 60;
        let passed = match self.minutes.is_empty() {
            true => MINUTES as u64,
            false => minute.saturating_sub(self.newest),
        };
        for _ in 0..passed.min(MINUTES as u64) {
            self.minutes.push_back(0);
        }
        while self.minutes.len() > MINUTES {
            self.minutes.pop_front();
        }
        self.newest = self.newest.max(minute);
    }
}

impl Clock {
    fn is_off(&mut self, arrived_at: SystemTime, sent_at: SystemTime) -> bool {
        let late = arrived_at.duration_since(sent_at);
        let difference = late.unwrap_or_else(|ahead| ahead.duration());
        self.events += 1;
        self.off += u64::from(difference > OFF);
        let is_off = self.events >= ENOUGH_EVENTS && self.off * 2 > self.events;
        let is_news = is_off && !self.is_reported;
        self.is_reported |= is_off;
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    #[test]
    fn events_are_counted_by_minute() {
        let activity = Activity::default();
        for seconds in [0, 59, 60, 185] {
            assert!(!activity.count(at(seconds), None));
        }
        let minutes = activity.by_minute(at(240));
        assert_eq!(minutes.len(), 60);
        assert_eq!(minutes[55..], [2, 1, 0, 1, 0]);
        // A clock that goes back does not begin a minute anew.
        activity.count(at(0), None);
        assert_eq!(activity.by_minute(at(240))[55..], [2, 1, 0, 1, 1]);
        assert_eq!(activity.by_minute(at(100_000)), [0; 60]);
    }

    #[test]
    fn a_clock_that_is_off_for_most_events_is_reported_once() {
        let warnings = |difference: u64, ahead: bool, others: u64| {
            let activity = Activity::default();
            let mut warnings = 0;
            for number in 0..100 {
                let difference = if number % 10 < others { 0 } else { difference };
                let (arrived, sent) = match ahead {
                    true => (at(10_000), at(10_000 + difference)),
                    false => (at(10_000), at(10_000 - difference)),
                };
                warnings += u64::from(activity.count(arrived, Some(sent)));
            }
            warnings
        };
        assert_eq!(warnings(61, false, 0), 1);
        assert_eq!(warnings(61, true, 0), 1);
        assert_eq!(warnings(61, true, 4), 1);
        assert_eq!(warnings(60, false, 0), 0);
        assert_eq!(warnings(3600, false, 6), 0);
    }
}
