//! Guarantees of every broker for messages that were written before: they are durable when the call
//! returns, in their order, and a repeat is known by its id.

use labelcast::broker::memory::{Fault, Memory};
use labelcast::broker::{MessageSink, QueueType};
use labelcast::message::{Format, MessageBody, ReadyMessage};

use super::{QUEUE, Queue, Stream, Subject, block_on, context, messages};
use crate::support::proxy::Direction;
use crate::support::rabbitmq::Client;

macro_rules! brokers {
    ($($name:ident: $start:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn messages_are_there_in_order_when_the_call_returns() {
                super::messages_are_there_in_order_when_the_call_returns($start);
            }

            #[test]
            fn a_repeat_is_known_by_its_id() {
                super::a_repeat_is_known_by_its_id($start);
            }

            #[test]
            fn a_lost_reply_loses_no_message() {
                super::a_lost_reply_loses_no_message($start);
            }
        }
    )*};
}

brokers! {
    to_memory: Memory::default();
    to_redis: Stream::start();
    to_a_quorum_queue: Published::start();
}

/// A broker under test.
trait Publishing {
    /// Whether the broker remembers ids, so that nothing is published twice.
    const REMEMBERS: bool;

    fn sink(&self) -> Box<dyn MessageSink>;

    /// Lets the broker take the next write, and loses its reply.
    fn lose_reply(&self);

    /// Whether the reply was lost.
    fn has_lost_reply(&self) -> bool;

    /// The contents of all messages, in their order, which may be taken off the queue.
    fn taken(&mut self) -> Vec<String>;
}

impl Publishing for Memory {
    const REMEMBERS: bool = true;

    fn sink(&self) -> Box<dyn MessageSink> {
        self.message_sink(&context(Format::Json))
    }

    fn lose_reply(&self) {
        self.script(Fault::LoseReply);
    }

    fn has_lost_reply(&self) -> bool {
        self.faults_left() == 0
    }

    fn taken(&mut self) -> Vec<String> {
        let messages = self.ready_messages().into_iter();
        messages
            .map(|message| message.body.json().into_owned())
            .collect()
    }
}

impl Publishing for Stream {
    const REMEMBERS: bool = true;

    fn sink(&self) -> Box<dyn MessageSink> {
        let sink = self.broker().message_sink(&context(Format::Json));
        sink.unwrap()
    }

    fn lose_reply(&self) {
        self.proxy().cut_after(0, Direction::ToClient);
    }

    fn has_lost_reply(&self) -> bool {
        !self.proxy().is_armed()
    }

    fn taken(&mut self) -> Vec<String> {
        let entries = self.entries();
        let fields = entries.into_iter().flatten();
        let contents = fields.map(|(name, value)| {
            assert_eq!(name, "data");
            value
        });
        contents.collect()
    }
}

/// A quorum queue that is read by another client.
struct Published {
    queue: Queue,
    client: Client,
}

impl Published {
    fn start() -> Self {
        let queue = Queue::start(QueueType::Quorum);
        Self {
            client: queue.client(),
            queue,
        }
    }
}

impl Publishing for Published {
    const REMEMBERS: bool = false;

    fn sink(&self) -> Box<dyn MessageSink> {
        let sink = self.queue.broker().message_sink(&context(Format::Json));
        sink.unwrap()
    }

    fn lose_reply(&self) {
        self.queue.proxy().cut_after(0, Direction::ToClient);
    }

    fn has_lost_reply(&self) -> bool {
        !self.queue.proxy().is_armed()
    }

    fn taken(&mut self) -> Vec<String> {
        let messages = self.client.drain(QUEUE).into_iter();
        let checked = messages.map(|message| {
            let properties = &message.properties;
            assert_eq!(*properties.delivery_mode(), Some(2));
            let text = |text: &Option<lapin::types::ShortString>| text.clone().unwrap().to_string();
            assert_eq!(text(properties.kind()), "labelcast.test");
            assert_eq!(text(properties.content_type()), "application/json");
            let number = message.data["number"].as_u64().unwrap();
            assert_eq!(message.id(), format!("message-{number:04}"));
            message.data.to_string()
        });
        checked.collect()
    }
}

fn contents(messages: &[ReadyMessage]) -> Vec<String> {
    let messages = messages.iter();
    messages
        .map(|message| message.body.json().into_owned())
        .collect()
}

fn messages_are_there_in_order_when_the_call_returns<P: Publishing>(mut broker: P) {
    let messages = messages(0..100);
    block_on(async {
        let mut sink = broker.sink();
        sink.publish(&[]).await.unwrap();
        sink.publish(&messages).await.unwrap();
    });
    assert_eq!(broker.taken(), contents(&messages));
}

fn a_repeat_is_known_by_its_id<P: Publishing>(mut broker: P) {
    let messages = messages(0..10);
    block_on(async {
        broker.sink().publish(&messages).await.unwrap();
        broker.sink().publish(&messages).await.unwrap();
    });
    let taken = broker.taken();
    let (first, again) = taken.split_at(10);
    assert_eq!(first, contents(&messages));
    match P::REMEMBERS {
        true => assert_eq!(again, [""; 0]),
        false => assert_eq!(again, first),
    }
}

fn a_lost_reply_loses_no_message<P: Publishing>(mut broker: P) {
    let messages = messages(0..20);
    block_on(async {
        let mut sink = broker.sink();
        sink.publish(&messages[..10]).await.unwrap();
        broker.lose_reply();
        sink.publish(&messages[10..]).await.unwrap();
    });
    assert!(broker.has_lost_reply());
    let mut taken = broker.taken();
    if !P::REMEMBERS {
        let mut known = std::collections::HashSet::new();
        taken.retain(|content| known.insert(content.clone()));
    }
    assert_eq!(taken, contents(&messages));
}

#[test]
fn fields_are_the_fields_of_an_entry() {
    let stream = Stream::start();
    let fields = ["chat_id", "1@c.us", "name", "A"].map(str::to_owned);
    let message = ReadyMessage {
        id: "1".to_owned(),
        kind: "labelcast.test",
        body: MessageBody::Fields(fields.to_vec()),
    };
    let sink = stream.broker().message_sink(&context(Format::Fields));
    block_on(async { sink.unwrap().publish(&[message]).await.unwrap() });
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = vec![pair("chat_id", "1@c.us"), pair("name", "A")];
    assert_eq!(stream.entries(), [expected]);
}
