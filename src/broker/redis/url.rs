//! Parser for the URL of a Redis sink.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, ProtocolVersion};

use super::connect::{Endpoint, Kind, Login, Sentinel};
use crate::broker::url::{ENCODING, Parameters, Parts};

/// Parameters that every URL accepts.
const PARAMETERS: [&str; 2] = ["db", "protocol"];
/// Parameters of a socket's URL, which has no other place for a login.
const SOCKET_PARAMETERS: [&str; 4] = ["db", "protocol", "user", "pass"];
/// Parameters of a sentinel URL.
const SENTINEL_PARAMETERS: [&str; 4] = ["db", "protocol", "sentinel_username", "sentinel_password"];
/// Port of a sentinel if the URL has none.
const SENTINEL_PORT: u16 = 26379;

/// Parses a URL. Returns `None` if the scheme is not one of Redis's.
pub(super) fn read(url: &str) -> Option<Result<Endpoint, String>> {
    let (scheme, rest) = url.split_once(':')?;
    let (protocol, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    let read: fn(&str, &str) -> Result<Endpoint, String> = match (protocol, kind) {
        ("unix", "") | ("redis", "unix") => return Some(socket(rest)),
        ("redis" | "rediss", "") => single,
        ("redis" | "rediss", "cluster") => cluster,
        ("redis" | "rediss", "sentinel") => sentinel,
        _ => return None,
    };
    let rest = rest.strip_prefix("//");
    Some(match rest {
        Some(rest) => read(protocol, rest),
        None => Err("has no host: // and a host have to follow the scheme".to_owned()),
    })
}

fn single(scheme: &str, rest: &str) -> Result<Endpoint, String> {
    let parts = Parts::split(rest, &PARAMETERS)?;
    let [host] = parts.hosts[..] else {
        return Err("has several hosts; only redis+cluster:// and redis+sentinel:// do".to_owned());
    };
    let info = host_of(scheme, &parts.login, host)?;
    let db = database(parts.path, &parts.parameters)?;
    let settings = info.redis_settings().clone().set_db(db);
    let seeds = vec![info.set_redis_settings(settings)];
    Ok(Endpoint::new(
        Kind::Single,
        seeds,
        protocol(&parts.parameters)?,
    ))
}

fn cluster(scheme: &str, rest: &str) -> Result<Endpoint, String> {
    let parts = Parts::split(rest, &PARAMETERS)?;
    if database(parts.path, &parts.parameters)? != 0 {
        return Err("names a database, but a Redis Cluster has database 0 only".to_owned());
    }
    let seeds = seeds(scheme, &parts)?;
    Ok(Endpoint::new(
        Kind::Cluster,
        seeds,
        protocol(&parts.parameters)?,
    ))
}

/// Parses `redis+sentinel://user:pw@sentinel:26379/master/db`. User and password are the master's.
fn sentinel(scheme: &str, rest: &str) -> Result<Endpoint, String> {
    let parts = Parts::split(rest, &SENTINEL_PARAMETERS)?;
    let (master, path) = parts.path.split_once('/').unwrap_or((parts.path, ""));
    if master.is_empty() {
        return Err(format!(
            "names no master: redis+sentinel://HOST:26379/MASTER or …/MASTER/DB; {ENCODING}"
        ));
    }
    let mut seeds = seeds(scheme, &parts)?;
    let settings = seeds[0].redis_settings();
    let node = Login {
        username: settings.username().map(str::to_owned),
        password: settings.password().map(str::to_owned),
    };
    for (seed, host) in seeds.iter_mut().zip(&parts.hosts) {
        *seed = without_login(seed, host);
    }
    let kind = Kind::Sentinel(Box::new(Sentinel {
        master: master.to_owned(),
        db: database(path, &parts.parameters)?,
        logins: sentinel_logins(&parts.parameters, &node)?,
        node,
    }));
    Ok(Endpoint::new(kind, seeds, protocol(&parts.parameters)?))
}

/// Returns the logins to try at a sentinel, in this order. Many installations have one password for
/// all servers, or a password on the master only.
fn sentinel_logins(parameters: &Parameters, node: &Login) -> Result<Vec<Login>, String> {
    let get = |name: &str| parameters.get(name).map(str::to_owned);
    let own = Login {
        username: get("sentinel_username"),
        password: get("sentinel_password"),
    };
    match (&own.username, &own.password) {
        (Some(_), None) => Err("has a sentinel_username and no sentinel_password".to_owned()),
        (_, Some(_)) => Ok(vec![own]),
        (None, None) if node.password.is_some() => Ok(vec![node.clone(), Login::default()]),
        (None, None) => Ok(vec![Login::default()]),
    }
}

fn without_login(seed: &ConnectionInfo, host: &str) -> ConnectionInfo {
    let mut address = seed.addr().clone();
    let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    if let (ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. }, false) =
        (&mut address, has_port)
    {
        *port = SENTINEL_PORT;
    }
    let seed = seed.clone().set_addr(address);
    seed.set_redis_settings(redis::RedisConnectionInfo::default())
}

/// Parses `unix:/path?user=…&pass=…`.
fn socket(rest: &str) -> Result<Endpoint, String> {
    let parts = Parts::split(rest, &SOCKET_PARAMETERS)?;
    let (path, _) = rest.split_once('?').unwrap_or((rest, ""));
    let info = info(&format!("unix:{path}"))?;
    let db = database("", &parts.parameters)?;
    let mut settings = redis::RedisConnectionInfo::default().set_db(db);
    if let Some(user) = parts.parameters.get("user") {
        settings = settings.set_username(user);
    }
    if let Some(password) = parts.parameters.get("pass") {
        settings = settings.set_password(password);
    }
    let seeds = vec![info.set_redis_settings(settings)];
    Ok(Endpoint::new(
        Kind::Single,
        seeds,
        protocol(&parts.parameters)?,
    ))
}

fn seeds(scheme: &str, parts: &Parts<'_>) -> Result<Vec<ConnectionInfo>, String> {
    let hosts = parts.hosts.iter();
    hosts
        .map(|host| host_of(scheme, &parts.login, host))
        .collect()
}

fn host_of(scheme: &str, login: &str, host: &str) -> Result<ConnectionInfo, String> {
    info(&format!("{scheme}://{login}{host}"))
}

fn info(url: &str) -> Result<ConnectionInfo, String> {
    let refused = || {
        format!("is not a Redis URL: redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]; {ENCODING}")
    };
    url.into_connection_info().map_err(|_| refused())
}

/// Returns the database, from the path or from a parameter; 0 if neither names one.
fn database(path: &str, parameters: &Parameters) -> Result<i64, String> {
    let number = |text: &str| {
        let number = text.parse::<u32>().map(i64::from);
        number.map_err(|_| format!("has a database (db) that is not a number; {ENCODING}"))
    };
    let path = path.trim_end_matches('/');
    let by_path = (!path.is_empty()).then(|| number(path)).transpose()?;
    let by_parameter = parameters.get("db").map(number).transpose()?;
    match (by_path, by_parameter) {
        (Some(path), Some(parameter)) if path != parameter => Err(format!(
            "names database {path} by its path and {parameter} by db: leave one out"
        )),
        (found, other) => Ok(found.or(other).unwrap_or(0)),
    }
}

fn protocol(parameters: &Parameters) -> Result<ProtocolVersion, String> {
    match parameters.get("protocol") {
        None | Some("3" | "resp3") => Ok(ProtocolVersion::RESP3),
        Some("2" | "resp2") => Ok(ProtocolVersion::RESP2),
        Some(_) => Err("has a protocol that is none of 2, resp2, 3, resp3".to_owned()),
    }
}
