//! A client of RabbitMQ's [stream protocol], for a producer: connect, ask for the last publishing id of a
//! producer, publish, confirm.
//!
//! It is not the official client: that one asks for a command which brokers before 3.11 do not have,
//! brings a second TLS provider, bounds nothing that is in flight, and its codec builds a value for each
//! message. Here a message is written to the frame once, and nothing is allocated for it.
//!
//! [stream protocol]: https://github.com/rabbitmq/rabbitmq-server/blob/v4.0.x/deps/rabbitmq_stream/docs/PROTOCOL.adoc

mod amqp;
mod connection;
mod dial;
mod frame;
mod handshake;
mod producer;

pub(super) use self::amqp::MessageParts;
pub(super) use self::dial::{Host, Login};
use self::frame::Truncated;
pub(super) use self::producer::{Producer, check_login};
use super::error::Failure;

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Transient(format!("the connection is lost: {error}"))
    }
}

impl From<Truncated> for Failure {
    fn from(_: Truncated) -> Self {
        Self::Transient("it sent a frame that is too short".to_owned())
    }
}
