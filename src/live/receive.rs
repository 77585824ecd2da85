//! Events that were received, from their body to the queues and the state.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::mpsc;
use tracing::warn;

use super::activity::Activity;
use super::inbound::{ChatEvent, Inbound, InboundReader, NotEvents};
use super::intake::{Intake, NotDurable};
use super::labels::{FollowedLabels, Follows};
use super::metrics::Metrics;
use super::store::LabelStore;
use crate::broker::BrokerError;
use crate::state::counts::LabelCount;

/// Kinds and sessions of others that are named in a warning. More of them are only counted.
const NAMED_OTHERS: usize = 20;
/// The problem with an event whose label has an id that no queue can have in its name.
const MISNAMED: &str = "the queue of the label has a name that the broker does not take";

/// Takes the bodies of webhooks.
pub struct Receiver {
    pub(super) reader: Mutex<InboundReader>,
    pub(super) labels: Arc<FollowedLabels>,
    pub(super) intake: Intake,
    pub(super) store: Arc<LabelStore>,
    pub(super) activity: Arc<Activity>,
    pub(super) metrics: Arc<Metrics>,
    /// Requests the account's list of labels.
    pub(super) list_requests: mpsc::Sender<()>,
    pub(super) others: Mutex<HashSet<String>>,
}

/// Why a body is not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotReceived {
    /// It is no event.
    #[error(transparent)]
    NotEvents(#[from] NotEvents),
    /// An event is of a known kind, and cannot be used. All others of the body are durable.
    #[error("{0}")]
    Invalid(&'static str),
    /// The broker or the state is away.
    #[error(transparent)]
    NotDurable(#[from] NotDurable),
}

impl Receiver {
    /// Makes the events of a body durable.
    ///
    /// # Errors
    ///
    /// [`NotReceived`]; the sender is expected to send the body again, which doubles nothing.
    pub async fn receive(&self, body: Vec<u8>) -> Result<(), NotReceived> {
        let now = SystemTime::now();
        let inbound = {
            let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
            reader.read(body, now)?
        };
        let (mut chats, mut changed, mut invalid) = (Vec::new(), Vec::new(), None);
        for event in inbound {
            match event {
                Inbound::Chat(event) => chats.extend(self.accept(event, now)?),
                Inbound::LabelChanged(info) => {
                    if self.is_followed("label.upsert", &info.label_id)? {
                        changed.push(("label.upsert", self.labels.change(info)));
                    }
                }
                Inbound::LabelDeleted {
                    label_id,
                    occurred_at,
                } => {
                    if self.is_followed("label.deleted", &label_id)? {
                        let label = self.labels.report_deleted(&label_id, occurred_at);
                        changed.push(("label.deleted", label));
                        self.request_list();
                    }
                }
                Inbound::OtherKind(kind) => self.pass_over("other_kind", "kind", &kind),
                Inbound::OtherSession(name) => self.pass_over("other_session", "session", &name),
                Inbound::Invalid(problem) => {
                    self.metrics.count_event("unknown", "invalid");
                    invalid.get_or_insert(problem);
                }
            }
        }
        self.record(&changed).await?;
        if !chats.is_empty() {
            self.intake.apply(chats).await?;
        }
        match invalid {
            Some(problem) => Err(NotReceived::Invalid(problem)),
            None => Ok(()),
        }
    }

    /// Stores labels that events have changed.
    async fn record(&self, changed: &[(&'static str, LabelCount)]) -> Result<(), NotDurable> {
        let labels: Vec<LabelCount> = changed.iter().map(|(_, label)| label.clone()).collect();
        self.store.record_all(&labels).await?;
        for (event, _) in changed {
            self.metrics.count_event(event, "recorded");
        }
        Ok(())
    }

    /// Counts the event of a chat, and returns it if its label is followed.
    fn accept(&self, event: ChatEvent, now: SystemTime) -> Result<Option<ChatEvent>, NotReceived> {
        if !self.is_followed(event.event.change.event_name(), &event.label_id)? {
            return Ok(None);
        }
        if let Some(sent_at) = event.sent_at {
            let late = now.duration_since(sent_at);
            let difference = late.unwrap_or_else(|ahead| ahead.duration());
            self.metrics.observe_delay(difference);
        }
        if self.activity.count(now, event.sent_at) {
            warn!(
                "most events are over a minute away from their own time: check the clocks of the sender and of this machine"
            );
        }
        Ok(Some(event))
    }

    /// Whether the label of an event is followed.
    ///
    /// # Errors
    ///
    /// If too many labels are followed, or there can be no queue for it.
    fn is_followed(&self, event: &'static str, label_id: &str) -> Result<bool, NotReceived> {
        match self.labels.follow(label_id) {
            Follows::Yes => {}
            Follows::Newly => self.request_list(),
            Follows::No => {
                self.metrics.count_event(event, "other_label");
                return Ok(false);
            }
            Follows::Misnamed => return Err(NotReceived::Invalid(MISNAMED)),
            Follows::TooMany => {
                let text = "too many labels are followed; choose some with --label".to_owned();
                return Err(NotDurable::from(BrokerError::Unavailable(text)).into());
            }
        }
        Ok(true)
    }

    fn request_list(&self) {
        // If a request is waiting already, that is enough.
        let _ = self.list_requests.try_send(());
    }

    /// Counts an event that is not for us, and warns once of each kind.
    fn pass_over(&self, result: &'static str, what: &'static str, name: &str) {
        self.metrics.count_event("other", result);
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.len() < NAMED_OTHERS && others.insert(format!("{what} {name}")) {
            warn!(name, "events of another {what} are passed over");
        }
    }
}
