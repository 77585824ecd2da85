//! A connection that is made on demand, and the short exchanges over it.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, Pipeline, RedisError, Script, ScriptInvocation, Value};
use uuid::Uuid;

use super::connect::Endpoint;
use super::keys::Keys;
use super::selection::{Passes, Skipped};
use super::stream::{Lease, Reply};
use crate::broker::Checkpoint;
use crate::broker::error::Failure;

/// How long a lock lasts without a heartbeat, and therefore the longest wait before a takeover.
pub(super) const LOCK_TTL: Duration = Duration::from_secs(10);
/// The append script for all chats.
const APPEND_ALL: &str = concat!(
    include_str!("append_check.lua"),
    include_str!("append_all.lua"),
    include_str!("append_move.lua"),
);
/// The append script for chats that are selected.
const APPEND_SELECTED: &str = concat!(
    include_str!("append_check.lua"),
    include_str!("judge.lua"),
    include_str!("append_selected.lua"),
    include_str!("append_move.lua"),
);
/// Time limit for replicas to confirm a write.
const REPLICA_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the server that holds a key. There is none before the first use or after a
/// failure.
pub(super) struct Link {
    endpoint: Endpoint,
    key: String,
    connection: Option<MultiplexedConnection>,
    append: Script,
    knows_append: bool,
}

impl Link {
    pub(super) fn new(endpoint: Endpoint, key: String) -> Self {
        Self {
            endpoint,
            key,
            connection: None,
            append: Script::new(APPEND_ALL),
            knows_append: false,
        }
    }

    /// Lets appends leave out chats.
    pub(super) fn append_selected_only(&mut self) {
        self.append_by(Script::new(APPEND_SELECTED));
    }

    /// Sets the script that appends.
    pub(super) fn append_by(&mut self, script: Script) {
        self.append = script;
        self.knows_append = false;
    }

    /// Name of the append script at the server.
    pub(super) fn append_hash(&self) -> &str {
        self.append.get_hash()
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    pub(super) fn drop_connection(&mut self) {
        self.connection = None;
    }

    /// Drops the connection if its state is unknown after this failure.
    pub(super) fn disconnect_after(&mut self, failure: &Failure) {
        if matches!(failure, Failure::Transient(_)) {
            self.drop_connection();
        }
    }

    /// Returns the connection, and connects if there is none.
    pub(super) async fn connection(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        if self.connection.is_none() {
            self.connection = Some(self.endpoint.connect(&self.key).await?);
            self.knows_append = false;
        }
        let gone = || (ErrorKind::Io, "the connection is gone").into();
        self.connection.as_mut().ok_or_else(gone)
    }

    /// Returns the connection after making sure that the server has loaded the append script.
    async fn with_append(&mut self) -> Result<&mut MultiplexedConnection, RedisError> {
        if !(self.is_connected() && self.knows_append) {
            let append = self.append.clone();
            let connection = self.connection().await?;
            append.prepare_invoke().load_async(connection).await?;
            self.knows_append = true;
        }
        self.connection().await
    }

    /// Sends an append and returns its reply as a future. With `replicas`, the reply is an error
    /// unless that many replicas confirm the write.
    pub(super) async fn dispatch(&mut self, command: &Arc<Cmd>, replicas: u32) -> Reply {
        let mut connection = match self.with_append().await {
            Ok(connection) => connection.clone(),
            Err(error) => return Box::pin(std::future::ready(Err(error))),
        };
        let command = Arc::clone(command);
        let mut reply: Reply = Box::pin(async move {
            let reply = connection.send_packed_command(&command).await?;
            let reply = reply.extract_error()?;
            if replicas > 0 {
                wait_on(&mut connection, replicas).await?;
            }
            Ok(reply)
        });
        // The first poll hands the command to the connection, which keeps the order.
        let poll = std::future::poll_fn(|context| Poll::Ready(reply.as_mut().poll(context)));
        match poll.await {
            Poll::Ready(ended) => Box::pin(std::future::ready(ended)),
            Poll::Pending => reply,
        }
    }

    /// Waits until replicas have confirmed what was written on this connection.
    pub(super) async fn wait(&mut self, replicas: u32) -> Result<(), RedisError> {
        wait_on(self.connection().await?, replicas).await
    }

    /// Writes a field that has no meaning, so that `WAIT` has a write on this connection to wait
    /// for.
    pub(super) async fn touch(&mut self, keys: &Keys) -> Result<(), RedisError> {
        redis::cmd("HSET")
            .arg(&keys.checkpoint)
            .arg("touched")
            .arg("1")
            .exec_async(self.connection().await?)
            .await
    }

    /// Sends appends at once, and returns their replies in order. If one is an error, it is the
    /// result; the others may have been done.
    pub(super) async fn append_each(
        &mut self,
        appends: &Pipeline,
    ) -> Result<Vec<Value>, RedisError> {
        appends.query_async(self.with_append().await?).await
    }

    /// Runs a script.
    pub(super) async fn run(&mut self, script: &ScriptInvocation<'_>) -> Result<Value, RedisError> {
        script.invoke_async(self.connection().await?).await
    }
}

async fn wait_on(connection: &mut MultiplexedConnection, replicas: u32) -> Result<(), RedisError> {
    let within = u64::try_from(REPLICA_TIMEOUT.as_millis()).unwrap_or(u64::MAX);
    let reached: u32 = redis::cmd("WAIT")
        .arg(replicas)
        .arg(within)
        .query_async(connection)
        .await?;
    if reached < replicas {
        let text = format!("{reached} of {replicas} replicas have confirmed");
        return Err((ErrorKind::Io, "too few replicas", text).into());
    }
    Ok(())
}

/// Contents of the checkpoint, and whether the stream exists.
#[derive(Clone, Debug, Default)]
pub(super) struct StoredState {
    pub(super) fence: Fence,
    pub(super) checkpoint: Option<Checkpoint>,
    /// How the run's chats were selected.
    pub(super) selection: StoredSelection,
    /// Whether the run has ended, complete or rejected, and its process knew it. A run whose
    /// process did not know is resumed, with nothing left to publish.
    pub(super) is_over: bool,
    /// Whether chats that are already on the stream are skipped.
    pub(super) suppress: bool,
    /// The last run that ended and whose process knew it.
    pub(super) settled: Option<String>,
    /// On the first of several streams: the last run that was started on all of them.
    pub(super) begun: Option<String>,
    pub(super) last_complete: Option<u64>,
    /// Where the run's entries begin on the stream: an id, or `-` if that is not known.
    pub(super) read_from: Option<String>,
    pub(super) stream: StreamState,
    pub(super) at: Option<SystemTime>,
    /// Number of streams that the run was spread over.
    pub(super) partitions: Option<usize>,
}

/// How a run's chats were selected, as recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct StoredSelection {
    /// Name of the selection; empty if all chats are appended.
    pub(super) mode: String,
    pub(super) skipped: Skipped,
    pub(super) passes: Passes,
    /// Members that were removed.
    pub(super) removed: u64,
    /// Whether every run to the queue keeps the membership.
    pub(super) is_tracked: bool,
}

impl StoredSelection {
    /// Reads it from the fields of the checkpoint.
    fn read(field: impl Fn(&str) -> Option<String>) -> Self {
        let number = |name: &str| field(name).and_then(|number| number.parse().ok());
        Self {
            mode: field("selection").unwrap_or_default(),
            skipped: Skipped {
                suppressed: number("suppressed").unwrap_or(0),
                known: number("known").unwrap_or(0),
            },
            passes: Passes {
                current: number("pass").unwrap_or(0),
                first: number("first_pass").unwrap_or(0),
                published_from: number("published_from").unwrap_or(0),
            },
            removed: number("removed").unwrap_or(0),
            is_tracked: field("tracked").as_deref() == Some("1"),
        }
    }
}

/// Whether a stream exists. One that is read, trimmed or emptied still does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StreamState {
    Exists,
    /// It does not exist, and no entry of the run is known.
    #[default]
    Missing,
    /// It was deleted, with the run's entries.
    Deleted,
}

/// The newest fencing token.
#[derive(Clone, Debug, Default)]
pub(super) struct Fence {
    pub(super) token: Option<String>,
    /// Owner that the token was issued to.
    pub(super) owner: Option<String>,
}

impl StoredState {
    /// Returns the progress of this run, if it is recorded and the stream still exists.
    pub(super) fn checkpoint_of(&self, run_id: Uuid) -> Option<Checkpoint> {
        self.checkpoint
            .filter(|at| at.run_id == run_id && self.stream != StreamState::Deleted)
    }
}

/// The fields of the checkpoint that are read.
const FIELDS: [&str; 23] = [
    "tracked",
    "selection",
    "known",
    "pass",
    "first_pass",
    "published_from",
    "removed",
    "read_from",
    "suppressed",
    "fence",
    "run_id",
    "position",
    "digest",
    "chats",
    "status",
    "suppress",
    "last_complete",
    "first_id",
    "at",
    "partitions",
    "fence_owner",
    "settled",
    "begun",
];

/// Reads the checkpoint, and whether the stream exists.
pub(super) async fn load(link: &mut Link, keys: &Keys) -> Result<StoredState, Failure> {
    let found: Vec<Option<String>> = redis::cmd("HMGET")
        .arg(&keys.checkpoint)
        .arg(&FIELDS)
        .query_async(link.connection().await?)
        .await?;
    let is_there: bool = redis::cmd("EXISTS")
        .arg(&keys.stream)
        .query_async(link.connection().await?)
        .await?;
    let field = |name: &str| {
        let at = FIELDS.iter().position(|field| *field == name)?;
        found.get(at)?.clone()
    };
    let number = |name: &str| field(name)?.parse().ok();
    let checkpoint = || {
        Some(Checkpoint {
            run_id: field("run_id")?.parse().ok()?,
            position: number("position")?,
            digest: field("digest")?.parse().ok()?,
            chats: number("chats")?,
        })
    };
    Ok(StoredState {
        fence: Fence {
            token: field("fence"),
            owner: field("fence_owner"),
        },
        checkpoint: checkpoint(),
        selection: StoredSelection::read(field),
        is_over: field("status").is_some_and(|status| status != "running")
            && field("settled") == field("run_id"),
        settled: field("settled"),
        begun: field("begun"),
        suppress: field("suppress").as_deref() == Some("1"),
        last_complete: number("last_complete"),
        partitions: field("partitions").and_then(|count| count.parse().ok()),
        stream: match (is_there, field("first_id")) {
            (true, _) => StreamState::Exists,
            (false, Some(_)) => StreamState::Deleted,
            (false, None) => StreamState::Missing,
        },
        read_from: field("read_from").or_else(|| field("first_id")),
        at: field("at").and_then(|at| humantime::parse_rfc3339(&at).ok()),
    })
}

/// Outcome of an attempt to take the lock.
pub(super) enum Acquired {
    /// The lock is ours, with this fencing token.
    Owned(String),
    /// Another owner holds the lock, for `left` more milliseconds.
    Held {
        owner: String,
        left: i64,
        /// The last run that ended and whose process knew it.
        settled: Option<String>,
    },
}

/// Tries to take the lock.
pub(super) async fn acquire(
    link: &mut Link,
    keys: &Keys,
    lease: &Lease,
) -> Result<Acquired, Failure> {
    let script = Script::new(include_str!("acquire.lua"));
    let mut script = script.prepare_invoke();
    script.key(&keys.lock).key(&keys.checkpoint);
    script
        .arg(&lease.owner)
        .arg(lock_millis())
        .arg(&lease.keep_ms);
    let reply = link.run(&script).await?;
    match &reply {
        Value::Array(held) => {
            let left = match held.get(1) {
                Some(Value::Int(left)) => *left,
                _ => 0,
            };
            let owner = held.first().map(reply_text).unwrap_or_default();
            let settled = held
                .get(2)
                .map(reply_text)
                .filter(|run_id| !run_id.is_empty());
            Ok(Acquired::Held {
                owner,
                left,
                settled,
            })
        }
        token => Ok(Acquired::Owned(reply_text(token))),
    }
}

pub(super) fn lock_millis() -> u64 {
    u64::try_from(LOCK_TTL.as_millis()).unwrap_or(u64::MAX)
}

/// Converts a simple reply to text; empty for other replies.
pub(super) fn reply_text(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".to_owned(),
        Value::Int(number) => number.to_string(),
        _ => String::new(),
    }
}
