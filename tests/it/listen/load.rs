//! Senders that do not give up, and what must be published of their events.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::support::listener::{Sender, event};
use crate::support::redis::{Server, entries, field};

const SENDERS: usize = 8;

/// Senders that send events until they are stopped, each again until it is acknowledged.
pub(super) struct Load {
    next: AtomicUsize,
    stop: AtomicBool,
    acknowledged: Mutex<BTreeSet<usize>>,
}

impl Load {
    pub(super) fn new() -> Self {
        Self {
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            acknowledged: Mutex::default(),
        }
    }

    pub(super) fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Sends events to whoever listens now. An event that was not acknowledged is sent again, even
    /// if it may be on the queue already.
    fn send(&self, address: &Mutex<String>) {
        while !self.stop.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let event = event(
                &format!("evt_{number}"),
                "added",
                "1",
                &format!("{number}@c.us"),
            );
            let body = event.to_string();
            while !self.stop.load(Ordering::Relaxed) {
                let address = address.lock().unwrap().clone();
                let answer = Sender::connect(&address).and_then(|mut sender| sender.post(&body));
                match answer {
                    Ok(answer) if answer.status == 200 => {
                        self.acknowledged.lock().unwrap().insert(number);
                        break;
                    }
                    Ok(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                    // Killed, or not started yet.
                    Err(_) => std::thread::yield_now(),
                }
            }
        }
    }

    /// Checks that each acknowledged event was published, by the ids of all messages. Returns how
    /// many messages are repeats.
    pub(super) fn check(&self, published: &[String]) -> usize {
        let ids: BTreeSet<&String> = published.iter().collect();
        for number in &*self.acknowledged.lock().unwrap() {
            assert!(
                ids.contains(&format!("evt_{number}")),
                "event {number} is lost"
            );
        }
        published.len() - ids.len()
    }
}

/// Does something while senders send to the address.
pub(super) fn with_senders<T>(load: &Load, address: &Mutex<String>, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        for _ in 0..SENDERS {
            scope.spawn(|| load.send(address));
        }
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        load.stop.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Ids of all events on a stream.
pub(super) fn on_stream(server: &Server, stream: &str) -> Vec<String> {
    let entries = entries(&mut server.connection(), stream);
    entries
        .iter()
        .map(|entry| field(entry, "event_id").unwrap())
        .collect()
}
