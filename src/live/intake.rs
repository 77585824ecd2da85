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
use crate::broker::{BrokerError, EventSink};
use crate::message::LabelEvent;

/// Requests that may wait for a label's worker.
const WAITING_REQUESTS: usize = 1024;
/// Events of one label that wait or are published, also of senders that have stopped waiting. More
/// events wait outside.
const LABEL_EVENTS: usize = 2048;
/// Events of all labels that wait or are published. More are refused.
const ALL_EVENTS: usize = 16 * 1024;
/// Requests whose events are published together.
const BATCH_REQUESTS: usize = 256;
/// The time without an event after which a worker gives up its connection.
const IDLE: Duration = Duration::from_secs(60);

/// Makes the sink for the events of a label.
pub type SinkOfLabel = dyn Fn(&str) -> Box<dyn EventSink> + Send + Sync;

/// Takes events, and says when they are durable.
#[derive(Clone)]
pub struct Intake {
    shared: Arc<Shared>,
}

struct Shared {
    sink_of: Arc<SinkOfLabel>,
    metrics: Arc<Metrics>,
    /// Notified when something was published.
    changed: Arc<Notify>,
    workers: Mutex<HashMap<String, Worker>>,
    /// Capacity for the events of all labels.
    capacity: Arc<Semaphore>,
}

/// The queue to the worker of a label.
#[derive(Clone)]
struct Worker {
    requests: mpsc::Sender<Request>,
    /// Capacity for the events of the label, so that a slow label leaves some for the others.
    capacity: Arc<Semaphore>,
}

/// Events of one label that are answered together.
struct Request {
    events: Vec<LabelEvent>,
    answer: oneshot::Sender<Result<(), NotDurable>>,
    /// Capacity that the events hold: of the label, and of all.
    _capacity: [OwnedSemaphorePermit; 2],
}

/// Where a worker answers a request.
type Answered = oneshot::Receiver<Result<(), NotDurable>>;

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
    pub fn new(sink_of: Arc<SinkOfLabel>, metrics: Arc<Metrics>, changed: Arc<Notify>) -> Self {
        let shared = Shared {
            sink_of,
            metrics,
            changed,
            workers: Mutex::default(),
            capacity: Arc::new(Semaphore::new(ALL_EVENTS)),
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
        let mut by_label: HashMap<String, Vec<LabelEvent>> = HashMap::new();
        for ChatEvent {
            label_id, event, ..
        } in events
        {
            by_label.entry(label_id).or_default().push(event);
        }
        let mut answers = Vec::with_capacity(by_label.len());
        for (label_id, events) in by_label {
            answers.push(self.send(&label_id, events).await?);
        }
        for answered in answers {
            let stopped = |_| NotDurable::bug("the worker of a label has ended");
            answered.await.map_err(stopped)??;
        }
        Ok(())
    }

    /// Hands events to the label's worker. Returns where it answers.
    async fn send(&self, label_id: &str, events: Vec<LabelEvent>) -> Result<Answered, NotDurable> {
        // A request with more events than there is capacity takes all of it.
        let count = |limit: usize| u32::try_from(events.len().min(limit)).unwrap_or(u32::MAX);
        let all = Arc::clone(&self.shared.capacity);
        let of_all = all.try_acquire_many_owned(count(ALL_EVENTS)).map_err(|_| {
            let text = "too many events are waiting".to_owned();
            NotDurable::from(BrokerError::Unavailable(text))
        })?;
        let worker = self.worker(label_id);
        let of_label = worker.capacity.acquire_many_owned(count(LABEL_EVENTS));
        let closed = |_| NotDurable::bug("no event is taken any more");
        let (answer, answered) = oneshot::channel();
        let mut request = Request {
            events,
            answer,
            _capacity: [of_label.await.map_err(closed)?, of_all],
        };
        let mut requests = worker.requests;
        loop {
            match requests.send(request).await {
                Ok(()) => return Ok(answered),
                Err(mpsc::error::SendError(unsent)) => request = unsent,
            }
            // The worker was idle and has just ended.
            requests = self.worker(label_id).requests;
        }
    }

    /// Returns the worker of a label, and starts it if there is none.
    fn worker(&self, label_id: &str) -> Worker {
        let mut workers = self.shared.lock();
        if let Some(worker) = workers.get(label_id).filter(|it| !it.requests.is_closed()) {
            return worker.clone();
        }
        let sink = (self.shared.sink_of)(label_id);
        let (sender, requests) = mpsc::channel(WAITING_REQUESTS);
        let worker = Worker {
            requests: sender,
            capacity: Arc::new(Semaphore::new(LABEL_EVENTS)),
        };
        workers.insert(label_id.to_owned(), worker.clone());
        drop(workers);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(work(shared, label_id.to_owned(), sink, requests));
        worker
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Worker>> {
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
    // A sender that stopped waiting was not answered, and sends its events again.
    batch.retain(|request| !request.answer.is_closed());
    let requests = batch.iter();
    let events: Vec<LabelEvent> = requests.flat_map(|it| it.events.iter().cloned()).collect();
    if events.is_empty() {
        batch.clear();
        return;
    }
    let began = Instant::now();
    let published = match sink.publish(&events).await {
        Ok(outcomes) => {
            shared.metrics.observe_publishing(began.elapsed());
            shared.changed.notify_one();
            for (event, outcome) in events.iter().zip(outcomes) {
                let name = event.change.event_name();
                shared.metrics.count_event(name, outcome.name());
            }
            Ok(())
        }
        Err(error) => {
            warn!(
                label_id,
                events = events.len(),
                "events not published: {error}"
            );
            Err(NotDurable::from(error))
        }
    };
    for request in batch.drain(..) {
        let _ = request.answer.send(published.clone());
    }
}
