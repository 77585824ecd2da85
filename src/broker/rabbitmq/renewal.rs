//! Messages that were delivered often, put at the end of their queue as new ones.
//!
//! RabbitMQ counts every delivery that is not acknowledged: also those to a worker that was stopped, or
//! that never came to look at the message. From version 4 on, it drops a message that was delivered
//! 21 times. And the messages at the start of a queue are those that each new worker gets. So a message
//! that comes back often is put at the end, with the number of its deliveries in a header.

use lapin::message::Delivery as Message;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Confirmation, Connection, Error};

use super::consumer::header;
use crate::broker::error::Failure;

/// A header: how often the message was delivered before it was put at the end.
const EARLIER_DELIVERIES: &str = "labelcast-deliveries";
/// The broker's own header: how often the message was given back.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// The number of deliveries after which a message is put at the end: half of what RabbitMQ 4 allows.
const RENEW_AFTER: u64 = 10;

/// Returns how often a message was delivered, this time included. Quorum queues count; other queues only
/// tell whether it was delivered before.
pub(super) fn deliveries(message: &Message) -> u64 {
    earlier(message) + given_back(message).max(message.redelivered.into()) + 1
}

/// Whether the broker may drop the message soon.
pub(super) fn is_worn(message: &Message) -> bool {
    given_back(message) >= RENEW_AFTER
}

/// Whether a worker that gives the message back should do so without counting a delivery.
pub(super) fn counts_much(message: &Message) -> bool {
    deliveries(message) > RENEW_AFTER
}

fn given_back(message: &Message) -> u64 {
    number(message, DELIVERY_COUNT)
}

fn earlier(message: &Message) -> u64 {
    number(message, EARLIER_DELIVERIES)
}

fn number(message: &Message, name: &str) -> u64 {
    let number = match header(message, name) {
        Some(AMQPValue::LongLongInt(number)) => u64::try_from(*number).ok(),
        Some(AMQPValue::LongInt(number)) => u64::try_from(*number).ok(),
        Some(AMQPValue::LongUInt(number)) => Some((*number).into()),
        _ => None,
    };
    number.unwrap_or(0)
}

/// Puts a copy of a message, with this number of deliveries, at the end of its queue. The broker has it
/// when this returns; then the message itself can be acknowledged.
///
/// # Errors
///
/// If the queue takes no messages, or not from this user.
pub(super) async fn put_at_end(
    connection: &Connection,
    queue: &str,
    message: &Message,
    deliveries: u64,
) -> Result<(), Failure> {
    // One of its own: a refusal closes it.
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let mut headers = FieldTable::default();
    for (name, value) in message
        .properties
        .headers()
        .iter()
        .flat_map(|it| it.inner())
    {
        if name.as_str() != DELIVERY_COUNT {
            headers.insert(name.clone(), value.clone());
        }
    }
    let deliveries = i64::try_from(deliveries).unwrap_or(i64::MAX);
    headers.insert(
        EARLIER_DELIVERIES.into(),
        AMQPValue::LongLongInt(deliveries),
    );
    let properties = message.properties.clone().with_headers(headers);
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    let confirm = channel
        .basic_publish("".into(), queue.into(), options, &message.data, properties)
        .await?;
    let confirmation = confirm.await?;
    // Closing it is a courtesy.
    let _: Result<(), Error> = channel.close(200, "OK".into()).await;
    match confirmation {
        Confirmation::Ack(None) => Ok(()),
        _ => Err(Failure::Transient(format!("{queue} takes no messages"))),
    }
}
