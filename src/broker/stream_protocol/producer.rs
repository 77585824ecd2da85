//! A producer: publishes messages with growing ids to one stream. The broker remembers the last id under
//! the producer's name, and drops what it already has.

use super::amqp::MessageParts;
use super::connection::Connection;
use super::dial::{Host, Login};
use super::frame::{Fields, FrameWriter, LENGTH, OK, describe, key};
use crate::broker::BrokerError;
use crate::broker::error::Failure;

/// The number of the producer on its connection, which has one.
const PRODUCER: u8 = 0;
/// The length of a frame from which on another one begins, in bytes: about a thousand messages.
const FULL: usize = 128 * 1024;
/// The most bytes of a message beside its body.
const AROUND_BODY: usize = 1024;
/// Bytes before the messages of a frame: length, key, version, producer and the number of messages.
const HEAD: usize = LENGTH + 2 + 2 + 1 + 4;

/// A producer on a connection to the leader of its stream.
pub(in crate::broker) struct Producer {
    connection: Connection,
    /// The last id that the broker had for this name when the producer was opened; 0 for none.
    last_id: u64,
    /// Frames that are not sent yet.
    frames: Vec<u8>,
    /// Where the last one starts, and the number of its messages.
    last_frame: usize,
    in_last_frame: u32,
    /// Messages that were sent, or are in the frame.
    sent: u64,
}

impl Producer {
    /// Connects to the leader of a stream, by the first host that answers. `name` identifies the
    /// producer, is at most 255 bytes long, and is used by one process at a time.
    ///
    /// # Errors
    ///
    /// A final one if the login is refused, or there is no such stream.
    pub(in crate::broker) async fn open(
        hosts: &[Host],
        login: &Login,
        stream: &str,
        name: &str,
    ) -> Result<Self, Failure> {
        let connection = connect_to_leader(hosts, login, stream, name).await?;
        connection
            .command(key::DECLARE_PUBLISHER, |frame| {
                frame.u8(PRODUCER).text(name).text(stream)
            })
            .await?;
        let answer = connection
            .command(key::QUERY_PUBLISHER_SEQUENCE, |frame| {
                frame.text(name).text(stream)
            })
            .await?;
        let last_id = Fields(&answer).u64()?;
        let mut producer = Self {
            connection,
            last_id,
            frames: Vec::new(),
            last_frame: 0,
            in_last_frame: 0,
            sent: 0,
        };
        producer.begin_frame();
        Ok(producer)
    }

    /// The last id that the broker had for this name when the producer was opened; 0 for none.
    pub(in crate::broker) fn last_id(&self) -> u64 {
        self.last_id
    }

    /// The number of messages so far.
    pub(in crate::broker) fn sent(&self) -> u64 {
        self.sent
    }

    /// Adds a message, to be sent with [`Producer::send`]. Its id is higher than all ids before.
    ///
    /// # Errors
    ///
    /// A final one if it is longer than the broker takes.
    pub(in crate::broker) fn push(
        &mut self,
        id: u64,
        parts: &MessageParts,
        message_id: [&[u8]; 2],
        body: &[u8],
    ) -> Result<(), Failure> {
        let most = HEAD + AROUND_BODY + body.len();
        if most > self.connection.max_frame {
            let text = format!("a message of {} bytes is too large", body.len());
            return Err(BrokerError::WrongQueue(text).into());
        }
        let is_full = self.frames.len() - self.last_frame + most > FULL;
        if is_full && self.in_last_frame > 0 {
            self.end_frame();
            self.begin_frame();
        }
        self.frames.extend_from_slice(&id.to_be_bytes());
        let length_at = self.frames.len();
        self.frames.extend_from_slice(&[0; 4]);
        parts.push(message_id, body, &mut self.frames);
        let length = self.frames.len() - length_at - 4;
        write_length(&mut self.frames[length_at..], length);
        self.in_last_frame += 1;
        self.sent += 1;
        Ok(())
    }

    /// Sends all messages that were added.
    pub(in crate::broker) async fn send(&mut self) -> Result<(), Failure> {
        if self.in_last_frame > 0 {
            self.end_frame();
            self.connection.write(&self.frames).await?;
            self.frames.clear();
            self.begin_frame();
        }
        Ok(())
    }

    /// Waits until the broker has confirmed this many messages.
    pub(in crate::broker) async fn confirmed(&self, messages: u64) -> Result<(), Failure> {
        self.connection.confirmed(messages).await
    }

    pub(in crate::broker) async fn close(&self) {
        self.connection.close().await;
    }

    fn begin_frame(&mut self) {
        self.last_frame = self.frames.len();
        self.in_last_frame = 0;
        FrameWriter::begin(&mut self.frames, key::PUBLISH)
            .u8(PRODUCER)
            .u32(0)
            .end();
    }

    /// Writes the length of the last frame, and the number of its messages.
    fn end_frame(&mut self) {
        let frame = &mut self.frames[self.last_frame..];
        let length = frame.len() - LENGTH;
        write_length(frame, length);
        frame[HEAD - 4..HEAD].copy_from_slice(&self.in_last_frame.to_be_bytes());
    }
}

fn write_length(at: &mut [u8], length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    at[..4].copy_from_slice(&length.to_be_bytes());
}

/// Checks that the first host that answers accepts the login.
///
/// # Errors
///
/// A final one if the login is refused.
pub(in crate::broker) async fn check_login(hosts: &[Host], login: &Login) -> Result<(), Failure> {
    let connection = connect(hosts, login, "labelcast check").await?;
    connection.close().await;
    Ok(())
}

/// Connects to the node that takes messages for a stream.
async fn connect_to_leader(
    hosts: &[Host],
    login: &Login,
    stream: &str,
    name: &str,
) -> Result<Connection, Failure> {
    let connection = connect(hosts, login, name).await?;
    let leader = leader(&connection, stream).await?;
    // A node may be reached at another address than the one that it tells others, as by a proxy.
    if connection.advertised.as_ref() == Some(&leader) {
        return Ok(connection);
    }
    connection.close().await;
    let leader = connection.host.at(&leader.0, leader.1);
    Connection::open(&leader, login, name).await
}

/// Connects to the first host that answers.
async fn connect(hosts: &[Host], login: &Login, name: &str) -> Result<Connection, Failure> {
    let mut failure = Failure::Transient("no host".to_owned());
    for host in hosts {
        match Connection::open(host, login, name).await {
            Err(Failure::Transient(text)) => failure = Failure::Transient(text),
            opened => return opened,
        }
    }
    Err(failure)
}

/// Asks for the address of the leader.
async fn leader(connection: &Connection, stream: &str) -> Result<(String, u16), Failure> {
    let answer = connection.request(key::METADATA, |frame| frame.u32(1).text(stream));
    let answer = answer.await?;
    let mut fields = Fields(&answer);
    let mut nodes = Vec::new();
    for _ in 0..fields.u32()? {
        nodes.push((fields.u16()?, fields.text()?, fields.u32()?));
    }
    let (_streams, _name, code) = (fields.u32()?, fields.text()?, fields.u16()?);
    let reference = fields.u16()?;
    let node = nodes.into_iter().find(|(number, ..)| *number == reference);
    match (code, node) {
        (OK, Some((_, name, port))) => Ok((name, u16::try_from(port).unwrap_or_default())),
        // It is being elected.
        (OK, None) => Err(Failure::Transient("the stream has no leader".to_owned())),
        (code, _) => Err(Failure::Transient(describe(code))),
    }
}
