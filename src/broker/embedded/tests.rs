use std::time::{SystemTime, UNIX_EPOCH};

use super::*;
use crate::broker::CountStore as _;
use crate::broker::store::Note;
use crate::state::counts::LabelCount;
use crate::state::record::Record;

fn record(text: &str) -> Record {
    text.parse().unwrap()
}

fn note(trusted: &str) -> Note {
    Note {
        trusted: Some(trusted.to_owned()),
        passes: 3,
        ..Note::default()
    }
}

struct Fixture {
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Fixture {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        Self {
            folder: tempfile::tempdir().unwrap(),
            runtime: runtime.unwrap(),
        }
    }

    fn file(&self) -> Embedded {
        Embedded::new(self.folder.path().join("state.db"))
    }

    fn store(&self, file: &Embedded, label_id: &str) -> EmbeddedStore {
        EmbeddedStore {
            embedded: file.clone(),
            target: target(label_id),
            retain: Some(Duration::from_secs(3600)),
            has_members: true,
            opened: None,
            turns: file.turns.of(&target(label_id)),
            turn: None,
        }
    }
}

fn target(label_id: &str) -> Target {
    Target {
        queue: "q".to_owned(),
        label_id: label_id.to_owned(),
        instance_id: "i".to_owned(),
    }
}

#[test]
fn what_was_written_is_found_by_the_same_queue_and_label() {
    let fixture = Fixture::new();
    let file = fixture.file();
    fixture.runtime.block_on(async {
        let mut store = fixture.store(&file, "1");
        assert_eq!(store.open().await.unwrap(), Stored::default());
        let changes = Changes {
            note: note("t"),
            new_set: Some("t".to_owned()),
            records: vec![
                ("a@c.us".to_owned(), record("nl1000:1000:1:0")),
                ("b@c.us".to_owned(), record("re1000.007:500:1:1")),
                ("c@c.us".to_owned(), record("ml1000:500:2:1")),
            ],
            published: vec!["a@c.us".to_owned()],
            published_at: u64::MAX / 4,
            ..Changes::default()
        };
        assert_eq!(store.write(changes).await.unwrap(), Saved::Done);
        let ids = ["c@c.us", "x@c.us", "b@c.us", "a@c.us"].map(str::to_owned);
        let known = store.read(ids.to_vec()).await.unwrap();
        let found: Vec<_> = known
            .iter()
            .map(|known| (known.record, known.published_at.is_some()))
            .collect();
        assert_eq!(
            found,
            [
                (Some(record("ml1000:500:2:1")), false),
                (None, false),
                (Some(record("re1000.007:500:1:1")), false),
                (Some(record("nl1000:1000:1:0")), true),
            ]
        );
        let page = store.unseen(2, 0).await.unwrap();
        assert_eq!((page.unseen.len(), page.members, page.next), (2, 2, None));

        // Another label of this process shares the file, but not the records.
        let mut other = fixture.store(&file, "2");
        assert_eq!(other.open().await.unwrap(), Stored::default());
        let changes = Changes {
            new_set: Some("u".to_owned()),
            ..Changes::default()
        };
        assert_eq!(other.write(changes).await.unwrap(), Saved::Done);
        let known = other.read(vec!["a@c.us".to_owned()]).await.unwrap();
        assert_eq!(known[0].record, None);
        assert!(known[0].published_at.is_some(), "times belong to the queue");
        other.close().await;

        let changes = Changes {
            note: note("t"),
            forgotten: vec!["b@c.us".to_owned()],
            ..Changes::default()
        };
        assert_eq!(store.write(changes).await.unwrap(), Saved::Done);
        store.close().await;
        let mut again = fixture.store(&file, "1");
        let stored = again.open().await.unwrap();
        let set = Some("t".to_owned());
        assert_eq!(
            stored,
            Stored {
                note: note("t"),
                set,
                ..Stored::default()
            }
        );
        assert_eq!(again.unseen(9, 0).await.unwrap().unseen.len(), 2);
    });
}

#[test]
fn another_process_is_locked_out() {
    let fixture = Fixture::new();
    fixture.runtime.block_on(async {
        let mut store = fixture.store(&fixture.file(), "1");
        store.open().await.unwrap();
        // Another handle of the file is as good as another process.
        let mut other = fixture.store(&fixture.file(), "2");
        assert!(matches!(other.open().await, Err(BrokerError::Locked(_))));
        store.close().await;
        assert!(other.open().await.is_ok());
    });
}

#[test]
fn a_scan_comes_in_pages_and_sees_changes_made_meanwhile() {
    let fixture = Fixture::new();
    fixture.runtime.block_on(async {
        let mut store = fixture.store(&fixture.file(), "1");
        store.open().await.unwrap();
        let id = |number: u32| format!("{number}@c.us");
        let absent = |number: u32| (id(number), record("ml900:500:1:1"));
        let seen = |number: u32| (id(number), record("ml1000:500:2:1"));
        let changes = Changes {
            new_set: Some("t".to_owned()),
            records: (0..2500)
                .map(absent)
                .chain((2500..3500).map(seen))
                .collect(),
            ..Changes::default()
        };
        assert_eq!(store.write(changes).await.unwrap(), Saved::Done);
        let (mut from, mut found, mut members, mut pages) = (0, 0, 0, 0);
        loop {
            let page = store.unseen(2, from).await.unwrap();
            found += page.unseen.len();
            members += page.members;
            pages += 1;
            let removed = page
                .unseen
                .into_iter()
                .map(|(id, _)| (id, record("rl1000:500:1:1")));
            let changes = Changes {
                records: removed.collect(),
                ..Changes::default()
            };
            assert_eq!(store.write(changes).await.unwrap(), Saved::Done);
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!((found, members, pages), (2500, 3500, 3));
        assert_eq!(store.unseen(2, 0).await.unwrap().members, 0);
    });
}

#[test]
fn what_is_too_old_is_deleted_and_notes_stay() {
    let fixture = Fixture::new();
    let file = fixture.file();
    fixture.runtime.block_on(async {
        let mut store = fixture.store(&file, "1");
        store.open().await.unwrap();
        let now = unix_seconds();
        for (chat, published_at) in [("a@c.us", now - 3700), ("b@c.us", now - 3500)] {
            let changes = Changes {
                note: note("t"),
                new_set: Some("t".to_owned()),
                records: vec![(chat.to_owned(), record("ml1000:500:2:1"))],
                published: vec![chat.to_owned()],
                published_at,
                ..Changes::default()
            };
            assert_eq!(store.write(changes).await.unwrap(), Saved::Done);
        }
        store.sweep().await.unwrap();
        let ids = ["a@c.us", "b@c.us"].map(str::to_owned);
        let known = store.read(ids.to_vec()).await.unwrap();
        let times = known.iter().map(|known| known.published_at.is_some());
        assert_eq!(times.collect::<Vec<_>>(), [false, true]);

        let age = |work: &Work<'_>, _: &Scope| {
            work.execute("UPDATE lists SET expires_at = expires_at - 3700", [])
        };
        store.run(age).await.unwrap();
        let mut other = fixture.store(&file, "2");
        other.open().await.unwrap();
        other.sweep().await.unwrap();
        other.close().await;
        let tables = |work: &Work<'_>, _: &Scope| {
            let count = "SELECT count(*) FROM sqlite_schema WHERE name LIKE 'members_%'";
            work.query_row(count, [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.run(tables).await.unwrap(), 0);
        store.close().await;
        let stored = store.open().await.unwrap();
        assert_eq!((stored.note, stored.set), (note("t"), None));
    });
}

#[test]
fn each_row_is_kept_as_long_as_its_own_run_keeps_it() {
    let fixture = Fixture::new();
    let file = fixture.file();
    let day = Duration::from_secs(24 * 3600);
    let of_queue = |queue: &str, retain| {
        let mut store = fixture.store(&file, "1");
        store.target.queue = queue.to_owned();
        store.retain = retain;
        store
    };
    fixture.runtime.block_on(async {
        let mut known = Vec::new();
        for (queue, retain) in [("hour", Some(day / 24)), ("day", Some(day)), ("ever", None)] {
            let mut store = of_queue(queue, retain);
            store.open().await.unwrap();
            let changes = Changes {
                note: note("t"),
                new_set: Some("t".to_owned()),
                published: vec!["a@c.us".to_owned()],
                published_at: unix_seconds() - 7200,
                ..Changes::default()
            };
            assert_eq!(store.write(changes).await.unwrap(), Saved::Done);
            let two_hours = |work: &Work<'_>, _: &Scope| {
                work.execute("UPDATE lists SET expires_at = expires_at - 7200", [])
            };
            store.run(two_hours).await.unwrap();
            let count = LabelCount {
                label_id: queue.to_owned(),
                label_name: None,
                color_hex: None,
                chats: Some(1),
                deleted_at: None,
                counted_at: SystemTime::now() - Duration::from_secs(7200),
            };
            file.counts("i", retain).record(&[count]).await.unwrap();
            store.close().await;
        }
        let mut other = of_queue("other", Some(day / 24));
        other.open().await.unwrap();
        other.sweep().await.unwrap();
        let counts = file.counts("i", None).load().await.unwrap();
        let counts: Vec<_> = counts.into_iter().map(|count| count.label_id).collect();
        assert_eq!(counts, ["day", "ever"]);
        other.close().await;
        for queue in ["hour", "day", "ever"] {
            // With a retention of which all would have expired.
            let mut store = of_queue(queue, Some(Duration::from_secs(1)));
            let has_set = store.open().await.unwrap().set.is_some();
            store.has_members = false;
            let times = store.read(vec!["a@c.us".to_owned()]).await.unwrap();
            known.push((has_set, times[0].published_at.is_some()));
            store.close().await;
        }
        assert_eq!(known, [(false, false), (true, true), (true, true)]);
    });
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

#[test]
fn counts_of_labels_replace_those_before() {
    let fixture = Fixture::new();
    let count = |label_id: &str, name: Option<&str>, chats: u64| LabelCount {
        label_id: label_id.to_owned(),
        label_name: name.map(str::to_owned),
        color_hex: Some("#64c4ff".to_owned()),
        chats: Some(chats),
        deleted_at: None,
        counted_at: UNIX_EPOCH + Duration::from_millis(1_764_209_000_123),
    };
    let file = fixture.file();
    let (mut ours, mut others) = (file.counts("i", None), file.counts("other", None));
    fixture.runtime.block_on(async {
        assert_eq!(ours.load().await.unwrap(), []);
        assert!(!file.path().exists(), "nothing is created only to look");
        let first = [count("1", Some("VIP"), 7), count("2", None, 0)];
        ours.record(&first).await.unwrap();
        others.record(&[count("1", None, 9)]).await.unwrap();
        assert_eq!(ours.load().await.unwrap(), first);
        // A name that is not known now is kept.
        ours.record(&[count("1", None, 8)]).await.unwrap();
        let loaded = ours.load().await.unwrap();
        assert_eq!(loaded, [count("1", Some("VIP"), 8), count("2", None, 0)]);
        // A label that was not counted keeps its count, and its time.
        let deleted = LabelCount {
            chats: None,
            counted_at: UNIX_EPOCH,
            deleted_at: Some(UNIX_EPOCH),
            ..count("1", Some("new"), 0)
        };
        ours.record(std::slice::from_ref(&deleted)).await.unwrap();
        let kept = LabelCount {
            deleted_at: deleted.deleted_at,
            ..count("1", Some("new"), 8)
        };
        assert_eq!(ours.load().await.unwrap(), [kept, count("2", None, 0)]);
        ours.replace(&[], &["2"]).await.unwrap();
        assert_eq!(ours.load().await.unwrap(), [count("2", None, 0)]);
        assert_eq!(others.load().await.unwrap().len(), 1);
        let mut expired = file.counts("i", Some(Duration::from_secs(60)));
        assert_eq!(expired.load().await.unwrap(), []);
    });
}

#[test]
fn labels_that_come_and_go_never_meet_the_lock_of_their_own_process() {
    let fixture = Fixture::new();
    let file = fixture.file();
    std::thread::scope(|scope| {
        for label in ["1", "2", "3", "4"] {
            let (fixture, file) = (&fixture, &file);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.unwrap().block_on(async {
                    for _ in 0..25 {
                        let mut store = fixture.store(file, label);
                        store.open().await.unwrap();
                        let changes = Changes {
                            new_set: Some("t".to_owned()),
                            records: vec![("a@c.us".to_owned(), record("ml1000:500:2:1"))],
                            ..Changes::default()
                        };
                        assert_eq!(store.write(changes).await.unwrap(), Saved::Done);
                        if label == "1" {
                            store.close().await;
                        }
                    }
                });
            });
        }
    });
}
