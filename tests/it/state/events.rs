//! Single events with a state beside the sink.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use labelcast::batch::Batch;
use labelcast::broker::factory::{Address, Broker, StateAddress};
use labelcast::broker::{
    BrokerOptions, EventOutcome, EventSink, NoPauses, SessionContext, Start, Target, Written,
};
use labelcast::decode::{Plan, decode};
use labelcast::message::{Change, Format, LabelEvent, Layout};
use labelcast::retry::RetryPolicy;
use labelcast::shutdown::Shutdown;
use labelcast::state::record::State;
use labelcast::state::{Membership, Publish, Selection};
use redis::Commands as _;
use serde_json::json;

use super::{Store, counts, each_once, run, set_list, set_of, with_both_stores};
use crate::support::redis::{Server, entries, field};
use crate::support::{INSTANCE, Stage, map_of, small_list};

with_both_stores! {
    a_plain_run_tracks_a_label_that_had_events
    a_run_knows_what_events_have_said
    events_are_remembered_for_a_day_and_purged
    a_chat_that_was_published_recently_is_recorded_only
}

fn context(removed: bool, suppress_for: Option<Duration>) -> SessionContext {
    let retry = RetryPolicy::new(5, Shutdown::manual(None));
    SessionContext {
        target: Target {
            queue: "labelcast:1".to_owned(),
            label_id: "1".to_owned(),
            instance_id: INSTANCE.to_owned(),
        },
        layout: Layout {
            format: Format::Json,
            ids_per_message: 1,
            include_names: false,
        },
        retry: retry.with_first_pause(Duration::from_millis(10)),
        selection: Selection {
            suppress_for,
            membership: Some(Membership {
                publish: Publish::New,
                removed,
                min_age: None,
                max_change: 100,
            }),
            ..Selection::default()
        },
        pauses: Arc::new(NoPauses),
    }
}

/// A broker as another process has it.
fn broker(sink: &str, store: &Store) -> Broker {
    Broker {
        address: Address::parse(sink).unwrap(),
        options: BrokerOptions::default(),
        state: Some(StateAddress::parse(&store.url()).unwrap()),
    }
}

fn event(id: &str, change: Change, chat: &str) -> LabelEvent {
    LabelEvent {
        id: id.to_owned(),
        change,
        chat_id: chat.to_owned(),
        occurred_at: SystemTime::now(),
        listed_by: None,
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Publishes events to the file of the stage.
fn publish(stage: &Stage, store: &Store, events: &[LabelEvent]) -> Vec<EventOutcome> {
    publish_with(stage, store, events, None)
}

fn publish_with(
    stage: &Stage,
    store: &Store,
    events: &[LabelEvent],
    suppress_for: Option<Duration>,
) -> Vec<EventOutcome> {
    let broker = broker(&format!("file:{}", stage.out().display()), store);
    let context = context(true, suppress_for);
    block_on(async {
        let mut sink = broker.event_sink(&context);
        sink.publish(events).await.unwrap()
    })
}

fn a_plain_run_tracks_a_label_that_had_events(store: &Store) {
    let (ids, body) = small_list(300);
    let stage = Stage::with_body(&body);
    // Not tracked yet.
    counts(&run(&stage, store).end().expect(0), [300, 0, 0, 0]);
    publish(&stage, store, &[event("1", Change::Added, "new@c.us")]);
    let packed = run(&stage, store).args(["--ids-per-message", "2"]);
    let ended = packed.end().expect(78);
    assert!(
        ended.stderr.contains("--ids-per-message"),
        "{}",
        ended.stderr
    );
    counts(&run(&stage, store).end().expect(0), [300, 0, 0, 0]);
    // The event is newer than the list, which does not contain the chat.
    assert_eq!(store.members().len(), 301);
    assert!(set_of(&ids).is_subset(&store.members()));
    let only_new = run(&stage, store).args(["--only-new"]).end().expect(0);
    counts(&only_new, [0, 0, 300, 0]);
}

fn a_run_knows_what_events_have_said(store: &Store) {
    let (ids, _) = small_list(300);
    let stage = Stage::with_body(map_of(&ids[..200]));
    let only_new = || {
        let run = run(&stage, store).args(["--only-new", "--removed"]);
        run.end().expect(0)
    };
    counts(&only_new(), [200, 0, 0, 0]);
    let added = ids[200..].iter();
    let added = added.map(|id| event(&format!("added-{id}"), Change::Added, id));
    let left = ids[..50].iter();
    let left = left.map(|id| event(&format!("left-{id}"), Change::Deleted, id));
    let events: Vec<LabelEvent> = added.chain(left).collect();
    let outcomes = publish(&stage, store, &events);
    assert_eq!(outcomes, vec![EventOutcome::Published; 150]);
    assert_eq!(store.members(), set_of(&ids[50..]));
    // The list says the same.
    set_list(&stage, &ids[50..]);
    counts(&only_new(), [0, 0, 250, 0]);
    each_once(&stage, &ids);
    let removed = crate::support::ids_in(&stage.path("out.jsonl.removed"));
    assert_eq!(removed, ids[..50]);
}

fn events_are_remembered_for_a_day_and_purged(store: &Store) {
    let stage = Stage::with_chats(5);
    let first = [
        event("1", Change::Added, "a@c.us"),
        event("2", Change::Added, "b@c.us"),
    ];
    publish(&stage, store, &first);
    assert_eq!(publish(&stage, store, &first), [EventOutcome::Duplicate; 2]);
    let purge = |more: &[&str]| {
        let sink = format!("file:{}", stage.out().display());
        let purge = crate::purge::purge(&sink).args(["--state", &store.url()]);
        let ended = purge.args(more).end().expect(0);
        crate::purge::said(&ended)["events"].clone()
    };
    assert_eq!(purge(&["--older-than", "1h"]), json!(null));
    match store {
        Store::File(_) => {
            let left = "SELECT min(expires_at) - unixepoch() FROM events";
            let left: i64 = store
                .database()
                .query_row(left, [], |row| row.get(0))
                .unwrap();
            assert!(left > 24 * 3600 - 60 && left <= 24 * 3600, "{left}");
            let age = "UPDATE events SET expires_at = expires_at - 24 * 3600 - 60";
            store.database().execute(age, []).unwrap();
        }
        Store::Redis(server) => {
            let mut connection = server.connection();
            let keys: Vec<String> = connection.keys("labelcast:state-event:*").unwrap();
            assert_eq!(keys.len(), 2);
            for key in keys {
                let left: i64 = connection.ttl(&key).unwrap();
                assert!(left > 24 * 3600 - 60 && left <= 24 * 3600, "{left}");
                let _: () = connection.del(key).unwrap();
            }
        }
    }
    assert_eq!(
        publish(&stage, store, &first),
        [EventOutcome::Stale; 2],
        "the record knows better"
    );
    let all = ["--older-than", "0s"];
    assert_eq!(purge(&[&all[..], &["--dry-run"]].concat()), json!(2));
    assert_eq!(purge(&all), json!(2));
    assert_eq!(purge(&all), json!(null));
}

fn a_chat_that_was_published_recently_is_recorded_only(store: &Store) {
    let (ids, body) = small_list(10);
    let stage = Stage::with_body(&body);
    // A run that keeps times of publication only.
    let suppressing = run(&stage, store).args(["--suppress-for", "1d"]);
    counts(&suppressing.end().expect(0), [10, 0, 0, 0]);
    let events = [
        event("1", Change::Added, &ids[0]),
        event("2", Change::Added, "new@c.us"),
    ];
    let day = Some(Duration::from_secs(24 * 3600));
    let outcomes = publish_with(&stage, store, &events, day);
    assert_eq!(
        outcomes,
        [EventOutcome::Suppressed, EventOutcome::Published]
    );
    assert_eq!(store.members().len(), 2);
    let again = [
        event("3", Change::Deleted, "new@c.us"),
        event("4", Change::Added, "new@c.us"),
    ];
    let outcomes = publish_with(&stage, store, &again[..1], day);
    assert_eq!(outcomes, [EventOutcome::Published]);
    let later = LabelEvent {
        occurred_at: SystemTime::now() + Duration::from_secs(1),
        ..again[1].clone()
    };
    let outcomes = publish_with(&stage, store, &[later], day);
    assert_eq!(outcomes, [EventOutcome::Suppressed]);
}

#[test]
fn two_processes_apply_events_to_one_state() {
    let store = Store::redis();
    let server = Server::start(&[]);
    let context = context(true, None);
    let at = SystemTime::now();
    // Each chat joins, leaves and joins again; both processes get all of that, in another order.
    let mut events = Vec::new();
    for number in 0..40_u64 {
        let chat = format!("{number}@c.us");
        for (step, change) in [Change::Added, Change::Deleted, Change::Added]
            .into_iter()
            .enumerate()
        {
            events.push(LabelEvent {
                occurred_at: at + Duration::from_secs(step as u64),
                ..event(&format!("{number}-{step}"), change, &chat)
            });
        }
    }
    let reversed: Vec<LabelEvent> = events.iter().rev().cloned().collect();
    block_on(async {
        let sink = || {
            let broker = broker(&server.url(), &store);
            broker.event_sink(&context)
        };
        let (mut first, mut second) = (sink(), sink());
        let all = async |sink: &mut dyn EventSink, events: &[LabelEvent]| {
            for batch in events.chunks(7) {
                sink.publish(batch).await.unwrap();
            }
        };
        tokio::join!(all(&mut *first, &events), all(&mut *second, &reversed));
    });
    assert_eq!(store.members().len(), 40);
    let mut connection = server.connection();
    let mut balance = std::collections::BTreeMap::new();
    for (stream, change) in [("labelcast:1", 1), ("{labelcast:1}:removed", -1)] {
        for entry in entries(&mut connection, stream) {
            let data = field(&entry, "data").unwrap();
            let data: serde_json::Value = serde_json::from_str(&data).unwrap();
            *balance.entry(data["chat_id"].to_string()).or_insert(0) += change;
        }
    }
    assert_eq!(balance.len(), 40);
    assert!(balance.values().all(|count| *count == 1), "{balance:?}");
}

/// Returns the batch of a whole list.
fn batch_of(ids: &[String]) -> Batch {
    let body: Vec<_> = ids.iter().map(|id| json!({"id": id})).collect();
    let body = serde_json::Value::from(body).to_string();
    let mut batches = Vec::new();
    let (_, end) = decode(body.as_bytes(), &Plan::whole_list(), |batch| {
        batches.push(batch);
        Some(Batch::new())
    });
    end.unwrap();
    assert_eq!(batches.len(), 1);
    batches.remove(0)
}

#[test]
fn a_run_that_has_lost_its_chats_in_flight_does_not_overwrite_events() {
    let store = Store::redis();
    let Store::Redis(state) = &store else {
        return;
    };
    let server = Server::start(&[]);
    let (context, broker) = (context(true, None), broker(&server.url(), &store));
    let (ids, _) = small_list(10);
    block_on(async {
        let (_, mut session) = broker.sink(context.clone()).open().await.unwrap();
        let start = Start::New(uuid::Uuid::now_v7());
        session.start(start).await.unwrap();
        let before = SystemTime::now() - Duration::from_secs(60);
        assert_eq!(session.begin_list(before).await.unwrap(), Written::Done);
        let written = session.write(&batch_of(&ids)).await;
        assert_eq!(written.unwrap(), Written::Done);
        let mut connection = state.connection();
        let in_flight: Vec<String> = connection.keys("labelcast:state-in-flight:*").unwrap();
        let count: usize = connection.scard(&in_flight[0]).unwrap();
        assert_eq!((in_flight.len(), count), (1, 10));
        // As if the run had stood still for so long that its lock and this have expired.
        let _: () = connection.del(&in_flight[0]).unwrap();
        let mut events = broker.event_sink(&context);
        let deleted = [event("1", Change::Deleted, &ids[3])];
        assert_eq!(
            events.publish(&deleted).await.unwrap(),
            [EventOutcome::Unchanged]
        );
        assert_eq!(session.flush().await.unwrap(), Written::Done);
    });
    let records = store.records();
    assert_eq!(records[&ids[3]].state, State::Removed);
    assert_eq!(store.members().len(), 9);
    let counted: u64 = state.connection().hget(super::MEMBERS, ":").unwrap();
    assert_eq!(counted, 9);
}

#[test]
fn an_event_behind_the_lines_of_a_killed_run_stays() {
    let store = Store::file();
    let (ids, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    stage
        .mock
        .script("1", crate::support::held_after(&body, 900));
    let held = run(&stage, &store).args(["--only-new"]).spawn();
    let lines = || crate::support::lines_in(&stage.out());
    crate::support::wait_until("the run publishes", || lines() == 900);
    held.kill();
    // Half a line that has no checkpoint.
    let text = std::fs::read_to_string(stage.out()).unwrap();
    let last = text.lines().last().unwrap();
    std::fs::write(stage.out(), format!("{text}{}", &last[..20])).unwrap();
    publish(&stage, &store, &[event("1", Change::Added, "new@c.us")]);
    run(&stage, &store).args(["--only-new"]).end().expect(0);
    let text = std::fs::read_to_string(stage.out()).unwrap();
    assert_eq!(text.matches("new@c.us").count(), 1);
    let whole = text.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        Some(message["chat_id"].as_str()?.to_owned())
    });
    let found: Vec<String> = whole.collect();
    assert!(set_of(&ids).is_subset(&set_of(&found)));
    assert_eq!(store.members().len(), ids.len() + 1);
}

#[test]
fn a_list_that_stalls_keeps_no_chat_in_flight() {
    let store = Store::redis();
    let Store::Redis(state) = &store else {
        return;
    };
    let (ids, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    stage
        .mock
        .script("1", crate::support::held_after(&body, 900));
    let held = run(&stage, &store).args(["--only-new"]).spawn();
    // It is still under way, and nothing more comes.
    crate::support::wait_until("what came is recorded", || {
        state.connection().hlen::<_, usize>(super::MEMBERS).unwrap() >= 900
    });
    let mut connection = state.connection();
    let in_flight: Vec<String> = connection.keys("labelcast:state-in-flight:*").unwrap();
    assert_eq!(in_flight, [""; 0]);
    held.signal("TERM");
    held.end().expect(75);
    assert!(store.members().is_subset(&set_of(&ids)));
}

#[test]
fn a_file_of_the_first_version_is_updated() {
    let store = Store::file();
    let (ids, body) = small_list(100);
    let stage = Stage::with_body(&body);
    let only_new = || run(&stage, &store).args(["--only-new"]).end().expect(0);
    counts(&only_new(), [100, 0, 0, 0]);
    let mut note: serde_json::Value = serde_json::from_str(&store.note()).unwrap();
    note["members"] = 100.into();
    note.as_object_mut().unwrap().remove("listed_at");
    store.set_note(&note.to_string());
    let downgrade = "DROP TABLE events;
        DROP TABLE runs;
        ALTER TABLE labels DROP COLUMN deleted_at;
        ALTER TABLE lists DROP COLUMN members;
        ALTER TABLE lists DROP COLUMN events;
        ALTER TABLE lists DROP COLUMN tracked;
        PRAGMA user_version = 1;";
    store.database().execute_batch(downgrade).unwrap();
    let published = publish(&stage, &store, &[event("1", Change::Added, "new@c.us")]);
    assert_eq!(published, [EventOutcome::Published]);
    let members = "SELECT members FROM lists";
    let members: i64 = store
        .database()
        .query_row(members, [], |row| row.get(0))
        .unwrap();
    assert_eq!(members, 101);
    counts(&only_new(), [0, 0, 100, 0]);
    assert_eq!(store.members().len(), ids.len() + 1);
}
