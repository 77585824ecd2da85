//! Depths of queues.

use std::time::Duration;

use async_trait::async_trait;
use lapin::{Channel, Connection};
use tokio::time::timeout;

use super::connect::{Endpoint, close};
use super::failure::{code, is_refused_with};
use super::names;
use super::publisher::declare_passive;
use crate::broker::error::Failure;
use crate::broker::{BrokerError, QueueDepth, QueueMonitor, Target};

/// Time limit for a reading.
const TIME_LIMIT: Duration = Duration::from_secs(5);

/// Reads the depths of queues, over a connection that it keeps.
pub(in crate::broker) struct RabbitMqMonitor {
    endpoint: Endpoint,
    connection: Option<Connection>,
}

impl RabbitMqMonitor {
    /// Creates the monitor without connecting.
    pub(in crate::broker) fn new(endpoint: &Endpoint) -> Self {
        Self {
            endpoint: endpoint.clone(),
            connection: None,
        }
    }

    async fn read(&mut self, targets: &[Target]) -> Result<Vec<QueueDepth>, Failure> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.endpoint.connect("labelcast monitor").await?),
        };
        let mut channel = connection.create_channel().await?;
        let mut depths = Vec::with_capacity(targets.len());
        for target in targets {
            names::check(&target.queue)?;
            let found = depth(&channel, &target.queue).await?;
            if found.is_none() {
                // The broker closes the channel with its answer.
                channel = connection.create_channel().await?;
            }
            depths.push(QueueDepth {
                messages: Some(found.unwrap_or(0)),
                lag: Some(found.unwrap_or(0)),
            });
        }
        let _ = channel.close(200, "done".into()).await;
        Ok(depths)
    }
}

/// Returns the number of messages that wait on a queue; `None` if it does not exist.
async fn depth(channel: &Channel, queue: &str) -> Result<Option<u64>, Failure> {
    match declare_passive(channel, queue).await {
        Ok(messages) => Ok(Some(messages)),
        Err(error) => match (is_refused_with(&error, code::NOT_FOUND), error.into()) {
            (true, Failure::Final(_)) => Ok(None),
            (_, failure) => Err(failure),
        },
    }
}

#[async_trait]
impl QueueMonitor for RabbitMqMonitor {
    async fn depths(&mut self, targets: &[Target]) -> Result<Vec<QueueDepth>, BrokerError> {
        let read = match timeout(TIME_LIMIT, self.read(targets)).await {
            Ok(read) => read,
            Err(_) => Err(Failure::Transient("no answer in time".to_owned())),
        };
        if read.is_err()
            && let Some(connection) = self.connection.take()
        {
            close(&connection).await;
        }
        Ok(read?)
    }
}
