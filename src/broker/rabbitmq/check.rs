//! A check that a run could publish here.
//!
//! It inspects what exists, and tries what a run does on a temporary queue.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection};
use tokio::time::timeout;
use uuid::Uuid;

use super::connect::close;
use super::names::{self, Names, fitting};
use super::publisher::{exists, prepare_target};
use super::{Endpoint, RabbitSettings};
use crate::broker::error::Failure;
use crate::broker::stream_protocol::check_login;
use crate::broker::{BrokerError, BrokerOptions, Finding, Target};

/// Time limit of a check. A broker with an alarm accepts the message but does not confirm it.
const WITHIN: Duration = Duration::from_secs(30);

/// Checks a queue, and what a run needs beside it. Returns what is in order, as text.
///
/// # Errors
///
/// The error that a run would end with.
pub(in crate::broker) async fn check(
    endpoint: &Endpoint,
    options: &BrokerOptions,
    target: &Target,
) -> Result<Finding, BrokerError> {
    names::check(&target.queue)?;
    let settings = RabbitSettings::new(endpoint, options);
    match timeout(WITHIN, check_queue(&settings, target)).await {
        Ok(found) => Ok(found?.into()),
        Err(_) => {
            let seconds = WITHIN.as_secs();
            let text = format!("it has not taken a message in {seconds} s, as in an alarm");
            Err(BrokerError::Unavailable(text))
        }
    }
}

async fn check_queue(settings: &RabbitSettings, target: &Target) -> Result<String, Failure> {
    let connection = settings.endpoint.connect("labelcast check").await?;
    let names = Names::new(target);
    let (queue, exchange) = (&names.queue, settings.exchange.as_ref());
    let is_there = exchange.is_some() || !settings.declare || exists(&connection, queue).await?;
    if is_there {
        prepare_target(&connection, settings, queue).await?;
    }
    try_out(&connection, &names.checkpoint).await?;
    if let Some(stream) = settings.endpoint.stream() {
        check_login(&stream.hosts, &stream.login).await?;
    }
    close(&connection).await;
    Ok(match exchange {
        Some(exchange) => format!("exchange {exchange} can be published to"),
        None if is_there => format!("{queue} can be published to"),
        None => format!("{queue} does not exist yet, and can be declared"),
    })
}

/// Declares, writes and reads a temporary queue beside the target.
async fn try_out(connection: &Connection, beside: &str) -> Result<(), Failure> {
    let name = fitting(format!("{beside}.check.{}", Uuid::now_v7()));
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions::exclusive().auto_delete();
    channel
        .queue_declare(name.as_str().into(), options, FieldTable::default())
        .await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let options = BasicPublishOptions::default();
    let properties = BasicProperties::default();
    channel
        .basic_publish("".into(), name.as_str().into(), options, b"{}", properties)
        .await?
        .await?;
    channel
        .basic_get(name.as_str().into(), BasicGetOptions::default())
        .await?;
    Ok(())
}
