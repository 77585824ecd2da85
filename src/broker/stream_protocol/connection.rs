//! A connection with two tasks: one reads, the other shows the broker that this side is alive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, ReadHalf, WriteHalf};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval_at, timeout};

use super::dial::{Host, Login, Socket};
use super::frame::{ACCESS_REFUSED, Fields, FrameWriter, OK, RESPONSE, Truncated, describe, key};
use super::handshake::agree;
use crate::broker::BrokerError;
use crate::broker::error::Failure;

/// Time limit for the response to a request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit for an orderly end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest frame that is read, in bytes: a confirm of all messages that can be in flight.
const MAX_READ: usize = 4 * 1024 * 1024;
/// Heartbeat intervals without a sign of life after which the connection is dead.
const BEATS: u32 = 3;

/// A connection to one node.
pub(super) struct Connection {
    pub(super) host: Host,
    /// The longest frame that the broker takes, in bytes.
    pub(super) max_frame: usize,
    /// The address that the node has in metadata.
    pub(super) advertised: Option<(String, u16)>,
    writer: Arc<tokio::sync::Mutex<WriteHalf<Box<dyn Socket>>>>,
    shared: Arc<Shared>,
    next_request: AtomicU32,
    tasks: [JoinHandle<()>; 2],
}

/// What the reading task tells the others.
#[derive(Default)]
struct Shared {
    /// Messages that were confirmed on this connection.
    confirmed: AtomicU64,
    /// Why the connection cannot be used any more.
    failure: OnceLock<String>,
    changed: Notify,
    /// Requests that wait for their response: the fields behind the correlation.
    requests: Mutex<HashMap<u32, oneshot::Sender<Vec<u8>>>>,
}

impl Shared {
    fn fail(&self, why: String) {
        let _ = self.failure.set(why);
        // Their senders are dropped, so the requests end.
        self.requests().clear();
        self.changed.notify_waiters();
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, HashMap<u32, oneshot::Sender<Vec<u8>>>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self) -> Failure {
        let why = self
            .failure
            .get()
            .map_or("the connection is lost", String::as_str);
        Failure::Transient(why.to_owned())
    }
}

impl Connection {
    /// Connects and logs in. The broker shows the connection under `name`.
    ///
    /// # Errors
    ///
    /// A final one if the login is refused.
    pub(super) async fn open(host: &Host, login: &Login, name: &str) -> Result<Self, Failure> {
        let unreachable = |error| {
            let port = host.port;
            Failure::Transient(format!("the stream protocol, port {port}: {error}"))
        };
        let mut socket = host.dial().await.map_err(unreachable)?;
        let agreed = agree(&mut *socket, login, name).await?;
        let (reader, writer) = tokio::io::split(socket);
        let writer = Arc::new(tokio::sync::Mutex::new(writer));
        let shared = Arc::new(Shared::default());
        let reading = read(reader, Arc::clone(&shared), BEATS * agreed.heartbeat);
        let beating = beat(Arc::clone(&writer), agreed.heartbeat / 2);
        let node = |name: &str| agreed.node.get(name);
        let port = node("advertised_port").and_then(|port| port.parse().ok());
        Ok(Self {
            host: host.clone(),
            max_frame: agreed.max_frame,
            advertised: node("advertised_host").cloned().zip(port),
            writer,
            shared,
            next_request: AtomicU32::new(1),
            tasks: [tokio::spawn(reading), tokio::spawn(beating)],
        })
    }

    /// Sends a request, and returns the fields of the response behind the correlation.
    pub(super) async fn request(
        &self,
        key: u16,
        write: impl FnOnce(FrameWriter<'_>) -> FrameWriter<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (response, responded) = oneshot::channel();
        self.shared.requests().insert(number, response);
        let mut frame = Vec::new();
        write(FrameWriter::begin(&mut frame, key).u32(number)).end();
        self.write(&frame).await?;
        match timeout(RESPONSE_TIMEOUT, responded).await {
            Ok(Ok(fields)) => Ok(fields),
            Ok(Err(_)) => Err(self.shared.error()),
            Err(_) => Err(Failure::Transient("it does not answer in time".to_owned())),
        }
    }

    /// Sends a request whose response begins with a code, and returns the fields behind a good one.
    pub(super) async fn command(
        &self,
        key: u16,
        write: impl FnOnce(FrameWriter<'_>) -> FrameWriter<'_>,
    ) -> Result<Vec<u8>, Failure> {
        let mut fields = self.request(key, write).await?;
        match Fields(&fields).u16()? {
            OK => Ok(fields.split_off(2)),
            ACCESS_REFUSED => Err(BrokerError::Credentials(describe(ACCESS_REFUSED)).into()),
            code => Err(Failure::Transient(describe(code))),
        }
    }

    /// Writes frames.
    pub(super) async fn write(&self, frames: &[u8]) -> Result<(), Failure> {
        let writing = async {
            let mut writer = self.writer.lock().await;
            writer.write_all(frames).await?;
            writer.flush().await
        };
        // A peer that has gone may leave the send buffer full, and then no write fails.
        tokio::select! {
            biased;
            failed = self.until(|_| false) => failed,
            written = writing => Ok(written?),
        }
    }

    /// Waits until this many messages were confirmed.
    pub(super) async fn confirmed(&self, messages: u64) -> Result<(), Failure> {
        self.until(|shared| shared.confirmed.load(Ordering::Acquire) >= messages)
            .await
    }

    /// Waits until this is so, or the connection has failed.
    async fn until(&self, is_so: impl Fn(&Shared) -> bool) -> Result<(), Failure> {
        loop {
            let changed = self.shared.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if is_so(&self.shared) {
                return Ok(());
            }
            if self.shared.failure.get().is_some() {
                return Err(self.shared.error());
            }
            changed.await;
        }
    }

    /// Ends the connection in an orderly way. An error at this point does no harm.
    pub(super) async fn close(&self) {
        let closing = self.request(key::CLOSE, |frame| frame.u16(OK).text("OK"));
        let _ = timeout(CLOSE_TIMEOUT, closing).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Reads frames until the connection ends.
async fn read(reader: ReadHalf<Box<dyn Socket>>, shared: Arc<Shared>, silence: Duration) {
    let mut reader = BufReader::new(reader);
    let mut frame = Vec::new();
    let why = loop {
        match timeout(silence, read_frame(&mut reader, &mut frame)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => break format!("the connection is lost: {error}"),
            Err(_) => break "it is silent".to_owned(),
        }
        match take(&frame, &shared) {
            Ok(None) => {}
            Ok(Some(why)) => break why,
            Err(Truncated) => break "it sent a frame that is too short".to_owned(),
        }
    };
    shared.fail(why);
}

async fn read_frame(
    reader: &mut BufReader<ReadHalf<Box<dyn Socket>>>,
    frame: &mut Vec<u8>,
) -> std::io::Result<()> {
    let length = reader.read_u32().await? as usize;
    if length > MAX_READ {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    frame.resize(length, 0);
    reader.read_exact(frame).await.map(drop)
}

/// Takes a frame. Returns why the connection cannot be used any more, if it says so.
fn take(frame: &[u8], shared: &Shared) -> Result<Option<String>, Truncated> {
    let mut fields = Fields(frame);
    let (key, _version) = (fields.u16()?, fields.u16()?);
    match key {
        key::PUBLISH_CONFIRM => {
            let (_publisher, count) = (fields.u8()?, fields.u32()?);
            shared.confirmed.fetch_add(count.into(), Ordering::AcqRel);
            shared.changed.notify_waiters();
        }
        key::PUBLISH_ERROR => {
            let (_publisher, _count, _id) = (fields.u8()?, fields.u32()?, fields.u64()?);
            let code = fields.u16()?;
            return Ok(Some(format!("it refuses a message: {}", describe(code))));
        }
        key::METADATA_UPDATE => {
            let code = fields.u16()?;
            return Ok(Some(format!("the stream has moved: {}", describe(code))));
        }
        key::CLOSE => {
            let (_request, code, text) = (fields.u32()?, fields.u16()?, fields.text()?);
            let code = describe(code);
            return Ok(Some(format!("it closes the connection: {code} ({text})")));
        }
        key if key & RESPONSE != 0 => {
            let request = fields.u32()?;
            if let Some(response) = shared.requests().remove(&request) {
                let _ = response.send(fields.0.to_vec());
            }
        }
        _ => {}
    }
    Ok(None)
}

/// Sends a sign of life regularly.
async fn beat(writer: Arc<tokio::sync::Mutex<WriteHalf<Box<dyn Socket>>>>, every: Duration) {
    let mut frame = Vec::new();
    FrameWriter::begin(&mut frame, key::HEARTBEAT).end();
    let mut beats = interval_at(Instant::now() + every, every);
    loop {
        beats.tick().await;
        let mut writer = writer.lock().await;
        if writer.write_all(&frame).await.is_err() || writer.flush().await.is_err() {
            // The reading task tells why.
            return;
        }
    }
}
