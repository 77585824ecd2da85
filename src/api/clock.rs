//! The clock of the API, whose time the events of the account have.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use reqwest::header::{DATE, HeaderMap};

/// Largest difference of clocks that is believed, in seconds. A `Date` that is further off is not
/// that of a clock, but of a cache or a mistake.
const MAX_DIFFERENCE: i64 = 24 * 3600;

/// How far the clock of the API is ahead of ours, in seconds. `Date` (RFC 9110, 6.6.1) tells whole
/// seconds.
#[derive(Default)]
pub(super) struct Clock {
    ahead: AtomicI64,
}

impl Clock {
    /// Reads the time of a response that has just arrived.
    pub(super) fn set(&self, headers: &HeaderMap) {
        let date = headers.get(DATE).and_then(|date| date.to_str().ok());
        if let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) {
            let ahead = seconds_ahead(theirs, SystemTime::now());
            if ahead.abs() <= MAX_DIFFERENCE {
                self.ahead.store(ahead, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn time(&self) -> SystemTime {
        let ahead = self.ahead.load(Ordering::Relaxed);
        let by = Duration::from_secs(ahead.unsigned_abs());
        match ahead < 0 {
            true => SystemTime::now() - by,
            false => SystemTime::now() + by,
        }
    }
}

/// Returns by how many seconds one time is ahead of the other, rounded towards zero.
fn seconds_ahead(theirs: SystemTime, ours: SystemTime) -> i64 {
    let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(0);
    match theirs.duration_since(ours) {
        Ok(ahead) => seconds(ahead),
        Err(behind) => -seconds(behind.duration()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_the_api_is_that_of_its_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_000_000_900);
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(seconds_ahead(at(1_000_000), now), 0);
        assert_eq!(seconds_ahead(at(1_000_301), now), 300);
        assert_eq!(seconds_ahead(at(999_700), now), -300);

        let clock = Clock::default();
        let mut headers = HeaderMap::new();
        let ahead_by = |seconds: u64| {
            let date = SystemTime::now() + Duration::from_secs(seconds);
            headers.insert(DATE, httpdate::fmt_http_date(date).parse().unwrap());
            clock.set(&headers);
            clock.time().duration_since(SystemTime::now()).unwrap()
        };
        let found = [50_000, 20 * 365 * 86_400].map(ahead_by);
        for ahead in found {
            assert!((49_900..50_100).contains(&ahead.as_secs()), "{ahead:?}");
        }
    }
}
