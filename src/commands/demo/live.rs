//! `labelcast demo --live`: the whole loop on one machine, with synthetic chats. A stand-in for the
//! API, a process that listens, a sender of signed webhooks, and with a broker the enrichment, until a
//! signal.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ring::hmac;
use serde_json::json;
use tokio::net::TcpListener;
use tracing::debug;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_64;

use super::super::listen::serve_on;
use super::super::{fail, init_log, listen as listen_for_signals, load, print};
use super::{enrichment, start, use_stand_in};
use crate::broker::factory::Address;
use crate::config::{ConfigSources, WEBHOOK_SECRET_VARIABLE};
use crate::error::Error;
use crate::exit::Exit;
use crate::http::{self, Proxies};
use crate::live::Live;
use crate::mock::{Account, Chats, DEMO_INSTANCE, DEMO_TOKEN, Mock, chat_id};
use crate::progress::{Progress, ProgressMode};
use crate::server::signature::hex;

/// Names, colours and first numbers of chats of the labels: the first ones of WhatsApp's palette.
const LABELS: [(&str, &str, u64); 6] = [
    ("Pending follow-up", "#ff9485", 420),
    ("New customer", "#64c4ff", 260),
    ("VIP", "#ffd429", 130),
    ("Order complete", "#55ccb3", 340),
    ("Pending payment", "#dfaef0", 75),
    ("Complaint", "#9dc4ff", 18),
];
/// Time between two changes.
const CHANGE_EVERY: Duration = Duration::from_millis(400);
/// One of this many webhooks gets lost, so that there is something for the reconciliation to find.
const LOST: u64 = 25;
/// The time between two reconciliations, unless the user sets another.
const RECONCILE: &str = "30s";

pub(super) async fn demo(sources: ConfigSources, api: SocketAddr) -> Exit {
    let result = match start(api, account()) {
        Ok(mock) => {
            for ((_, color, _), id) in LABELS.iter().zip(1..) {
                mock.set_color(&format!("{id}"), color);
            }
            run(mock, sources).await
        }
        Err(error) => Err(error),
    };
    result.unwrap_or_else(|error| fail(&error))
}

fn account() -> Account {
    let label = |((name, _, _), id): (&(&str, &str, u64), u64)| {
        let none = Chats::Body(bytes::Bytes::from_static(b"[]"));
        (id.to_string(), (*name).to_owned(), none)
    };
    Account {
        instance_id: DEMO_INSTANCE.to_owned(),
        token: DEMO_TOKEN.to_owned(),
        labels: LABELS.iter().zip(1..).map(label).collect(),
    }
}

async fn run(mock: Mock, mut sources: ConfigSources) -> Result<Exit, Error> {
    let folder = std::env::temp_dir().join(format!("labelcast-demo-{}", Uuid::now_v7()));
    let secret = Uuid::now_v7().to_string();
    use_stand_in(&mut sources, &mock);
    sources.set_secret(WEBHOOK_SECRET_VARIABLE, &secret);
    let has_sink = sources.is_set("sink.url") || sources.is_set("sink.url_file");
    let sink = Address::parse(&sources.text("sink.url"));
    let needs_state = !sources.is_set("state.url") && sink.is_ok_and(|sink| !sink.keeps_state());
    if !has_sink || needs_state {
        create(&folder)?;
    }
    if !has_sink {
        sources.set("sink.url", format!("file:{}/chats.jsonl", folder.display()));
    }
    if needs_state {
        let state = format!("file:{}/state.sqlite", folder.display());
        sources.set("state.url", state);
    }
    if !sources.is_set("listen.reconcile") {
        sources.set("listen.reconcile", RECONCILE);
    }
    let ((settings, server), log) = load(sources, |sources| {
        let (listen, log) = (sources.listen(), sources.log());
        Some((listen?, log?))
    })?;
    init_log(&log, &Progress::new(ProgressMode::Never, true));
    let (shutdown, _listener) = listen_for_signals(None)?;
    let mut live = Live::new(&settings, &shutdown)?;
    let ids = (1..=LABELS.len()).map(|id| id.to_string());
    let workers = enrichment::workers(&mut live, &settings, ids, &shutdown)?;
    let listener = bind(server.bind).await?;
    let address = listener.local_addr().unwrap_or(server.bind);
    mock.fail_some_contacts();
    let mut traffic = Traffic::new(mock, address, &secret)?;
    let place = match folder.exists() {
        true => format!("Files: {}\n", folder.display()),
        false => String::new(),
    };
    let place = match workers.is_empty() {
        true => place,
        false => format!(
            "{place}Records of contacts: the queues {}\n",
            enrichment::records("*")
        ),
    };
    print(&format!(
        "Dashboard: http://{address}/\n{place}Synthetic webhooks arrive until a signal comes.\n"
    ))?;
    let enriching = enrichment::enrich(workers, &shutdown);
    let serving = async { tokio::join!(serve_on(listener, live, server, &shutdown), enriching) };
    tokio::select! {
        ((), ()) = serving => {}
        () = traffic.run() => {}
    }
    Ok(Exit::Complete)
}

fn create(folder: &Path) -> Result<(), Error> {
    std::fs::create_dir(folder).map_err(|error| Error::File {
        what: "could not create",
        path: folder.to_owned(),
        error,
    })
}

/// Listens on the address, or on a free port if it is taken: a demo should just work.
async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = match TcpListener::bind(address).await {
        Err(_) => TcpListener::bind(SocketAddr::new(address.ip(), 0)).await,
        bound => bound,
    };
    bound.map_err(|error| super::super::listen::cannot_bind("listen.bind", address, &error))
}

/// Agents who change labels, and the sender of webhooks.
struct Traffic {
    mock: Mock,
    client: reqwest::Client,
    url: String,
    key: hmac::Key,
    /// The chats of each label, as numbers.
    labels: Vec<Vec<u64>>,
    next_chat: u64,
    changes: u64,
}

impl Traffic {
    fn new(mock: Mock, address: SocketAddr, secret: &str) -> Result<Self, Error> {
        let client = http::client(&Proxies::default())
            .and_then(reqwest::ClientBuilder::build)
            .map_err(|error| Error::Bug(format!("no client for webhooks: {error}")))?;
        let mut traffic = Self {
            mock,
            client,
            url: format!("http://{address}/webhook"),
            key: hmac::Key::new(hmac::HMAC_SHA512, secret.as_bytes()),
            labels: Vec::new(),
            next_chat: 0,
            changes: 0,
        };
        for (number, (_, _, chats)) in LABELS.iter().enumerate() {
            let first = traffic.next_chat;
            traffic.next_chat += chats;
            traffic.labels.push((first..traffic.next_chat).collect());
            traffic.show(number);
        }
        Ok(traffic)
    }

    /// Changes labels for ever.
    async fn run(&mut self) {
        loop {
            tokio::time::sleep(CHANGE_EVERY).await;
            self.change().await;
        }
    }

    /// A number that looks random, the same in each demo.
    fn random(&self, use_case: u8, below: usize) -> usize {
        let mut seed = self.changes.to_le_bytes().to_vec();
        seed.push(use_case);
        usize::try_from(xxh3_64(&seed) % below.max(1) as u64).unwrap_or(0)
    }

    async fn change(&mut self) {
        self.changes += 1;
        let number = self.random(0, self.labels.len());
        let chats = &self.labels[number];
        // Labels grow and shrink around their first numbers.
        let is_added = self.random(1, 100)
            < if chats.len() as u64 > LABELS[number].2 {
                40
            } else {
                60
            };
        let is_added = is_added || chats.is_empty();
        let chat = match is_added {
            true => {
                self.next_chat += 1;
                self.labels[number].push(self.next_chat);
                self.next_chat
            }
            false => {
                let at = self.random(2, chats.len());
                self.labels[number].remove(at)
            }
        };
        self.show(number);
        if !self.changes.is_multiple_of(LOST) {
            self.send(number, if is_added { "added" } else { "deleted" }, chat)
                .await;
        }
    }

    /// Lets the stand-in answer with the chats of a label.
    fn show(&self, number: usize) {
        let chats = self.labels[number].iter();
        let list: Vec<_> = chats.map(|chat| json!({"id": chat_id(*chat)})).collect();
        let body = serde_json::Value::from(list).to_string();
        self.mock
            .set_chats(&(number + 1).to_string(), &Chats::Body(body.into()));
    }

    async fn send(&self, number: usize, change: &str, chat: u64) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let event = json!({
            "id": format!("evt_{}", Uuid::now_v7().simple()),
            "timestamp": u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            "event": format!("label.chat.{change}"),
            "session": DEMO_INSTANCE,
            "payload": {"labelId": (number + 1).to_string(), "chatId": chat_id(chat), "label": null},
            "engine": "DEMO",
        });
        let body = event.to_string();
        let tag = hmac::sign(&self.key, body.as_bytes());
        let request = self
            .client
            .post(&self.url)
            .header("X-Webhook-Hmac", hex(tag.as_ref()))
            .body(body);
        match request.send().await {
            Ok(answer) => debug!(status = answer.status().as_u16(), "webhook answered"),
            Err(error) => debug!("webhook not answered: {}", error.without_url()),
        }
    }
}
