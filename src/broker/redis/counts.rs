//! Counts of an account's labels: one hash, which expires with the last count.

use std::time::Duration;

use async_trait::async_trait;
use redis::Script;
use tokio::time::timeout;

use super::connect::Endpoint;
use super::link::Link;
use crate::broker::error::Failure;
use crate::broker::{BrokerError, CountStore};
use crate::state::counts::LabelCount;

/// Time limit for a call. It leaves time for the report after a stop.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Returns the key of an account's counts.
pub(super) fn key(instance_id: &str) -> String {
    format!("labelcast:labels:{{{instance_id}}}")
}

/// The counts of an account.
pub(in crate::broker) struct RedisCounts {
    link: Link,
    key: String,
    /// How long counts are kept, in milliseconds; `0` for no expiry.
    keep_ms: u128,
}

impl RedisCounts {
    /// Creates the store without connecting.
    pub(in crate::broker) fn new(
        endpoint: &Endpoint,
        instance_id: &str,
        retain: Option<Duration>,
    ) -> Self {
        let key = key(instance_id);
        Self {
            link: Link::new(endpoint.clone(), key.clone()),
            key,
            keep_ms: retain.map_or(0, |retain| retain.as_millis()),
        }
    }

    async fn store(
        &mut self,
        counts: &[LabelCount],
        labels: Option<&[&str]>,
    ) -> Result<(), Failure> {
        let script = Script::new(include_str!("counts.lua"));
        let mut script = script.key(&self.key);
        script.arg(self.keep_ms.to_string());
        script.arg(counts.len()).arg(u8::from(labels.is_some()));
        for count in counts {
            script.arg(&count.label_id).arg(count.to_json());
        }
        script.arg(labels.unwrap_or_default());
        self.link.run(&script).await?;
        Ok(())
    }

    async fn read(&mut self) -> Result<Vec<LabelCount>, Failure> {
        let stored: Vec<(String, String)> = redis::cmd("HGETALL")
            .arg(&self.key)
            .query_async(self.link.connection().await?)
            .await?;
        let counts = stored
            .iter()
            .filter_map(|(label_id, json)| LabelCount::from_json(label_id, json));
        let mut counts: Vec<LabelCount> = counts.collect();
        LabelCount::sort(&mut counts);
        Ok(counts)
    }

    /// Takes the result of a call that had [`TIME_LIMIT`].
    fn ended<T>(
        &mut self,
        result: Result<Result<T, Failure>, tokio::time::error::Elapsed>,
    ) -> Result<T, BrokerError> {
        let late = |_| Failure::Transient("no answer in time".to_owned());
        result.map_err(late).flatten().map_err(|failure| {
            self.link.disconnect_after(&failure);
            failure.into()
        })
    }
}

#[async_trait]
impl CountStore for RedisCounts {
    async fn record(&mut self, counts: &[LabelCount]) -> Result<(), BrokerError> {
        let stored = timeout(TIME_LIMIT, self.store(counts, None)).await;
        self.ended(stored)
    }

    async fn replace(&mut self, counts: &[LabelCount], labels: &[&str]) -> Result<(), BrokerError> {
        let stored = timeout(TIME_LIMIT, self.store(counts, Some(labels))).await;
        self.ended(stored)
    }

    async fn load(&mut self) -> Result<Vec<LabelCount>, BrokerError> {
        let read = timeout(TIME_LIMIT, self.read()).await;
        self.ended(read)
    }
}
