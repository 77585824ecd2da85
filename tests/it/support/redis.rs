//! Private Redis servers, on free ports, with their data in a folder of their own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use redis::{Commands, Connection, Value};

use super::{Process, wait_until};

/// A server that is stopped when it is dropped.
pub(crate) struct Server {
    child: Option<Child>,
    pub(crate) port: u16,
    /// The text that replaces `{port}` in its arguments.
    pub(crate) other_port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    password: Option<String>,
    _guard: Option<tempfile::TempDir>,
}

/// Returns a port that is currently free.
pub(crate) fn free_port() -> u16 {
    let [port] = free_ports();
    port
}

/// Returns different ports that are currently free.
pub(crate) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let listeners = [(); COUNT].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Self {
            child: None,
            port: 0,
            other_port: 0,
            folder: folder.path().to_owned(),
            arguments: arguments.iter().map(|&s| s.to_owned()).collect(),
            password: None,
            _guard: Some(folder),
        };
        // Another process may take a port before it is used, so retry.
        wait_until("the server is up", || {
            [server.port, server.other_port] = free_ports();
            server.try_up();
            server.child.is_some()
        });
        server
    }

    /// Starts a sentinel with this configuration, which the sentinel overwrites.
    pub(crate) fn sentinel(config: &str) -> Self {
        let mut server = Self::start(&[config, "--sentinel"]);
        server.password = None;
        server
    }

    pub(crate) fn with_password(password: &str) -> Self {
        let mut server = Self::start(&[]);
        let mut connection = server.connection();
        redis::cmd("CONFIG")
            .arg(&["SET", "requirepass", password])
            .exec(&mut connection)
            .unwrap();
        server.password = Some(password.to_owned());
        server
    }

    fn command(&self) -> Command {
        // scripts/test-compat names other versions, and Valkey.
        let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
        let mut command = Command::new(program);
        if let [config, flag] = self.arguments.as_slice()
            && flag == "--sentinel"
        {
            let port = self.port.to_string();
            command.args([config, "--port", &port, flag]);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            return command;
        }
        let other_port = self.other_port.to_string();
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--dir", self.folder.to_str().unwrap(), "--save", ""])
            .args(["--logfile", "log", "--repl-diskless-sync-delay", "0"])
            .args(
                self.arguments
                    .iter()
                    .map(|text| text.replace("{port}", &other_port)),
            )
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn try_up(&mut self) {
        let mut child = self.command().spawn().unwrap();
        let mut is_up = false;
        wait_until("the server is up or gone", || {
            is_up = std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            is_up || child.try_wait().unwrap().is_some()
        });
        if is_up && child.try_wait().unwrap().is_none() {
            self.child = Some(child);
        }
    }

    /// Starts the server again on the same port, with the data in its folder.
    pub(crate) fn up(&mut self) {
        wait_until("the server is up again", || {
            self.try_up();
            self.child.is_some()
        });
        let mut connection = self.connection();
        wait_until("its data is loaded", || {
            redis::cmd("PING").exec(&mut connection).is_ok()
        });
    }

    /// Stops the server from answering. Its connections stay open.
    pub(crate) fn hold(&self) {
        let id = self.child.as_ref().unwrap().id().to_string();
        let status = std::process::Command::new("kill")
            .args(["-STOP", &id])
            .status();
        assert!(status.unwrap().success());
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{}", self.port),
            None => format!("redis://127.0.0.1:{}", self.port),
        }
    }

    pub(crate) fn connection(&self) -> Connection {
        self.connect(&self.url())
    }

    /// The URL with a login, including its `@`.
    pub(crate) fn connection_as(&self, login: &str) -> Connection {
        self.connect(&format!("redis://{login}127.0.0.1:{}", self.port))
    }

    fn connect(&self, url: &str) -> Connection {
        let client = redis::Client::open(url).unwrap();
        let mut connection = None;
        wait_until("the server accepts connections", || {
            connection = client.get_connection().ok();
            connection.is_some()
        });
        connection.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// An entry of a stream: its fields and values, in their order.
pub(crate) type Entry = Vec<(String, String)>;

pub(crate) fn entries(connection: &mut Connection, stream: &str) -> Vec<Entry> {
    let numbered = numbered_entries(connection, stream);
    numbered.into_iter().map(|(_, entry)| entry).collect()
}

/// Returns the entries of a stream with their ids.
pub(crate) fn numbered_entries(connection: &mut Connection, stream: &str) -> Vec<(String, Entry)> {
    let found: Value = redis::cmd("XRANGE")
        .arg(&[stream, "-", "+"])
        .query(connection)
        .unwrap();
    let found: Vec<(String, Vec<String>)> = redis::from_redis_value(found).unwrap();
    let pairs = |(id, fields): (String, Vec<String>)| {
        let pairs = fields.chunks(2);
        let pairs = pairs.map(|pair| (pair[0].clone(), pair[1].clone()));
        (id, pairs.collect())
    };
    found.into_iter().map(pairs).collect()
}

pub(crate) fn field(entry: &Entry, name: &str) -> Option<String> {
    let found = entry.iter().find(|(field, _)| field == name);
    found.map(|(_, value)| value.clone())
}

/// Returns the chat ids on a stream, in their order.
pub(crate) fn chat_ids(connection: &mut Connection, stream: &str) -> Vec<String> {
    let entries = entries(connection, stream);
    entries
        .iter()
        .filter_map(|entry| field(entry, "chat_id"))
        .collect()
}

pub(crate) fn length(connection: &mut Connection, stream: &str) -> usize {
    connection.xlen_or_zero(stream)
}

/// Returns whether the server has processed everything from other connections and has closed them.
pub(crate) fn is_alone(connection: &mut Connection) -> bool {
    let clients: String = redis::cmd("CLIENT").arg("LIST").query(connection).unwrap();
    clients.lines().count() == 1
}

trait XLen {
    fn xlen_or_zero(&mut self, stream: &str) -> usize;
}

impl XLen for Connection {
    fn xlen_or_zero(&mut self, stream: &str) -> usize {
        redis::cmd("XLEN").arg(stream).query(self).unwrap_or(0)
    }
}

/// Kills a run. Returns when the server has processed everything from the run and closed its
/// connections, and the lock of the run has expired. `connection` must be the only other one.
pub(crate) fn kill_run(process: Process, connection: &mut Connection) {
    process.kill();
    forget_run(connection);
}

/// Returns when the server has closed the connections of a run that was killed, and its lock has
/// expired.
pub(crate) fn forget_run(connection: &mut Connection) {
    wait_until("the server has closed its connections", || {
        is_alone(connection)
    });
    expire_locks(connection);
}

/// Keeps the lock of a stopped process from expiring, however long the test takes.
pub(crate) fn keep_locks(connection: &mut Connection) {
    let locks: Vec<String> = connection.keys("labelcast:lock:*").unwrap();
    assert!(!locks.is_empty());
    for lock in locks {
        let is_held: bool = connection.expire(lock, 3600).unwrap();
        assert!(is_held);
    }
}

/// Makes the lock of a dead run as old as it would be later.
pub(crate) fn expire_locks(connection: &mut Connection) {
    let locks: Vec<String> = connection.keys("labelcast:lock:*").unwrap();
    for lock in locks {
        let _: () = connection.del(lock).unwrap();
    }
}
