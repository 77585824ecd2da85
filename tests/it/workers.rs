//! Guarantees of every broker for workers that share a queue: each message is delivered until a
//! worker acknowledges it, and not after that. To add a broker, write a [`Subject`] and add a line to
//! the list below.

mod messages;
mod rabbitmq;
mod redis;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use labelcast::broker::factory::{Address, Broker};
use labelcast::broker::{
    BrokerError, BrokerOptions, Consumer, Delivery, NoPauses, QueueType, SessionContext, Target,
    WorkerOptions,
};
use labelcast::message::{Format, Layout, MessageBody, ReadyMessage};
use labelcast::retry::RetryPolicy;
use labelcast::shutdown::Shutdown;

use self::rabbitmq::Queue;
use self::redis::Stream;
use crate::support::INSTANCE;
use crate::support::proxy::Proxy;

const QUEUE: &str = "labelcast:1";
const GROUP: &str = "enrich";
/// No test waits for this.
const TAKEOVER_AFTER: Duration = Duration::from_secs(3600);
const TIME_LIMIT: Duration = Duration::from_secs(60);

macro_rules! brokers {
    ($($name:ident: $start:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn each_message_is_delivered_once_and_not_after_its_acknowledgement() {
                super::each_message_is_delivered_once_and_not_after_its_acknowledgement(&$start);
            }

            #[test]
            fn workers_share_the_messages() {
                super::workers_share_the_messages(&$start);
            }

            #[test]
            fn messages_that_take_long_keep_no_others() {
                super::messages_that_take_long_keep_no_others(&$start);
            }

            #[test]
            fn what_a_dead_worker_has_not_acknowledged_comes_again() {
                super::what_a_dead_worker_has_not_acknowledged_comes_again(&$start);
            }

            #[test]
            fn a_worker_that_leaves_hands_over_at_once() {
                super::a_worker_that_leaves_hands_over_at_once(&$start);
            }

            #[test]
            fn what_is_given_back_is_no_sign_of_a_poison_message() {
                super::what_is_given_back_is_no_sign_of_a_poison_message(&$start);
            }

            #[test]
            fn a_worker_may_come_before_the_queue() {
                super::a_worker_may_come_before_the_queue(&$start);
            }

            #[test]
            fn a_broken_connection_is_an_error_and_loses_nothing() {
                super::a_broken_connection_is_an_error_and_loses_nothing(&$start);
            }
        }
    )*};
}

brokers! {
    on_redis: Stream::start();
    on_a_quorum_queue: Queue::start(QueueType::Quorum);
    on_a_classic_queue: Queue::start(QueueType::Classic);
}

/// A broker under test.
trait Subject {
    /// Whether the broker counts all deliveries of a message.
    fn counts(&self) -> bool;

    /// The broker behind a proxy.
    fn broker(&self) -> Broker;

    fn proxy(&self) -> &Proxy;

    /// Makes what dead workers have as old as it would be later.
    fn let_time_pass(&self) {}
}

fn context(format: Format) -> SessionContext {
    let retry = RetryPolicy::new(5, Shutdown::manual(None));
    SessionContext {
        target: Target {
            queue: QUEUE.to_owned(),
            label_id: "1".to_owned(),
            instance_id: INSTANCE.to_owned(),
        },
        layout: Layout {
            format,
            ids_per_message: 1,
            include_names: false,
        },
        retry: retry.with_first_pause(Duration::from_millis(10)),
        selection: labelcast::state::Selection::default(),
        pauses: Arc::new(NoPauses),
    }
}

fn broker(url: &str, options: BrokerOptions) -> Broker {
    Broker {
        address: Address::parse(url).unwrap(),
        options,
        state: None,
    }
}

/// How a worker of this name reads the queue.
fn options(worker: &str) -> WorkerOptions {
    WorkerOptions {
        queue: QUEUE.to_owned(),
        group: GROUP.to_owned(),
        worker: format!("labelcast-{worker}"),
        prefetch: 10,
        takeover_after: TAKEOVER_AFTER,
    }
}

async fn worker(broker: &Broker, name: &str) -> Box<dyn Consumer> {
    broker.worker(options(name)).await.unwrap()
}

/// Messages number `range`.
fn messages(range: std::ops::Range<u64>) -> Vec<ReadyMessage> {
    let message = |number: u64| ReadyMessage {
        id: format!("message-{number:04}"),
        kind: "labelcast.test",
        body: MessageBody::Json(format!("{{\"number\":{number}}}")),
    };
    range.map(message).collect()
}

async fn put(broker: &Broker, range: std::ops::Range<u64>) {
    let mut sink = broker.message_sink(&context(Format::Json)).unwrap();
    sink.publish(&messages(range)).await.unwrap();
}

fn number(delivery: &Delivery) -> u64 {
    delivery.message["data"]["number"].as_u64().unwrap()
}

fn numbers(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(number).collect()
}

fn sorted(deliveries: &[Delivery]) -> Vec<u64> {
    let mut numbers = numbers(deliveries);
    numbers.sort_unstable();
    numbers
}

/// Receives this many messages.
async fn take(worker: &mut Box<dyn Consumer>, count: usize) -> Vec<Delivery> {
    let taking = async {
        let mut taken = Vec::new();
        while taken.len() < count {
            let most = (count - taken.len()).min(7) as u64;
            taken.extend(worker.receive(most).await.unwrap());
        }
        taken
    };
    tokio::time::timeout(TIME_LIMIT, taking).await.unwrap()
}

/// Waits until a worker finds the queue drained, which it must not leave by receiving something.
async fn wait_until_drained(worker: &mut Box<dyn Consumer>) {
    let waiting = async {
        while !worker.is_drained().await.unwrap() {
            assert_eq!(worker.receive(10).await.unwrap(), []);
        }
    };
    tokio::time::timeout(TIME_LIMIT, waiting).await.unwrap();
}

fn all(deliveries: &[Delivery]) -> Vec<&Delivery> {
    deliveries.iter().collect()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

fn each_message_is_delivered_once_and_not_after_its_acknowledgement(subject: &impl Subject) {
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..50).await;
        let mut first = worker(&broker, "a").await;
        assert!(!first.is_drained().await.unwrap());
        let mut taken = Vec::new();
        for _ in 0..5 {
            let some = take(&mut first, 10).await;
            first.acknowledge(&some).await.unwrap();
            taken.extend(some);
        }
        assert_eq!(numbers(&taken), (0..50).collect::<Vec<_>>());
        assert!(taken.iter().all(|delivery| delivery.deliveries == 1));
        wait_until_drained(&mut first).await;
        first.leave().await.unwrap();
        subject.let_time_pass();
        let mut second = worker(&broker, "b").await;
        wait_until_drained(&mut second).await;
    });
}

fn workers_share_the_messages(subject: &impl Subject) {
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..20).await;
        let mut first = worker(&broker, "a").await;
        let mut second = worker(&broker, "b").await;
        let mut taken = take(&mut first, 10).await;
        taken.extend(take(&mut second, 10).await);
        assert_eq!(sorted(&taken), (0..20).collect::<Vec<_>>());
    });
}

/// A broker that sends messages unasked sends more when the worker asks for more than that.
fn messages_that_take_long_keep_no_others(subject: &impl Subject) {
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..35).await;
        let mut first = worker(&broker, "a").await;
        let taken = take(&mut first, 35).await;
        assert_eq!(sorted(&taken), (0..35).collect::<Vec<_>>());
        first.acknowledge(&taken).await.unwrap();
        assert!(first.is_drained().await.unwrap());
    });
}

fn what_a_dead_worker_has_not_acknowledged_comes_again(subject: &impl Subject) {
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..10).await;
        let mut first = worker(&broker, "a").await;
        let taken = take(&mut first, 10).await;
        let is_odd = |delivery: &Delivery| number(delivery) % 2 == 1;
        let (left, mut done): (Vec<_>, Vec<_>) = taken.into_iter().partition(is_odd);
        // They need not be completed in their order.
        done.reverse();
        first.acknowledge(&done).await.unwrap();
        // The acknowledgements have arrived: the reply to this comes after them.
        first.is_drained().await.unwrap();
        for (deliveries, name) in [(2, "b"), (3, "c")] {
            subject.proxy().cut_connections();
            drop(first);
            subject.let_time_pass();
            first = worker(&broker, name).await;
            let again = take(&mut first, left.len()).await;
            assert_eq!(sorted(&again), sorted(&left));
            let expected = if subject.counts() { deliveries } else { 2 };
            assert!(
                again.iter().all(|it| it.deliveries == expected),
                "{again:?}"
            );
        }
    });
}

fn a_worker_that_leaves_hands_over_at_once(subject: &impl Subject) {
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..10).await;
        let mut first = worker(&broker, "a").await;
        let taken = take(&mut first, 5).await;
        first.acknowledge(&taken[..2]).await.unwrap();
        first.leave().await.unwrap();
        let mut second = worker(&broker, "b").await;
        let rest = take(&mut second, 8).await;
        assert_eq!(sorted(&rest), (2..10).collect::<Vec<_>>());
        let again = rest.iter().filter(|delivery| number(delivery) < 5);
        assert_eq!(again.clone().count(), 3);
        assert!(again.map(|it| it.deliveries).all(|it| it <= 2), "{rest:?}");
        second.acknowledge(&rest).await.unwrap();
        wait_until_drained(&mut second).await;
    });
}

/// A broker that counts what is given back, or drops it in the end, gets a new message in time.
fn what_is_given_back_is_no_sign_of_a_poison_message(subject: &impl Subject) {
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..3).await;
        for round in 0..25 {
            let mut worker = worker(&broker, &round.to_string()).await;
            let taken = take(&mut worker, 3).await;
            assert_eq!(sorted(&taken), [0, 1, 2]);
            assert!(taken.iter().all(|it| it.deliveries <= 12), "{taken:?}");
            worker.leave().await.unwrap();
        }
    });
}

fn a_worker_may_come_before_the_queue(subject: &impl Subject) {
    let broker = subject.broker();
    block_on(async {
        let mut worker = worker(&broker, "a").await;
        assert_eq!(worker.receive(10).await.unwrap(), []);
        assert!(worker.is_drained().await.unwrap());
        put(&broker, 0..3).await;
        let taken = take(&mut worker, 3).await;
        assert_eq!(numbers(&taken), [0, 1, 2]);
    });
}

fn a_broken_connection_is_an_error_and_loses_nothing(subject: &impl Subject) {
    let broker = subject.broker();
    block_on(async {
        let mut first = worker(&broker, "a").await;
        put(&broker, 0..5).await;
        let taken = take(&mut first, 5).await;
        subject.proxy().cut_connections();
        let failing = async {
            loop {
                if let Err(error) = first.receive(10).await {
                    break error;
                }
            }
        };
        let error = tokio::time::timeout(TIME_LIMIT, failing).await.unwrap();
        assert!(matches!(error, BrokerError::Unavailable(_)), "{error}");
        drop(first);
        subject.let_time_pass();
        let mut second = worker(&broker, "b").await;
        let again = take(&mut second, 5).await;
        assert_eq!(sorted(&again), sorted(&taken));
        second.acknowledge(&again).await.unwrap();
        wait_until_drained(&mut second).await;
    });
}

#[test]
fn a_file_has_no_workers() {
    for sink in ["-", "file:/tmp/a"] {
        let broker = broker(sink, BrokerOptions::default());
        assert!(broker.message_sink(&context(Format::Json)).is_none());
        let opened = block_on(broker.worker(options("a")));
        let Err(BrokerError::Misconfigured { problem, .. }) = opened else {
            panic!("a worker on {sink}");
        };
        assert!(problem.contains("a broker is needed"), "{problem}");
    }
}
