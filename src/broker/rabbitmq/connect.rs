//! Connections from a URL: hosts, virtual host, login and TLS.
//!
//! The form is that of [RabbitMQ's URI specification](https://www.rabbitmq.com/docs/uri-spec) and
//! its [query parameters](https://www.rabbitmq.com/docs/uri-query-parameters), extended by several
//! hosts that are tried in turn.

use std::io;
use std::time::Duration;

use lapin::tcp::{AMQPUriTcpExt, OwnedIdentity, OwnedTLSConfig};
use lapin::uri::{AMQPUri, SASLMechanism};
use lapin::{Connection, ConnectionProperties};

use super::names::MAX_NAME;
use super::stream_url::{self, StreamAddress};
use crate::broker::error::Failure;
use crate::broker::url::{ENCODING, Parameters, Parts};

/// Parameters of a URL.
const PARAMETERS: [&str; 8] = [
    "heartbeat",
    "frame_max",
    "channel_max",
    "connection_timeout",
    "auth_mechanism",
    "cacertfile",
    "certfile",
    "keyfile",
];
/// Parameters of a URL of the stream protocol.
const STREAM_PARAMETERS: [&str; 4] = [stream_url::AMQP_PORT, "cacertfile", "certfile", "keyfile"];
/// Numeric parameters, with their maximum.
const NUMBERS: [(&str, u64); 4] = [
    ("heartbeat", u16::MAX as u64),
    ("frame_max", u32::MAX as u64),
    ("channel_max", u16::MAX as u64),
    ("connection_timeout", u64::MAX),
];

/// Time limit for connecting, TLS included. The whole attempt, login included, may take twice as
/// long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for closing a connection.
pub(super) const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Heartbeat interval in seconds. RabbitMQ closes a connection that was silent for two to three
/// intervals, so its lock is free within 10 s.
const HEARTBEAT: u16 = 3;
/// Largest frame in bytes: the minimum that RabbitMQ 4 accepts. Larger messages are split. lapin
/// holds buffers of 32 frames in either direction.
const FRAME_MAX: u32 = 8 * 1024;

/// Address of a RabbitMQ broker.
#[derive(Clone)]
pub(in crate::broker) struct Endpoint {
    /// Hosts in the order in which they are tried; never empty.
    hosts: Vec<AMQPUri>,
    tls: OwnedTLSConfig,
    /// How runs publish; `None` for over AMQP.
    stream: Option<StreamAddress>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Parses a sink's URL. Returns `None` if the scheme is not RabbitMQ's.
    ///
    /// # Errors
    ///
    /// A description of the problem, which does not quote the URL.
    pub(in crate::broker) fn parse(url: &str) -> Option<Result<Self, String>> {
        let (scheme, rest) = url.split_once("://")?;
        let is_known = matches!(scheme, "amqp" | "amqps") || stream_url::is_scheme(scheme);
        is_known.then(|| Self::read(scheme, rest))
    }

    /// Where runs publish over the stream protocol, if they do.
    pub(super) fn stream(&self) -> Option<&StreamAddress> {
        self.stream.as_ref()
    }

    fn read(scheme: &str, rest: &str) -> Result<Self, String> {
        let is_stream = stream_url::is_scheme(scheme);
        let known: &[&str] = match is_stream {
            true => &STREAM_PARAMETERS,
            false => &PARAMETERS,
        };
        let parts = Parts::split(rest, known)?;
        let Parts { login, query, .. } = &parts;
        check_numbers(&parts.parameters)?;
        // No path and a single slash both mean the default virtual host. The specification reads
        // the latter as an empty name, but no virtual host has one.
        let path = if parts.path.is_empty() {
            "%2f"
        } else {
            parts.path
        };
        let tls = tls(&parts.parameters)?;
        if is_stream {
            let (hosts, stream) = stream_url::read(scheme, &parts, path, &tls)?;
            let stream = Some(stream);
            return Ok(Self { hosts, tls, stream });
        }
        let hosts = parts.hosts.iter();
        let hosts = hosts
            .map(|host| host_of(&format!("{scheme}://{login}{host}/{path}?{query}"), host))
            .collect::<Result<_, _>>()?;
        let stream = None;
        Ok(Self { hosts, tls, stream })
    }

    /// Connects to the first host that answers. The broker shows the connection under `name`.
    pub(super) async fn connect(&self, name: &str) -> Result<Connection, Failure> {
        let mut failure = Failure::Transient("no host".to_owned());
        for host in &self.hosts {
            let properties =
                ConnectionProperties::default().with_connection_name(name.to_owned().into());
            let tls = self.tls.clone();
            let connecting = Connection::connector(
                host.clone(),
                lapin::runtime::default_runtime()?,
                async move |uri, runtime| {
                    let connecting = uri.connect_with_config_async(tls.as_ref(), &runtime);
                    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
                    let connected =
                        connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                    connected.map_err(Into::into)
                },
                properties,
            );
            match tokio::time::timeout(2 * CONNECT_TIMEOUT, connecting).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => failure = Failure::from(error),
                Err(_) => failure = Failure::Transient("it does not answer in time".to_owned()),
            }
            if matches!(failure, Failure::Final(_)) {
                return Err(failure);
            }
        }
        Err(failure)
    }
}

/// Closes a connection. A broker that no longer answers notices by itself.
pub(super) async fn close(connection: &Connection) {
    let closing = connection.close(200, "OK".into());
    // An error at this point does no harm.
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
}

pub(super) fn host_of(url: &str, host: &str) -> Result<AMQPUri, String> {
    let mut uri: AMQPUri = url.parse().map_err(|_| {
        format!("is not a RabbitMQ URL: amqp://[USER:PASSWORD@]HOST[:PORT][/VHOST]; {ENCODING}")
    })?;
    if uri.vhost.len() > MAX_NAME {
        return Err(format!("has a virtual host of over {MAX_NAME} bytes"));
    }
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        // The parser does not accept an IPv6 address as host, and would connect to localhost.
        address.clone_into(&mut uri.authority.host);
    }
    uri.query.frame_max.get_or_insert(FRAME_MAX);
    uri.query.heartbeat.get_or_insert(HEARTBEAT);
    Ok(uri)
}

/// Checks all parameters except file names.
fn check_numbers(parameters: &Parameters) -> Result<(), String> {
    for (name, most) in NUMBERS {
        let number = parameters.get(name).map(str::parse::<u64>);
        if number.is_some_and(|number| number.map_or(true, |number| number > most)) {
            return Err(format!(
                "has a {name} that is not a whole number up to {most}"
            ));
        }
    }
    let mechanism = parameters.get("auth_mechanism");
    if mechanism.is_some_and(|name| name.parse::<SASLMechanism>().is_err()) {
        let known = "plain, external, amqplain, anonymous and rabbit-cr-demo";
        return Err(format!(
            "has an auth_mechanism that does not exist; there are {known}"
        ));
    }
    Ok(())
}

/// Reads the TLS parameters: PEM files with certificates and a key.
fn tls(parameters: &Parameters) -> Result<OwnedTLSConfig, String> {
    let read = |name: &str| {
        let path = parameters.get(name);
        path.map(std::fs::read_to_string)
            .transpose()
            .map_err(|error| format!("{name}: the file cannot be read: {error}"))
    };
    let identity = match (read("certfile")?, read("keyfile")?) {
        (Some(pem), Some(key)) => Some(OwnedIdentity::PKCS8 {
            pem: pem.into_bytes(),
            key: key.into_bytes(),
        }),
        (None, None) => None,
        _ => return Err("certfile and keyfile go together".to_owned()),
    };
    Ok(OwnedTLSConfig {
        identity,
        cert_chain: read("cacertfile")?,
    })
}
