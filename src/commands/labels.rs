//! `labelcast labels`: the account's labels, as a table or as JSON lines.

use super::{fail, logged, print, set_up_log, settled};
use crate::api::{Client, Label};
use crate::config::{ApiSettings, Layers, ProgressMode};
use crate::error::{Error, Exit};
use crate::report::{Progress, printable};
use crate::retry::Retries;
use crate::shutdown::{Listener, Shutdown};

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
    let asked = ask(&api).await;
    let result = match &asked {
        Ok((labels, _)) if json => print(&lines(labels)),
        Ok((labels, _)) => print(&table(labels)),
        Err(_) => Ok(()),
    };
    let result = result.and(asked.map(drop));
    match result {
        Ok(()) => Exit::Complete,
        Err(error) => logged(&error),
    }
}

/// Asks for the labels until they come, or a signal does, which is listened for further on.
pub(super) async fn ask(settings: &ApiSettings) -> Result<(Vec<Label>, Listener), Error> {
    let (shutdown, listener) = Shutdown::listen(None)
        .map_err(|error| Error::Bug(format!("signals cannot be listened for: {error}")))?;
    let client = Client::new(settings)?;
    let mut retries = Retries::new(settings.retries);
    let labels = client.labels_with(&mut retries, &shutdown).await?;
    Ok((labels, listener))
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
        let name = printable(label.name.as_deref().unwrap_or_default());
        table.push_str(&format!("{:width$}  {name}\n", printable(&label.id)));
    }
    table
}
