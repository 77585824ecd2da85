//! A TCP proxy that cuts connections and holds data back.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// A proxy that forwards to a port until it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    target: AtomicU16,
    /// The number of bytes in that direction after which the connection breaks. Negative for never.
    cut_to_server: AtomicI64,
    cut_to_client: AtomicI64,
    /// The number of connections so far.
    connections: AtomicU64,
    /// The number of connections, from the first on, that receive no more data.
    held: AtomicU64,
    /// The number of connections, from the first on, whose data is dropped.
    dropping: AtomicU64,
    /// The number of dropped bytes.
    dropped: AtomicU64,
    /// The clients' ends of all connections.
    clients: Mutex<Vec<TcpStream>>,
    is_over: AtomicBool,
}

impl Proxy {
    pub(crate) fn start(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            cut_to_server: AtomicI64::new(-1),
            cut_to_client: AtomicI64::new(-1),
            connections: AtomicU64::new(0),
            held: AtomicU64::new(0),
            dropping: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            clients: Mutex::default(),
            is_over: AtomicBool::new(false),
        });
        let ours = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if ours.is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) =
                    TcpStream::connect(("127.0.0.1", ours.target.load(Ordering::SeqCst)))
                else {
                    continue;
                };
                let number = ours.connections.fetch_add(1, Ordering::SeqCst);
                let _ = client.set_nodelay(true);
                let _ = server.set_nodelay(true);
                let kept = client.try_clone().unwrap();
                ours.clients.lock().unwrap().push(kept);
                for (from, to, direction) in [
                    (client.try_clone(), server.try_clone(), Direction::ToServer),
                    (server.try_clone(), client.try_clone(), Direction::ToClient),
                ] {
                    let shared = Arc::clone(&ours);
                    let (from, to) = (from.unwrap(), to.unwrap());
                    std::thread::spawn(move || shared.forward(number, from, to, direction));
                }
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Breaks the connection that carries the byte after this many more.
    pub(crate) fn cut_after(&self, bytes: i64, direction: Direction) {
        self.shared.budget(direction).store(bytes, Ordering::SeqCst);
    }

    /// Returns whether a cut is still to come.
    pub(crate) fn is_armed(&self) -> bool {
        [Direction::ToServer, Direction::ToClient]
            .iter()
            .any(|direction| self.shared.budget(*direction).load(Ordering::SeqCst) >= 0)
    }

    /// Returns the number of connections so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Breaks all open connections.
    pub(crate) fn cut_connections(&self) {
        for client in self.shared.clients.lock().unwrap().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }

    /// Stops forwarding the server's data on all open connections.
    pub(crate) fn hold_connections(&self) {
        let all = self.shared.connections.load(Ordering::SeqCst);
        self.shared.held.store(all, Ordering::SeqCst);
    }

    /// Drops all further data that clients send on the open connections. The clients do not notice,
    /// because the server's data still arrives.
    pub(crate) fn drop_what_is_sent(&self) {
        let all = self.shared.connections.load(Ordering::SeqCst);
        self.shared.dropping.store(all, Ordering::SeqCst);
    }

    /// Returns the number of bytes that were dropped since [`Proxy::drop_what_is_sent`].
    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.shared.dropped.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Shared {
    fn budget(&self, direction: Direction) -> &AtomicI64 {
        match direction {
            Direction::ToServer => &self.cut_to_server,
            Direction::ToClient => &self.cut_to_client,
        }
    }

    fn is_held(&self, number: u64, direction: Direction) -> bool {
        direction == Direction::ToClient && number < self.held.load(Ordering::SeqCst)
    }

    fn forward(&self, number: u64, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if self.is_held(number, direction) {
                // Data is still read, so that the server does not block.
                continue;
            }
            let dropping = self.dropping.load(Ordering::SeqCst);
            if direction == Direction::ToServer && number < dropping {
                self.dropped.fetch_add(count as u64, Ordering::SeqCst);
                continue;
            }
            let budget = self.budget(direction);
            let left = budget.load(Ordering::SeqCst);
            let cuts = left >= 0 && left < count as i64;
            let count = if cuts { left as usize } else { count };
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
            if cuts {
                budget.store(-1, Ordering::SeqCst);
                break;
            }
            if left >= 0 {
                budget.fetch_sub(count as i64, Ordering::SeqCst);
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}
