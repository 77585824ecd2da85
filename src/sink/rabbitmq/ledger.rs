//! What is on its way: batches whose messages are not all confirmed yet.
//!
//! Each message has a confirm of its own, which is awaited. A batch leaves when all of its messages
//! are confirmed, and the checkpoint follows it. What a broken connection leaves unconfirmed is
//! sent again, under the same ids.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use lapin::message::BasicReturnMessage;
use lapin::{Confirmation, PublisherConfirm};

use crate::batch::Batch;
use crate::sink::patience::Failure;

/// Messages in a batch, at the most.
pub(crate) const BATCH_MESSAGES: u32 = 128;
/// Batches on their way: 1,024 messages, beyond which brokers get slower.
const WINDOW: usize = 8;

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
struct InFlight {
    batch: Batch,
    messages: Vec<Message>,
}

impl InFlight {
    fn is_confirmed(&self) -> bool {
        let confirmed = |message: &Message| matches!(message, Message::Confirmed);
        self.messages.iter().all(confirmed)
    }
}

/// What looking at all confirms has shown.
#[derive(Default)]
struct Seen {
    took_some: bool,
    waits: bool,
    failure: Option<lapin::Error>,
    returned: Option<BasicReturnMessage>,
}

/// What has become of the oldest batch.
pub(super) enum Oldest {
    /// All of its messages are confirmed.
    Confirmed,
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
pub(super) struct Ledger {
    batches: VecDeque<InFlight>,
    /// Batches whose memory is used again.
    spare: Vec<Batch>,
    /// Whether the broker has taken a message since it last refused one.
    took_some: bool,
}

impl Ledger {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.batches.len() >= WINDOW
    }

    /// Takes a copy of a batch, of so many messages, to be sent.
    pub(super) fn push(&mut self, batch: &Batch, messages: usize) {
        let mut copy = self.spare.pop().unwrap_or_default();
        copy.copy_from(batch);
        let messages = std::iter::repeat_with(|| Message::Unsent)
            .take(messages)
            .collect();
        self.batches.push_back(InFlight {
            batch: copy,
            messages,
        });
    }

    /// The oldest batch.
    pub(super) fn oldest(&self) -> Option<&Batch> {
        self.batches.front().map(|oldest| &oldest.batch)
    }

    /// The oldest batch is done with. Returns how many messages it had.
    pub(super) fn drop_oldest(&mut self) -> u64 {
        let Some(oldest) = self.batches.pop_front() else {
            return 0;
        };
        self.spare.push(oldest.batch);
        oldest.messages.len() as u64
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
        for InFlight { batch, messages } in &mut self.batches {
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

    /// Waits until it is known what becomes of the oldest batch.
    pub(super) async fn wait_for_oldest(&mut self) -> Result<Oldest, Failure> {
        std::future::poll_fn(|context| self.poll_oldest(context)).await
    }

    fn poll_oldest(&mut self, context: &mut Context<'_>) -> Poll<Result<Oldest, Failure>> {
        let mut seen = Seen::default();
        let Some(oldest) = self.batches.front_mut() else {
            return Poll::Ready(Ok(Oldest::Confirmed));
        };
        for message in &mut oldest.messages {
            seen.look_at(message, context);
        }
        self.took_some |= seen.took_some;
        if seen.waits && seen.failure.is_none() && seen.returned.is_none() {
            return Poll::Pending;
        }
        // lapin hands a returned message over with whatever confirm comes next, at the latest with
        // its own. So before a batch counts as confirmed, all confirms that have come are looked at.
        for message in self.messages() {
            seen.look_at(message, context);
        }
        if let Some(returned) = seen.returned {
            return Poll::Ready(Ok(Oldest::Returned(Box::new(returned))));
        }
        if let Some(error) = seen.failure {
            return Poll::Ready(Err(Failure::from(error)));
        }
        Poll::Ready(Ok(match self.batches.front() {
            Some(oldest) if !oldest.is_confirmed() => Oldest::Refused {
                took_some: std::mem::take(&mut self.took_some),
            },
            _ => Oldest::Confirmed,
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

impl Seen {
    fn look_at(&mut self, message: &mut Message, context: &mut Context<'_>) {
        if let Message::Sending(sending) = message {
            match sending.as_mut().poll(context) {
                Poll::Pending => {
                    self.waits = true;
                    return;
                }
                Poll::Ready(Ok(confirm)) => *message = Message::Sent(confirm),
                Poll::Ready(Err(error)) => {
                    *message = Message::Unsent;
                    self.failure.get_or_insert(error);
                    return;
                }
            }
        }
        let Message::Sent(confirm) = message else {
            return;
        };
        let Poll::Ready(confirmation) = Pin::new(confirm).poll(context) else {
            self.waits = true;
            return;
        };
        *message = Message::Unsent;
        match confirmation {
            Ok(Confirmation::Ack(returned)) => {
                *message = Message::Confirmed;
                self.took_some = true;
                self.returned = self.returned.take().or(returned);
            }
            Ok(Confirmation::Nack(returned)) => {
                self.returned = self.returned.take().or(returned);
            }
            // Without confirms there is nothing to rely on.
            Ok(Confirmation::NotRequested) => {}
            Err(error) => {
                self.failure.get_or_insert(error);
            }
        }
    }
}
