//! `labelcast check`: could a run work? Each question is asked, and nothing is published.

use super::run::Settings;
use super::{fail, labels, print, set_up_log, settled};
use crate::api::Label;
use crate::config::{Labels, Layers, ProgressMode};
use crate::error::{Error, Exit, Guard};
use crate::report::{Progress, printable};
use crate::sink::lines::{self, Destination};

pub(super) async fn check(layers: Layers) -> Exit {
    let settings = match settled(layers, |layers| Settings::read(layers, true)) {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    set_up_log(&settings.log, &Progress::new(ProgressMode::Never, true));
    let mut findings = Findings::default();
    findings.add("settings", Ok("all are there".to_owned()));
    match labels::ask(&settings.api).await {
        Err(error) => findings.add("API", Err(error)),
        Ok((known, _)) => {
            findings.add("API", Ok(format!("{} labels", known.len())));
            check_labels(&settings.run.labels, &known, &mut findings);
        }
    }
    findings.add("sink", check_sink(&settings.sink.destination));
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
            Err(error) => {
                self.text.push_str(&format!("FAIL  {what}: {error}\n"));
                if let Some(hint) = error.hint() {
                    self.text.push_str(&format!("      {hint}\n"));
                }
                self.exit = self.exit.heavier(error.exit());
            }
        }
    }
}

fn check_labels(wanted: &Labels, known: &[Label], findings: &mut Findings) {
    match wanted {
        Labels::All if known.is_empty() => findings.add("labels", Err(Guard::NoLabels.into())),
        Labels::All => {}
        Labels::These(ids) => {
            for id in ids {
                let found = known.iter().find(|label| label.id == *id);
                let result = match found {
                    Some(label) => Ok(printable(label.name.as_deref().unwrap_or("exists"))),
                    None => Err(Guard::LabelGone(id.clone()).into()),
                };
                findings.add(&format!("label {id}"), result);
            }
        }
    }
}

fn check_sink(destination: &Destination) -> Result<String, Error> {
    match destination {
        Destination::Stdout => Ok("stdout".to_owned()),
        Destination::File { path, .. } => {
            lines::check(path)?;
            Ok(format!("{} can be appended to", path.display()))
        }
    }
}
