//! Counts the chats of each label.

use std::time::SystemTime;

use serde_json::json;
use tracing::error;

use crate::api::{ApiSettings, Client, Label};
use crate::commands::several_at_once;
use crate::error::Error;
use crate::exit::Exit;
use crate::pipeline;
use crate::progress::Progress;
use crate::retry::RetryPolicy;
use crate::shutdown::Shutdown;
use crate::state::counts::LabelCount;

/// Number of lists that are fetched at once. The API may take minutes for a long list; a limit
/// bounds memory.
const AT_ONCE: usize = 4;

/// A label, and the number of its chats.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) label: Label,
    /// `None` if counting failed.
    pub(super) chats: Option<u64>,
    /// Why it failed.
    pub(super) error: Option<String>,
    pub(super) exit: Exit,
    pub(super) at: SystemTime,
}

/// Counts the chats of each label, several labels at once. Returns them in the order of the labels.
pub(super) async fn count(
    api: &ApiSettings,
    shutdown: &Shutdown,
    labels: &[Label],
    progress: &Progress,
) -> Result<Vec<Counted>, Error> {
    let client = Client::new(api)?;
    let line = progress.line(&format!("label 1 to {}", labels.len()));
    let retry = RetryPolicy::new(api.retries, shutdown.clone());
    let counting = labels.iter().map(async |label| {
        let counted = pipeline::count_chats(&client, &label.id, &retry, &line).await;
        Counted::new(label.clone(), counted)
    });
    let counted = several_at_once(counting, AT_ONCE).await;
    line.end();
    Ok(counted)
}

impl Counted {
    fn new(label: Label, counted: Result<u64, Error>) -> Self {
        let at = SystemTime::now();
        let (chats, error, exit) = match counted {
            Ok(chats) => (Some(chats), None, Exit::Complete),
            Err(error) => {
                let (exit, hint) = (error.exit(), error.hint().unwrap_or_default());
                error!(
                    label_id = label.id,
                    exit_code = exit.code(),
                    hint,
                    "{error}"
                );
                (None, Some(error.to_string()), exit)
            }
        };
        Self {
            label,
            chats,
            error,
            exit,
            at,
        }
    }
}

impl From<LabelCount> for Counted {
    fn from(count: LabelCount) -> Self {
        Self {
            label: Label {
                id: count.label_id,
                name: count.label_name,
                color: count.color_hex,
            },
            chats: count.chats,
            error: None,
            exit: Exit::Complete,
            at: count.counted_at,
        }
    }
}

/// Returns the counts that did not fail, to store them.
pub(super) fn known(counted: &[Counted]) -> Vec<LabelCount> {
    let known = |counted: &Counted| {
        Some(pipeline::count_of(
            &counted.label,
            counted.chats?,
            counted.at,
        ))
    };
    counted.iter().filter_map(known).collect()
}

/// Returns one JSON line per label.
pub(super) fn lines(counted: &[Counted]) -> String {
    let line = |counted: &Counted| {
        let Label { id, name, color } = &counted.label;
        let mut line = json!({
            "label_id": id,
            "label_name": name,
            "color_hex": color,
            "chats": counted.chats,
            "counted_at": humantime::format_rfc3339_millis(counted.at).to_string(),
        });
        if let Some(error) = &counted.error {
            line["error"] = json!(error);
        }
        format!("{line}\n")
    };
    counted.iter().map(line).collect()
}
