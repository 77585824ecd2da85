//! Events on their way to the queues: a worker for each label, which takes what has arrived while
//! the batch before was published.
//!
//! A label's events stay in order on one connection and share round trips, and a slow queue holds
//! up its own label only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tracing::warn;

use super::inbound::ChatEvent;
use super::metrics::Metrics;
use crate::broker::{BrokerError, EventOutcome, EventSink};
use crate::message::LabelEvent;

/// Requests that may wait for a label's worker.
const WAITING_REQUESTS: usize = 1024;
/// Events of all requests that wait or are published. Senders may stop waiting before their events
/// are dropped, so the limit of the bodies under way is none for these. More events wait outside.
const EVENTS_AT_ONCE: usize = 8192;
/// Requests whose events are published together.
const BATCH_REQUESTS: usize = 256;
/// The time without an event after which a worker gives up its connection.
const IDLE: Duration = Duration::from_secs(300);

/// Makes the sink for the events of a label.
pub type SinkOfLabel = dyn Fn(&str) -> Box<dyn EventSink> + Send + Sync;

/// Takes events, and says when they are durable.
#[derive(Clone)]
pub struct Intake {
    shared: Arc<Shared>,
}

struct Shared {
    sink_of: Box<SinkOfLabel>,
    metrics: Arc<Metrics>,
    /// Is told when something was published.
    changed: Arc<Notify>,
    workers: Mutex<HashMap<String, mpsc::Sender<Request>>>,
    places: Arc<Semaphore>,
}

/// Events of one label that are answered together.
struct Request {
    events: Vec<LabelEvent>,
    answer: oneshot::Sender<Result<Vec<EventOutcome>, NotDurable>>,
    /// The places of a body's events, which its requests share.
    _places: Arc<OwnedSemaphorePermit>,
}

/// The error for events that may not be durable.
#[derive(Clone, Debug, thiserror::Error)]
#[error(transparent)]
pub struct NotDurable(Arc<BrokerError>);

impl From<BrokerError> for NotDurable {
    fn from(error: BrokerError) -> Self {
        Self(Arc::new(error))
    }
}

impl NotDurable {
    /// Returns the error of the broker, which several requests share.
    pub fn into_error(self) -> BrokerError {
        Arc::try_unwrap(self.0).unwrap_or_else(|shared| match &*shared {
            BrokerError::Unavailable(text) => BrokerError::Unavailable(text.clone()),
            BrokerError::WrongQueue(text) => BrokerError::WrongQueue(text.clone()),
            BrokerError::Credentials(text) => BrokerError::Credentials(text.clone()),
            BrokerError::Interrupted(cause) => BrokerError::Interrupted(*cause),
            other => BrokerError::Unavailable(other.to_string()),
        })
    }

    fn bug(text: &str) -> Self {
        BrokerError::Bug(text.to_owned()).into()
    }
}

impl Intake {
    /// Publishes to the sinks that `sink_of` makes.
    pub fn new(sink_of: Box<SinkOfLabel>, metrics: Arc<Metrics>, changed: Arc<Notify>) -> Self {
        let shared = Shared {
            sink_of,
            metrics,
            changed,
            workers: Mutex::default(),
            places: Arc::new(Semaphore::new(EVENTS_AT_ONCE)),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Makes events durable, and counts them. A caller that stops waiting takes back what was not
    /// sent yet.
    ///
    /// # Errors
    ///
    /// If the broker or the state is away. Some of the events may be durable.
    pub async fn apply(&self, events: Vec<ChatEvent>) -> Result<(), NotDurable> {
        let places = self.places(events.len()).await?;
        let mut by_label: HashMap<String, Vec<LabelEvent>> = HashMap::new();
        for ChatEvent {
            label_id, event, ..
        } in events
        {
            by_label.entry(label_id).or_default().push(event);
        }
        let mut answers = Vec::with_capacity(by_label.len());
        for (label_id, events) in by_label {
            let changes: Vec<_> = events.iter().map(|event| event.change).collect();
            let (answer, answered) = oneshot::channel();
            let request = Request {
                events,
                answer,
                _places: Arc::clone(&places),
            };
            self.send(&label_id, request).await?;
            answers.push((changes, answered));
        }
        for (changes, answered) in answers {
            let stopped = |_| NotDurable::bug("the worker of a label has ended");
            let outcomes = answered.await.map_err(stopped)??;
            for (change, outcome) in changes.into_iter().zip(outcomes) {
                self.shared
                    .metrics
                    .count_event(change.event_name(), outcome.name());
            }
        }
        Ok(())
    }

    /// Takes a place for each event. A body with more of them than there are takes all.
    async fn places(&self, events: usize) -> Result<Arc<OwnedSemaphorePermit>, NotDurable> {
        let places = u32::try_from(events.min(EVENTS_AT_ONCE)).unwrap_or(u32::MAX);
        let taken = Arc::clone(&self.shared.places).acquire_many_owned(places);
        let closed = |_| NotDurable::bug("no event is taken any more");
        taken.await.map(Arc::new).map_err(closed)
    }

    /// Hands a request to the label's worker.
    async fn send(&self, label_id: &str, request: Request) -> Result<(), NotDurable> {
        let mut request = request;
        loop {
            let worker = self.worker(label_id);
            match worker.send(request).await {
                Ok(()) => return Ok(()),
                // It has just ended for want of events; the next one takes it.
                Err(mpsc::error::SendError(unsent)) => request = unsent,
            }
        }
    }

    /// Returns the worker of a label, and starts it if there is none.
    fn worker(&self, label_id: &str) -> mpsc::Sender<Request> {
        let mut workers = self.shared.lock();
        if let Some(worker) = workers.get(label_id).filter(|worker| !worker.is_closed()) {
            return worker.clone();
        }
        let sink = (self.shared.sink_of)(label_id);
        let (worker, requests) = mpsc::channel(WAITING_REQUESTS);
        workers.insert(label_id.to_owned(), worker.clone());
        drop(workers);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(work(shared, label_id.to_owned(), sink, requests));
        worker
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<Request>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Publishes the requests of one label, batch by batch, until there are none for a while.
async fn work(
    shared: Arc<Shared>,
    label_id: String,
    mut sink: Box<dyn EventSink>,
    mut requests: mpsc::Receiver<Request>,
) {
    let mut batch = Vec::with_capacity(BATCH_REQUESTS);
    loop {
        match tokio::time::timeout(IDLE, requests.recv_many(&mut batch, BATCH_REQUESTS)).await {
            Ok(0) => break,
            Ok(_) => publish(&shared, &label_id, &mut *sink, &mut batch).await,
            Err(_) => {
                shared.lock().remove(&label_id);
                // What was sent before this is still received.
                requests.close();
            }
        }
    }
}

async fn publish(
    shared: &Shared,
    label_id: &str,
    sink: &mut dyn EventSink,
    batch: &mut Vec<Request>,
) {
    // Whoever stopped waiting was not answered, and sends the event again.
    batch.retain(|request| !request.answer.is_closed());
    let events: Vec<LabelEvent> = batch
        .iter_mut()
        .flat_map(|request| request.events.iter().cloned())
        .collect();
    if events.is_empty() {
        batch.clear();
        return;
    }
    let began = Instant::now();
    match sink.publish(&events).await {
        Ok(outcomes) => {
            shared.metrics.observe_publishing(began.elapsed());
            shared.changed.notify_one();
            let mut outcomes = outcomes.into_iter();
            for request in batch.drain(..) {
                let ours = outcomes.by_ref().take(request.events.len()).collect();
                let _ = request.answer.send(Ok(ours));
            }
        }
        Err(error) => {
            warn!(
                label_id,
                events = events.len(),
                "events not published: {error}"
            );
            let error = NotDurable::from(error);
            for request in batch.drain(..) {
                let _ = request.answer.send(Err(error.clone()));
            }
        }
    }
}
