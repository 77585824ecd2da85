//! Workers on a stream: what a consumer group knows of them.

use std::time::Duration;

use labelcast::broker::factory::Broker;
use labelcast::broker::{BrokerError, BrokerOptions, WorkerOptions};
use redis::{Commands, Connection};

use super::{
    GROUP, QUEUE, Subject, all, block_on, broker, numbers, options, put, sorted, take, worker,
};
use crate::support::proxy::Proxy;
use crate::support::redis::{Entry, Server, entries};
use crate::support::resp::answering;

pub(super) struct Stream {
    server: Server,
    proxy: Proxy,
}

impl Stream {
    pub(super) fn start() -> Self {
        let server = Server::start(&[]);
        Self {
            proxy: Proxy::start(server.port),
            server,
        }
    }

    pub(super) fn entries(&self) -> Vec<Entry> {
        entries(&mut self.server.connection(), QUEUE)
    }

    /// Id, owner and number of deliveries of each pending entry.
    fn pending(&self) -> Vec<(String, String, u64)> {
        let mut command = redis::cmd("XPENDING");
        command.arg(&[QUEUE, GROUP, "-", "+", "1000"]);
        let found: Vec<(String, String, u64, u64)> =
            command.query(&mut self.server.connection()).unwrap();
        let found = found.into_iter();
        found
            .map(|(id, owner, _, count)| (id, owner, count))
            .collect()
    }

    fn owners(&self) -> Vec<String> {
        let pending = self.pending().into_iter();
        pending.map(|(_, owner, _)| owner).collect()
    }

    /// Names of the workers in the group.
    fn workers(&self) -> Vec<String> {
        workers(&mut self.server.connection())
    }
}

fn workers(connection: &mut Connection) -> Vec<String> {
    let mut command = redis::cmd("XINFO");
    command.arg(&["CONSUMERS", QUEUE, GROUP]);
    let found: Vec<std::collections::HashMap<String, redis::Value>> =
        command.query(connection).unwrap();
    let name = |it: &std::collections::HashMap<String, redis::Value>| {
        redis::from_redis_value(it["name"].clone()).unwrap()
    };
    found.iter().map(name).collect()
}

impl Subject for Stream {
    fn counts(&self) -> bool {
        true
    }

    fn broker(&self) -> Broker {
        broker(&self.proxy.url(), BrokerOptions::default())
    }

    fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    fn let_time_pass(&self) {
        let mut connection = self.server.connection();
        for (id, owner, _) in self.pending() {
            let mut command = redis::cmd("XCLAIM");
            command.arg(&[QUEUE, GROUP, &owner, "0", &id, "IDLE", "7200000", "JUSTID"]);
            command.exec(&mut connection).unwrap();
        }
    }
}

#[test]
fn a_dead_worker_is_noticed_by_one_that_is_there() {
    let subject = Stream::start();
    let broker = subject.broker();
    let hasty = |name: &str| WorkerOptions {
        takeover_after: Duration::from_millis(300),
        ..options(name)
    };
    block_on(async {
        put(&broker, 0..3).await;
        let mut alive = broker.worker(hasty("alive")).await.unwrap();
        let mut dead = broker.worker(hasty("dead")).await.unwrap();
        let taken = take(&mut dead, 3).await;
        drop(dead);
        let again = take(&mut alive, 3).await;
        assert_eq!(numbers(&again), numbers(&taken));
    });
}

#[test]
fn what_is_kept_is_not_taken_over_and_keeping_is_no_delivery() {
    let subject = Stream::start();
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..4).await;
        let mut first = worker(&broker, "a").await;
        let taken = take(&mut first, 4).await;
        subject.let_time_pass();
        first.keep(&all(&taken[..2])).await.unwrap();
        let again = worker(&broker, "b").await.receive(10).await.unwrap();
        assert_eq!(numbers(&again), [2, 3]);
        let counts = subject.pending().into_iter().map(|(_, _, count)| count);
        assert_eq!(counts.collect::<Vec<_>>(), [1, 1, 2, 2]);
        // What another worker has taken over remains there, and nothing appears that is done.
        first.acknowledge(&taken[..1]).await.unwrap();
        first.keep(&all(&taken)).await.unwrap();
        let names = ["labelcast-a", "labelcast-b", "labelcast-b"];
        assert_eq!(subject.owners(), names);
    });
}

#[test]
fn taking_over_goes_on_where_it_stopped() {
    let subject = Stream::start();
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..60).await;
        let mut first = worker(&broker, "a").await;
        let taken = take(&mut first, 60).await;
        subject.let_time_pass();
        first.keep(&all(&taken[..50])).await.unwrap();
        // The search for one entry looks at ten.
        let mut second = worker(&broker, "b").await;
        let mut again = Vec::new();
        while again.len() < 10 {
            again.extend(second.receive(1).await.unwrap());
        }
        assert_eq!(numbers(&again), (50..60).collect::<Vec<_>>());
    });
}

#[test]
fn a_worker_that_leaves_is_removed_unless_it_has_entries() {
    let subject = Stream::start();
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..4).await;
        let mut first = worker(&broker, "a").await;
        let mut second = worker(&broker, "b").await;
        let ours = take(&mut first, 2).await;
        let theirs = take(&mut second, 2).await;
        first.acknowledge(&ours).await.unwrap();
        first.leave().await.unwrap();
        assert_eq!(subject.workers(), ["labelcast-b"]);
        // It says nothing of what it has: its process may not know of it.
        second.leave().await.unwrap();
        assert_eq!(subject.owners(), ["labelcast-b"; 2]);
        let again = take(&mut worker(&broker, "c").await, 2).await;
        assert_eq!(numbers(&again), numbers(&theirs));
        assert!(again.iter().all(|delivery| delivery.deliveries == 1));
    });
}

#[test]
fn a_queue_is_drained_when_no_worker_has_anything_of_it() {
    let subject = Stream::start();
    let broker = subject.broker();
    let mut connection = subject.server.connection();
    block_on(async {
        put(&broker, 0..2).await;
        let mut first = worker(&broker, "a").await;
        let mut second = worker(&broker, "b").await;
        assert!(!second.is_drained().await.unwrap(), "nothing is read");
        let taken = take(&mut first, 2).await;
        first.acknowledge(&taken[..1]).await.unwrap();
        assert!(!second.is_drained().await.unwrap(), "another worker has it");
        first.acknowledge(&taken[1..]).await.unwrap();
        assert!(second.is_drained().await.unwrap());
        put(&broker, 2..5).await;
        assert!(!second.is_drained().await.unwrap());
        let mut trim = redis::cmd("XTRIM");
        trim.arg(&[QUEUE, "MAXLEN", "0"]);
        trim.exec(&mut connection).unwrap();
        assert!(
            second.is_drained().await.unwrap(),
            "nothing is there to be read"
        );
        let _: usize = connection.del(QUEUE).unwrap();
        assert!(second.is_drained().await.unwrap());
        assert!(first.leave().await.is_ok());
    });
}

/// Deletes the entries that a worker has, after they have become old, and returns whether another
/// worker, over `broker`, then finds the queue drained.
async fn is_drained_after_deletions(subject: &Stream, broker: &Broker) -> bool {
    put(&subject.broker(), 0..3).await;
    // To an old server they are those of the worker that asks: it has taken them over.
    let mut first = worker(&subject.broker(), "a").await;
    take(&mut first, 3).await;
    subject.let_time_pass();
    let mut connection = subject.server.connection();
    for (id, _, _) in subject.pending() {
        let mut delete = redis::cmd("XDEL");
        delete.arg(&[QUEUE, &id]).exec(&mut connection).unwrap();
    }
    assert!(!first.is_drained().await.unwrap());
    let mut second = worker(broker, "a").await;
    assert_eq!(second.receive(10).await.unwrap(), []);
    second.is_drained().await.unwrap()
}

#[test]
fn a_deleted_entry_does_not_keep_a_queue_from_being_drained() {
    let subject = Stream::start();
    assert!(block_on(is_drained_after_deletions(
        &subject,
        &subject.broker()
    )));
}

#[test]
fn a_deleted_entry_does_not_either_at_a_server_that_delivers_it_without_contents() {
    let subject = Stream::start();
    let proxy = answering(subject.server.port, |name| {
        let cursor_and_nothing = "*2\r\n$3\r\n0-0\r\n*1\r\n*-1";
        (name == "XAUTOCLAIM").then(|| cursor_and_nothing.to_owned())
    });
    let old = broker(
        &format!("redis://127.0.0.1:{proxy}"),
        BrokerOptions::default(),
    );
    assert!(block_on(is_drained_after_deletions(&subject, &old)));
}

#[test]
fn an_acknowledgement_survives_a_new_connection() {
    let subject = Stream::start();
    let broker = subject.broker();
    block_on(async {
        put(&broker, 0..2).await;
        let mut worker = worker(&broker, "a").await;
        let taken = take(&mut worker, 2).await;
        subject.proxy.cut_connections();
        let failed = worker.acknowledge(&taken).await;
        assert!(matches!(failed, Err(BrokerError::Unavailable(_))));
        worker.acknowledge(&taken).await.unwrap();
        assert_eq!(subject.pending(), []);
    });
}

#[test]
fn a_stream_that_was_deleted_is_an_error_once() {
    let subject = Stream::start();
    let broker = subject.broker();
    block_on(async {
        let mut worker = worker(&broker, "a").await;
        let _: usize = subject.server.connection().del(QUEUE).unwrap();
        assert!(worker.receive(10).await.is_err());
        assert_eq!(worker.receive(10).await.unwrap(), []);
        put(&broker, 0..2).await;
        assert_eq!(sorted(&take(&mut worker, 2).await), [0, 1]);
    });
}

#[test]
fn a_key_of_another_type_is_refused() {
    let subject = Stream::start();
    let _: () = subject.server.connection().set(QUEUE, "1").unwrap();
    let opened = block_on(subject.broker().worker(options("a")));
    assert!(matches!(opened, Err(BrokerError::WrongQueue(_))));
}

#[test]
fn only_silent_workers_without_entries_are_removed() {
    let subject = Stream::start();
    let broker = subject.broker();
    let mut connection = subject.server.connection();
    block_on(async {
        put(&broker, 0..2).await;
        take(&mut worker(&broker, "busy").await, 2).await;
    });
    for name in ["labelcast-idle", "other"] {
        let mut command = redis::cmd("XGROUP");
        command.arg(&["CREATECONSUMER", QUEUE, GROUP, name]);
        command.exec(&mut connection).unwrap();
    }
    // None of them has been silent for an hour.
    block_on(async { drop(worker(&broker, "new").await) });
    let mut names = subject.workers();
    names.sort();
    assert_eq!(names, ["labelcast-busy", "labelcast-idle", "other"]);
    // They would be now.
    let script = redis::Script::new(include_str!("../../../src/broker/redis/worker_tidy.lua"));
    let mut script = script.prepare_invoke();
    script.key(QUEUE).arg(GROUP).arg("labelcast-").arg(-1);
    let removed: u64 = script.invoke(&mut connection).unwrap();
    assert_eq!(removed, 1);
    assert_eq!(workers(&mut connection), ["labelcast-busy", "other"]);
}
