//! Emptying of queues. RabbitMQ selects messages neither by age nor by label: they leave by their
//! expiration, and acknowledged ones are gone. What can be done is to empty a whole queue.

use lapin::Connection;
use lapin::options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::FieldTable;

use super::connect::{Endpoint, close};
use super::failure::{code, is_refused_with};
use super::lock;
use super::names::{self, Names, removed_queue};
use super::publisher::exists;
use crate::broker::error::Failure;
use crate::broker::factory::fill_in;
use crate::broker::purge::impossible;
use crate::broker::{BrokerError, Purge, PurgeOutcome, Purged, Target};
use crate::retry::RetryPolicy;

/// Deletes all messages of queues, and their checkpoints.
pub(in crate::broker) async fn purge(
    endpoint: &Endpoint,
    purge: &Purge,
    retry: &RetryPolicy,
) -> PurgeOutcome {
    let mut outcome = PurgeOutcome::default();
    let Some(age) = purge.selection.age_of_records() else {
        // Acknowledged messages are gone already.
        return outcome;
    };
    if !age.is_zero() {
        let problem = "RabbitMQ cannot select messages by their age";
        let fix = "use --older-than 0s to empty the queue; --retain sets when messages expire";
        return PurgeOutcome::failed(impossible(problem, fix));
    }
    match (&purge.labels, purge.is_queue_per_label()) {
        (Some(labels), true) => {
            for label in labels {
                let mut purged = Purged::default();
                let result = with_retries(endpoint, purge, Some(label), retry, &mut purged).await;
                outcome.add(purged, result);
            }
        }
        (None, false) => {
            let mut purged = Purged::default();
            let result = with_retries(endpoint, purge, None, retry, &mut purged).await;
            outcome.add(purged, result);
        }
        (None, true) => {
            let problem = "RabbitMQ does not tell which queues there are";
            let fix = "name the labels with --label, or one queue with --queue";
            outcome.errors.push(impossible(problem, fix));
        }
        (Some(_), false) => {
            let problem = "RabbitMQ cannot select messages by their label";
            let fix = "empty the whole queue, without --label";
            outcome.errors.push(impossible(problem, fix));
        }
    }
    outcome
}

async fn with_retries(
    endpoint: &Endpoint,
    purge: &Purge,
    label: Option<&str>,
    retry: &RetryPolicy,
    purged: &mut Purged,
) -> Result<(), BrokerError> {
    let label_id = label.unwrap_or_default();
    let target = Target {
        queue: fill_in(&purge.queue, label_id, &purge.instance_id),
        label_id: label_id.to_owned(),
        instance_id: purge.instance_id.clone(),
    };
    names::check(&target.queue)?;
    let names = Names::new(&target);
    let mut retries = retry.retries();
    loop {
        let connection = match endpoint.connect("labelcast purge").await {
            Ok(connection) => connection,
            Err(failure) => {
                retries.pause(BrokerError::from(failure)).await?;
                continue;
            }
        };
        let mut worker = Worker {
            connection: &connection,
            dry_run: purge.dry_run,
            purged,
        };
        let result = worker.run(&names, label.is_some(), retry).await;
        close(&connection).await;
        match result {
            Ok(()) => return Ok(()),
            Err(failure) => retries.pause(BrokerError::from(failure)).await?,
        }
    }
}

struct Worker<'a> {
    connection: &'a Connection,
    dry_run: bool,
    purged: &'a mut Purged,
}

impl Worker<'_> {
    /// Empties the queue. The locks of a queue whose labels are not known cannot be taken, and then
    /// the checkpoints stay: a run that is alive goes on behind what was deleted.
    async fn run(
        &mut self,
        names: &Names,
        is_label_known: bool,
        retry: &RetryPolicy,
    ) -> Result<(), Failure> {
        // Nobody sees that the lock's queue was there: it is gone with the connection.
        let _lock = match is_label_known {
            true => Some(lock::take(self.connection, &names.lock, retry.shutdown()).await?),
            false => None,
        };
        self.purged.messages += self.empty(&names.queue).await?;
        let removed = removed_queue(&names.queue);
        self.purged.removed_messages += self.empty(&removed).await?;
        if is_label_known {
            for checkpoint in [&names.checkpoint, &names.other_checkpoint] {
                self.purged.checkpoints += self.delete(checkpoint).await?;
            }
        }
        Ok(())
    }

    /// Empties or counts a queue, if it exists. Messages that a consumer holds stay.
    async fn empty(&self, queue: &str) -> Result<u64, Failure> {
        if queue.len() > names::MAX_NAME || !exists(self.connection, queue).await? {
            return Ok(0);
        }
        let channel = self.connection.create_channel().await?;
        if self.dry_run {
            let options = QueueDeclareOptions::durable().passive();
            let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
            return Ok(declared.await?.message_count().into());
        }
        let purged = channel.queue_purge(queue.into(), QueuePurgeOptions::default());
        match purged.await {
            Ok(messages) => Ok(messages.into()),
            Err(error) if is_refused_with(&error, code::NOT_IMPLEMENTED) => {
                let problem = format!("the queue {queue} is a stream, which cannot be emptied");
                let fix = "set how long it keeps messages, by --retain or by a policy";
                Err(impossible(&problem, fix).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes or counts a queue, if it exists.
    async fn delete(&self, queue: &str) -> Result<u64, Failure> {
        if !exists(self.connection, queue).await? {
            return Ok(0);
        }
        if !self.dry_run {
            let channel = self.connection.create_channel().await?;
            let options = QueueDeleteOptions::default();
            channel.queue_delete(queue.into(), options).await?;
        }
        Ok(1)
    }
}
