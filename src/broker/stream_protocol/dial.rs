//! Addresses, and connections to them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use secrecy::SecretString;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// Time limit for connecting, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection, encrypted or not.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A node of the broker.
#[derive(Clone)]
pub(in crate::broker) struct Host {
    /// Name or address; IPv6 without brackets.
    pub(in crate::broker) name: String,
    pub(in crate::broker) port: u16,
    /// `None` for no encryption.
    pub(in crate::broker) tls: Option<Arc<rustls::ClientConfig>>,
}

/// Who uses which virtual host.
#[derive(Clone)]
pub(in crate::broker) struct Login {
    pub(in crate::broker) user: String,
    pub(in crate::broker) password: SecretString,
    pub(in crate::broker) vhost: String,
}

impl Host {
    /// The same kind of connection to another node.
    pub(super) fn at(&self, name: &str, port: u16) -> Self {
        Self {
            name: name.to_owned(),
            port,
            tls: self.tls.clone(),
        }
    }

    /// Connects.
    pub(super) async fn dial(&self) -> io::Result<Box<dyn Socket>> {
        let dialling = timeout(CONNECT_TIMEOUT, self.connect()).await;
        dialling.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    async fn connect(&self) -> io::Result<Box<dyn Socket>> {
        let socket = TcpStream::connect((self.name.as_str(), self.port)).await?;
        socket.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(socket));
        };
        let name = ServerName::try_from(self.name.clone());
        let name = name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        Ok(Box::new(connector.connect(name, socket).await?))
    }
}
