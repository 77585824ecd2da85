//! Workers on a queue of RabbitMQ.

use labelcast::broker::factory::Broker;
use labelcast::broker::{BrokerError, BrokerOptions, Consumer, QueueType, WorkerOptions};

use super::{
    QUEUE, Subject, TIME_LIMIT, block_on, broker, options, put, sorted, take, wait_until_drained,
    worker,
};
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::{Client, Vhost, vhost};

pub(super) struct Queue {
    vhost: Vhost,
    proxy: Proxy,
    queue_type: QueueType,
}

impl Queue {
    pub(super) fn start(queue_type: QueueType) -> Self {
        let vhost = vhost();
        Self {
            proxy: Proxy::start(vhost.port),
            vhost,
            queue_type,
        }
    }

    pub(super) fn client(&self) -> Client {
        self.vhost.client()
    }

    fn with(&self, options: BrokerOptions) -> Broker {
        broker(&self.vhost.url_by(self.proxy.port), options)
    }
}

impl Subject for Queue {
    fn counts(&self) -> bool {
        self.queue_type == QueueType::Quorum
    }

    fn broker(&self) -> Broker {
        self.with(BrokerOptions {
            queue_type: self.queue_type,
            ..BrokerOptions::default()
        })
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }
}

/// Receives until that fails.
async fn failure(worker: &mut Box<dyn Consumer>) -> BrokerError {
    let failing = async {
        loop {
            if let Err(error) = worker.receive(10).await {
                break error;
            }
        }
    };
    tokio::time::timeout(TIME_LIMIT, failing).await.unwrap()
}

#[test]
fn a_quorum_queue_counts_deliveries() {
    let subject = Queue::start(QueueType::Quorum);
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..1).await;
        for deliveries in 1..4 {
            let mut worker = worker(&broker, "a").await;
            let taken = take(&mut worker, 1).await;
            assert_eq!(taken[0].deliveries, deliveries);
            worker.leave().await.unwrap();
        }
    });
}

#[test]
fn what_has_only_arrived_at_a_worker_that_leaves_goes_to_another_one() {
    let subject = Queue::start(QueueType::Quorum);
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..10).await;
        let mut first = worker(&broker, "a").await;
        let mut second = worker(&broker, "b").await;
        take(&mut first, 2).await;
        first.leave().await.unwrap();
        let rest = take(&mut second, 10).await;
        assert_eq!(sorted(&rest), (0..10).collect::<Vec<_>>());
    });
}

#[test]
fn a_worker_that_is_dropped_closes_its_connection() {
    let subject = Queue::start(QueueType::Quorum);
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..5).await;
        let mut first = worker(&broker, "a").await;
        take(&mut first, 5).await;
        drop(first);
        let again = take(&mut worker(&broker, "c").await, 5).await;
        assert_eq!(sorted(&again), (0..5).collect::<Vec<_>>());
    });
}

#[test]
fn an_acknowledgement_of_an_earlier_connection_is_ignored() {
    let subject = Queue::start(QueueType::Quorum);
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..3).await;
        let mut first = worker(&broker, "a").await;
        let old = take(&mut first, 3).await;
        first.leave().await.unwrap();
        let mut second = worker(&broker, "b").await;
        let taken = take(&mut second, 3).await;
        second.acknowledge(&old).await.unwrap();
        // Twice is as good as once.
        second.acknowledge(&taken[..1]).await.unwrap();
        second.acknowledge(&taken[..1]).await.unwrap();
        second.leave().await.unwrap();
        let mut third = worker(&broker, "c").await;
        let left = take(&mut third, 2).await;
        assert_eq!(sorted(&left), sorted(&taken[1..]));
        third.acknowledge(&left).await.unwrap();
        wait_until_drained(&mut third).await;
    });
}

#[test]
fn a_stream_is_refused() {
    let subject = Queue::start(QueueType::Stream);
    let broker = subject.broker();
    let is_refused = |error: &BrokerError| {
        matches!(error, BrokerError::WrongQueue(_))
            && error.to_string().contains("use a quorum or classic queue")
    };
    block_on(async {
        let missing = broker.worker(options("a")).await.err().unwrap();
        assert!(is_refused(&missing), "{missing}");
    });
    // It is not made, either.
    assert_eq!(subject.client().depth(QUEUE), None);
    block_on(async {
        put(&broker, 0..3).await;
        let mut worker = worker(&broker, "b").await;
        let found = failure(&mut worker).await;
        assert!(is_refused(&found), "{found}");
    });
}

#[test]
fn an_existing_queue_is_used_whatever_its_type() {
    let subject = Queue::start(QueueType::Quorum);
    subject.vhost.client().declare(QUEUE, &[]);
    let classic = Queue {
        queue_type: QueueType::Classic,
        ..subject
    };
    block_on(async {
        put(&classic.broker(), 0..3).await;
        let quorum = classic.with(BrokerOptions::default());
        let taken = take(&mut worker(&quorum, "a").await, 3).await;
        assert_eq!(sorted(&taken), [0, 1, 2]);
    });
}

#[test]
fn a_missing_queue_is_an_error_where_none_is_declared() {
    let subject = Queue::start(QueueType::Quorum);
    let broker = subject.with(BrokerOptions {
        no_declare: true,
        ..BrokerOptions::default()
    });
    let opened = block_on(broker.worker(options("a"))).err().unwrap();
    assert!(matches!(opened, BrokerError::WrongQueue(_)), "{opened}");
}

#[test]
fn a_queue_that_was_deleted_is_made_again() {
    let subject = Queue::start(QueueType::Quorum);
    let broker = subject.broker();
    block_on(async {
        let mut first = worker(&broker, "a").await;
        let client = subject.vhost.clone();
        let deleted = std::thread::spawn(move || client.client().delete(QUEUE));
        let error = failure(&mut first).await;
        assert!(matches!(error, BrokerError::Unavailable(_)), "{error}");
        deleted.join().unwrap();
        let mut second = worker(&broker, "b").await;
        put(&broker, 0..2).await;
        assert_eq!(sorted(&take(&mut second, 2).await), [0, 1]);
    });
}

#[test]
fn a_queue_with_messages_for_others_is_not_drained() {
    let subject = Queue::start(QueueType::Quorum);
    let broker = subject.broker();
    let modest = |name: &str| WorkerOptions {
        prefetch: 1,
        ..options(name)
    };
    block_on(async {
        put(&broker, 0..3).await;
        let mut first = broker.worker(modest("a")).await.unwrap();
        let taken = take(&mut first, 1).await;
        assert!(!first.is_drained().await.unwrap(), "two messages wait");
        first.acknowledge(&taken).await.unwrap();
        for _ in 0..2 {
            let some = take(&mut first, 1).await;
            first.acknowledge(&some).await.unwrap();
        }
        wait_until_drained(&mut first).await;
    });
}

/// From version 4 on, RabbitMQ drops a message that comes back for the 21st time.
#[test]
fn a_message_that_comes_back_often_stays_and_is_counted() {
    let subject = Queue::start(QueueType::Quorum);
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..3).await;
        let mut counted = 0;
        for round in 1..=30 {
            let mut worker = worker(&broker, &round.to_string()).await;
            let taken = take(&mut worker, 3).await;
            assert_eq!(sorted(&taken), [0, 1, 2]);
            let least = taken.iter().map(|it| it.deliveries).min().unwrap();
            assert!(least > counted, "{least} after {counted}");
            counted = least;
            subject.proxy().cut_connections();
        }
        assert!(counted >= 30, "{counted}");
    });
}
