//! A stand-in for the API, for the demo and the tests: real HTTP, scripted faults.
//!
//! It serves the routes of all three dialects over the same labels. A label's chats are generated
//! as they are sent, so a list may be of any length. Replies can be scripted: each request for a
//! label's chats takes the next one, and the ordinary list follows when none is left.

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

pub use self::reply::{Piece, Reply};

/// The token that the demo's stand-in takes.
pub const DEMO_TOKEN: &str = "demo-token";
/// The account that the demo's stand-in has.
pub const DEMO_INSTANCE: &str = "demo";

/// Requests that are kept. A stand-in may be served for days.
const MAX_REQUESTS: usize = 1000;

/// The chats of a label.
#[derive(Clone, Debug)]
pub enum Chats {
    /// So many, each with an id and a name of its own, as a map keyed by index.
    Generated(u64),
    /// This body, as it is.
    Body(Bytes),
}

/// What the stand-in knows.
#[derive(Clone, Debug)]
pub struct Account {
    /// Who may ask.
    pub instance_id: String,
    /// With which token.
    pub token: String,
    /// Labels: id, name and chats.
    pub labels: Vec<(String, String, Chats)>,
}

/// A request as it came.
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
    label_script: Mutex<VecDeque<Reply>>,
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
    requests: Mutex<Vec<Request>>,
}

/// A stand-in that is served until it is dropped.
pub struct Mock {
    address: SocketAddr,
    served: Arc<Served>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Mock {
    /// Serves an account, from a thread of its own.
    ///
    /// # Errors
    ///
    /// When the address cannot be listened on.
    pub fn start(listen: SocketAddr, account: Account) -> io::Result<Self> {
        let served = Arc::new(Served {
            account: Mutex::new(account),
            label_script: Mutex::default(),
            scripts: Mutex::default(),
            requests: Mutex::default(),
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
                // Connections that are held open on purpose would never end by themselves.
                runtime.shutdown_background();
            })?;
        Ok(Self {
            address,
            served,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it is served.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request for the chats of a label is answered in this way.
    pub fn script(&self, label_id: &str, reply: Reply) {
        lock(&self.served.scripts)
            .entry(label_id.to_owned())
            .or_default()
            .push_back(reply);
    }

    /// The next request for the list of labels is answered in this way.
    pub fn script_labels(&self, reply: Reply) {
        lock(&self.served.label_script).push_back(reply);
    }

    /// Gives a label other chats.
    pub fn set_chats(&self, label_id: &str, chats: &Chats) {
        for label in &mut lock(&self.served.account).labels {
            if label.0 == label_id {
                label.2 = chats.clone();
            }
        }
    }

    /// A label is deleted.
    pub fn remove_label(&self, label_id: &str) {
        let mut account = lock(&self.served.account);
        account.labels.retain(|(id, ..)| id != label_id);
    }

    /// The requests so far, the first thousand of them.
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
    router.with_state(served)
}

async fn labels(
    State(served): State<Arc<Served>>,
    uri: axum::http::Uri,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    if let Some(refusal) = served.note(&uri, query, headers) {
        return refusal.into_response();
    }
    if let Some(reply) = lock(&served.label_script).pop_front() {
        return reply.into_response();
    }
    let labels: Vec<_> = lock(&served.account)
        .labels
        .iter()
        .map(|(id, name, _)| serde_json::json!({"id": id, "name": name, "colorHex": "#64c4ff"}))
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
    if let Some(refusal) = served.note(&uri, query, headers) {
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
        // A deleted label answers an empty list, as the real one does.
        .map_or(Chats::Body(Bytes::from_static(b"[]")), |label| {
            label.2.clone()
        });
    script
        .unwrap_or_else(|| Reply::chats(chats))
        .into_response()
}

impl Served {
    /// Notes a request, and refuses it where it does not log in.
    fn note(
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
        let refused = !request.logs_in(&lock(&self.account));
        let mut requests = lock(&self.requests);
        if requests.len() < MAX_REQUESTS {
            requests.push(request);
        }
        refused.then(|| {
            Reply::json(r#"{"status":401,"message":"Invalid access token","error":"Unauthorized"}"#)
                .status(401)
        })
    }
}

impl Request {
    fn logs_in(&self, account: &Account) -> bool {
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        if self.path.starts_with("/api/") {
            return header("x-api-key") == Some(&account.token)
                && self.path.split('/').nth(2) == Some(&account.instance_id);
        }
        if let Some(login) = header("authorization") {
            return login.strip_prefix("Bearer ") == Some(&account.token)
                && header("x-instance-id") == Some(&account.instance_id);
        }
        let in_query = |name: &str, value: &str| {
            self.query
                .split('&')
                .any(|pair| pair.split_once('=') == Some((name, value)))
        };
        in_query("access_token", &account.token) && in_query("instance_id", &account.instance_id)
    }
}
