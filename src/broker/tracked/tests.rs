//! Sessions over a queue in memory and a store in a file, driven as the pipeline does it, with
//! faults, kills and changed lists at random points.

mod events;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::*;
use crate::batch::{Batch, DigestState};
use crate::broker::embedded::Embedded;
use crate::broker::memory::{Fault, Memory};
use crate::broker::{
    Delivered, NoPauses, Outcome, ResumePoint, SessionContext, Start, Target, Written,
};
use crate::message::{Format, Layout};
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;
use crate::state::{Membership, Publish, Removal};

/// Entries in a batch.
const BATCH: u64 = 7;

/// Pseudo-random numbers.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// A queue, and what is known beside it.
struct World {
    queue: Memory,
    file: Embedded,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            queue: Memory::default(),
            file: Embedded::new(folder.path().join("state.db")),
            _folder: folder,
        }
    }

    async fn open(&self, selection: &Selection) -> (Recovered, Box<dyn SnapshotSession>) {
        self.open_with(selection, |sink| sink).await
    }

    async fn open_with(
        &self,
        selection: &Selection,
        wrap: impl Fn(Box<dyn SnapshotSink>) -> Box<dyn SnapshotSink>,
    ) -> (Recovered, Box<dyn SnapshotSession>) {
        let context = context(selection);
        let tracked = Tracked {
            store: self.file.store(&context, None),
            inner: wrap(self.queue.sink(context)),
            removals: None,
            selection: selection.clone(),
        };
        Box::new(tracked).open().await.unwrap()
    }

    fn published(&self) -> Vec<String> {
        let messages = self.queue.messages();
        messages
            .into_iter()
            .map(|message| message.chat_id)
            .collect()
    }
}

fn context(selection: &Selection) -> SessionContext {
    let retry = RetryPolicy::new(5, Shutdown::manual(None));
    SessionContext {
        target: Target {
            queue: "q".to_owned(),
            label_id: "1".to_owned(),
            instance_id: "i".to_owned(),
        },
        layout: Layout {
            format: Format::Json,
            ids_per_message: 1,
            include_names: false,
        },
        retry: retry.with_first_pause(Duration::from_millis(1)),
        selection: selection.clone(),
        pauses: Arc::new(NoPauses),
    }
}

/// A sink, or its session, in which the process ends before a restart.
struct EndsAtRestart<T>(T);

#[async_trait]
impl SnapshotSink for EndsAtRestart<Box<dyn SnapshotSink>> {
    async fn open(self: Box<Self>) -> Result<(Recovered, Box<dyn SnapshotSession>), BrokerError> {
        let (recovered, session) = self.0.open().await?;
        Ok((recovered, Box::new(EndsAtRestart(session))))
    }
}

#[async_trait]
impl SnapshotSession for EndsAtRestart<Box<dyn SnapshotSession>> {
    async fn start(&mut self, start: Start) -> Result<(), BrokerError> {
        self.0.start(start).await
    }

    fn resume_point(&self) -> &ResumePoint {
        self.0.resume_point()
    }

    async fn write(&mut self, batch: &Batch) -> Result<Written, BrokerError> {
        self.0.write(batch).await
    }

    async fn flush(&mut self) -> Result<Written, BrokerError> {
        self.0.flush().await
    }

    async fn restart(&mut self) -> Result<(), BrokerError> {
        Err(BrokerError::Bug("the process has ended".to_owned()))
    }

    fn delivered(&self) -> Delivered {
        self.0.delivered()
    }

    async fn finish(self: Box<Self>, outcome: Outcome) -> Result<(), BrokerError> {
        self.0.finish(outcome).await
    }
}

/// How reading a list ended.
#[derive(Debug, PartialEq, Eq)]
enum Read {
    Whole,
    Changed,
    Rewound,
    /// Up to where it was to be.
    Cut,
}

/// Reads a list from the resume point, as the decoder and the pipeline do it.
async fn read(session: &mut dyn SnapshotSession, ids: &[String], cut_at: u64) -> Read {
    if session.begin_list(SystemTime::now()).await.unwrap() == Written::Rewound {
        return Read::Rewound;
    }
    let mut expected = session.resume_point().expected_digests.clone();
    assert_eq!(session.resume_point().at.position, 0);
    let mut digest = DigestState::default();
    let mut position = 0;
    while position < ids.len() as u64 {
        let next = expected.first().map_or(u64::MAX, |(position, _)| *position);
        let end = (position + BATCH).min(ids.len() as u64).min(next);
        let mut batch = Batch::new();
        batch.restart(position);
        for id in &ids[usize::try_from(position).unwrap()..usize::try_from(end).unwrap()] {
            batch.push(id.as_bytes(), None);
        }
        digest.update(&batch);
        batch.seal(digest.digest());
        if end == next && expected.remove(0).1 != batch.digest() {
            return Read::Changed;
        }
        if session.write(&batch).await.unwrap() == Written::Rewound {
            return Read::Rewound;
        }
        position = end;
        if position >= cut_at {
            return Read::Cut;
        }
    }
    if !expected.is_empty() {
        return Read::Changed;
    }
    match session.flush().await.unwrap() {
        Written::Done => Read::Whole,
        Written::Rewound => Read::Rewound,
        Written::ReaderGone => panic!("there is no reader"),
    }
}

/// Publishes a list, of which the first bodies are cut off. If one more is, the process is killed,
/// and this returns `None`; else what was delivered and resumed, and whether the list has changed.
async fn run(
    world: &World,
    selection: &Selection,
    ids: &[String],
    cuts: &[u64],
    kill_at: u64,
) -> Option<(Delivered, u64, bool)> {
    let (recovered, mut session) = world.open(selection).await;
    let (mut resumed, mut has_changed) = (0, false);
    let start = match recovered.unfinished {
        Some(unfinished) => {
            resumed = unfinished.resume_point.at.chats;
            has_changed = unfinished.list_changed;
            Start::Resumed(unfinished)
        }
        None => Start::New(uuid::Uuid::now_v7()),
    };
    session.start(start).await.unwrap();
    let mut cuts = cuts.iter();
    loop {
        let cut_at = cuts.next();
        match read(&mut *session, ids, *cut_at.unwrap_or(&kill_at)).await {
            Read::Cut if cut_at.is_some() => {}
            Read::Cut => return None,
            Read::Rewound => resumed = resumed.min(session.resume_point().at.chats),
            Read::Changed => {
                session.restart().await.unwrap();
                has_changed = true;
            }
            Read::Whole => break,
        }
    }
    assert_eq!(session.remove_absent().await.unwrap(), Removal::Removed);
    let delivered = session.delivered();
    let chats = ids.len() as u64;
    session.finish(Outcome::Complete { chats }).await.unwrap();
    Some((delivered, resumed, has_changed))
}

fn only_new() -> Selection {
    Selection {
        suppress_for: Some(Duration::from_secs(3600)),
        membership: Some(Membership {
            publish: Publish::New,
            removed: false,
            min_age: None,
            max_change: 100,
        }),
        ..Selection::default()
    }
}

fn ids(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| format!("{number}@c.us")).collect()
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(work)
}

/// Positions at which up to two bodies are cut off.
fn cuts(numbers: &mut Numbers, entries: usize) -> Vec<u64> {
    let count = numbers.below(3);
    let positions = (0..count).map(|_| 1 + numbers.below(entries as u64));
    positions.collect()
}

/// Publishes lists with faults and kills, and then the whole list once more.
async fn survives(seed: u64, faults: &[Fault], kills: bool, changes: bool) {
    let (world, mut numbers) = (World::new(), Numbers(seed));
    let all = ids(0..60 + numbers.below(60));
    for _ in 0..4 {
        for _ in 0..numbers.below(6) {
            world.queue.script(Fault::Skip);
            world.queue.script(
                faults[usize::try_from(numbers.below(faults.len() as u64)).unwrap()].clone(),
            );
        }
        let mut list = all.clone();
        if changes && numbers.below(2) == 0 {
            let at = usize::try_from(numbers.below(list.len() as u64)).unwrap();
            list.rotate_left(at);
        }
        let kill_at = match kills {
            true => 1 + numbers.below(list.len() as u64),
            false => u64::MAX,
        };
        let cuts = cuts(&mut numbers, list.len());
        run(&world, &only_new(), &list, &cuts, kill_at).await;
    }
    let last = cuts(&mut numbers, all.len());
    let (delivered, resumed, has_changed) = run(&world, &only_new(), &all, &last, u64::MAX)
        .await
        .unwrap();
    let case = format!("seed {seed}: {delivered:?}, {resumed} resumed");
    if !has_changed {
        let sum = delivered.chats + resumed + delivered.suppressed + delivered.known;
        assert_eq!(sum, all.len() as u64, "{case}");
    }
    let published = world.published();
    let found: HashSet<&String> = published.iter().collect();
    assert_eq!(found.len(), all.len(), "{case}");
    assert_eq!(published.len(), all.len(), "chats came twice; {case}");
    let (delivered, ..) = run(&world, &only_new(), &all, &last, u64::MAX)
        .await
        .unwrap();
    assert_eq!(
        (delivered.known, delivered.chats),
        (all.len() as u64, 0),
        "{case}"
    );
}

#[test]
fn kills_and_faults_lose_no_chat() {
    let faults = [Fault::Refuse, Fault::Cut, Fault::LoseReply];
    block_on(async {
        for seed in 0..40 {
            survives(seed, &faults, true, false).await;
            survives(seed, &faults, true, true).await;
        }
    });
}

#[test]
fn a_queue_that_loses_what_a_run_has_published_gets_it_again() {
    block_on(async {
        for seed in 0..30 {
            let (world, mut numbers) = (World::new(), Numbers(seed));
            let list = ids(0..60 + numbers.below(60));
            for _ in 0..2 {
                for _ in 0..numbers.below(8) {
                    world.queue.script(Fault::Skip);
                }
                world.queue.script(Fault::LoseAll);
            }
            let (delivered, ..) = run(&world, &only_new(), &list, &[], u64::MAX)
                .await
                .unwrap();
            assert_eq!(delivered.chats, list.len() as u64, "seed {seed}");
            assert_eq!(world.published(), list, "seed {seed}");
        }
    });
}

#[test]
fn chats_that_were_recorded_before_the_queue_lost_them_are_published_again() {
    block_on(async {
        let (world, list) = (World::new(), ids(0..100));
        let (_, mut session) = world.open(&only_new()).await;
        session
            .start(Start::New(uuid::Uuid::now_v7()))
            .await
            .unwrap();
        // All are recorded as published, and then the body breaks off, and the queue is lost.
        assert_eq!(read(&mut *session, &list, u64::MAX).await, Read::Whole);
        world.queue.script(Fault::LoseAll);
        let more = ids(0..110);
        assert_eq!(read(&mut *session, &more, u64::MAX).await, Read::Rewound);
        assert_eq!(read(&mut *session, &more, u64::MAX).await, Read::Whole);
        assert_eq!(world.published(), more);
        session
            .finish(Outcome::Complete { chats: 110 })
            .await
            .unwrap();
    });
}

#[test]
fn a_kill_before_the_queue_has_restarted_costs_nothing() {
    block_on(async {
        let (world, list) = (World::new(), ids(0..120));
        assert!(run(&world, &only_new(), &list, &[], 100).await.is_none());
        let (recovered, mut session) = world
            .open_with(&only_new(), |sink| Box::new(EndsAtRestart(sink)))
            .await;
        let unfinished = recovered.unfinished.unwrap();
        assert!(unfinished.resume_point.at.position > 0);
        session.start(Start::Resumed(unfinished)).await.unwrap();
        let mut changed = list.clone();
        changed.rotate_left(1);
        let read = read(&mut *session, &changed, u64::MAX).await;
        assert_eq!(read, Read::Changed);
        assert!(session.restart().await.is_err());
        drop(session);
        // The list is again what the queue has the start of.
        run(&world, &only_new(), &list, &[], u64::MAX)
            .await
            .unwrap();
        let again = run(&world, &only_new(), &list, &[], u64::MAX).await;
        assert_eq!(again.unwrap().0.known, 120);
        assert_eq!(world.published(), list);
    });
}
