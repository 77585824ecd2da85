//! From a URL to a connection with the server that holds a key.
//!
//! One way serves all: a stream and what is kept beside it share a slot, so there is always one
//! server to talk to. In a cluster it is found by following `MOVED`, behind sentinels by asking
//! them; and it is looked for again after each failure. So commands stay in order on one
//! connection, which a client for whole clusters does not promise.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind,
    IntoConnectionInfo, ProtocolVersion, RedisError, Value,
};

use crate::tls;

/// How long connecting may take, login included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a reply may take. A server that flushes its append-only file to a slow disk can be
/// silent for seconds.
pub(super) const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// As many `MOVED` in a row as are followed.
const MAX_MOVES: usize = 5;
/// Commands that wait for the socket: more than are ever in flight.
const PIPELINE: usize = 64;

/// Where a Redis server is, or how to find it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    kind: Kind,
    /// The servers to begin with; never empty.
    seeds: Vec<ConnectionInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Single,
    Cluster,
    /// The seeds are sentinels, which know the master of this name.
    Sentinel {
        master: String,
        /// What the master is logged in to with.
        node: Box<NodeLogin>,
    },
}

#[derive(Clone, PartialEq, Eq)]
struct NodeLogin {
    db: i64,
    username: Option<String>,
    password: Option<String>,
}

impl std::fmt::Debug for NodeLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NodeLogin")
    }
}

impl Endpoint {
    /// Reads a sink's URL. `None` where its scheme is not one of Redis's.
    ///
    /// # Errors
    ///
    /// What is wrong with it, without quoting it.
    pub fn parse(url: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = url.split_once(':')?;
        let parsed = match scheme {
            "redis" | "rediss" | "unix" | "redis+unix" => {
                info(url).map(|info| Self::of(Kind::Single, vec![info]))
            }
            "redis+cluster" | "rediss+cluster" => {
                let scheme = scheme.trim_end_matches("+cluster");
                each_host(&format!("{scheme}:{rest}")).map(|seeds| Self::of(Kind::Cluster, seeds))
            }
            "redis+sentinel" => sentinel(&format!("redis:{rest}")),
            _ => return None,
        };
        Some(parsed)
    }

    fn of(kind: Kind, seeds: Vec<ConnectionInfo>) -> Self {
        Self { kind, seeds }
    }

    /// Connects with the server that holds a key, as its master.
    pub(super) async fn connect(&self, key: &str) -> Result<MultiplexedConnection, RedisError> {
        let mut failure = None;
        for seed in &self.seeds {
            let connected = match &self.kind {
                Kind::Single => open(seed.clone()).await,
                Kind::Cluster => follow(seed.clone(), key).await,
                Kind::Sentinel { master, node } => ask_sentinel(seed, master, node).await,
            };
            match connected {
                Ok(connection) => return Ok(connection),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| (ErrorKind::InvalidClientConfig, "no server").into()))
    }
}

/// `redis://user:pw@a:1,b:2/…` as one URL a host.
fn each_host(url: &str) -> Result<Vec<ConnectionInfo>, String> {
    let (scheme, rest) = url.split_once("://").ok_or("its host is missing")?;
    let (authority, path) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (login, hosts) = match authority.rsplit_once('@') {
        Some((login, hosts)) => (format!("{login}@"), hosts),
        None => (String::new(), authority),
    };
    hosts
        .split(',')
        .map(|host| info(&format!("{scheme}://{login}{host}{path}")))
        .collect()
}

/// `redis://user:pw@sentinel:26379/master/db`.
fn sentinel(url: &str) -> Result<Endpoint, String> {
    let wrong = "a sentinel's URL is redis+sentinel://host:26379/MASTER or …/MASTER/DB";
    let (scheme, rest) = url.split_once("://").ok_or(wrong)?;
    let (authority, path) = rest.split_once('/').ok_or(wrong)?;
    let (master, db) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(wrong.to_owned());
    }
    let mut seeds = each_host(&format!("{scheme}://{authority}/{db}"))?;
    let settings = seeds[0].redis_settings();
    let node = Box::new(NodeLogin {
        db: settings.db(),
        username: settings.username().map(str::to_owned),
        password: settings.password().map(str::to_owned),
    });
    // Sentinels have no databases, and a login of their own, if any.
    for seed in &mut seeds {
        *seed = seed.clone().set_redis_settings(Default::default());
    }
    let master = master.to_owned();
    Ok(Endpoint::of(Kind::Sentinel { master, node }, seeds))
}

fn info(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info()
        .map_err(|error| format!("is not a Redis URL: {}", error.category()))
}

/// Opens a connection, with RESP3 where the server speaks it.
async fn open(info: ConnectionInfo) -> Result<MultiplexedConnection, RedisError> {
    tls::provide();
    let with = |protocol: ProtocolVersion| {
        let settings = info.redis_settings().clone();
        let settings = settings.set_protocol(protocol);
        info.clone().set_redis_settings(settings)
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_pipeline_buffer_size(PIPELINE);
    let client = Client::open(with(ProtocolVersion::RESP3))?;
    match client
        .get_multiplexed_async_connection_with_config(&config)
        .await
    {
        Err(error) if error.kind() == ErrorKind::RESP3NotSupported => {
            Client::open(with(ProtocolVersion::RESP2))?
                .get_multiplexed_async_connection_with_config(&config)
                .await
        }
        opened => opened,
    }
}

/// Asks for a key, and goes where the answer points to.
async fn follow(seed: ConnectionInfo, key: &str) -> Result<MultiplexedConnection, RedisError> {
    let mut at = seed;
    for _ in 0..MAX_MOVES {
        let mut connection = open(at.clone()).await?;
        let asked = connection
            .send_packed_command(Cmd::new().arg("EXISTS").arg(key))
            .await
            .and_then(Value::extract_error);
        let error = match asked {
            Ok(_) => return Ok(connection),
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
        // A server that knows itself by no name yet says only its port.
        let host = if host.is_empty() {
            host_of(&at)
        } else {
            host.to_owned()
        };
        at = at.clone().set_addr(at_host(at.addr(), host, port));
    }
    Err((ErrorKind::Client, "the cluster moves the key in a circle").into())
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

/// Asks a sentinel who the master is, and the master whether it is.
async fn ask_sentinel(
    sentinel: &ConnectionInfo,
    master: &str,
    node: &NodeLogin,
) -> Result<MultiplexedConnection, RedisError> {
    let mut connection = open(sentinel.clone()).await?;
    let address: Option<(String, u16)> = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(master)
        .query_async(&mut connection)
        .await?;
    let Some((host, port)) = address else {
        let error = (
            ErrorKind::MasterNameNotFoundBySentinel,
            "the sentinels know no master of this name",
        );
        return Err(error.into());
    };
    let mut settings = redis::RedisConnectionInfo::default().set_db(node.db);
    if let Some(username) = &node.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &node.password {
        settings = settings.set_password(password);
    }
    let info = sentinel
        .clone()
        .set_addr(at_host(sentinel.addr(), host, port))
        .set_redis_settings(settings);
    let mut connection = open(info).await?;
    let role: Vec<Value> = redis::cmd("ROLE").query_async(&mut connection).await?;
    let is_master = role.first().is_some_and(|role| match role {
        Value::BulkString(role) => role == b"master",
        Value::SimpleString(role) => role == "master",
        _ => false,
    });
    if is_master {
        Ok(connection)
    } else {
        // In the middle of a failover the sentinels may still name the old one.
        Err((ErrorKind::Io, "the sentinels' master is not one yet").into())
    }
}
