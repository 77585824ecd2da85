//! A worker on a thread of this process, which publishes to the broker in memory.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use labelcast::api::{ApiSettings, Auth, Client, Dialect, Label};
use labelcast::broker::memory::Memory;
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

use super::{Ended, INSTANCE, Stage, TOKEN};

/// Faults pass at once, so retries need not wait.
const FIRST_PAUSE: Duration = Duration::from_millis(1);

/// A run on a thread of its own.
pub(crate) struct ThreadWorker {
    thread: JoinHandle<Option<(Report, u8)>>,
    shutdown: Shutdown,
    killed: CancellationToken,
}

impl ThreadWorker {
    /// Starts to publish label 1 of a stage.
    pub(crate) fn start(stage: &Stage, memory: &Memory, retries: usize) -> Self {
        let (memory, url) = (memory.clone(), stage.mock.url());
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
        Self {
            thread,
            shutdown,
            killed,
        }
    }

    /// Asks it to stop, as SIGTERM does.
    pub(crate) fn stop(&self) {
        self.shutdown.stop(Cause::Terminated);
    }

    /// Ends it at once, as SIGKILL does.
    pub(crate) fn kill(&self) {
        self.killed.cancel();
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Ended {
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
            selection: labelcast::state::Selection::default(),
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
        selection: labelcast::state::Selection::default(),
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
