//! The two connections of a session, and the alarm that either may report.

use uuid::Uuid;

use super::alarm::Alarm;
use super::control::Control;
use super::publisher::Publisher;
use crate::broker::stream_protocol::Producer;

/// The connections of a session; each is missing before its first use and after a failure.
pub(super) struct Connections {
    /// Name of this process, in the checkpoint and on the connections.
    pub(super) owner: Uuid,
    /// Holds the lock and the checkpoint.
    pub(super) control: Option<Control>,
    /// Publishes over AMQP.
    pub(super) publisher: Option<Publisher>,
    /// Publishes over the stream protocol.
    pub(super) producer: Option<Producer>,
    pub(super) alarm: Alarm,
    /// Whether this process has found or declared the queue, so that it must still exist after a
    /// reconnect.
    pub(super) had_queue: bool,
}

impl Connections {
    pub(super) fn new() -> Self {
        Self {
            owner: Uuid::now_v7(),
            control: None,
            publisher: None,
            producer: None,
            alarm: Alarm::default(),
            had_queue: false,
        }
    }

    /// Drops both connections.
    pub(super) fn drop_both(&mut self) {
        self.control = None;
        self.publisher = None;
        self.producer = None;
    }

    /// Closes both connections in an orderly way.
    pub(super) async fn close(&mut self) {
        if let Some(publisher) = self.publisher.take() {
            publisher.close().await;
        }
        if let Some(producer) = self.producer.take() {
            producer.close().await;
        }
        if let Some(control) = self.control.take() {
            control.close().await;
        }
    }
}
