//! The start of a connection: who is who, login, limits, virtual host.

use std::collections::BTreeMap;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::dial::{Login, Socket};
use super::frame::{Fields, FrameWriter, OK, RESPONSE, Truncated, describe, key};
use crate::broker::BrokerError;
use crate::broker::error::Failure;

/// Time limit for the whole handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest frame of the handshake, in bytes. The properties of a broker take about one thousand.
const MAX_FRAME: usize = 64 * 1024;
/// The longest time between two signs of life, in seconds, unless the broker wants more of them.
const HEARTBEAT: u32 = 5;
/// Response codes for a login or a virtual host that is refused.
const REFUSED: std::ops::RangeInclusive<u16> = 7..=12;

/// What was agreed upon.
pub(super) struct Agreed {
    /// The longest frame, in bytes.
    pub(super) max_frame: usize,
    /// The longest time between two signs of life.
    pub(super) heartbeat: Duration,
    /// What the broker says of the node, such as its address.
    pub(super) node: BTreeMap<String, String>,
}

/// Agrees with the broker.
///
/// # Errors
///
/// A final one if the login or the virtual host is refused.
pub(super) async fn agree(
    socket: &mut dyn Socket,
    login: &Login,
    name: &str,
) -> Result<Agreed, Failure> {
    let agreeing = timeout(HANDSHAKE_TIMEOUT, try_agree(socket, login, name)).await;
    let silent = || Err(Failure::Transient("it does not answer in time".to_owned()));
    agreeing.unwrap_or_else(|_| silent())
}

async fn try_agree(socket: &mut dyn Socket, login: &Login, name: &str) -> Result<Agreed, Failure> {
    let mut talk = Talk {
        socket,
        frame: Vec::new(),
    };
    let properties = [
        ("product", "labelcast"),
        ("version", env!("CARGO_PKG_VERSION")),
        ("connection_name", name),
    ];
    talk.request(key::PEER_PROPERTIES, |mut frame| {
        frame = frame.u32(3);
        for (name, value) in properties {
            frame = frame.text(name).text(value);
        }
        frame
    })
    .await?;
    talk.request(key::SASL_HANDSHAKE, |frame| frame).await?;
    let plain = format!("\0{}\0{}", login.user, login.password.expose_secret());
    talk.request(key::SASL_AUTHENTICATE, |frame| {
        frame.text("PLAIN").bytes(plain.as_bytes())
    })
    .await?;
    let (max_frame, heartbeat) = talk.tune().await?;
    let mut fields = talk
        .request(key::OPEN, |frame| frame.text(&login.vhost))
        .await?;
    Ok(Agreed {
        max_frame,
        heartbeat,
        node: properties_of(&mut fields).unwrap_or_default(),
    })
}

/// The talk before there are concurrent requests.
struct Talk<'a> {
    socket: &'a mut dyn Socket,
    frame: Vec<u8>,
}

impl Talk<'_> {
    /// Sends a request, and returns the fields behind the response code.
    async fn request(
        &mut self,
        key: u16,
        write: impl FnOnce(FrameWriter<'_>) -> FrameWriter<'_>,
    ) -> Result<Fields<'_>, Failure> {
        self.frame.clear();
        let frame = FrameWriter::begin(&mut self.frame, key).u32(u32::from(key));
        write(frame).end();
        self.socket.write_all(&self.frame).await?;
        self.read(key | RESPONSE).await?;
        let mut fields = Fields(&self.frame);
        // Key, version and correlation.
        let _ = (fields.u16(), fields.u16(), fields.u32());
        match fields.u16()? {
            OK => Ok(fields),
            code if REFUSED.contains(&code) => Err(BrokerError::Credentials(describe(code)).into()),
            code => Err(Failure::Transient(describe(code))),
        }
    }

    /// Agrees on the limits, which the broker proposes after the login.
    async fn tune(&mut self) -> Result<(usize, Duration), Failure> {
        self.read(key::TUNE).await?;
        let mut fields = Fields(&self.frame);
        let _ = (fields.u16(), fields.u16());
        let (max_frame, proposed) = (fields.u32()?, fields.u32()?);
        // Zero means none.
        let heartbeat = match proposed {
            0 => HEARTBEAT,
            proposed => proposed.min(HEARTBEAT),
        };
        self.frame.clear();
        FrameWriter::begin(&mut self.frame, key::TUNE)
            .u32(max_frame)
            .u32(heartbeat)
            .end();
        self.socket.write_all(&self.frame).await?;
        let max_frame = match max_frame {
            0 => usize::MAX,
            max_frame => max_frame as usize,
        };
        Ok((max_frame, Duration::from_secs(heartbeat.into())))
    }

    /// Reads frames until one with this key.
    async fn read(&mut self, wanted: u16) -> Result<(), Failure> {
        loop {
            let length = self.socket.read_u32().await? as usize;
            if length > MAX_FRAME {
                return Err(Failure::Transient("it speaks another protocol".to_owned()));
            }
            self.frame.resize(length, 0);
            self.socket.read_exact(&mut self.frame).await?;
            match Fields(&self.frame).u16()? {
                found if found == wanted => return Ok(()),
                key::CLOSE => {
                    return Err(Failure::Transient("it closes the connection".to_owned()));
                }
                _ => {}
            }
        }
    }
}

fn properties_of(fields: &mut Fields<'_>) -> Result<BTreeMap<String, String>, Truncated> {
    let mut found = BTreeMap::new();
    for _ in 0..fields.u32()? {
        found.insert(fields.text()?, fields.text()?);
    }
    Ok(found)
}
