//! Addresses of the stream protocol, beside those of AMQP: lock, checkpoint, events and consumers use AMQP
//! on the same hosts.

use std::sync::Arc;

use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::uri::AMQPUri;

use super::connect::host_of;
use crate::broker::stream_protocol::{Host, Login};
use crate::broker::url::Parts;
use crate::tls;

/// The parameter for the port of AMQP.
pub(super) const AMQP_PORT: &str = "amqp_port";
/// Schemes, each with that of AMQP and the default ports of both.
const SCHEMES: [(&str, &str, u16, u16); 2] = [
    ("rabbitmq-stream", "amqp", 5552, 5672),
    ("rabbitmq-stream+tls", "amqps", 5551, 5671),
];

/// Where and as whom to publish over the stream protocol.
#[derive(Clone)]
pub(super) struct StreamAddress {
    /// Hosts in the order in which they are tried; never empty.
    pub(super) hosts: Vec<Host>,
    pub(super) login: Login,
}

/// Whether this is a scheme of the stream protocol.
pub(super) fn is_scheme(scheme: &str) -> bool {
    SCHEMES.iter().any(|(name, ..)| *name == scheme)
}

/// Reads the addresses of both protocols.
///
/// # Errors
///
/// A description of the problem, which does not quote the URL.
pub(super) fn read(
    scheme: &str,
    parts: &Parts<'_>,
    path: &str,
    tls: &OwnedTLSConfig,
) -> Result<(Vec<AMQPUri>, StreamAddress), String> {
    let known = SCHEMES.into_iter().find(|(name, ..)| *name == scheme);
    let (_, amqp, port, amqp_port) = known.ok_or("is not a URL of the stream protocol")?;
    let amqp_port = match parts.parameters.get(AMQP_PORT) {
        None => amqp_port,
        Some(text) => text
            .parse()
            .map_err(|_| format!("has an {AMQP_PORT} that is not a port"))?,
    };
    let client = match amqp {
        "amqps" => Some(Arc::new(client(tls)?)),
        _ => None,
    };
    let login = &parts.login;
    let (mut uris, mut hosts) = (Vec::new(), Vec::new());
    for host in &parts.hosts {
        let (name, host_port) = split(host);
        let url = format!("{amqp}://{login}{name}:{amqp_port}/{path}");
        let uri = host_of(&url, &format!("{name}:{amqp_port}"))?;
        let port = match host_port {
            None => port,
            Some(text) => text.parse().map_err(|_| "has a port that is none")?,
        };
        hosts.push(Host {
            name: uri.authority.host.clone(),
            port,
            tls: client.clone(),
        });
        uris.push(uri);
    }
    let first = uris.first().ok_or("has no host")?;
    let login = Login {
        user: first.authority.userinfo.username.clone(),
        password: first.authority.userinfo.password.clone().into(),
        vhost: first.vhost.clone(),
    };
    Ok((uris, StreamAddress { hosts, login }))
}

/// Splits a host from its port.
fn split(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.contains(']') => (name, Some(port)),
        _ => (host, None),
    }
}

fn client(config: &OwnedTLSConfig) -> Result<rustls::ClientConfig, String> {
    let identity = match &config.identity {
        Some(OwnedIdentity::PKCS8 { pem, key }) => Some((pem.as_slice(), key.as_slice())),
        _ => None,
    };
    tls::client(config.cert_chain.as_deref(), identity)
}
