//! Connections from an endpoint to the server that holds a key.
//!
//! A stream and the keys beside it share a slot, so one server is always enough. In a cluster it is
//! found by following `MOVED`, and with sentinels by asking them; the search is repeated after each
//! failure. Commands therefore stay in order on one connection, which a client for whole clusters
//! does not guarantee.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, ProtocolVersion,
    RedisConnectionInfo, RedisError, Value,
};

use super::failure::{is_refused_login, text};
use super::url;
use crate::tls;

/// Time limit for connecting, login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for a reply. A server that flushes its append-only file to a slow disk can be silent
/// for seconds.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of consecutive `MOVED` replies that are followed.
const MAX_MOVES: usize = 5;
/// Commands that may wait for the socket: more than are ever in flight.
const PIPELINE: usize = 64;
/// Error text for a cluster node behind the URL of a single server.
pub(super) const IN_CLUSTER: &str =
    "the server is part of a Redis Cluster, and another node holds the queue";

/// Address of a Redis server, or how to find it.
#[derive(Clone, Debug)]
pub(in crate::broker) struct Endpoint {
    kind: Kind,
    /// Servers to try first; never empty.
    seeds: Vec<ConnectionInfo>,
    /// Newest protocol version to use.
    protocol: ProtocolVersion,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Single,
    Cluster,
    /// The seeds are sentinels.
    Sentinel(Box<Sentinel>),
}

/// What to ask sentinels for, and how to log in to the master that they name.
#[derive(Clone, Debug)]
pub(super) struct Sentinel {
    /// Name of the master, as the sentinels know it.
    pub(super) master: String,
    /// Logins to try at a sentinel, in this order; never empty.
    pub(super) logins: Vec<Login>,
    /// Login of the master.
    pub(super) node: Login,
    /// Database on the master.
    pub(super) db: i64,
}

/// User and password, both optional. `Debug` prints neither.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) username: Option<String>,
    pub(super) password: Option<String>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Login")
    }
}

impl Login {
    fn settings(&self) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default();
        if let Some(username) = &self.username {
            settings = settings.set_username(username);
        }
        if let Some(password) = &self.password {
            settings = settings.set_password(password);
        }
        settings
    }
}

impl Endpoint {
    /// Parses a sink's URL. Returns `None` if the scheme is not one of Redis's.
    ///
    /// # Errors
    ///
    /// A description of the problem, which does not quote the URL.
    pub(in crate::broker) fn parse(url: &str) -> Option<Result<Self, String>> {
        url::read(url)
    }

    pub(super) fn new(kind: Kind, seeds: Vec<ConnectionInfo>, protocol: ProtocolVersion) -> Self {
        Self {
            kind,
            seeds,
            protocol,
        }
    }

    /// Whether keys are spread over several servers.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster)
    }

    /// Whether another endpoint is the same server and database, as far as their URLs tell. Logins
    /// may differ.
    pub(in crate::broker) fn is_same(&self, other: &Self) -> bool {
        let is_shared = |seed: &ConnectionInfo| {
            let mut seeds = other.seeds.iter();
            seeds.any(|it| it.addr() == seed.addr() && db_of(it) == db_of(seed))
        };
        let is_kind = match (&self.kind, &other.kind) {
            (Kind::Single, Kind::Single) | (Kind::Cluster, Kind::Cluster) => true,
            (Kind::Sentinel(ours), Kind::Sentinel(theirs)) => {
                (&ours.master, ours.db) == (&theirs.master, theirs.db)
            }
            _ => false,
        };
        is_kind && self.seeds.iter().any(is_shared)
    }

    /// Connects to the server that holds a key: in a cluster the owner of its slot, with sentinels
    /// the master.
    pub(super) async fn connect(&self, key: &str) -> Result<MultiplexedConnection, RedisError> {
        let mut failure = None;
        for seed in &self.seeds {
            let connected = match &self.kind {
                Kind::Single => self.open_single(seed, key).await,
                Kind::Cluster => self.follow(seed, key).await,
                Kind::Sentinel(sentinel) => self.by_sentinel(seed, sentinel).await,
            };
            match connected {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| (ErrorKind::InvalidClientConfig, "no server").into()))
    }

    /// Opens a connection to a server, in RESP3 first if that is allowed.
    async fn open(&self, info: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
        if self.protocol == ProtocolVersion::RESP3 {
            let settings = info.redis_settings().clone();
            match open_as(info, settings.set_protocol(self.protocol)).await {
                // Servers, proxies and ACLs refuse HELLO with many different texts, some of which
                // also describe a refused login. Logging in without HELLO tells the two apart.
                Err(error) if is_reply(&error) => {}
                opened => return opened,
            }
        }
        open_resp2(info).await
    }

    /// Opens a connection to the only server, and fails if that server redirects the key to another
    /// node.
    async fn open_single(
        &self,
        info: &ConnectionInfo,
        key: &str,
    ) -> Result<MultiplexedConnection, RedisError> {
        let mut connection = self.open(info).await?;
        match look_for(&mut connection, key).await {
            Err(error) if error.redirect_node().is_some() => {
                Err((ErrorKind::InvalidClientConfig, IN_CLUSTER).into())
            }
            // The command that meets another error reports it; this one may just not be permitted.
            _ => Ok(connection),
        }
    }

    /// Looks up a key and follows redirections to the node that holds it.
    async fn follow(
        &self,
        seed: &ConnectionInfo,
        key: &str,
    ) -> Result<MultiplexedConnection, RedisError> {
        let mut at = seed.clone();
        for _ in 0..MAX_MOVES {
            let mut connection = self.open(&at).await?;
            let error = match look_for(&mut connection, key).await {
                Ok(()) => return Ok(connection),
                Err(error) => error,
            };
            let Some((address, _)) = error.redirect_node() else {
                return Err(error);
            };
            let Some((host, port)) = address.rsplit_once(':') else {
                return Err(error);
            };
            let Ok(port) = port.parse() else {
                return Err(error);
            };
            // A server that does not know its own name yet sends only its port.
            let host = if host.is_empty() {
                host_of(&at)
            } else {
                host.to_owned()
            };
            at = at.clone().set_addr(at_host(at.addr(), host, port));
        }
        Err((ErrorKind::Client, "the cluster moves the key in a circle").into())
    }

    /// Asks a sentinel for the master, and confirms with `ROLE` that it is one.
    async fn by_sentinel(
        &self,
        seed: &ConnectionInfo,
        sentinel: &Sentinel,
    ) -> Result<MultiplexedConnection, RedisError> {
        let Some((host, port)) = self.master_address(seed, sentinel).await? else {
            let error = (
                ErrorKind::MasterNameNotFoundBySentinel,
                "the sentinels know no master of this name",
            );
            return Err(error.into());
        };
        let info = seed
            .clone()
            .set_addr(at_host(seed.addr(), host, port))
            .set_redis_settings(sentinel.node.settings().set_db(sentinel.db));
        let mut connection = self.open(&info).await?;
        let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
        let is_master = role.first().is_some_and(|role| match role {
            Value::BulkString(role) => role == b"master",
            Value::SimpleString(role) => role == "master",
            _ => false,
        });
        if is_master {
            Ok(connection)
        } else {
            // During a failover the sentinels may still name the old master.
            Err((ErrorKind::Io, "the sentinels' master is not one yet").into())
        }
    }

    /// Asks a sentinel for the master's address, with the first login that it accepts.
    async fn master_address(
        &self,
        seed: &ConnectionInfo,
        sentinel: &Sentinel,
    ) -> Result<Option<(String, u16)>, RedisError> {
        let mut refusal = None;
        for login in &sentinel.logins {
            let info = seed.clone().set_redis_settings(login.settings());
            match self.ask(&info, &sentinel.master).await {
                Err(error) if is_reply(&error) => {
                    refusal.get_or_insert(error);
                }
                asked => return asked,
            }
        }
        let refusal = refusal.unwrap_or_else(|| (ErrorKind::Client, "no login").into());
        if !is_refused_login(&refusal) {
            return Err(refusal);
        }
        let ours = "a sentinel refused the login; sentinel_username and sentinel_password in the \
                    URL are for sentinels";
        Err((ErrorKind::AuthenticationFailed, ours, text(&refusal)).into())
    }

    async fn ask(
        &self,
        sentinel: &ConnectionInfo,
        master: &str,
    ) -> Result<Option<(String, u16)>, RedisError> {
        let mut connection = self.open(sentinel).await?;
        redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg(master)
            .query_async(&mut connection)
            .await
    }
}

fn db_of(info: &ConnectionInfo) -> i64 {
    info.redis_settings().db()
}

async fn open_as(
    info: &ConnectionInfo,
    settings: RedisConnectionInfo,
) -> Result<MultiplexedConnection, RedisError> {
    tls::provide();
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(PIPELINE);
    Client::open(info.clone().set_redis_settings(settings))?
        .get_multiplexed_async_connection_with_config(&config)
        .await
}

/// Opens a connection in RESP2 and logs in with its own commands. The client library discards the
/// text of a refused login, which distinguishes a wrong password from a server that is out of
/// connections.
async fn open_resp2(info: &ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
    let settings = RedisConnectionInfo::default();
    let settings = settings.set_protocol(ProtocolVersion::RESP2);
    let mut connection = open_as(info, settings.set_skip_set_lib_name()).await?;
    let wanted = info.redis_settings();
    if let Some(password) = wanted.password() {
        let mut auth = Cmd::new();
        auth.arg("AUTH").arg(wanted.username()).arg(password);
        auth.exec_async(&mut connection).await.map_err(|error| {
            if is_reply(&error) && is_refused_login(&error) {
                let ours = "the server refused the login";
                // A proxy may quote the command.
                let said = text(&error).replace(password, "***");
                (ErrorKind::AuthenticationFailed, ours, said).into()
            } else {
                error
            }
        })?;
    }
    if wanted.db() != 0 {
        let mut select = Cmd::new();
        select.arg("SELECT").arg(wanted.db());
        select.exec_async(&mut connection).await?;
    }
    Ok(connection)
}

/// Returns whether an error is a reply from the server.
fn is_reply(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Server(_)
            | ErrorKind::Extension
            | ErrorKind::AuthenticationFailed
            | ErrorKind::RESP3NotSupported
    )
}

/// Asks whether a key exists, only for the error that this may return.
async fn look_for(connection: &mut MultiplexedConnection, key: &str) -> Result<(), RedisError> {
    let mut exists = Cmd::new();
    exists.arg("EXISTS").arg(key);
    let answer = connection.send_packed_command(&exists).await;
    answer.and_then(Value::extract_error).map(drop)
}

fn host_of(info: &ConnectionInfo) -> String {
    match info.addr() {
        ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } => host.clone(),
        _ => String::new(),
    }
}

fn at_host(like: &ConnectionAddr, host: String, port: u16) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host, port),
    }
}
