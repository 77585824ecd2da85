//! A connection whose commands are retried.

use redis::{Cmd, FromRedisValue};

use crate::broker::BrokerError;
use crate::broker::error::{Failure, SessionError};
use crate::broker::redis::connect::Endpoint;
use crate::broker::redis::link::Link;
use crate::broker::retries::{Retrying, SessionRetries, with_retry};
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;

/// A connection to the server that holds a key.
pub(super) struct Remote {
    link: Link,
    retries: SessionRetries,
    pub(super) shutdown: Shutdown,
}

impl Retrying for Remote {
    fn retries(&mut self) -> &mut SessionRetries {
        &mut self.retries
    }

    fn disconnect(&mut self, failure: &Failure) {
        self.link.disconnect_after(failure);
    }
}

impl Remote {
    pub(super) fn new(endpoint: &Endpoint, key: &str, retry: &RetryPolicy) -> Self {
        Self {
            link: Link::new(endpoint.clone(), key.to_owned()),
            retries: SessionRetries::new(retry),
            shutdown: retry.shutdown().clone(),
        }
    }

    /// Executes a command, which must be idempotent.
    ///
    /// # Errors
    ///
    /// If it fails after all retries, or a stop is requested.
    pub(super) async fn query<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
    ) -> Result<T, BrokerError> {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            biased;
            cause = shutdown.stopped() => {
                // The reply may still come.
                self.link.drop_connection();
                Err(BrokerError::Interrupted(cause))
            }
            replied = self.query_anyway(command) => replied,
        }
    }

    /// Executes a command even after a stop was requested.
    pub(super) async fn query_anyway<T: FromRedisValue>(
        &mut self,
        command: &Cmd,
    ) -> Result<T, BrokerError> {
        let replied = with_retry!(self, query(&mut self.link, command));
        replied.map_err(SessionError::into_failure)
    }

    /// Returns the server's time, in milliseconds since 1970.
    pub(super) async fn now_ms(&mut self) -> Result<u64, BrokerError> {
        let (seconds, micros): (u64, u64) = self.query(&redis::cmd("TIME")).await?;
        Ok(seconds * 1000 + micros / 1000)
    }
}

async fn query<T: FromRedisValue>(link: &mut Link, command: &Cmd) -> Result<T, Failure> {
    Ok(command.query_async(link.connection().await?).await?)
}

/// Returns the command that runs a script.
pub(super) fn script(text: &str, keys: &[&str]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(keys.len()).arg(keys);
    command
}
