//! The broker in memory, whose worker is a thread of this process.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use labelcast::api::{ApiSettings, Auth, Client, Dialect, Label};
use labelcast::broker::memory::{self, Memory};
use labelcast::broker::{SessionContext, Target};
use labelcast::decode::Trust;
use labelcast::http::Proxies;
use labelcast::message::{Format, Layout};
use labelcast::pipeline::{Context, Labels, RunSettings, publish_label};
use labelcast::progress::{Progress, ProgressMode};
use labelcast::report::Report;
use labelcast::retry::RetryPolicy;
use labelcast::shutdown::{Cause, Shutdown};
use tokio_util::sync::CancellationToken;

use super::{Fault, Message, Subject, Worker};
use crate::support::{Ended, INSTANCE, Stage, TOKEN, wait_until};

/// Faults pass at once, so retries need not wait.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

pub(super) struct InMemory {
    memory: Memory,
    /// Lets a held append go.
    release: CancellationToken,
}

impl InMemory {
    pub(super) fn start() -> Self {
        Self {
            memory: Memory::default(),
            release: CancellationToken::new(),
        }
    }
}

/// A run on a thread of its own.
pub(super) struct ThreadWorker {
    thread: JoinHandle<Option<(Report, u8)>>,
    shutdown: Shutdown,
    killed: CancellationToken,
}

impl Worker for ThreadWorker {
    fn stop(&self) {
        self.shutdown.stop(Cause::Terminated);
    }

    fn end(self) -> Ended {
        let ended = self.thread.join().unwrap();
        let (report, code) = match ended {
            Some((report, code)) => (report.json(), Some(i32::from(code))),
            None => ("null".to_owned(), None),
        };
        Ended {
            code,
            stdout: String::new(),
            stderr: String::new(),
            report: serde_json::from_str(&report).unwrap(),
        }
    }
}

impl Subject for InMemory {
    const REPEATS: usize = 0;
    const KEEPS_ORDER: bool = true;

    type Worker = ThreadWorker;

    fn start_run(&self, stage: &Stage, retries: usize, _: Option<Fault>) -> ThreadWorker {
        let (memory, url) = (self.memory.clone(), stage.mock.url());
        let (shutdown, killed) = (Shutdown::manual(None), CancellationToken::new());
        let (stop, kill) = (shutdown.clone(), killed.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                tokio::select! {
                    ended = publish(memory, &url, retries, stop) => Some(ended),
                    () = kill.cancelled() => None,
                }
            })
        });
        ThreadWorker {
            thread,
            shutdown,
            killed,
        }
    }

    fn depth(&mut self) -> usize {
        self.memory.messages().len()
    }

    fn break_down(&mut self, fault: Fault, worker: &ThreadWorker) {
        match fault {
            Fault::Refuse => self.memory.script(memory::Fault::Refuse),
            Fault::FailAfterWrite => self.memory.script(memory::Fault::LoseReply),
            Fault::Cut => self.memory.script(memory::Fault::Cut),
            Fault::Hold => {
                let release = self.release.clone();
                self.memory.script(memory::Fault::Hold(release));
            }
            Fault::Kill => worker.killed.cancel(),
        }
    }

    fn recover(&mut self, _: Fault, _: &mut ThreadWorker) {
        wait_until("the fault is met", || self.memory.faults_left() == 0);
        self.release.cancel();
    }

    fn messages(&mut self) -> Vec<Message> {
        let messages = self.memory.messages().into_iter();
        let messages = messages.map(|message| Message {
            id: format!("{}:{}", message.run_id, message.chat_id),
            chat: message.chat_id,
            run_id: message.run_id.to_string(),
        });
        messages.collect()
    }
}

async fn publish(memory: Memory, url: &str, retries: usize, shutdown: Shutdown) -> (Report, u8) {
    let client = Client::new(&ApiSettings {
        url: url.parse().unwrap(),
        dialect: Dialect::WawpV2,
        instance_id: INSTANCE.to_owned(),
        token: TOKEN.into(),
        auth: Auth::Query,
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(60),
        retries,
        trust: Trust::default(),
        proxies: Proxies::default(),
    });
    let layout = Layout {
        format: Format::Json,
        ids_per_message: 1,
        include_names: false,
    };
    let retry = RetryPolicy::new(retries, shutdown).with_first_pause(FIRST_PAUSE);
    let context = Context {
        client: &client.unwrap(),
        retry: &retry,
        run: &RunSettings {
            labels: Labels::These(vec!["1".to_owned()]),
            shard: None,
            concurrency: 1,
            deadline: None,
            resume_window: Some(Duration::from_secs(3600)),
            min_chats: 0,
            max_shrink: None,
            max_invalid: 0,
            check_label: false,
            dry_run: false,
        },
        layout: &layout,
        batch_entries: 100,
    };
    let target = Target {
        queue: "labelcast:1".to_owned(),
        label_id: "1".to_owned(),
        instance_id: INSTANCE.to_owned(),
    };
    let line = Progress::new(ProgressMode::Never, true).line("1");
    let sink = memory.sink(SessionContext {
        target: target.clone(),
        layout: layout.clone(),
        retry: retry.clone(),
        pauses: Arc::new(line.clone()),
    });
    let label = Label {
        id: "1".to_owned(),
        name: None,
        color: None,
    };
    let started_at = SystemTime::now();
    let published = publish_label(&context, &label, &target, sink, &line).await;
    let (report, exit) = Report::new(started_at, vec![published], None);
    (report, exit.code())
}
