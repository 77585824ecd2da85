//! What is on its way: batches whose messages are not all confirmed yet.
//!
//! Each message has a confirm of its own, which is awaited. A batch leaves when all of its messages
//! are confirmed, and the checkpoint follows it. What a broken connection leaves unconfirmed is
//! sent again, under the same ids.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use lapin::message::BasicReturnMessage;
use lapin::{Confirmation, PublisherConfirm};

use crate::batch::Batch;
use crate::sink::retry_policy::Failure;

/// Messages in a batch, at the most. A checkpoint follows each, and all confirms are looked at then: with
/// fewer in a batch, both take more of the time (benches/SIZES.md).
pub(crate) const BATCH_MESSAGES: u32 = 256;
/// Batches on their way: 512 messages. Twice as many were not faster, and took more memory.
pub(super) const WINDOW: usize = 2;

/// A message that is handed to the connection; gives its confirm, which is yet to come.
pub(super) type Sending =
    Pin<Box<dyn Future<Output = Result<PublisherConfirm, lapin::Error>> + Send>>;

/// One message's way.
enum Message {
    Unsent,
    Sending(Sending),
    Sent(PublisherConfirm),
    Confirmed,
}

/// A batch on its way.
#[derive(Default)]
struct SentBatch {
    batch: Batch,
    messages: Vec<Message>,
}

impl SentBatch {
    fn is_confirmed(&self) -> bool {
        let confirmed = |message: &Message| matches!(message, Message::Confirmed);
        self.messages.iter().all(confirmed)
    }
}

/// What looking at messages has shown.
#[derive(Default)]
struct Seen {
    took_some: bool,
    failure: Option<lapin::Error>,
    returned: Option<BasicReturnMessage>,
}

/// What has become of the oldest batches.
pub(super) enum Oldest {
    /// All messages of so many are confirmed.
    Confirmed(usize),
    /// The broker has refused some of them; whether it has taken any since the last time.
    Refused {
        /// Whether there were others that it took.
        took_some: bool,
    },
    /// One of all messages came back: nobody takes it.
    Returned(Box<BasicReturnMessage>),
}

/// Batches on their way, in order.
#[derive(Default)]
pub(super) struct InFlight {
    batches: VecDeque<SentBatch>,
    /// What has left: its memory is used again.
    spare: Vec<SentBatch>,
    /// Whether the broker has taken a message since it last refused one.
    took_some: bool,
}

impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.batches.len() >= WINDOW
    }

    /// Takes a copy of a batch, of so many messages, to be sent.
    pub(super) fn push(&mut self, batch: &Batch, messages: usize) {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.batch.copy_from(batch);
        copy.messages.clear();
        copy.messages.resize_with(messages, || Message::Unsent);
        self.batches.push_back(copy);
    }

    /// So many of the oldest batches.
    pub(super) fn oldest(&self, count: usize) -> impl Iterator<Item = &Batch> {
        self.batches.iter().take(count).map(|oldest| &oldest.batch)
    }

    /// So many of the oldest batches are done with. Returns how many messages they had.
    pub(super) fn drop_oldest(&mut self, count: usize) -> u64 {
        let mut messages = 0;
        for oldest in self.batches.drain(..count) {
            messages += oldest.messages.len() as u64;
            self.spare.push(oldest);
        }
        messages
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.batches.clear();
    }

    /// The connection is gone: what is not confirmed has to be sent again.
    pub(super) fn lose(&mut self) {
        for message in self.messages() {
            if !matches!(message, Message::Confirmed) {
                *message = Message::Unsent;
            }
        }
    }

    fn messages(&mut self) -> impl Iterator<Item = &mut Message> {
        self.batches
            .iter_mut()
            .flat_map(|batch| &mut batch.messages)
    }

    /// Sends what is unsent. `send` is given a batch and which of its messages to send, as a
    /// function of their number in it, and gives these in order.
    pub(super) fn send(
        &mut self,
        mut send: impl FnMut(&Batch, &mut dyn FnMut(usize) -> bool) -> Vec<Sending>,
    ) {
        for SentBatch { batch, messages } in &mut self.batches {
            let is_unsent = |message: &Message| matches!(message, Message::Unsent);
            if !messages.iter().any(is_unsent) {
                continue;
            }
            let mut sending = send(batch, &mut |number| {
                messages.get(number).is_some_and(is_unsent)
            })
            .into_iter();
            for message in messages.iter_mut().filter(|message| is_unsent(message)) {
                if let Some(sending) = sending.next() {
                    *message = Message::Sending(begun(sending));
                }
            }
        }
    }

    /// Waits until all batches but the newest are written to the connection. A message on its way
    /// there takes far more memory than one that is only to be confirmed.
    pub(super) async fn wait_until_written(&mut self) -> Result<(), Failure> {
        let before_newest = self.batches.len().saturating_sub(1);
        std::future::poll_fn(|context| {
            let before = self.batches.iter_mut().take(before_newest);
            for message in before.flat_map(|batch| batch.messages.iter_mut().rev()) {
                ready!(message.poll_written(context))?;
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    /// Waits until it is known what becomes of the oldest batch, and of those that share its fate.
    pub(super) async fn wait_for_oldest(&mut self) -> Result<Oldest, Failure> {
        std::future::poll_fn(|context| self.poll_oldest(context)).await
    }

    fn poll_oldest(&mut self, context: &mut Context<'_>) -> Poll<Result<Oldest, Failure>> {
        let mut seen = Seen::default();
        // Confirms come in order, mostly: once the last is there, so are those before it, and one is
        // woken once.
        let oldest = self.batches.front_mut().into_iter();
        let waits = oldest
            .flat_map(|oldest| oldest.messages.iter_mut().rev())
            .any(|message| seen.look_at(message, context).is_pending());
        if waits && seen.failure.is_none() && seen.returned.is_none() {
            self.took_some |= seen.took_some;
            return Poll::Pending;
        }
        // lapin hands a returned message over with whatever confirm comes next, at the latest with
        // its own. So before a batch counts as confirmed, all confirms that have come are looked at.
        let mut at_once = Context::from_waker(Waker::noop());
        for message in self.messages() {
            let _ = seen.look_at(message, &mut at_once);
        }
        self.took_some |= seen.took_some;
        if let Some(returned) = seen.returned {
            return Poll::Ready(Ok(Oldest::Returned(Box::new(returned))));
        }
        if let Some(error) = seen.failure {
            return Poll::Ready(Err(Failure::from(error)));
        }
        let confirmed = self.batches.iter().take_while(|batch| batch.is_confirmed());
        Poll::Ready(Ok(match confirmed.count() {
            0 if !self.batches.is_empty() => Oldest::Refused {
                took_some: std::mem::take(&mut self.took_some),
            },
            count => Oldest::Confirmed(count),
        }))
    }
}

/// A message that has been handed to the connection, which the first poll does.
fn begun(mut sending: Sending) -> Sending {
    match sending
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(ended) => Box::pin(std::future::ready(ended)),
        Poll::Pending => sending,
    }
}

impl Message {
    /// Whether it has left for the broker. It does not matter whether it will be taken.
    fn poll_written(&mut self, context: &mut Context<'_>) -> Poll<Result<(), lapin::Error>> {
        if let Self::Sending(sending) = self {
            *self = match ready!(sending.as_mut().poll(context)) {
                Ok(confirm) => Self::Sent(confirm),
                Err(error) => {
                    *self = Self::Unsent;
                    return Poll::Ready(Err(error));
                }
            };
        }
        Poll::Ready(Ok(()))
    }

    /// What the broker says of it; nothing where there is nothing to wait for.
    fn poll_confirm(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Confirmation>, lapin::Error>> {
        ready!(self.poll_written(context))?;
        let Self::Sent(confirm) = self else {
            return Poll::Ready(Ok(None));
        };
        let confirmation = ready!(Pin::new(confirm).poll(context));
        *self = match confirmation {
            Ok(Confirmation::Ack(_)) => Self::Confirmed,
            // Without confirms there is nothing to rely on.
            Ok(Confirmation::Nack(_) | Confirmation::NotRequested) | Err(_) => Self::Unsent,
        };
        Poll::Ready(confirmation.map(Some))
    }
}

impl Seen {
    /// Notes what has become of a message, as far as it is known.
    fn look_at(&mut self, message: &mut Message, context: &mut Context<'_>) -> Poll<()> {
        match ready!(message.poll_confirm(context)) {
            Ok(Some(Confirmation::Ack(returned))) => {
                self.took_some = true;
                self.returned = self.returned.take().or(returned);
            }
            Ok(Some(Confirmation::Nack(returned))) => {
                self.returned = self.returned.take().or(returned);
            }
            Ok(Some(Confirmation::NotRequested) | None) => {}
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
        Poll::Ready(())
    }
}
