//! Publishing connection, and the template of messages on it.

use std::sync::Arc;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ExchangeKind};
use tracing::info;
use uuid::Uuid;

use super::alarm::Watch;
use super::connect::close;
use super::connections::Connections;
use super::failure::{code, is_refused_with, refusal};
use super::in_flight::Sending;
use super::names::{MAX_NAME, fitting};
use super::{PERSISTENT, RabbitSettings, millis};
use crate::batch::{Batch, Chat};
use crate::broker::error::Failure;
use crate::broker::stream_protocol::MessageParts;
use crate::broker::{BrokerError, PauseObserver, QueueType};
use crate::message::{Encoder, Format, Layout};

/// The kind of messages with chats.
const CHAT_KIND: &str = "labelcast.chat";
/// Text for a nack.
pub(super) const QUEUE_REFUSES: &str = "the queue refuses messages; it may be full";

/// A connection that publishes to one queue.
pub(super) struct Publisher {
    connection: Connection,
    channel: Channel,
    _watch: Watch,
}

impl Publisher {
    /// Connects, and makes sure that the target exists. If messages were published before, the
    /// queue must still be there.
    pub(super) async fn open(
        settings: &RabbitSettings,
        queue: &str,
        client_id: Uuid,
        connections: &Connections,
        pauses: &Arc<dyn PauseObserver>,
    ) -> Result<Self, Failure> {
        let name = format!("labelcast/{client_id}");
        let connection = settings.endpoint.connect(&name).await?;
        let watch = connections.alarm.watch(&connection, Arc::clone(pauses));
        find_target(&connection, settings, queue, connections.had_queue).await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            connection,
            channel,
            _watch: watch,
        })
    }

    pub(super) async fn close(&self) {
        close(&self.connection).await;
    }

    /// Returns how many messages wait in the queue.
    pub(super) async fn depth(&self, queue: &str) -> Result<u64, Failure> {
        let channel = self.connection.create_channel().await?;
        let found = declare_passive(&channel, queue).await?;
        channel.close(200, "OK".into()).await?;
        Ok(found)
    }

    /// Builds a publish, which is sent when the returned future is first polled.
    pub(super) fn send(
        &self,
        template: &MessageTemplate,
        properties: BasicProperties,
        payload: Vec<u8>,
    ) -> Sending {
        let channel = self.channel.clone();
        let (exchange, key) = (template.exchange.clone(), template.key.clone());
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        Box::pin(async move {
            channel
                .basic_publish(exchange, key, options, &payload, properties)
                .await
        })
    }

    /// Builds publishes for the messages of a batch that `wants` selects by their number in the
    /// batch.
    pub(super) fn send_batch(
        &self,
        template: &MessageTemplate,
        batch: &Batch,
        wants: &mut dyn FnMut(usize) -> bool,
    ) -> Vec<Sending> {
        let mut first_chats = batch.iter().step_by(template.per_message);
        let (mut number, mut sent) = (0, Vec::new());
        let last = template.messages(batch).saturating_sub(1);
        template.encoder.each(batch.iter(), |parts| {
            if let (Some(first), Some(payload)) = (first_chats.next(), parts.first())
                && wants(number)
            {
                let properties = template.properties.clone();
                let properties = properties.with_message_id(template.message_id(
                    &first,
                    payload,
                    number == last && batch.is_cut(),
                ));
                sent.push(self.send(template, properties, payload.to_vec()));
            }
            number += 1;
        });
        sent
    }
}

/// The parts that all messages of a run have in common.
pub(super) struct MessageTemplate {
    pub(super) encoder: Encoder,
    /// The same properties, for the stream protocol.
    pub(super) parts: MessageParts,
    /// The start of message ids.
    id_start: String,
    exchange: ShortString,
    key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) content_type: &'static str,
    per_message: usize,
    run_id: Uuid,
    /// Whether other chats may have been sent at the same position before.
    list_changed: bool,
}

impl MessageTemplate {
    /// Converts the confirm of a message to a result.
    pub(super) fn require_accepted(&self, confirmation: &Confirmation) -> Result<(), Failure> {
        match confirmation {
            Confirmation::Ack(Some(returned)) => {
                let text = self.unroutable(returned.reply_text.as_str());
                Err(BrokerError::WrongQueue(text).into())
            }
            Confirmation::Nack(_) => Err(Failure::Transient(QUEUE_REFUSES.to_owned())),
            Confirmation::Ack(None) | Confirmation::NotRequested => Ok(()),
        }
    }

    pub(super) fn new(
        settings: &RabbitSettings,
        queue: &str,
        layout: &Layout,
        encoder: Encoder,
        run_id: Uuid,
        list_changed: bool,
    ) -> Self {
        let content_type = match layout.format {
            Format::CloudEvents => "application/cloudevents+json",
            Format::Fields | Format::Json => "application/json",
        };
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type(content_type.into())
            .with_app_id("labelcast".into())
            .with_type(CHAT_KIND.into());
        if let Some(retain) = settings.retain {
            properties = properties.with_expiration(millis(retain).to_string().into());
        }
        Self {
            encoder,
            parts: MessageParts::new(CHAT_KIND, content_type, None),
            id_start: format!("{run_id}:"),
            content_type,
            exchange: settings.exchange.as_deref().unwrap_or_default().into(),
            key: queue.into(),
            properties,
            per_message: layout.ids_per_message as usize,
            run_id,
            list_changed,
        }
    }

    /// Returns the number of messages for a batch.
    pub(super) fn messages(&self, batch: &Batch) -> usize {
        (batch.chats() as usize).div_ceil(self.per_message)
    }

    /// Returns a message's id. `is_cut` says that the message was ended early by its size, names
    /// included.
    fn message_id(&self, first: &Chat<'_>, payload: &[u8], is_cut: bool) -> ShortString {
        let Self { run_id, .. } = self;
        let id = if self.per_message == 1 {
            format!("{run_id}:{}", String::from_utf8_lossy(first.id))
        } else if self.list_changed || is_cut {
            // Other chats than before may be at this position, and names may get longer; the hash
            // tells such messages apart.
            let hash = xxhash_rust::xxh3::xxh3_64(payload);
            format!("{run_id}:{}:{hash:016x}", first.position)
        } else {
            format!("{run_id}:{}", first.position)
        };
        fitting(id).into()
    }

    /// The number of chats in a message.
    pub(super) fn per_message(&self) -> usize {
        self.per_message
    }

    /// Passes on the id of a message, in two parts, and builds no text for a message of one chat.
    pub(super) fn with_message_id<T>(
        &self,
        first: &Chat<'_>,
        payload: &[u8],
        pass: impl FnOnce([&[u8]; 2]) -> T,
    ) -> T {
        if self.per_message == 1 && self.id_start.len() + first.id.len() <= MAX_NAME {
            return pass([self.id_start.as_bytes(), first.id]);
        }
        // Whether a message was ended early says nothing here: ids tell where each one ends.
        let id = self.message_id(first, payload, false);
        pass([id.as_str().as_bytes(), b""])
    }

    /// Builds the error text for a returned message.
    pub(super) fn unroutable(&self, reason: &str) -> String {
        let exchange = match self.exchange.as_str() {
            "" => "the default exchange".to_owned(),
            name => format!("exchange “{name}”"),
        };
        let key = &self.key;
        format!("{exchange} has nowhere to put a message with routing key “{key}” ({reason})")
    }
}

/// Makes sure that the target exists. If messages were published before, the queue must still be there.
pub(super) async fn find_target(
    connection: &Connection,
    settings: &RabbitSettings,
    queue: &str,
    had_queue: bool,
) -> Result<(), Failure> {
    if !had_queue || settings.exchange.is_some() {
        prepare_target(connection, settings, queue).await
    } else if exists(connection, queue).await? {
        Ok(())
    } else {
        // Confirmed messages were deleted with it, so a new queue would not hold the whole list.
        let text = format!("{queue} was deleted while it was published to");
        Err(BrokerError::WrongQueue(text).into())
    }
}

/// Declares the queue, or checks that the queue or the exchange exists.
pub(super) async fn prepare_target(
    connection: &Connection,
    settings: &RabbitSettings,
    queue: &str,
) -> Result<(), Failure> {
    let channel = connection.create_channel().await?;
    if let Some(exchange) = &settings.exchange {
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let kind = ExchangeKind::Direct;
        channel
            .exchange_declare(
                exchange.as_str().into(),
                kind,
                options,
                FieldTable::default(),
            )
            .await?;
    } else if settings.declare {
        match declare(&channel, settings, queue).await {
            // The broker has closed the channel because of this error.
            Err(error) if differs_in_max_age(&error) => {
                info!(
                    "retention of the existing stream differs from --retain; using the stream as it is"
                );
                return Ok(());
            }
            declared => declared.map_err(|error| with_no_declare_hint(Failure::from(error)))?,
        }
    } else {
        declare_passive(&channel, queue).await?;
    }
    channel.close(200, "OK".into()).await.map_err(Failure::from)
}

/// Returns whether a queue exists. A queue on an unavailable node is a transient error.
pub(super) async fn exists(connection: &Connection, queue: &str) -> Result<bool, Failure> {
    let channel = connection.create_channel().await?;
    match declare_passive(&channel, queue).await {
        Ok(_) => {
            channel.close(200, "OK".into()).await?;
            Ok(true)
        }
        Err(error) => match (is_refused_with(&error, code::NOT_FOUND), error.into()) {
            (true, Failure::Final(_)) => Ok(false),
            (_, failure) => Err(failure),
        },
    }
}

async fn declare(
    channel: &Channel,
    settings: &RabbitSettings,
    queue: &str,
) -> Result<(), lapin::Error> {
    let kind = settings.queue_type;
    let mut arguments = FieldTable::default();
    let name = AMQPValue::LongString(kind.name().into());
    arguments.insert("x-queue-type".into(), name);
    if let (QueueType::Stream, Some(retain)) = (kind, settings.retain) {
        // Messages in a stream do not expire individually.
        let age = format!("{}s", retain.as_secs().max(1));
        arguments.insert("x-max-age".into(), AMQPValue::LongString(age.into()));
    }
    channel
        .queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments)
        .await
        .map(drop)
}

pub(super) async fn declare_passive(channel: &Channel, queue: &str) -> Result<u64, lapin::Error> {
    let options = QueueDeclareOptions::durable().passive();
    let found = channel.queue_declare(queue.into(), options, FieldTable::default());
    Ok(found.await?.message_count().into())
}

fn differs_in_max_age(error: &lapin::Error) -> bool {
    refusal(error).is_some_and(|(code, text)| {
        code == code::PRECONDITION_FAILED && text.contains("'x-max-age'")
    })
}

/// Adds a hint to the error for a queue that exists with other arguments.
fn with_no_declare_hint(failure: Failure) -> Failure {
    match failure {
        Failure::Final(BrokerError::WrongQueue(text)) => {
            let text = format!("{text}; --no-declare takes it as it is");
            Failure::Final(BrokerError::WrongQueue(text))
        }
        failure => failure,
    }
}
