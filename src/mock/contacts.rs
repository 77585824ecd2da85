//! The stand-in's look-ups of contacts: synthetic people, scripted faults, a rate limit.
//!
//! Person 17 is the chat at position 17 of a generated list; of any other id the number counts.
//! Position by position:
//!
//! | about | position |
//! | --- | --- |
//! | no push name | every fifth, from 4 on |
//! | no text | every third, from 1 on |
//! | no picture | every fourth, from 2 on |
//! | a business | every seventh, from 0 on |
//! | an `@lid` without a phone number | every third `@lid` |
//! | does not exist (404) | every fiftieth, from 7 on, after [`Mock::fail_some_contacts`] |
//! | always fails (500) | every hundredth, from 13 on, after [`Mock::fail_some_contacts`] |

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};

use super::reply::position;
use super::{Mock, Reply, Served, lock};

/// The maximum number of recorded look-ups. A stand-in may run for days.
const MAX_CALLS: usize = 200_000;

/// A recorded look-up.
#[derive(Clone, Debug)]
pub struct ContactCall {
    /// When it arrived.
    pub at: Instant,
    /// The path.
    pub path: String,
    /// The chat id, `@lid` or phone number that it is about.
    pub chat_id: String,
}

/// Scripts and records of look-ups.
#[derive(Default)]
pub(super) struct Contacts {
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
    always: Mutex<HashMap<String, Reply>>,
    refusal: Mutex<Option<Reply>>,
    delay: Mutex<Duration>,
    limit: Mutex<Limit>,
    calls: Mutex<Vec<ContactCall>>,
    /// Whether some contacts do not exist, and some always fail.
    some_fail: AtomicBool,
}

/// A limit of the requests in any second.
#[derive(Default)]
struct Limit {
    per_second: Option<u32>,
    /// The requests of the last second that were within the limit.
    recent: VecDeque<Instant>,
}

impl Limit {
    fn allows(&mut self, now: Instant) -> bool {
        let Some(per_second) = self.per_second else {
            return true;
        };
        let is_recent = |at: &Instant| now.duration_since(*at) < Duration::from_secs(1);
        while self.recent.front().is_some_and(|at| !is_recent(at)) {
            self.recent.pop_front();
        }
        let allows = self.recent.len() < per_second as usize;
        if allows {
            self.recent.push_back(now);
        }
        allows
    }
}

impl Mock {
    /// Scripts the reply to the next look-up of this id, of whatever kind.
    pub fn script_contact(&self, chat_id: &str, reply: Reply) {
        lock(&self.served.contacts.scripts)
            .entry(chat_id.to_owned())
            .or_default()
            .push_back(reply);
    }

    /// Sets the reply to every look-up of this id for which none is scripted.
    pub fn always_contact(&self, chat_id: &str, reply: Reply) {
        lock(&self.served.contacts.always).insert(chat_id.to_owned(), reply);
    }

    /// Delays the replies to look-ups.
    pub fn set_contact_delay(&self, delay: Duration) {
        *lock(&self.served.contacts.delay) = delay;
    }

    /// Answers look-ups over this number in any second with 429 and `Retry-After: 1`. Zero refuses
    /// all of them.
    pub fn limit_contacts(&self, per_second: u32) {
        lock(&self.served.contacts.limit).per_second = Some(per_second);
    }

    /// Sets the reply to all look-ups, until it is `None` again.
    pub fn refuse_contacts(&self, reply: Option<Reply>) {
        *lock(&self.served.contacts.refusal) = reply;
    }

    /// Lets some contacts not exist and some always fail, by their positions in a generated list:
    ///
    /// - 7, 57, 107, … do not exist: 404, or `false` to whether the number exists.
    /// - 13, 113, 213, … always fail: 500.
    pub fn fail_some_contacts(&self) {
        let some_fail = &self.served.contacts.some_fail;
        some_fail.store(true, Ordering::Relaxed);
    }

    /// Returns the first 200,000 look-ups so far.
    pub fn contact_calls(&self) -> Vec<ContactCall> {
        lock(&self.served.contacts.calls).clone()
    }
}

/// The kind of a look-up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Contact,
    About,
    Picture,
    Exists,
    Lid,
}

/// Adds the routes of look-ups in all dialects.
pub(super) fn routes(mut router: Router<Arc<Served>>) -> Router<Arc<Served>> {
    for base in ["/v2", "/wp-json/awp/v1", "/api"] {
        let contacts = format!("{base}/contacts");
        router = router
            .route(&contacts, look_up(Kind::Contact))
            .route(&format!("{contacts}/about"), look_up(Kind::About))
            .route(
                &format!("{contacts}/profile-picture"),
                look_up(Kind::Picture),
            )
            .route(&format!("{contacts}/check-exists"), look_up(Kind::Exists));
    }
    for base in ["/v2", "/wp-json/awp/v1", "/api/{session}"] {
        router = router.route(&format!("{base}/lids/{{lid}}"), look_up(Kind::Lid));
    }
    router
}

fn look_up(kind: Kind) -> MethodRouter<Arc<Served>> {
    get(
        move |State(served): State<Arc<Served>>,
              uri: Uri,
              RawQuery(query): RawQuery,
              headers: HeaderMap| async move {
            served.contact(kind, &uri, query, headers).await
        },
    )
}

impl Served {
    async fn contact(
        &self,
        kind: Kind,
        uri: &Uri,
        query: Option<String>,
        headers: HeaderMap,
    ) -> Response {
        let id = id(kind, uri);
        self.contacts.record(uri, &id);
        if let Some(refusal) = self.record(uri, query, headers) {
            return refusal.into_response();
        }
        let delay = *lock(&self.contacts.delay);
        let reply = self.contacts.reply(kind, uri, &id);
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        reply.into_response()
    }
}

impl Contacts {
    fn record(&self, uri: &Uri, id: &str) {
        let mut calls = lock(&self.calls);
        if calls.len() < MAX_CALLS {
            calls.push(ContactCall {
                at: Instant::now(),
                path: uri.path().to_owned(),
                chat_id: id.to_owned(),
            });
        }
    }

    fn reply(&self, kind: Kind, uri: &Uri, id: &str) -> Reply {
        if let Some(refusal) = lock(&self.refusal).clone() {
            return refusal;
        }
        if !lock(&self.limit).allows(Instant::now()) {
            return failure(429, "Too many requests").header("retry-after", "1");
        }
        let mut scripts = lock(&self.scripts);
        let scripted = scripts.get_mut(id).and_then(VecDeque::pop_front);
        if let Some(reply) = scripted.or_else(|| lock(&self.always).get(id).cloned()) {
            return reply;
        }
        if id.is_empty() {
            return failure(400, "contactId must not be empty");
        }
        let some_fail = self.some_fail.load(Ordering::Relaxed);
        match position(id) {
            at if some_fail && at % 100 == 13 => failure(500, "Evaluation failed"),
            at if some_fail && at % 50 == 7 && kind != Kind::Exists => {
                failure(404, "Contact not found")
            }
            at => Reply::json(in_dialect(
                uri,
                person(kind, id, at, some_fail && at % 50 == 7),
            )),
        }
    }
}

/// Returns the id that a look-up is about.
fn id(kind: Kind, uri: &Uri) -> String {
    let name = match kind {
        Kind::Lid => {
            let segment = uri.path().rsplit('/').next().unwrap_or_default();
            let lid = percent_encoding::percent_decode_str(segment);
            return lid.decode_utf8_lossy().into_owned();
        }
        Kind::Exists => "phone",
        Kind::Contact | Kind::About | Kind::Picture => "contactId",
    };
    let query = uri.query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

fn failure(status: u16, message: &str) -> Reply {
    let body = json!({"statusCode": status, "message": message});
    Reply::json(body.to_string()).status(status)
}

/// Returns what is known of the person at a position.
fn person(kind: Kind, id: &str, at: u64, is_missing: bool) -> Value {
    let user = id.split('@').next().unwrap_or_default();
    match kind {
        Kind::Contact => json!({
            "id": id,
            "name": format!("Person {at}"),
            "pushname": (at % 5 != 4).then(|| format!("P. {at}")),
            "number": id.ends_with("@c.us").then_some(user),
            "isBusiness": at.is_multiple_of(7),
            "isBlocked": false,
        }),
        Kind::About => json!({"about": (at % 3 != 1).then(|| format!("About {at}"))}),
        Kind::Picture => json!({
            "profilePictureURL": (at % 4 != 2).then(|| format!("https://pictures.example/{at}.jpg"))
        }),
        Kind::Exists => json!({"numberExists": !is_missing, "chatId": format!("{user}@c.us")}),
        Kind::Lid => {
            // Every tenth chat of a generated list is an `@lid`.
            let is_known = at / 10 % 3 != 2;
            json!({"lid": id, "pn": is_known.then(|| format!("44{user}@c.us"))})
        }
    }
}

/// Returns the body in the shape that occurs in a dialect.
fn in_dialect(uri: &Uri, mut person: Value) -> String {
    let id = person.get("id").and_then(Value::as_str).map(str::to_owned);
    if uri.path().starts_with("/wp-json/") {
        person = json!({"success": true, "data": person});
    } else if uri.path().starts_with("/v2/")
        && let Some(id) = id
    {
        let (user, server) = id.split_once('@').unwrap_or((&id, "c.us"));
        let whole = format!("{user}@{server}");
        person["id"] = json!({"server": server, "user": user, "_serialized": whole});
    }
    person.to_string()
}
