//! The gate that all look-ups pass: it closes for a while when the API asks for fewer requests, or
//! cannot look up anything.

use std::time::Duration;

use tokio::time::Instant;

use crate::retry::{LONGEST_PAUSE, LONGEST_RETRY_AFTER, Retries, RetryPolicy};

/// Why the gate is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// The API asks for fewer requests.
    Throttled,
    /// The API refuses the login, its session is not ready, or it cannot be reached.
    Unready,
}

impl Closing {
    /// Returns the spelling in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Throttled => "throttled",
            Self::Unready => "unready",
        }
    }
}

/// A number that grows each time the gate closes. A look-up that began before says nothing about
/// the time after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Look-ups may start.
    Open,
    /// None may start before a time.
    Closed { why: Closing, until: Instant },
    /// One look-up is under way; the others wait for its outcome.
    Probing,
}

/// The gate.
pub struct Gate {
    state: State,
    epoch: Epoch,
    /// The pauses since the last success.
    pauses: Retries,
    /// How often the API was not ready, since the last success.
    refusals: usize,
}

impl Gate {
    /// An open gate, whose pauses have the lengths that a policy says.
    pub fn new(policy: &RetryPolicy) -> Self {
        Self {
            state: State::Open,
            epoch: Epoch(0),
            pauses: policy.with_retries(usize::MAX).retries(),
            refusals: 0,
        }
    }

    /// Returns when a look-up may start; `None` while an outcome is awaited.
    pub fn opens_at(&self, now: Instant) -> Option<Instant> {
        match self.state {
            State::Open => Some(now),
            State::Closed { until, .. } => Some(until),
            State::Probing => None,
        }
    }

    /// Returns why look-ups have to wait, if they have to.
    pub fn closed(&self) -> Option<Closing> {
        match self.state {
            State::Open => None,
            State::Closed { why, .. } => Some(why),
            State::Probing => Some(Closing::Unready),
        }
    }

    /// Notes that a look-up starts, at [`Gate::opens_at`] or later.
    pub fn start(&mut self) -> Epoch {
        if let State::Closed { why, .. } = self.state {
            self.state = match why {
                Closing::Throttled => State::Open,
                // One look-up shows whether the others would succeed.
                Closing::Unready => State::Probing,
            };
        }
        self.epoch
    }

    /// Notes an answer about a contact. Returns whether the gate was not open before.
    pub fn succeeded(&mut self, epoch: Epoch) -> bool {
        if epoch != self.epoch {
            return false;
        }
        self.pauses.reset();
        self.refusals = 0;
        std::mem::replace(&mut self.state, State::Open) != State::Open
    }

    /// Notes a failure that says nothing about the next look-up.
    pub fn failed(&mut self, epoch: Epoch, now: Instant) {
        if epoch == self.epoch && self.state == State::Probing {
            let why = Closing::Unready;
            self.state = State::Closed { why, until: now };
        }
    }

    /// Closes the gate. Returns the length of the pause, unless the gate had closed since the
    /// look-up began.
    pub fn close(
        &mut self,
        epoch: Epoch,
        why: Closing,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Option<Duration> {
        if epoch != self.epoch {
            self.extend(retry_after, now);
            return None;
        }
        // There is always another pause: see `Gate::new`.
        let pause = self.pauses.next_pause(retry_after);
        let pause = pause.unwrap_or(LONGEST_PAUSE);
        let until = now + pause;
        self.state = State::Closed { why, until };
        self.epoch = Epoch(self.epoch.0 + 1);
        self.refusals += usize::from(why == Closing::Unready);
        Some(pause)
    }

    /// Keeps a closed gate closed for at least this time.
    fn extend(&mut self, retry_after: Option<Duration>, now: Instant) {
        if let (State::Closed { until, .. }, Some(asked)) = (&mut self.state, retry_after) {
            *until = (*until).max(now + asked.min(LONGEST_RETRY_AFTER));
        }
    }

    /// Returns how often the API was not ready, since the last success.
    pub fn refusals(&self) -> usize {
        self.refusals
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::shutdown::Shutdown;

    fn gate() -> (Gate, Instant) {
        let policy = RetryPolicy::new(0, Shutdown::manual(None));
        (Gate::new(&policy), Instant::now())
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn look_ups_that_are_refused_together_close_it_once() {
        let (mut gate, now) = gate();
        let epochs = [gate.start(), gate.start(), gate.start()];
        let seven = Some(7 * SECOND);
        let pause = gate.close(epochs[0], Closing::Throttled, seven, now);
        assert_eq!(pause, Some(7 * SECOND));
        assert_eq!(gate.close(epochs[1], Closing::Throttled, None, now), None);
        assert_eq!(gate.opens_at(now), Some(now + 7 * SECOND));
        // One that asks for a longer pause gets it.
        assert_eq!(
            gate.close(epochs[2], Closing::Throttled, Some(9 * SECOND), now),
            None
        );
        assert_eq!(gate.opens_at(now), Some(now + 9 * SECOND));
        assert_eq!(gate.refusals(), 0);
    }

    #[test]
    fn a_look_up_from_before_does_not_open_it() {
        let (mut gate, now) = gate();
        let (before, refused) = (gate.start(), gate.start());
        gate.close(refused, Closing::Unready, None, now).unwrap();
        assert!(!gate.succeeded(before));
        assert_eq!(gate.closed(), Some(Closing::Unready));
    }

    #[test]
    fn one_look_up_shows_whether_the_api_is_ready_again() {
        let (mut gate, now) = gate();
        let first = gate.start();
        gate.close(first, Closing::Unready, None, now).unwrap();
        let probe = gate.start();
        assert_eq!(gate.opens_at(now), None);
        // It did not answer about the state of the API: the next one is asked at once.
        gate.failed(probe, now);
        assert_eq!(gate.opens_at(now), Some(now));
        let probe = gate.start();
        assert!(gate.succeeded(probe));
        assert_eq!((gate.closed(), gate.refusals()), (None, 0));
        let next = gate.start();
        assert!(!gate.succeeded(next), "it is open already");
    }

    #[test]
    fn all_look_ups_go_on_after_a_pause_that_was_asked_for() {
        let (mut gate, now) = gate();
        let first = gate.start();
        gate.close(first, Closing::Throttled, Some(SECOND), now)
            .unwrap();
        gate.start();
        assert_eq!(gate.opens_at(now), Some(now));
    }

    #[test]
    fn pauses_grow_until_a_success() {
        let (mut gate, now) = gate();
        let close = |gate: &mut Gate| {
            let epoch = gate.start();
            gate.close(epoch, Closing::Unready, None, now).unwrap()
        };
        let pauses: Vec<Duration> = (0..8).map(|_| close(&mut gate)).collect();
        assert!(
            pauses[0] < 2 * SECOND && pauses[7] >= 30 * SECOND,
            "{pauses:?}"
        );
        assert_eq!(gate.refusals(), 8);
        let probe = gate.start();
        gate.succeeded(probe);
        assert!(close(&mut gate) < 2 * SECOND);
    }
}
