//! Counts of an account's labels, and their last runs: a hash each, which expires with its last
//! change.

use std::time::Duration;

use async_trait::async_trait;
use redis::Script;
use tokio::time::timeout;

use super::connect::Endpoint;
use super::link::Link;
use crate::broker::error::Failure;
use crate::broker::{BrokerError, CountStore};
use crate::state::counts::LabelCount;
use crate::state::runs::LastRun;

/// Time limit for a call. It leaves time for the report after a stop.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Returns the key of an account's counts.
pub(super) fn key(instance_id: &str) -> String {
    format!("labelcast:labels:{{{instance_id}}}")
}

/// Returns the key of the last runs of an account's labels, in the slot of the counts.
pub(super) fn runs_key(instance_id: &str) -> String {
    format!("labelcast:runs:{{{instance_id}}}")
}

/// The counts of an account.
pub(in crate::broker) struct RedisCounts {
    link: Link,
    key: String,
    runs_key: String,
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
            runs_key: runs_key(instance_id),
            keep_ms: retain.map_or(0, |retain| retain.as_millis()),
        }
    }

    async fn store(
        &mut self,
        counts: &[LabelCount],
        labels: Option<&[&str]>,
    ) -> Result<(), Failure> {
        let script = Script::new(include_str!("counts.lua"));
        let mut script = script.prepare_invoke();
        script.key(&self.key).key(&self.runs_key);
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

    async fn store_run(&mut self, run: &LastRun) -> Result<(), Failure> {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        pipeline
            .hset(&self.runs_key, &run.label_id, run.to_json())
            .ignore();
        match i64::try_from(self.keep_ms) {
            Ok(keep_ms) if keep_ms > 0 => pipeline.pexpire(&self.runs_key, keep_ms),
            _ => pipeline.persist(&self.runs_key),
        };
        pipeline.exec_async(self.link.connection().await?).await?;
        Ok(())
    }

    async fn read_runs(&mut self) -> Result<Vec<LastRun>, Failure> {
        let stored: Vec<(String, String)> = redis::cmd("HGETALL")
            .arg(&self.runs_key)
            .query_async(self.link.connection().await?)
            .await?;
        let runs = stored.iter();
        Ok(runs
            .filter_map(|(label_id, json)| LastRun::from_json(label_id, json))
            .collect())
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

    async fn record_run(&mut self, run: &LastRun) -> Result<(), BrokerError> {
        let stored = timeout(TIME_LIMIT, self.store_run(run)).await;
        self.ended(stored)
    }

    async fn load_runs(&mut self) -> Result<Vec<LastRun>, BrokerError> {
        let read = timeout(TIME_LIMIT, self.read_runs()).await;
        self.ended(read)
    }
}
