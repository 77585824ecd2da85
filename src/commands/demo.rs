//! `labelcast demo`: a real run against the stand-in for the API.

mod enrichment;
mod live;

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use super::run::{Settings, run_with};
use super::{fail, listen, load, print};
use crate::cli::Demo;
use crate::config::{ConfigSources, RunMode, TOKEN_VARIABLE};
use crate::error::Error;
use crate::exit::Exit;
use crate::mock::{Account, Chats, DEMO_INSTANCE, DEMO_TOKEN, Mock, chat_id};

/// The stand-in's label.
const LABEL: &str = "1";
/// Number of lines of the file that are shown.
const SHOWN_LINES: usize = 3;

pub(super) async fn demo(sources: ConfigSources, demo: Demo, listen: SocketAddr) -> Exit {
    let chats = match demo {
        Demo::Live => return live::demo(sources, listen).await,
        Demo::Serve { chats, .. } | Demo::Run { chats } => chats,
    };
    let account = Account {
        instance_id: DEMO_INSTANCE.to_owned(),
        token: DEMO_TOKEN.to_owned(),
        labels: vec![
            (LABEL.to_owned(), "VIP".to_owned(), Chats::Generated(chats)),
            ("2".to_owned(), "Pending".to_owned(), Chats::Generated(10)),
        ],
    };
    let result = match start(listen, account) {
        Ok(mock) => match demo {
            Demo::Serve { contact_limit, .. } => serve(&mock, contact_limit).await,
            _ => run_against(&mock, sources).await,
        },
        Err(error) => Err(error),
    };
    result.unwrap_or_else(|error| fail(&error))
}

/// Starts the stand-in.
fn start(listen: SocketAddr, account: Account) -> Result<Mock, Error> {
    Mock::start(listen, account).map_err(|error| Error::File {
        what: "the stand-in cannot listen on",
        path: PathBuf::from(listen.to_string()),
        error,
    })
}

/// Sets what is needed to use the stand-in.
fn use_stand_in(sources: &mut ConfigSources, mock: &Mock) {
    sources.set("api.url", mock.url());
    sources.set("api.dialect", "wawp-v2");
    sources.set("api.instance_id", DEMO_INSTANCE);
    sources.set_secret(TOKEN_VARIABLE, DEMO_TOKEN);
}

/// Serves the label and the people behind its chats, of which some do not exist and some always
/// fail. [`Mock::fail_some_contacts`] tells which.
async fn serve(mock: &Mock, contact_limit: Option<NonZeroU32>) -> Result<Exit, Error> {
    mock.fail_some_contacts();
    if let Some(per_second) = contact_limit {
        mock.limit_contacts(per_second.get());
    }
    // Before the address is printed: whoever reads it may send a signal at once.
    let (shutdown, _listener) = listen(None)?;
    let (url, contact) = (mock.url(), chat_id(2));
    print(&format!(
        "The stand-in for the API listens on {url} until a signal comes.\n\n\
         curl '{url}/v2/labels/{LABEL}/chats?instance_id={DEMO_INSTANCE}&access_token={DEMO_TOKEN}'\n\
         curl '{url}/v2/contacts?contactId={contact}&instance_id={DEMO_INSTANCE}&access_token={DEMO_TOKEN}'\n\
         WAWP_ACCESS_TOKEN={DEMO_TOKEN} labelcast run --api-url {url} --instance-id {DEMO_INSTANCE} --label {LABEL}\n"
    ))?;
    shutdown.stopped().await;
    Ok(Exit::Complete)
}

async fn run_against(mock: &Mock, mut sources: ConfigSources) -> Result<Exit, Error> {
    use_stand_in(&mut sources, mock);
    if !sources.is_set("run.labels") && !sources.is_set("run.all_labels") {
        sources.set("run.labels", LABEL);
    }
    let mut file = None;
    if !sources.is_set("sink.url") && !sources.is_set("sink.url_file") {
        let name = format!("labelcast-demo-{}.jsonl", uuid::Uuid::now_v7());
        let path = std::env::temp_dir().join(name);
        sources.set("sink.url", format!("file:{}", path.display()));
        file = Some(path);
    }
    let settings = load(sources, |sources| Settings::read(sources, RunMode::Publish))?;
    let exit = run_with(&settings).await;
    // A failed run may not have created the file.
    if let Some(path) = file.filter(|path| path.exists()) {
        show(&path)?;
    }
    Ok(exit)
}

/// Prints the path of the file with the synthetic chats, and its first lines.
fn show(path: &PathBuf) -> Result<(), Error> {
    let unreadable = |error| Error::File {
        what: "could not read",
        path: path.clone(),
        error,
    };
    let file = File::open(path).map_err(unreadable)?;
    let mut text = format!("{}\n", path.display());
    for line in BufReader::new(file).lines().take(SHOWN_LINES) {
        text.push_str(&line.map_err(unreadable)?);
        text.push('\n');
    }
    print(&text)
}
