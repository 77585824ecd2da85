//! `labelcast check`: checks that a run could work, and publishes nothing.

use std::sync::Arc;

use super::run::Settings;
use super::{check_report_path, fail, init_log, labels, listen, load, print};
use crate::api::{ApiError, Label, LabelList};
use crate::broker::{BrokerError, PauseObserver, SessionContext, Target};
use crate::config::{ConfigSources, RunMode};
use crate::error::{Error, Guard};
use crate::exit::Exit;
use crate::pipeline::Labels;
use crate::progress::{Progress, ProgressMode};
use crate::report::printable;
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;

pub(super) async fn check(sources: ConfigSources) -> Exit {
    let settings = match load(sources, |sources| Settings::read(sources, RunMode::Publish)) {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    init_log(&settings.log, &Progress::new(ProgressMode::Never, true));
    let (shutdown, _listener) = match listen(None) {
        Ok(listening) => listening,
        Err(error) => return fail(&error),
    };
    let mut findings = Findings::default();
    findings.add("settings", Ok("all are there".to_owned()));
    if let Some(path) = &settings.report.file {
        let good = |()| format!("{} can be written", path.display());
        findings.add("report", check_report_path(&settings.report).map(good));
    }
    let known = match labels::fetch_labels(&settings.api, &shutdown).await {
        Err(error) => {
            findings.fail("API", &error);
            Vec::new()
        }
        Ok(known) => {
            findings.add("API", Ok(format!("{} labels", known.labels.len())));
            check_labels(&settings.run.labels, &known, &mut findings);
            known.labels
        }
    };
    let labels = labels_to_publish(&settings, known);
    tokio::select! {
        biased;
        cause = shutdown.stopped() => findings.fail("sink", &Error::Interrupted(cause)),
        () = check_sink(&settings, &labels, &shutdown, &mut findings) => {}
    }
    match print(&findings.text) {
        Ok(()) => findings.exit,
        Err(error) => findings.exit.heavier(fail(&error)),
    }
}

struct Findings {
    text: String,
    exit: Exit,
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            text: String::new(),
            exit: Exit::Complete,
        }
    }
}

impl Findings {
    fn add(&mut self, what: &str, result: Result<String, Error>) {
        match result {
            Ok(finding) => self.text.push_str(&format!("ok    {what}: {finding}\n")),
            Err(error) => self.fail(what, &error),
        }
    }

    fn fail(&mut self, what: &str, error: &Error) {
        self.text.push_str(&format!("FAIL  {what}: {error}\n"));
        if let Some(hint) = error.hint() {
            self.text.push_str(&format!("      {hint}\n"));
        }
        self.exit = self.exit.heavier(error.exit());
    }

    /// Adds a warning: something that does not prevent a run.
    fn warn(&mut self, what: &str, text: &str) {
        self.text.push_str(&format!("warn  {what}: {text}\n"));
    }
}

fn check_labels(wanted: &Labels, known: &LabelList, findings: &mut Findings) {
    let label_error = |error| Error::from(ApiError::labels(error));
    let ids = match wanted {
        Labels::All => {
            match known.clone().whole() {
                Err(error) => findings.fail("labels", &label_error(error)),
                Ok(labels) if labels.is_empty() => {
                    findings.fail("labels", &Guard::NoLabels.into());
                }
                Ok(_) => {}
            }
            return;
        }
        Labels::These(ids) => ids,
    };
    for id in ids {
        let result = match known.find(id) {
            Ok(Some(label)) => Ok(printable(label.name.as_deref().unwrap_or("exists"))),
            Ok(None) => Err(Guard::LabelGone(id.clone()).into()),
            Err(error) => Err(label_error(error)),
        };
        findings.add(&format!("label {id}"), result);
    }
}

/// Returns the labels that a run would publish. With `--all-labels`, this is empty if the API did
/// not return them.
fn labels_to_publish(settings: &Settings, known: Vec<Label>) -> Vec<String> {
    let mut labels = match &settings.run.labels {
        Labels::These(labels) => labels.clone(),
        Labels::All => known.into_iter().map(|label| label.id).collect(),
    };
    labels.retain(|id| settings.run.is_for(id));
    labels
}

/// Nobody, because a check does not publish.
struct NoObserver;

impl PauseObserver for NoObserver {
    fn paused(&self, _: &'static str) {}
    fn resumed(&self) {}
}

async fn check_sink(
    settings: &Settings,
    labels: &[String],
    shutdown: &Shutdown,
    findings: &mut Findings,
) {
    let instance_id = &settings.api.instance_id;
    let targets: Vec<Target> = labels
        .iter()
        .map(|label_id| settings.sink.target(label_id, instance_id))
        .collect();
    let checked = settings
        .sink
        .broker
        .check(&targets, &settings.run.selection)
        .await;
    if checked.is_empty() {
        findings.warn("sink", "not checked, because there is no label to publish");
    }
    for found in checked {
        match found {
            Ok(finding) => {
                findings.add("sink", Ok(finding.good));
                for doubtful in finding.doubtful {
                    findings.warn("sink", &doubtful);
                }
            }
            Err(error) => findings.fail("sink", &error.into()),
        }
    }
    for target in targets {
        check_state(settings, target, shutdown, findings).await;
    }
}

async fn check_state(
    settings: &Settings,
    target: Target,
    shutdown: &Shutdown,
    findings: &mut Findings,
) {
    let queue = target.queue.clone();
    let context = SessionContext {
        target,
        layout: settings.sink.layout.clone(),
        retry: RetryPolicy::new(0, shutdown.clone()),
        selection: settings.run.selection.clone(),
        pauses: Arc::new(NoObserver),
    };
    match settings.sink.broker.check_state(&context).await {
        None => {}
        Some(Ok(())) => findings.add("state", Ok(format!("of {queue} can be used"))),
        // The run that holds it may have ended by then.
        Some(Err(error @ BrokerError::Locked(_))) => findings.warn("state", &error.to_string()),
        Some(Err(error)) => findings.fail("state", &error.into()),
    }
}
