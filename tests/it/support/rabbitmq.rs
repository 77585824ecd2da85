//! Private RabbitMQ brokers, on free ports, with their data in a folder of their own.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicGetOptions, BasicPublishOptions,
    BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use serde_json::Value;

use super::redis::free_ports;
use super::{make_certificate, wait_until};

/// Virtual hosts of the shared broker. Each test takes one for itself.
const VHOSTS: usize = 220;
/// Where the programs of the broker are, unless RABBITMQ_BIN says otherwise: see scripts/test-compat.
const PROGRAMS: &str = "/usr/lib/rabbitmq/bin";

fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("RABBITMQ_BIN").unwrap_or_else(|| PROGRAMS.into());
    Path::new(&folder).join(name)
}

/// A broker that is stopped when it is dropped or when this process ends.
pub(crate) struct Broker {
    /// A shell that stops the broker when its stdin closes for any reason.
    guard: Option<Child>,
    pub(crate) port: u16,
    tls_port: u16,
    stream_port: u16,
    stream_tls_port: u16,
    dist_port: u16,
    epmd_port: u16,
    folder: PathBuf,
}

impl Broker {
    /// Starts a broker for one test.
    pub(crate) fn start() -> Self {
        Self::with_vhosts(1)
    }

    fn with_vhosts(count: usize) -> Self {
        let [
            port,
            tls_port,
            stream_port,
            stream_tls_port,
            dist_port,
            epmd_port,
        ] = free_ports();
        let mut broker = Self {
            guard: None,
            port,
            tls_port,
            stream_port,
            stream_tls_port,
            dist_port,
            epmd_port,
            folder: tempfile::tempdir().unwrap().keep(),
        };
        broker.configure(count);
        broker.up();
        broker
    }

    /// Returns a broker for all tests that only need a virtual host.
    fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| Self::with_vhosts(VHOSTS))
    }

    fn configure(&self, count: usize) {
        let vhosts: Vec<Value> = (0..count)
            .map(|i| serde_json::json!({"name": format!("v{i}")}))
            .collect();
        let mut permissions = Vec::new();
        for i in 0..count {
            let all = serde_json::json!({"user": "guest", "vhost": format!("v{i}"),
                "configure": ".*", "write": ".*", "read": ".*"});
            let read = serde_json::json!({"user": "reader", "vhost": format!("v{i}"),
                "configure": "", "write": "", "read": ".*"});
            permissions.extend([all, read]);
        }
        let definitions = serde_json::json!({
            "rabbit_version": "3.10.8",
            "users": [
                {"name": "guest", "password": "guest", "tags": ["administrator"]},
                {"name": "reader", "password": "pass-that-nobody-may-see", "tags": []},
            ],
            "vhosts": vhosts,
            "permissions": permissions,
        });
        let definitions_file = self.folder.join("definitions.json");
        std::fs::write(&definitions_file, definitions.to_string()).unwrap();
        make_certificate(&self.folder);
        let folder = self.folder.display();
        let config = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\n\
             listeners.ssl.1 = 127.0.0.1:{}\n\
             stream.listeners.tcp.1 = 127.0.0.1:{}\n\
             stream.listeners.ssl.1 = 127.0.0.1:{}\n\
             ssl_options.cacertfile = {folder}/ca.pem\n\
             ssl_options.certfile = {folder}/cert.pem\n\
             ssl_options.keyfile = {folder}/key.pem\n\
             ssl_options.verify = verify_peer\n\
             ssl_options.fail_if_no_peer_cert = false\n\
             load_definitions = {folder}/definitions.json\n\
             disk_free_limit.absolute = 50MB\n",
            self.port, self.tls_port, self.stream_port, self.stream_tls_port,
        );
        std::fs::write(self.folder.join("rabbit.conf"), config).unwrap();
        std::fs::write(self.folder.join("plugins"), "[rabbitmq_stream].").unwrap();
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = |name: &str| self.folder.join(name);
        command
            .env(
                "RABBITMQ_NODENAME",
                format!("labelcast{}@localhost", self.port),
            )
            .env("RABBITMQ_NODE_PORT", self.port.to_string())
            .env("RABBITMQ_DIST_PORT", self.dist_port.to_string())
            .env("ERL_EPMD_PORT", self.epmd_port.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env("RABBITMQ_MNESIA_BASE", path("data"))
            .env("RABBITMQ_LOG_BASE", path("log"))
            .env("RABBITMQ_PID_FILE", path("pid"))
            .env("RABBITMQ_CONFIG_FILE", path("rabbit"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", path("plugins"))
            .env("HOME", &self.folder)
            // For crash dumps.
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    /// Starts the broker on the same port, with the data in its folder.
    pub(crate) fn up(&mut self) {
        let server = program("rabbitmq-server");
        assert!(server.exists(), "rabbitmq-server is not installed");
        let server = server.display();
        let line = format!(
            "setsid {server} >/dev/null 2>&1 </dev/null & server=$!; \
             if read -r _; then kill -TERM -- -$server; wait $server; exit; fi; \
             kill -9 -- -$server 2>/dev/null; wait $server 2>/dev/null; \
             for _ in $(seq 50); do epmd -kill 2>&1 | grep -q Killed && break; sleep 0.1; done; \
             rm -rf {}",
            self.folder.display()
        );
        let mut command = self.command("bash");
        self.guard = Some(
            command
                .args(["-c", &line])
                .stdin(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        self.wait_for_listener();
    }

    fn wait_for_listener(&self) {
        let vhost = self.vhost_of(0);
        wait_until("the broker accepts connections", || {
            vhost.try_client().is_some()
        });
    }

    /// Stops the broker. Data that it has written remains.
    pub(crate) fn down(&mut self) {
        let mut guard = self.guard.take().unwrap();
        guard.stdin.take().unwrap().write_all(b"stop\n").unwrap();
        guard.wait().unwrap();
    }

    /// Runs rabbitmqctl.
    pub(crate) fn control(&self, arguments: &[&str]) {
        let status = self
            .command(program("rabbitmqctl"))
            .args(arguments)
            .status()
            .unwrap();
        assert!(status.success(), "rabbitmqctl {arguments:?}");
    }

    fn vhost_of(&self, number: usize) -> Vhost {
        Vhost {
            port: self.port,
            tls_port: self.tls_port,
            stream_port: self.stream_port,
            stream_tls_port: self.stream_tls_port,
            folder: self.folder.clone(),
            name: format!("v{number}"),
        }
    }

    /// The first virtual host, of a broker for one test.
    pub(crate) fn vhost(&self) -> Vhost {
        self.vhost_of(0)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            guard.wait().unwrap();
        }
    }
}

/// A virtual host of the shared broker that no other test uses.
pub(crate) fn vhost() -> Vhost {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::SeqCst);
    assert!(number < VHOSTS, "too few virtual hosts");
    Broker::shared().vhost_of(number)
}

#[derive(Clone)]
pub(crate) struct Vhost {
    pub(crate) port: u16,
    tls_port: u16,
    pub(crate) stream_port: u16,
    stream_tls_port: u16,
    folder: PathBuf,
    pub(crate) name: String,
}

impl Vhost {
    pub(crate) fn url(&self) -> String {
        self.url_by(self.port)
    }

    /// The URL with another port, such as a proxy's.
    pub(crate) fn url_by(&self, port: u16) -> String {
        format!("amqp://guest:guest@127.0.0.1:{port}/{}", self.name)
    }

    /// The URL of the stream protocol, with these ports for it and for AMQP.
    pub(crate) fn stream_url(&self, stream_port: u16, amqp_port: u16) -> String {
        let name = &self.name;
        format!(
            "rabbitmq-stream://guest:guest@127.0.0.1:{stream_port}/{name}?amqp_port={amqp_port}"
        )
    }

    /// The URL of the stream protocol with TLS.
    pub(crate) fn stream_tls_url(&self) -> String {
        let authority = self.folder.join("ca.pem");
        format!(
            "rabbitmq-stream+tls://guest:guest@localhost:{}/{}?amqp_port={}&cacertfile={}",
            self.stream_tls_port,
            self.name,
            self.tls_port,
            authority.display()
        )
    }

    /// The URL with TLS and these parameters, in which `AUTHORITY`, `CERT` and `KEY` stand for the
    /// broker's files.
    pub(crate) fn tls_url(&self, parameters: &str) -> String {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let parameters = parameters
            .replace("AUTHORITY", &file("ca.pem"))
            .replace("CERT", &file("cert.pem"))
            .replace("KEY", &file("key.pem"));
        format!(
            "amqps://guest:guest@localhost:{}/{}{parameters}",
            self.tls_port, self.name
        )
    }

    fn try_client(&self) -> Option<Client> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let opened = runtime.block_on(async {
            let options = ConnectionProperties::default();
            let connection = Connection::connect(&self.url(), options).await?;
            let channel = connection.create_channel().await?;
            Ok::<_, lapin::Error>((connection, channel))
        });
        let (connection, channel) = opened.ok()?;
        Some(Client {
            runtime,
            vhost: self.clone(),
            connection,
            channel,
        })
    }

    pub(crate) fn client(&self) -> Client {
        self.try_client().unwrap()
    }
}

/// A message from a queue.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) properties: BasicProperties,
    pub(crate) data: Value,
}

impl Message {
    pub(crate) fn id(&self) -> String {
        self.properties.message_id().as_ref().unwrap().to_string()
    }

    pub(crate) fn event(&self) -> Option<String> {
        let headers = self.properties.headers().as_ref()?;
        Some(match headers.inner().get("event")? {
            AMQPValue::LongString(event) => event.to_string(),
            other => panic!("{other:?}"),
        })
    }

    /// The chats in the message.
    pub(crate) fn chats(&self) -> Vec<String> {
        let data = match &self.data["data"] {
            Value::Null => &self.data,
            data => data,
        };
        match (&data["chat_id"], &data["chat_ids"]) {
            (Value::String(id), _) => vec![id.clone()],
            (_, ids @ Value::Array(_)) => serde_json::from_value(ids.clone()).unwrap(),
            _ => Vec::new(),
        }
    }
}

/// Another client, which inspects the queues.
pub(crate) struct Client {
    runtime: tokio::runtime::Runtime,
    vhost: Vhost,
    connection: Connection,
    channel: Channel,
}

impl Client {
    /// Declares a queue, with arguments that are texts or numbers.
    pub(crate) fn declare(&self, queue: &str, arguments: &[(&str, Value)]) {
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            let value = match value {
                Value::String(text) => AMQPValue::LongString(text.as_str().into()),
                number => AMQPValue::LongLongInt(number.as_i64().unwrap()),
            };
            table.insert((*name).into(), value);
        }
        let options = QueueDeclareOptions::durable();
        let declared = self.channel.queue_declare(queue.into(), options, table);
        self.runtime.block_on(declared).unwrap();
    }

    /// Declares an exchange, and optionally a queue that is bound to it.
    pub(crate) fn exchange(&self, name: &str, queue: Option<&str>) {
        let options = ExchangeDeclareOptions::default();
        let table = FieldTable::default;
        let declared =
            self.channel
                .exchange_declare(name.into(), ExchangeKind::Direct, options, table());
        self.runtime.block_on(declared).unwrap();
        if let Some(queue) = queue {
            self.declare(queue, &[]);
            let options = QueueBindOptions::default();
            let bound =
                self.channel
                    .queue_bind(queue.into(), name.into(), queue.into(), options, table());
            self.runtime.block_on(bound).unwrap();
        }
    }

    pub(crate) fn delete(&self, queue: &str) {
        let deleted = self
            .channel
            .queue_delete(queue.into(), QueueDeleteOptions::default());
        self.runtime.block_on(deleted).unwrap();
    }

    /// Returns the number of messages in a queue, or `None` if there is no queue.
    pub(crate) fn depth(&self, queue: &str) -> Option<usize> {
        // The broker closes the channel if the queue does not exist.
        let client = self.vhost.client();
        let options = QueueDeclareOptions::durable().passive();
        let found = client
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        let found = client.runtime.block_on(found).ok()?;
        Some(found.message_count() as usize)
    }

    /// Takes the next message off a queue.
    pub(crate) fn take(&self, queue: &str) -> Option<Message> {
        self.runtime.block_on(async {
            let got = self
                .channel
                .basic_get(queue.into(), BasicGetOptions::default());
            let got = got.await.unwrap()?;
            let acked = self
                .channel
                .basic_ack(got.delivery.delivery_tag, BasicAckOptions::default());
            acked.await.unwrap();
            Some(Message {
                properties: got.delivery.properties.clone(),
                data: serde_json::from_slice(&got.delivery.data).unwrap(),
            })
        })
    }

    /// Publishes a message again.
    pub(crate) fn put(&self, queue: &str, message: &Message) {
        let payload = serde_json::to_vec(&message.data).unwrap();
        let options = BasicPublishOptions::default();
        let properties = message.properties.clone();
        let put =
            self.channel
                .basic_publish("".into(), queue.into(), options, &payload, properties);
        drop(self.runtime.block_on(put).unwrap());
        wait_until("the message is in the queue", || {
            self.depth(queue) == Some(1)
        });
    }

    /// Publishes JSON messages, and waits until the broker has confirmed them.
    pub(crate) fn put_all(&self, queue: &str, messages: &[Value]) {
        self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            let confirms = ConfirmSelectOptions::default();
            channel.confirm_select(confirms).await.unwrap();
            let mut sent = Vec::new();
            for message in messages {
                let payload = serde_json::to_vec(message).unwrap();
                let options = BasicPublishOptions::default();
                let properties = BasicProperties::default().with_delivery_mode(2);
                let published =
                    channel.basic_publish("".into(), queue.into(), options, &payload, properties);
                sent.push(published.await.unwrap());
            }
            for confirm in sent {
                assert!(confirm.await.unwrap().is_ack());
            }
        });
    }

    /// Holds the next message of a queue as long as this client lives.
    pub(crate) fn hold(&self, queue: &str) {
        let got = self
            .channel
            .basic_get(queue.into(), BasicGetOptions::default());
        assert!(self.runtime.block_on(got).unwrap().is_some());
    }

    /// Takes all messages off a queue.
    pub(crate) fn drain(&self, queue: &str) -> Vec<Message> {
        let mut all = Vec::new();
        loop {
            match self.ready(queue) {
                0 => return all,
                count => all.extend(self.consume(queue, count)),
            }
        }
    }

    /// Returns all messages of a stream, but those that earlier calls have put at its end.
    pub(crate) fn read_stream(&self, stream: &str) -> Vec<Message> {
        const END: &str = "the end, for now";
        let end = format!("{END} {}", uuid::Uuid::now_v7());
        let mut messages = self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            let properties = BasicProperties::default().with_message_id(end.clone().into());
            let options = BasicPublishOptions::default();
            let put = channel.basic_publish("".into(), stream.into(), options, b"null", properties);
            put.await.unwrap();
            let prefetch = channel.basic_qos(1000, BasicQosOptions::default());
            prefetch.await.unwrap();
            let mut from_start = FieldTable::default();
            let first = AMQPValue::LongString("first".into());
            from_start.insert("x-stream-offset".into(), first);
            let options = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(stream.into(), "".into(), options, from_start);
            let mut consumer = consumer.await.unwrap();
            let mut messages: Vec<Message> = Vec::new();
            while messages.last().is_none_or(|last| last.id() != end) {
                let delivery = consumer.next().await.unwrap().unwrap();
                delivery.ack(BasicAckOptions::default()).await.unwrap();
                messages.push(Message {
                    properties: delivery.properties.clone(),
                    data: serde_json::from_slice(&delivery.data).unwrap(),
                });
            }
            channel.close(200, "OK".into()).await.unwrap();
            messages
        });
        messages.retain(|message| !message.id().starts_with(END));
        messages
    }

    /// Returns the number of messages of an existing queue that can be delivered now.
    fn ready(&self, queue: &str) -> usize {
        let options = QueueDeclareOptions::durable().passive();
        let found = self
            .channel
            .queue_declare(queue.into(), options, FieldTable::default());
        self.runtime.block_on(found).unwrap().message_count() as usize
    }

    /// Consumes exactly this many messages. Much faster than a [`Client::take`] for each.
    fn consume(&self, queue: &str, count: usize) -> Vec<Message> {
        let count = count.min(60_000);
        self.runtime.block_on(async {
            let channel = self.connection.create_channel().await.unwrap();
            // No more than these are delivered, so none must be returned to the queue.
            let prefetch = channel.basic_qos(count as u16, BasicQosOptions::default());
            prefetch.await.unwrap();
            let options = BasicConsumeOptions::default();
            let consumer =
                channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
            let mut consumer = consumer.await.unwrap();
            let mut messages = Vec::new();
            let mut last = 0;
            while messages.len() < count {
                let delivery = consumer.next().await.unwrap().unwrap();
                last = delivery.delivery_tag;
                messages.push(Message {
                    properties: delivery.properties.clone(),
                    data: serde_json::from_slice(&delivery.data).unwrap(),
                });
            }
            // Cancel before the acknowledgement, which would let the broker deliver more.
            let cancelled = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            cancelled.await.unwrap();
            let all = BasicAckOptions { multiple: true };
            channel.basic_ack(last, all).await.unwrap();
            channel.close(200, "OK".into()).await.unwrap();
            messages
        })
    }
}

/// Returns the chats as a consumer sees them that skips known ids, and the number of repeated
/// messages.
pub(crate) fn once(messages: &[Message]) -> (Vec<String>, usize) {
    let mut seen: BTreeMap<String, Value> = BTreeMap::new();
    let mut chats = Vec::new();
    for message in messages.iter().filter(|message| message.event().is_none()) {
        match seen.insert(message.id(), message.data.clone()) {
            Some(before) => assert_eq!(before, message.data, "a repeat is identical"),
            None => chats.extend(message.chats()),
        }
    }
    let repeats = messages.len() - seen.len();
    (chats, repeats)
}
