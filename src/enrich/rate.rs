//! The limit of requests a second.

use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far requests may run ahead of the rate, after a time with fewer of them.
const BURST: Duration = Duration::from_millis(100);
/// The highest rate, in requests a second.
const MAX_RATE: u32 = 100_000;

/// A number of requests in a time, such as `5/s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The time from one request to the next.
    interval: Duration,
}

/// The error for a text that is not a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a rate such as 5/s, 90/m or 2000/h, of at most {MAX_RATE}/s")]
pub struct NotARate;

impl FromStr for Rate {
    type Err = NotARate;

    fn from_str(text: &str) -> Result<Self, NotARate> {
        let (number, unit) = text.split_once('/').ok_or(NotARate)?;
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(NotARate),
        };
        let number: u32 = number.trim().parse().map_err(|_| NotARate)?;
        if number == 0 || number > MAX_RATE {
            return Err(NotARate);
        }
        let interval = Duration::from_secs(seconds) / number;
        Ok(Self { interval })
    }
}

impl Rate {
    /// The number of requests in a second, at least one.
    pub fn per_second(self) -> usize {
        let requests = Duration::from_secs(1).as_nanos() / self.interval.as_nanos().max(1);
        usize::try_from(requests.max(1)).unwrap_or(usize::MAX)
    }
}

/// Spaces requests, by the generic cell rate algorithm (GCRA).
#[derive(Debug)]
pub struct RateLimiter {
    rate: Rate,
    /// When the next request is due if all are sent at even intervals.
    due: Mutex<Instant>,
    /// Held by the one that waits for the next request, so that the others queue up.
    turn: tokio::sync::Mutex<()>,
}

impl RateLimiter {
    /// A limiter that has not let any request pass yet.
    pub fn new(rate: Rate) -> Self {
        let due = Mutex::new(Instant::now());
        Self {
            rate,
            due,
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Returns when the next request may be sent.
    pub fn next_at(&self) -> Instant {
        let due = *self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.checked_sub(self.tolerance()).unwrap_or(due)
    }

    /// Returns how many requests may be sent now.
    pub fn available(&self) -> usize {
        let now = Instant::now();
        let interval = self.rate.interval.as_nanos().max(1);
        let ahead = match now.checked_duration_since(self.next_at()) {
            Some(since) => since.min(self.tolerance()),
            None => return 0,
        };
        usize::try_from(ahead.as_nanos() / interval + 1).unwrap_or(usize::MAX)
    }

    /// Waits until a request may be sent, and counts it.
    pub async fn wait(&self) {
        let _turn = self.turn.lock().await;
        while let Err(at) = self.try_take(Instant::now()) {
            tokio::time::sleep_until(at).await;
        }
    }

    /// Counts a request that is sent now.
    ///
    /// # Errors
    ///
    /// The time from which a request may be sent, if that is later.
    pub fn try_take(&self, now: Instant) -> Result<(), Instant> {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        match due.checked_sub(self.tolerance()) {
            Some(at) if at > now => Err(at),
            _ => {
                *due = now.max(*due) + self.rate.interval;
                Ok(())
            }
        }
    }

    /// Lets no request pass before this time.
    pub fn hold_until(&self, at: Instant) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        *due = (*due).max(at + self.tolerance());
    }

    /// How far requests may run ahead. With one request in more than that, not at all.
    fn tolerance(&self) -> Duration {
        BURST.saturating_sub(self.rate.interval)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_written_with_a_unit() {
        let interval = |text: &str| text.parse::<Rate>().map(|rate| rate.interval);
        assert_eq!(interval("5/s"), Ok(Duration::from_millis(200)));
        assert_eq!(interval("90/m"), Ok(Duration::from_secs(60) / 90));
        assert_eq!(interval("1/h"), Ok(Duration::from_secs(3600)));
        for text in [
            "", "5", "0/s", "-1/s", "5/d", "1.5/s", "5 per s", "100001/s",
        ] {
            assert_eq!(interval(text), Err(NotARate), "{text}");
        }
        assert_eq!("5/s".parse::<Rate>().unwrap().per_second(), 5);
        assert_eq!("1/h".parse::<Rate>().unwrap().per_second(), 1);
    }

    /// In any time the number of requests is at most that of the rate in this time and 100 ms more.
    #[test]
    fn bursts_are_at_most_a_tenth_of_a_second() {
        for text in ["1/s", "5/s", "10/s", "50/s", "1000/s", "90/m"] {
            let rate: Rate = text.parse().unwrap();
            let limiter = RateLimiter::new(rate);
            let start = Instant::now() + Duration::from_secs(5);
            let mut now = start;
            let mut take = || {
                while let Err(at) = limiter.try_take(now) {
                    now = at;
                }
                now
            };
            let at: Vec<Instant> = (0..3000).map(|_| take()).collect();
            for (number, first) in at.iter().enumerate() {
                for (more, last) in at[number..].iter().enumerate().take(300) {
                    let allowed =
                        (*last - *first + BURST).as_secs_f64() / rate.interval.as_secs_f64();
                    assert!(
                        (more + 1) as f64 <= allowed.max(0.0) + 1.0,
                        "{text}: {more}"
                    );
                }
            }
            // The rate is reached, too.
            let needed = (at[2999] - at[0]).as_secs_f64();
            assert!(
                needed <= rate.interval.as_secs_f64() * 2999.0,
                "{text}: {needed}"
            );
        }
    }

    #[test]
    fn a_burst_is_available_at_first() {
        let limiter = RateLimiter::new("100/s".parse().unwrap());
        let start = Instant::now() + Duration::from_secs(1);
        let at_once = (0..20).filter(|_| limiter.try_take(start).is_ok()).count();
        assert_eq!(at_once, 10);
        assert_eq!(limiter.available(), 0);
        let slow = RateLimiter::new("5/s".parse().unwrap());
        assert_eq!(slow.available(), 1);
    }

    #[test]
    fn nothing_passes_while_it_is_held() {
        let limiter = RateLimiter::new("100/s".parse().unwrap());
        let now = Instant::now();
        let then = now + Duration::from_secs(7);
        limiter.hold_until(then);
        limiter.hold_until(now);
        assert_eq!(limiter.try_take(now), Err(then));
        assert_eq!(limiter.try_take(then), Ok(()));
        // No burst makes up for the pause.
        assert!(limiter.try_take(then).is_err());
    }
}
