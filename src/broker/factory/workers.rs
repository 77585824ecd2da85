//! Workers on a queue, and sinks for what they make of it.

use super::{Broker, Kind};
use crate::broker::{
    BrokerError, Consumer, MessageSink, QueueType, SessionContext, WorkerOptions, rabbitmq, redis,
};

impl Broker {
    /// Whether workers can take messages from the queues that this broker creates.
    pub fn has_workers(&self) -> bool {
        match &self.address.0 {
            Kind::RabbitMq(endpoint) => {
                rabbitmq::queue_type(endpoint, &self.options) != QueueType::Stream
            }
            _ => self.address.is_broker(),
        }
    }

    /// Opens a queue for a worker.
    ///
    /// # Errors
    ///
    /// If the broker cannot be reached, or the queue cannot be worked on.
    pub async fn worker(&self, options: WorkerOptions) -> Result<Box<dyn Consumer>, BrokerError> {
        match &self.address.0 {
            Kind::Redis(endpoint) => redis::worker(endpoint, options).await,
            Kind::RabbitMq(endpoint) => rabbitmq::worker(endpoint, &self.options, options).await,
            Kind::Stdout | Kind::File(_) => Err(BrokerError::Misconfigured {
                problem: "a broker is needed: a file and stdout have no messages to acknowledge"
                    .to_owned(),
                fix: "use a Redis or RabbitMQ URL in --sink",
            }),
        }
    }

    /// Returns the sink for messages to the queue of this context, without connecting. `None` if
    /// there is no broker.
    pub fn message_sink(&self, context: &SessionContext) -> Option<Box<dyn MessageSink>> {
        let options = &self.options;
        match &self.address.0 {
            Kind::Redis(endpoint) => Some(redis::message_sink(endpoint, options, context)),
            Kind::RabbitMq(endpoint) => Some(rabbitmq::message_sink(endpoint, options, context)),
            Kind::Stdout | Kind::File(_) => None,
        }
    }
}
