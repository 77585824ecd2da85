//! Batches in flight: sent, but not all of their messages are confirmed yet.
//!
//! Each message has its own confirm. When all messages of a batch are confirmed, the checkpoint
//! moves past the batch, and the batch is removed. After a broken connection, unconfirmed messages
//! are sent again under the same ids.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use lapin::message::BasicReturnMessage;
use lapin::{Confirmation, PublisherConfirm};

use crate::batch::Batch;
use crate::broker::error::Failure;

/// Maximum number of messages per batch. Each batch is followed by a checkpoint and a check of
/// all confirms; with smaller batches, both take a larger share of the time (benches/SIZES.md).
pub(in crate::broker) const BATCH_MESSAGES: u32 = 256;
/// Batches in flight: 512 messages. Twice as many were not faster, and took more memory.
pub(super) const WINDOW: usize = 2;

/// A publish handed to the connection; resolves to the confirm, which is still to come.
pub(super) type Sending =
    Pin<Box<dyn Future<Output = Result<PublisherConfirm, lapin::Error>> + Send>>;

/// State of one message.
enum Message {
    Unsent,
    Sending(Sending),
    Sent(PublisherConfirm),
    Confirmed,
}

/// A batch in flight.
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

/// Result of polling messages.
#[derive(Default)]
struct Observed {
    accepted_some: bool,
    failure: Option<lapin::Error>,
    returned: Option<BasicReturnMessage>,
}

/// Outcome of the oldest batches.
pub(super) enum Oldest {
    /// All messages of this many batches are confirmed; 0 if nothing is in flight.
    Confirmed(usize),
    /// The broker has nacked messages of the oldest batch.
    Refused {
        /// Whether it has accepted any message since it last refused one.
        accepted_some: bool,
    },
    /// A message, of any batch, was returned as unroutable.
    Returned(Box<BasicReturnMessage>),
}

/// Batches in flight, in order.
#[derive(Default)]
pub(super) struct InFlight {
    batches: VecDeque<SentBatch>,
    /// Removed batches, kept to reuse their memory.
    spare: Vec<SentBatch>,
    /// Whether the broker has accepted a message since it last refused one.
    accepted_some: bool,
}

impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.batches.len() >= WINDOW
    }

    /// Adds a copy of a batch with this number of messages, to be sent.
    pub(super) fn push(&mut self, batch: &Batch, messages: usize) {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.batch.copy_from(batch);
        copy.messages.clear();
        copy.messages.resize_with(messages, || Message::Unsent);
        self.batches.push_back(copy);
    }

    /// Returns the oldest `count` batches.
    pub(super) fn oldest(&self, count: usize) -> impl Iterator<Item = &Batch> {
        self.batches.iter().take(count).map(|oldest| &oldest.batch)
    }

    /// Removes the oldest `count` batches. Returns how many messages they had.
    pub(super) fn drop_oldest(&mut self, count: usize) -> u64 {
        let mut messages = 0;
        for oldest in self.batches.drain(..count) {
            messages += oldest.messages.len() as u64;
            self.spare.push(oldest);
        }
        messages
    }

    /// Discards all batches.
    pub(super) fn clear(&mut self) {
        self.batches.clear();
    }

    /// Marks all unconfirmed messages as unsent, because the connection is lost.
    pub(super) fn mark_unsent(&mut self) {
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

    /// Sends unsent messages. `send` gets a batch and a predicate that tells by a message's number
    /// in the batch whether to send it. It returns the publishes of these messages in order.
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
                    *message = Message::Sending(start_sending(sending));
                }
            }
        }
    }

    /// Waits until all batches except the newest are written to the connection. A message that is
    /// not written yet takes far more memory than one that only awaits its confirm.
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

    /// Waits for the outcome of the oldest batch, and of later ones that are confirmed with it.
    pub(super) async fn wait_for_oldest(&mut self) -> Result<Oldest, Failure> {
        std::future::poll_fn(|context| self.poll_oldest(context)).await
    }

    fn poll_oldest(&mut self, context: &mut Context<'_>) -> Poll<Result<Oldest, Failure>> {
        let mut observed = Observed::default();
        // Confirms mostly come in order. Polling from the last message means that usually only its
        // confirm wakes this task.
        let oldest = self.batches.front_mut().into_iter();
        let waits = oldest
            .flat_map(|oldest| oldest.messages.iter_mut().rev())
            .any(|message| observed.observe(message, context).is_pending());
        if waits && observed.failure.is_none() && observed.returned.is_none() {
            self.accepted_some |= observed.accepted_some;
            return Poll::Pending;
        }
        // lapin delivers a returned message with the next confirm, which may be that of another
        // message. So all confirms that have arrived are checked before a batch counts as
        // confirmed.
        let mut at_once = Context::from_waker(Waker::noop());
        for message in self.messages() {
            let _ = observed.observe(message, &mut at_once);
        }
        self.accepted_some |= observed.accepted_some;
        if let Some(returned) = observed.returned {
            return Poll::Ready(Ok(Oldest::Returned(Box::new(returned))));
        }
        if let Some(error) = observed.failure {
            return Poll::Ready(Err(Failure::from(error)));
        }
        let confirmed = self.batches.iter().take_while(|batch| batch.is_confirmed());
        Poll::Ready(Ok(match confirmed.count() {
            0 if !self.batches.is_empty() => Oldest::Refused {
                accepted_some: std::mem::take(&mut self.accepted_some),
            },
            count => Oldest::Confirmed(count),
        }))
    }
}

/// Hands a message to the connection, by polling the future once.
fn start_sending(mut sending: Sending) -> Sending {
    match sending
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(ended) => Box::pin(std::future::ready(ended)),
        Poll::Pending => sending,
    }
}

impl Message {
    /// Waits until the message is written to the connection, whether or not the broker will accept
    /// it.
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

    /// Returns the broker's confirm or nack; `None` if there is nothing to wait for.
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
            // `NotRequested` means that confirms are off, so the message is not known to be
            // durable.
            Ok(Confirmation::Nack(_) | Confirmation::NotRequested) | Err(_) => Self::Unsent,
        };
        Poll::Ready(confirmation.map(Some))
    }
}

impl Observed {
    /// Records the outcome of a message, if it is known.
    fn observe(&mut self, message: &mut Message, context: &mut Context<'_>) -> Poll<()> {
        match ready!(message.poll_confirm(context)) {
            Ok(Some(Confirmation::Ack(returned))) => {
                self.accepted_some = true;
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

#[cfg(test)]
mod tests {
    use super::*;

    /// State of a message, by a letter: unsent, on its way to the connection, confirmed.
    fn message(state: char) -> Message {
        match state {
            's' => Message::Sending(Box::pin(std::future::pending())),
            'c' => Message::Confirmed,
            _ => Message::Unsent,
        }
    }

    /// Batches by the states of their messages, such as `cc us`.
    fn in_flight(states: &str) -> InFlight {
        let mut in_flight = InFlight::default();
        for batch in states.split_whitespace() {
            in_flight.batches.push_back(SentBatch {
                batch: Batch::new(),
                messages: batch.chars().map(message).collect(),
            });
        }
        in_flight
    }

    fn states(in_flight: &InFlight) -> String {
        let letter = |message: &Message| match message {
            Message::Unsent => 'u',
            Message::Sending(_) | Message::Sent(_) => 's',
            Message::Confirmed => 'c',
        };
        let batch = |batch: &SentBatch| batch.messages.iter().map(letter).collect::<String>();
        let batches: Vec<String> = in_flight.batches.iter().map(batch).collect();
        batches.join(" ")
    }

    #[test]
    fn the_oldest_batches_are_confirmed_only_as_a_whole_and_in_order() {
        let cases = [
            // messages, outcome of the oldest: confirmed batches, or None for a wait
            ("", Some(0)),
            ("cc", Some(1)),
            ("cc cc", Some(2)),
            ("cc cs", Some(1)),
            ("cs cc", None),
            ("ss", None),
        ];
        for (states, expected) in cases {
            let mut in_flight = in_flight(states);
            let outcome = in_flight.poll_oldest(&mut Context::from_waker(Waker::noop()));
            let confirmed = match outcome {
                Poll::Ready(Ok(Oldest::Confirmed(count))) => Ok(Some(count)),
                Poll::Pending => Ok(None),
                Poll::Ready(_) => Err("neither confirmed nor waiting"),
            };
            assert_eq!(confirmed, Ok(expected), "{states}");
        }
    }

    #[test]
    fn a_batch_with_a_message_that_has_to_be_sent_again_counts_as_refused() {
        let mut in_flight = in_flight("cu cc");
        let outcome = in_flight.poll_oldest(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(
            outcome,
            Poll::Ready(Ok(Oldest::Refused {
                accepted_some: false
            }))
        ));
    }

    #[test]
    fn a_lost_connection_leaves_confirmed_messages_as_they_are() {
        let mut in_flight = in_flight("cs su");
        in_flight.mark_unsent();
        assert_eq!(states(&in_flight), "cu uu");
    }

    #[test]
    fn only_unsent_messages_are_sent() {
        let mut in_flight = in_flight("cu su cc");
        let mut asked = Vec::new();
        in_flight.send(|_, is_unsent| {
            let numbers: Vec<usize> = (0..2).filter(|number| is_unsent(*number)).collect();
            asked.push(numbers.clone());
            let sending = |_| -> Sending { Box::pin(std::future::pending()) };
            numbers.into_iter().map(sending).collect()
        });
        assert_eq!(asked, [[1], [1]]);
        assert_eq!(states(&in_flight), "cs ss cc");
        assert_eq!(in_flight.drop_oldest(1), 2);
        assert_eq!(states(&in_flight), "ss cc");
    }
}
