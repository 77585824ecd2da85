//! What a failed look-up changes.

use tokio::time::Instant;
use tracing::{debug, warn};

use super::{PROBES, Worker};
use crate::api::ApiError;
use crate::enrich::decide::{Next, after};
use crate::enrich::gate::{Closing, Epoch};
use crate::enrich::in_hand::Job;
use crate::error::Error;
use crate::exit::Exit;
use crate::retry::Retryable as _;

impl Worker {
    /// Takes a failure.
    pub(super) fn failed(
        &mut self,
        mut job: Job,
        epoch: Epoch,
        error: ApiError,
    ) -> Result<(), Error> {
        let (kind, is_forbidden) = (error.failure_kind(), error.is_forbidden());
        let error = Error::from(error);
        self.metrics.count_failure(kind);
        let others_were_answered = job.refused_after.is_some_and(|then| self.answered > then);
        let next = after(kind, others_were_answered);
        if let Next::Pause(why) = next {
            job.refused_after = Some(self.answered);
            self.pause(epoch, why, &error);
            self.postpone(job, why);
            return match why == Closing::Unready && self.gives_up(&error, is_forbidden) {
                true => Err(error),
                false => Ok(()),
            };
        }
        let now = Instant::now();
        job.attempts += 1;
        let pause = match next {
            Next::Retry => {
                self.gate.failed(epoch, now);
                let retries = job.retries.get_or_insert_with(|| self.policy.retries());
                retries.next_pause(error.retry_after())
            }
            _ => {
                self.answered(epoch);
                None
            }
        };
        match pause {
            _ if !self.in_hand.contains(job.key) => {}
            Some(pause) => {
                let (kind, pause_ms) = (kind.name(), pause.as_millis());
                debug!(kind, pause_ms, "a look-up failed, and is tried again");
                self.backlog.push_for(now + pause, job);
            }
            None => {
                let (kind, attempts) = (kind.name(), job.attempts);
                // The text of the API may name a person. It goes to the queue.
                warn!(kind, attempts, "chat set aside");
                let reason = error.to_string();
                self.publisher
                    .set_aside(job.key, &job.chat, &reason, attempts);
            }
        }
        Ok(())
    }

    /// Puts a job behind others: it could be the only one that is refused.
    fn postpone(&mut self, mut job: Job, why: Closing) {
        match why {
            Closing::Unready => self.backlog.push(job),
            Closing::Throttled => {
                let always = self.policy.with_retries(usize::MAX);
                let pauses = job.pauses.get_or_insert_with(|| always.retries());
                let pause = pauses.next_pause(None).unwrap_or_default();
                self.backlog.push_for(Instant::now() + pause, job);
            }
        }
    }

    /// Lets all look-ups pause.
    fn pause(&mut self, epoch: Epoch, why: Closing, error: &Error) {
        let now = Instant::now();
        if let Some(pause) = self.gate.close(epoch, why, error.retry_after(), now) {
            warn!(pause_ms = pause.as_millis(), "look-ups pause: {error}");
        }
        // Look-ups under way have further requests.
        if why == Closing::Throttled
            && let Some(opens_at) = self.gate.opens_at(now)
        {
            self.lookups.limiter().hold_until(opens_at);
        }
    }

    /// Whether to end with the error of an API that is not ready, because somebody waits for the end
    /// of the worker.
    fn gives_up(&self, error: &Error, is_forbidden: bool) -> bool {
        // What is forbidden for one contact may be allowed for the next one.
        let is_refused =
            error.exit() == Exit::Credentials && (!is_forbidden || self.gate.refusals() > PROBES);
        self.limits.drain && (is_refused || self.gate.refusals() > self.limits.retries)
    }
}
