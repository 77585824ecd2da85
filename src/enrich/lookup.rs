//! The look-up of one contact: the calls that it takes, each within the rate.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::warn;

use super::metrics::Metrics;
use super::rate::RateLimiter;
use crate::api::{ApiError, Client, FailureKind};
use crate::message::{Contact, Lookup};

/// What is asked for beside the contact itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// The text about the person.
    pub about: bool,
    /// The URL of the picture.
    pub photo: bool,
}

/// A call that not every engine implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    About,
    Photo,
    Lids,
    CheckExists,
}

impl Call {
    /// What is missing in records without it.
    fn purpose(self) -> &'static str {
        match self {
            Self::About => "the texts about people",
            Self::Photo => "the pictures",
            Self::Lids => "the numbers behind @lid ids",
            Self::CheckExists => "whether a number exists",
        }
    }
}

/// Looks up contacts. Shared by all look-ups under way.
pub struct Lookups {
    client: Client,
    limiter: RateLimiter,
    include: Include,
    check_exists: bool,
    metrics: Arc<Metrics>,
    /// Calls that the engine does not implement, which are not made again.
    unimplemented: Mutex<BTreeSet<Call>>,
    /// Calls that the API has forbidden for some contact.
    forbidden: Mutex<BTreeSet<Call>>,
    /// The contact that was found last.
    known: Mutex<Option<String>>,
}

impl Lookups {
    /// Looks up with these parts. With `check_exists`, the API is asked first whether a number
    /// exists.
    pub fn new(
        client: Client,
        limiter: RateLimiter,
        include: Include,
        check_exists: bool,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            client,
            limiter,
            include,
            check_exists,
            metrics,
            unimplemented: Mutex::default(),
            forbidden: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// The limit of requests.
    pub fn limiter(&self) -> &RateLimiter {
        &self.limiter
    }

    /// Looks up a contact. The caller has counted the first request; the others wait for the rate.
    ///
    /// # Errors
    ///
    /// The error of the first call that failed, except for additions that this engine or this
    /// contact does not have.
    pub async fn look_up(&self, chat_id: &str) -> Result<Lookup, ApiError> {
        let mut permits = Permits {
            limiter: &self.limiter,
            metrics: &self.metrics,
            is_first: true,
        };
        let resolved = self.resolve(chat_id, &mut permits).await?;
        let asked = resolved.as_deref().unwrap_or(chat_id);
        if self.check_exists && !self.exists(asked, &mut permits).await? {
            return Ok(Lookup::Missing);
        }
        let Some(mut contact) = self.contact(asked, &mut permits).await? else {
            return Ok(Lookup::Missing);
        };
        if let Some(resolved) = &resolved {
            contact.number = contact.number.take().or_else(|| number_of(resolved));
        }
        self.add(asked, &mut contact, &mut permits).await?;
        contact.resolved_id = resolved;
        Ok(Lookup::Found(contact))
    }

    /// Requests the contact itself. Returns `None` if it does not exist.
    ///
    /// "Not found" alone is also the answer to a wrong address. It is believed if the API still finds
    /// another contact.
    async fn contact(
        &self,
        chat_id: &str,
        permits: &mut Permits<'_>,
    ) -> Result<Option<Contact>, ApiError> {
        permits.next().await;
        let found = self.client.contact(chat_id).await;
        match &found {
            Ok(Some(_)) => *lock(&self.known) = Some(chat_id.to_owned()),
            Err(error)
                if error.failure_kind() == FailureKind::NotFound
                    && self.still_finds_another(permits).await =>
            {
                return Ok(None);
            }
            _ => {}
        }
        found
    }

    async fn still_finds_another(&self, permits: &mut Permits<'_>) -> bool {
        let Some(known) = lock(&self.known).clone() else {
            return false;
        };
        permits.next().await;
        matches!(self.client.contact(&known).await, Ok(Some(_)))
    }

    /// Returns the chat id with the phone number behind an `@lid`, where the API knows it.
    async fn resolve(
        &self,
        chat_id: &str,
        permits: &mut Permits<'_>,
    ) -> Result<Option<String>, ApiError> {
        if !chat_id.ends_with("@lid") || !self.implements(Call::Lids) {
            return Ok(None);
        }
        permits.next().await;
        let found = self.client.chat_of_lid(chat_id).await;
        Ok(self.unless_lacking(Call::Lids, found)?.flatten())
    }

    /// Whether a number exists, as far as the API tells.
    async fn exists(&self, chat_id: &str, permits: &mut Permits<'_>) -> Result<bool, ApiError> {
        let Some(number) = number_of(chat_id).filter(|_| self.implements(Call::CheckExists)) else {
            return Ok(true);
        };
        permits.next().await;
        let found = self.client.number_exists(&number).await;
        Ok(self
            .unless_lacking(Call::CheckExists, found)?
            .unwrap_or(true))
    }

    /// Adds what is asked for beside the contact itself.
    async fn add(
        &self,
        chat_id: &str,
        contact: &mut Contact,
        permits: &mut Permits<'_>,
    ) -> Result<(), ApiError> {
        let has_about = contact.about.is_some();
        if self.include.about && !has_about && self.implements(Call::About) {
            permits.next().await;
            let about = self.client.about(chat_id).await;
            contact.about = self.unless_lacking(Call::About, about)?.flatten();
        }
        if self.include.photo && self.implements(Call::Photo) {
            permits.next().await;
            let url = self.client.picture_url(chat_id).await;
            contact.picture_url = self.unless_lacking(Call::Photo, url)?.flatten();
        }
        Ok(())
    }

    fn implements(&self, call: Call) -> bool {
        !lock(&self.unimplemented).contains(&call)
    }

    /// Returns `None` for an addition that the engine does not implement, or that this contact does
    /// not have or does not show.
    fn unless_lacking<T>(
        &self,
        call: Call,
        found: Result<T, ApiError>,
    ) -> Result<Option<T>, ApiError> {
        let error = match found {
            Ok(found) => return Ok(Some(found)),
            Err(error) => error,
        };
        match error.failure_kind() {
            FailureKind::Unimplemented => {
                if lock(&self.unimplemented).insert(call) {
                    warn!("records lack {} from now on: {error}", call.purpose());
                }
                Ok(None)
            }
            // A login that is refused would fail at the contact itself, too.
            FailureKind::Unready if error.is_forbidden() => {
                if lock(&self.forbidden).insert(call) {
                    warn!(
                        "some records lack {}: the API forbids it (403)",
                        call.purpose()
                    );
                }
                Ok(None)
            }
            FailureKind::NotFound | FailureKind::Final => Ok(None),
            FailureKind::Throttled
            | FailureKind::Busy
            | FailureKind::Unready
            | FailureKind::Transient => Err(error),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The permits of one look-up.
struct Permits<'a> {
    limiter: &'a RateLimiter,
    metrics: &'a Metrics,
    is_first: bool,
}

impl Permits<'_> {
    /// Waits until the next request may be sent.
    async fn next(&mut self) {
        if !std::mem::replace(&mut self.is_first, false) {
            self.limiter.wait().await;
        }
        self.metrics.count_request();
    }
}

/// Returns the phone number in a chat id, if it contains one.
fn number_of(chat_id: &str) -> Option<String> {
    let (user, server) = chat_id.rsplit_once('@')?;
    let has_number = ["c.us", "s.whatsapp.net"].contains(&server)
        && !user.is_empty()
        && user.bytes().all(|byte| byte.is_ascii_digit());
    has_number.then(|| user.to_owned())
}
