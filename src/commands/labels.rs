//! `labelcast labels`: the account's labels, as a table or as JSON lines.

use super::{fail, logged, print, set_up_log, settled};
use crate::api::retry::Retries;
use crate::api::{Client, Label};
use crate::config::{ApiSettings, Layers, ProgressMode};
use crate::error::{Error, Exit};
use crate::report::Progress;
use crate::shutdown::Shutdown;

pub(super) async fn labels(layers: Layers, json: bool) -> Exit {
    let settings = settled(layers, |layers| {
        let (api, log) = (layers.api(), layers.log());
        Some((api?, log?))
    });
    let (api, log) = match settings {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    set_up_log(&log, &Progress::new(ProgressMode::Never, true));
    let result = match ask(&api).await {
        Ok(labels) => print(&if json { lines(&labels) } else { table(&labels) }),
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => Exit::Complete,
        Err(error) => logged(&error),
    }
}

/// Asks for the labels until they come, or a signal does.
pub(super) async fn ask(settings: &ApiSettings) -> Result<Vec<Label>, Error> {
    let (shutdown, _listener) = Shutdown::listen(None)
        .map_err(|error| Error::Bug(format!("signals cannot be listened for: {error}")))?;
    let client = Client::new(settings)?;
    client
        .labels_with(&mut Retries::new(settings.retries), &shutdown)
        .await
}

fn lines(labels: &[Label]) -> String {
    let line = |label: &Label| {
        let Label { id, name, color } = label;
        serde_json::json!({"label_id": id, "label_name": name, "color": color}).to_string() + "\n"
    };
    labels.iter().map(line).collect()
}

fn table(labels: &[Label]) -> String {
    let longest = labels.iter().map(|label| label.id.chars().count()).max();
    let width = longest.unwrap_or(0).max("LABEL".len());
    let mut table = format!("{:width$}  NAME\n", "LABEL");
    for label in labels {
        // A name is free text, and may hold what moves a terminal's cursor.
        let name = label.name.as_deref().unwrap_or_default();
        let name = name.replace(char::is_control, " ");
        table.push_str(&format!("{:width$}  {name}\n", label.id));
    }
    table
}
