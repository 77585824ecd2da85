//! A stand-in for the API, for the demo and the tests: real HTTP, scripted faults.
//!
//! It serves the routes of all three dialects over the same labels. A label's chats are generated
//! while they are sent, so a list may have any length. Replies can be scripted: each request for a
//! label's chats takes the next scripted reply. When none is left, the ordinary list is sent.
//! Contacts are synthetic and can be scripted too.

mod contacts;
mod reply;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

pub use self::contacts::ContactCall;
use self::contacts::Contacts;
pub(crate) use self::reply::chat_id;
pub use self::reply::{Piece, Reply};

/// The token that the demo's stand-in accepts.
pub const DEMO_TOKEN: &str = "demo-token";
/// The account id of the demo's stand-in.
pub const DEMO_INSTANCE: &str = "demo";

/// The colour of a label that has none of its own.
const COLOR: &str = "#64c4ff";
/// The maximum number of recorded requests. A stand-in may run for days.
const MAX_REQUESTS: usize = 1000;

/// The chats of a label.
#[derive(Clone, Debug)]
pub enum Chats {
    /// This many chats, each with its own id and name, as a map keyed by index.
    Generated(u64),
    /// This body, unchanged.
    Body(Bytes),
}

/// The account that the stand-in serves.
#[derive(Clone, Debug)]
pub struct Account {
    /// The accepted account id.
    pub instance_id: String,
    /// The accepted token.
    pub token: String,
    /// The labels: id, name and chats.
    pub labels: Vec<(String, String, Chats)>,
}

/// A recorded request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The path.
    pub path: String,
    /// The query, without the question mark.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
}

struct Served {
    account: Mutex<Account>,
    /// Colours of labels, by their ids.
    colors: Mutex<HashMap<String, String>>,
    label_script: Mutex<VecDeque<Reply>>,
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
    requests: Mutex<Vec<Request>>,
    contacts: Contacts,
}

/// A stand-in that runs until it is dropped.
pub struct Mock {
    address: SocketAddr,
    served: Arc<Served>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Mock {
    /// Serves an account on its own thread.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the address.
    pub fn start(listen: SocketAddr, account: Account) -> io::Result<Self> {
        let served = Arc::new(Served {
            account: Mutex::new(account),
            colors: Mutex::default(),
            label_script: Mutex::default(),
            scripts: Mutex::default(),
            requests: Mutex::default(),
            contacts: Contacts::default(),
        });
        let listener = std::net::TcpListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stop = CancellationToken::new();
        let (router, stopped) = (router(Arc::clone(&served)), stop.clone());
        let thread = std::thread::Builder::new()
            .name("stand-in".to_owned())
            .spawn(move || {
                runtime.block_on(serve(listener, router, stopped));
                // Scripted replies may hold connections open for ever.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            address,
            served,
            stop,
            thread: Some(thread),
        })
    }

    /// Returns the base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Scripts the reply to the next request for the chats of a label.
    pub fn script(&self, label_id: &str, reply: Reply) {
        lock(&self.served.scripts)
            .entry(label_id.to_owned())
            .or_default()
            .push_back(reply);
    }

    /// Scripts the reply to the next request for the list of labels.
    pub fn script_labels(&self, reply: Reply) {
        lock(&self.served.label_script).push_back(reply);
    }

    /// Replaces the chats of a label.
    pub fn set_chats(&self, label_id: &str, chats: &Chats) {
        for label in &mut lock(&self.served.account).labels {
            if label.0 == label_id {
                label.2 = chats.clone();
            }
        }
    }

    /// Sets the colour of a label.
    pub fn set_color(&self, label_id: &str, color: &str) {
        let colors = &self.served.colors;
        lock(colors).insert(label_id.to_owned(), color.to_owned());
    }

    /// Adds a label.
    pub fn add_label(&self, label_id: &str, name: &str, chats: Chats) {
        let label = (label_id.to_owned(), name.to_owned(), chats);
        lock(&self.served.account).labels.push(label);
    }

    /// Deletes a label.
    pub fn remove_label(&self, label_id: &str) {
        let mut account = lock(&self.served.account);
        account.labels.retain(|(id, ..)| id != label_id);
    }

    /// Returns the first thousand requests so far.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.served.requests).clone()
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: std::net::TcpListener, router: Router, stopped: CancellationToken) {
    if let Ok(listener) = tokio::net::TcpListener::from_std(listener) {
        tokio::select! {
            _ = axum::serve(listener, router).into_future() => {}
            () = stopped.cancelled() => {}
        }
    }
}

fn router(served: Arc<Served>) -> Router {
    let mut router = Router::new();
    for base in ["/v2", "/wp-json/awp/v1", "/api/{session}"] {
        router = router
            .route(&format!("{base}/labels"), get(labels))
            .route(&format!("{base}/labels/{{label}}/chats"), get(chats));
    }
    contacts::routes(router).with_state(served)
}

async fn labels(
    State(served): State<Arc<Served>>,
    uri: axum::http::Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = served.record(&uri, query, headers) {
        return refusal.into_response();
    }
    if let Some(reply) = lock(&served.label_script).pop_front() {
        return reply.into_response();
    }
    let colors = lock(&served.colors).clone();
    let color = |id: &String| colors.get(id).map_or(COLOR, String::as_str);
    let labels: Vec<_> = lock(&served.account)
        .labels
        .iter()
        .map(|(id, name, _)| serde_json::json!({"id": id, "name": name, "colorHex": color(id)}))
        .collect();
    Reply::json(serde_json::Value::from(labels).to_string()).into_response()
}

async fn chats(
    State(served): State<Arc<Served>>,
    Path(parameters): Path<HashMap<String, String>>,
    uri: axum::http::Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = served.record(&uri, query, headers) {
        return refusal.into_response();
    }
    let label_id = parameters.get("label").map_or("", String::as_str);
    let script = lock(&served.scripts)
        .get_mut(label_id)
        .and_then(VecDeque::pop_front);
    let account = lock(&served.account);
    let chats = account
        .labels
        .iter()
        .find(|(id, ..)| id == label_id)
        // The real API answers with an empty list for a deleted label too.
        .map_or(Chats::Body(Bytes::from_static(b"[]")), |label| {
            label.2.clone()
        });
    script
        .unwrap_or_else(|| Reply::chats(chats))
        .into_response()
}

impl Served {
    /// Records a request and refuses it if the login is wrong.
    fn record(
        &self,
        uri: &axum::http::Uri,
        query: Option<String>,
        headers: HeaderMap,
    ) -> Option<Reply> {
        let request = Request {
            path: uri.path().to_owned(),
            query: query.unwrap_or_default(),
            headers,
        };
        let is_refused = !request.is_authenticated(&lock(&self.account));
        let mut requests = lock(&self.requests);
        if requests.len() < MAX_REQUESTS {
            requests.push(request);
        }
        is_refused.then(|| {
            Reply::json(r#"{"status":401,"message":"Invalid access token","error":"Unauthorized"}"#)
                .status(401)
        })
    }
}

impl Request {
    fn is_authenticated(&self, account: &Account) -> bool {
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        let in_query = |name: &str, value: &str| {
            url::form_urlencoded::parse(self.query.as_bytes())
                .any(|pair| pair == (name.into(), value.into()))
        };
        if let Some(path) = self.path.strip_prefix("/api/") {
            let session = path.split('/').next();
            let is_session = match session {
                Some("contacts") => in_query("session", &account.instance_id),
                session => session == Some(&account.instance_id),
            };
            return is_session && header("x-api-key") == Some(&account.token);
        }
        if let Some(login) = header("authorization") {
            return login.strip_prefix("Bearer ") == Some(&account.token)
                && header("x-instance-id") == Some(&account.instance_id);
        }
        in_query("access_token", &account.token) && in_query("instance_id", &account.instance_id)
    }
}
