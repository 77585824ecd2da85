//! Events while a run is under way, and after a crash.

use std::sync::Mutex;
use std::time::UNIX_EPOCH;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::broker::EventOutcome;
use crate::broker::store::{EventChanges, EventStore, Found, Saved};
use crate::message::{Change, LabelEvent};

/// A queue for events that keeps all of them, also repeats.
#[derive(Clone, Default)]
struct Sent(Arc<Mutex<Vec<LabelEvent>>>);

impl Sent {
    fn ids(&self) -> Vec<String> {
        let sent = self.0.lock().unwrap();
        sent.iter().map(|event| event.id.clone()).collect()
    }
}

#[async_trait]
impl EventSink for Sent {
    async fn publish(&mut self, events: &[LabelEvent]) -> Result<Vec<EventOutcome>, BrokerError> {
        self.0.lock().unwrap().extend_from_slice(events);
        Ok(vec![EventOutcome::Published; events.len()])
    }
}

/// What happens to the next write of a store.
#[derive(Clone, Copy)]
enum Fate {
    /// The process ends before it.
    Killed,
    /// The turn was lost.
    Outdated,
}

/// A store whose first write meets a fate.
struct Fated {
    store: Box<dyn EventStore>,
    fate: Option<Fate>,
}

#[async_trait]
impl EventStore for Fated {
    async fn take_turn(
        &mut self,
        chats: &[String],
        ids: &[&str],
    ) -> Result<Option<Found>, BrokerError> {
        self.store.take_turn(chats, ids).await
    }

    async fn write(&mut self, found: Found, changes: EventChanges) -> Result<Saved, BrokerError> {
        match self.fate.take() {
            None => self.store.write(found, changes).await,
            Some(Fate::Outdated) => Ok(Saved::Outdated),
            Some(Fate::Killed) => Err(BrokerError::Bug("the process has ended".to_owned())),
        }
    }

    async fn release_turn(&mut self, found: Found) {
        self.store.release_turn(found).await;
    }

    async fn is_tracked(&mut self) -> Result<bool, BrokerError> {
        self.store.is_tracked().await
    }
}

impl World {
    fn events(&self, added: &Sent, removed: &Sent, fate: Option<Fate>) -> TrackedEvents {
        let context = context(&only_new());
        TrackedEvents {
            queue: Box::new(added.clone()),
            removals: Some(Box::new(removed.clone())),
            store: Box::new(Fated {
                store: self.file.event_store(&context, None),
                fate,
            }),
            selection: context.selection,
            shutdown: Shutdown::manual(None),
        }
    }

    async fn members(&self) -> u64 {
        let target = context(&only_new()).target;
        let counted = self.file.member_monitor().members(&[target]).await;
        counted.unwrap()[0].members
    }
}

/// An event about a chat, this long from now.
fn event(id: &str, change: Change, chat: &str, later: u64) -> LabelEvent {
    LabelEvent {
        id: id.to_owned(),
        change,
        chat_id: chat.to_owned(),
        occurred_at: SystemTime::now() + Duration::from_secs(later),
        listed_by: None,
    }
}

#[test]
fn a_kill_before_the_record_repeats_the_message_and_a_lost_turn_does_not() {
    for fate in [Fate::Killed, Fate::Outdated] {
        block_on(async {
            let (world, added, removed) = (World::new(), Sent::default(), Sent::default());
            let batch = [
                event("1", Change::Added, "a", 0),
                event("2", Change::Added, "b", 0),
                event("3", Change::Deleted, "a", 1),
            ];
            let mut sink = world.events(&added, &removed, Some(fate));
            let first = sink.publish(&batch).await;
            let outcomes = match fate {
                Fate::Killed => {
                    assert!(first.is_err());
                    drop(sink);
                    let mut again = world.events(&added, &removed, None);
                    again.publish(&batch).await.unwrap()
                }
                Fate::Outdated => first.unwrap(),
            };
            assert_eq!(outcomes, [EventOutcome::Published; 3]);
            let times = match fate {
                Fate::Killed => 2,
                Fate::Outdated => 1,
            };
            assert_eq!(added.ids(), ["1", "2"].repeat(times));
            assert_eq!(removed.ids(), ["3"].repeat(times));
            let mut sink = world.events(&added, &removed, None);
            let outcomes = sink.publish(&batch).await.unwrap();
            assert_eq!(outcomes, [EventOutcome::Duplicate; 3]);
            assert_eq!(added.ids().len(), 2 * times);
            assert_eq!(world.members().await, 1);
        });
    }
}

#[test]
fn an_event_about_a_chat_in_flight_waits_until_it_is_recorded() {
    block_on(async {
        let (world, added, removed) = (World::new(), Sent::default(), Sent::default());
        let list = ids(0..5);
        let (_, mut session) = world.open(&only_new()).await;
        let start = Start::New(uuid::Uuid::now_v7());
        session.start(start).await.unwrap();
        let until = CancellationToken::new();
        world.queue.script(Fault::Hold(until.clone()));
        // The queue is slow to confirm, so the batch stays in flight.
        let run = async {
            let read = read(&mut *session, &list, u64::MAX).await;
            assert_eq!(read, Read::Whole);
            session
        };
        let mut sink = world.events(&added, &removed, None);
        let others = async {
            while world.file.has_none_in_flight(&list[2]) {
                tokio::task::yield_now().await;
            }
            // Another chat need not wait.
            let other = event("1", Change::Added, "other", 1);
            let mut quick = world.events(&added, &removed, None);
            let outcomes = quick.publish(&[other]).await.unwrap();
            assert_eq!(outcomes, [EventOutcome::Published]);
            let about = [
                event("2", Change::Added, &list[2], 1),
                event("3", Change::Deleted, &list[3], 1),
            ];
            let (outcomes, ()) = tokio::join!(sink.publish(&about), async { until.cancel() });
            outcomes.unwrap()
        };
        let (session, outcomes) = tokio::join!(run, others);
        assert_eq!(
            outcomes,
            [EventOutcome::Unchanged, EventOutcome::Published],
            "it was published by the run"
        );
        assert_eq!(world.published(), list, "each chat once");
        assert_eq!(added.ids(), ["1"]);
        assert_eq!(removed.ids(), ["3"]);
        session
            .finish(Outcome::Complete { chats: 5 })
            .await
            .unwrap();
        assert_eq!(world.members().await, 5);
    });
}

#[test]
fn an_event_in_the_middle_of_a_list_is_not_overwritten() {
    block_on(async {
        let (world, added, removed) = (World::new(), Sent::default(), Sent::default());
        let list = ids(0..20);
        run(&world, &only_new(), &list, &[], u64::MAX).await;
        let (_, mut session) = world.open(&only_new()).await;
        let start = Start::New(uuid::Uuid::now_v7());
        session.start(start).await.unwrap();
        assert_eq!(read(&mut *session, &list, 7).await, Read::Cut);
        // A chat that was read, one that was not, and one that the list does not contain.
        let events = [
            event("1", Change::Deleted, &list[0], 1),
            event("2", Change::Deleted, &list[15], 1),
            event("3", Change::Added, "other", 1),
        ];
        let mut sink = world.events(&added, &removed, None);
        sink.publish(&events).await.unwrap();
        assert_eq!(read(&mut *session, &list, u64::MAX).await, Read::Whole);
        assert_eq!(session.remove_absent().await.unwrap(), Removal::Removed);
        session
            .finish(Outcome::Complete { chats: 20 })
            .await
            .unwrap();
        assert_eq!(world.members().await, 19);
        assert_eq!(removed.ids(), ["1", "2"]);
        assert_eq!(world.published(), list);
        // It comes back, and was published within the hour.
        let outcomes = sink
            .publish(&[event("4", Change::Added, &list[0], 2)])
            .await;
        assert_eq!(outcomes.unwrap(), [EventOutcome::Suppressed]);
        assert_eq!(world.members().await, 20);
    });
}

#[test]
fn the_first_event_begins_a_set_that_is_not_trusted() {
    block_on(async {
        let (world, added, removed) = (World::new(), Sent::default(), Sent::default());
        let context = context(&only_new());
        let mut store = world.file.event_store(&context, None);
        assert!(!store.is_tracked().await.unwrap());
        let mut sink = world.events(&added, &removed, None);
        let first = event("1", Change::Added, "0@c.us", 0);
        sink.publish(&[first]).await.unwrap();
        assert!(store.is_tracked().await.unwrap());
        let target = [context.target.clone()];
        let mut counted = world.file.member_monitor();
        let count = counted.members(&target).await.unwrap()[0];
        assert_eq!((count.members, count.listed_at), (1, None));
        let sink = Tracked {
            store: world.file.store(&context, None),
            inner: world.queue.sink(context.clone()),
            removals: None,
            selection: only_new(),
        };
        let opened = Box::new(sink).open().await;
        assert!(matches!(opened, Err(BrokerError::MembersLost(_))));
        // A baseline makes the set whole. What the event said counts.
        let mut baseline = only_new();
        if let Some(membership) = &mut baseline.membership {
            membership.publish = Publish::Nothing;
        }
        run(&world, &baseline, &ids(0..3), &[], u64::MAX).await;
        let count = counted.members(&target).await.unwrap()[0];
        assert_eq!(count.members, 3);
        assert!(count.listed_at.unwrap() > UNIX_EPOCH);
        assert_eq!(world.published(), [""; 0]);
    });
}

#[test]
fn events_begin_a_set_while_a_first_run_is_about_to() {
    block_on(async {
        let (world, added, removed) = (World::new(), Sent::default(), Sent::default());
        let (_, mut session) = world.open(&only_new()).await;
        let start = Start::New(uuid::Uuid::now_v7());
        session.start(start).await.unwrap();
        let mut sink = world.events(&added, &removed, None);
        let first = event("1", Change::Added, "1@c.us", 0);
        sink.publish(&[first]).await.unwrap();
        assert_eq!(read(&mut *session, &ids(0..3), u64::MAX).await, Read::Whole);
        assert_eq!(session.remove_absent().await.unwrap(), Removal::Removed);
        session
            .finish(Outcome::Complete { chats: 3 })
            .await
            .unwrap();
        assert_eq!(world.published(), ["0@c.us", "2@c.us"]);
        assert_eq!(world.members().await, 3);
        let (delivered, ..) = run(&world, &only_new(), &ids(0..3), &[], u64::MAX)
            .await
            .unwrap();
        assert_eq!((delivered.known, delivered.chats), (3, 0));
    });
}
