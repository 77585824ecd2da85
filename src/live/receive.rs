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

/// Kinds and sessions of others that are named in a warning. More of them are only counted.
const NAMED_OTHERS: usize = 20;

/// Takes the bodies of webhooks.
pub struct Receiver {
    pub(super) reader: Mutex<InboundReader>,
    pub(super) labels: Arc<FollowedLabels>,
    pub(super) intake: Intake,
    pub(super) store: Arc<LabelStore>,
    pub(super) activity: Arc<Activity>,
    pub(super) metrics: Arc<Metrics>,
    /// Wakes the task that follows the list of labels.
    pub(super) look_at_list: mpsc::Sender<()>,
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
        let (mut chats, mut invalid) = (Vec::new(), None);
        for event in inbound {
            match event {
                Inbound::Chat(event) => chats.extend(self.accept(event, now)),
                Inbound::LabelChanged(info) => {
                    if self.is_followed("label.upsert", &info.label_id) {
                        self.store.record(self.labels.change(info)).await?;
                        self.metrics.count_event("label.upsert", "recorded");
                    }
                }
                Inbound::LabelDeleted {
                    label_id,
                    occurred_at,
                } => {
                    if self.is_followed("label.deleted", &label_id) {
                        let label = self.labels.report_deleted(&label_id, occurred_at);
                        self.store.record(label).await?;
                        self.metrics.count_event("label.deleted", "recorded");
                        self.look_at_list();
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
        if !chats.is_empty() {
            self.intake.apply(chats).await?;
        }
        match invalid {
            Some(problem) => Err(NotReceived::Invalid(problem)),
            None => Ok(()),
        }
    }

    /// Counts the event of a chat, and returns it if its label is followed.
    fn accept(&self, event: ChatEvent, now: SystemTime) -> Option<ChatEvent> {
        if !self.is_followed(event.event.change.event_name(), &event.label_id) {
            return None;
        }
        if let Some(sent_at) = event.sent_at {
            self.metrics
                .observe_delay(now.duration_since(sent_at).unwrap_or_default());
        }
        if self.activity.count(now, event.sent_at) {
            warn!(
                "most events are over a minute away from their own time: check the clocks of the sender and of this machine"
            );
        }
        Some(event)
    }

    fn is_followed(&self, event: &'static str, label_id: &str) -> bool {
        let follows = self.labels.follow(label_id);
        match follows {
            Follows::No => self.metrics.count_event(event, "other_label"),
            Follows::Newly => self.look_at_list(),
            Follows::Yes => {}
        }
        follows != Follows::No
    }

    fn look_at_list(&self) {
        // If one is waiting already, that is enough.
        let _ = self.look_at_list.try_send(());
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
