//! Configuration: flags override the environment, the environment the file, the file the defaults.
//!
//! [`ConfigSources`] holds each value as text, with its source. [`ConfigSources::run`] and the other readers
//! assemble the settings struct of a module, and collect all errors instead of stopping at the first.

mod enrich;
mod file;
mod listen;
mod report;
mod sink;
pub mod table;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

pub use self::file::example;
pub use self::listen::ServerSettings;
use self::table::{SETTINGS, Setting};
use self::values::Reader;
use crate::api::{ApiSettings, Auth, Dialect};
use crate::broker::factory::{Broker, SinkSettings};
use crate::config_error::{ConfigError, ConfigErrors};
use crate::decode::Trust;
use crate::enrich::EnrichSettings;
use crate::http::{NotAProxy, PROXY_VARIABLES, Proxies};
use crate::live::LiveSettings;
use crate::pipeline::{Labels, RunSettings};
use crate::report::ReportSettings;
use crate::state::{Membership, Publish, Selection};
use crate::telemetry::LogSettings;

/// The variable that holds the access token.
pub const TOKEN_VARIABLE: &str = "WAWP_ACCESS_TOKEN";
/// The variable that holds the secrets of webhooks, one a line.
pub const WEBHOOK_SECRET_VARIABLE: &str = "LABELCAST_WEBHOOK_SECRET";
/// The variable that holds the token of the dashboard.
pub const DASHBOARD_TOKEN_VARIABLE: &str = "LABELCAST_DASHBOARD_TOKEN";
/// The variable that names the file with settings.
pub const CONFIG_VARIABLE: &str = "LABELCAST_CONFIG";

/// Maximum of `--concurrency`: each label holds a connection to the API and to the broker.
const MAX_CONCURRENCY: u64 = 16;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    Env,
    File(PathBuf),
    Default,
}

/// The environment.
type Env = Box<dyn Fn(&str) -> Option<String>>;

/// The values of all sources.
pub struct ConfigSources {
    flags: BTreeMap<&'static str, String>,
    env: Env,
    file: BTreeMap<&'static str, String>,
    file_path: PathBuf,
    /// Secrets by their variables, in place of those of the environment.
    secrets: BTreeMap<&'static str, SecretString>,
    errors: Vec<ConfigError>,
}

impl ConfigSources {
    /// Collects flags (by key), environment and, if there is one, a file.
    pub fn new(
        flags: BTreeMap<&'static str, String>,
        env: impl Fn(&str) -> Option<OsString> + 'static,
        config: Option<&Path>,
    ) -> Self {
        let mut errors = Vec::new();
        let others = [
            TOKEN_VARIABLE,
            CONFIG_VARIABLE,
            WEBHOOK_SECRET_VARIABLE,
            DASHBOARD_TOKEN_VARIABLE,
        ];
        let others = others
            .into_iter()
            .chain(PROXY_VARIABLES.into_iter().flatten());
        for name in SETTINGS.iter().map(|setting| setting.env).chain(others) {
            if env(name).is_some_and(|text| text.to_str().is_none()) {
                errors.push(ConfigError {
                    problem: format!("{name} is not UTF-8"),
                    fix: name.to_owned(),
                });
            }
        }
        // Many tools write an unset variable as an empty one.
        let env = move |name: &str| {
            let text = env(name)?.into_string().ok()?;
            (!text.is_empty()).then_some(text)
        };
        let file_path = config
            .map(Path::to_owned)
            .or_else(|| env(CONFIG_VARIABLE).map(PathBuf::from));
        let file = match &file_path {
            Some(path) => file::read(path, &mut errors),
            None => BTreeMap::new(),
        };
        Self {
            flags,
            env: Box::new(env),
            file,
            file_path: file_path.unwrap_or_default(),
            secrets: BTreeMap::new(),
            errors,
        }
    }

    /// Overrides a setting, as the demo does.
    pub fn set(&mut self, key: &'static str, value: impl Into<String>) {
        self.flags.insert(key, value.into());
    }

    /// Overrides a secret, by its variable.
    pub fn set_secret(&mut self, variable: &'static str, secret: &str) {
        self.secrets.insert(variable, SecretString::from(secret));
    }

    /// Whether something other than the default is set.
    pub fn is_set(&self, key: &str) -> bool {
        Setting::by_key(key).is_some_and(|setting| self.lookup(setting).1 != Origin::Default)
    }

    /// Returns a setting as it is written, unchecked; empty if it is unknown or not set.
    pub fn text(&self, key: &str) -> String {
        Setting::by_key(key).map_or_else(String::new, |setting| self.lookup(setting).0)
    }

    fn lookup(&self, setting: &'static Setting) -> (String, Origin) {
        if let Some(text) = self.flags.get(setting.key) {
            return (text.clone(), Origin::Flag);
        }
        if let Some(text) = (self.env)(setting.env) {
            return (text, Origin::Env);
        }
        if let Some(text) = self.file.get(setting.key) {
            return (text.clone(), Origin::File(self.file_path.clone()));
        }
        (setting.default.to_owned(), Origin::Default)
    }

    /// Returns all errors that were found.
    ///
    /// # Errors
    ///
    /// When there is at least one.
    pub fn finish(self) -> Result<(), ConfigErrors> {
        ConfigErrors::or_nothing(self.errors)
    }

    /// The settings of the API. Errors are collected for [`ConfigSources::finish`], here as below.
    pub fn api(&mut self) -> Option<ApiSettings> {
        let mut read = Reader::new(self);
        let url = read.api_url("api.url");
        let dialect = read.one_of(
            "api.dialect",
            &[
                ("wawp-v2", Dialect::WawpV2),
                ("wawp-v1", Dialect::WawpV1),
                ("waha", Dialect::Waha),
            ],
        );
        let instance_id = read.instance_id("api.instance_id");
        let token = read.token("api.access_token_file");
        let auth = read.one_of(
            "api.auth",
            &[("query", Auth::Query), ("bearer", Auth::Bearer)],
        );
        let connect_timeout = read.timeout("api.connect_timeout");
        let read_timeout = read.timeout("api.read_timeout");
        let retries = read.retries();
        let accept_empty = read.switch("run.accept_empty");
        let ignore_paging = read.switch("run.ignore_paging");
        let proxies = self.proxies();
        Some(ApiSettings {
            url: url?,
            dialect: dialect?,
            instance_id: instance_id?,
            token: token?,
            auth: auth?,
            connect_timeout: connect_timeout?,
            read_timeout: read_timeout?,
            retries: retries?,
            trust: Trust {
                accept_empty: accept_empty?,
                ignore_paging: ignore_paging?,
            },
            proxies: proxies?,
        })
    }

    fn proxies(&mut self) -> Option<Proxies> {
        let env = |name: &str| (self.env)(name).map(OsString::from);
        let problems = match Proxies::from_env(env) {
            Ok(proxies) => return Some(proxies),
            Err(problems) => problems,
        };
        for NotAProxy { variable, problem } in problems {
            self.errors.push(ConfigError {
                problem: format!("{variable} {problem}"),
                fix: format!("{variable}: correct it, or remove it to connect directly"),
            });
        }
        None
    }

    /// The settings of a run.
    pub fn run(&mut self, mode: RunMode) -> Option<RunSettings> {
        let mut read = Reader::new(self);
        let labels = read.labels("run.labels", "run.all_labels");
        let deadline = read.optional("run.deadline", Reader::duration);
        let selection = selection(&mut read, mode);
        let skip_label_check = read.switch("run.skip_label_check");
        let others = run_of_any_kind(&mut read);
        Some(RunSettings {
            labels: labels?,
            deadline: deadline?,
            selection: selection?,
            check_label: !skip_label_check?,
            dry_run: mode == RunMode::Dry,
            ..others?
        })
    }

    /// The settings of the sink.
    pub fn sink(&mut self) -> Option<SinkSettings> {
        sink::read(self)
    }

    /// The broker whose state has the counts of the account's labels.
    pub fn counts(&mut self) -> Option<Broker> {
        sink::read_for_counts(self)
    }

    /// The account, and the number of retries, for commands that do not use the API.
    pub fn account(&mut self) -> Option<(String, usize)> {
        let mut read = Reader::new(self);
        let instance_id = read.instance_id("api.instance_id");
        let retries = read.retries();
        Some((instance_id?, retries?))
    }

    /// The labels to purge; the inner value is `None` for all.
    pub fn purged_labels(&mut self) -> Option<Option<Vec<String>>> {
        let mut read = Reader::new(self);
        if read.text("run.labels").is_empty() {
            read.switch("run.all_labels")?;
            return Some(None);
        }
        match read.labels("run.labels", "run.all_labels")? {
            Labels::All => Some(None),
            Labels::These(labels) => Some(Some(labels)),
        }
    }

    /// The queue to read, with its whole name.
    pub fn tail(&mut self) -> Option<(Broker, String)> {
        let settings = self.sink()?;
        let mut read = Reader::new(self);
        if settings.queue.contains("{label_id}") || settings.queue.contains("{instance_id}") {
            read.error("sink.queue", "tail reads one queue, by its whole name");
            return None;
        }
        if read.is_set("sink.partitions") {
            read.error(
                "sink.partitions",
                "tail reads one stream: name it with --queue, as in 'labelcast:4:{0}', and give --partitions '' where the file has some",
            );
            return None;
        }
        let longest = settings.broker.address.longest_name();
        if settings.queue.len() > longest {
            read.error("sink.queue", &format!("is over {longest} bytes long"));
            return None;
        }
        Some((settings.broker, settings.queue))
    }

    /// The settings of the server, and which labels it follows.
    pub fn listen(&mut self) -> Option<(LiveSettings, ServerSettings)> {
        listen::read(self)
    }

    /// The settings of the worker that looks up contacts, and the address of its metrics.
    pub fn enrich(&mut self) -> Option<(EnrichSettings, Option<SocketAddr>)> {
        enrich::read(self)
    }

    /// The settings of the report.
    ///
    /// # Errors
    ///
    /// Where a setting is wrong, its default: the error itself has to be reported somewhere.
    pub fn report(&mut self) -> Result<ReportSettings, Box<ReportSettings>> {
        report::read(self)
    }

    /// The settings of the log.
    pub fn log(&mut self) -> Option<LogSettings> {
        let mut read = Reader::new(self);
        let json = read.optional("log.format", |read, key| {
            read.one_of(key, &[("text", false), ("json", true)])
        });
        let level = read.level("log.level");
        let quiet = read.switch("log.quiet");
        Some(LogSettings {
            json: json?,
            level: level?,
            quiet: quiet?,
        })
    }

    /// Checks settings that depend on each other.
    pub fn check_combinations(&mut self, mode: RunMode) {
        let mut read = Reader::new(self);
        sink::check_combinations(&mut read, mode);
    }
}

/// What a run does with the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunMode {
    /// Publishes them.
    Publish,
    /// Only counts their chats.
    Dry,
    /// Records them as known, and publishes nothing.
    Baseline,
}

/// Reads the settings that a run of any command has; the others have their defaults.
fn run_of_any_kind(read: &mut Reader<'_>) -> Option<RunSettings> {
    let shard = read.optional("run.shard", Reader::shard);
    let concurrency = read.number("run.concurrency", 1..=MAX_CONCURRENCY);
    let resume_window = read.duration("run.resume_window");
    let no_resume = read.switch("run.no_resume");
    let min_chats = read.number("run.min_chats", 0..=u64::MAX);
    let max_shrink = read.optional("run.max_shrink", Reader::percent);
    let max_invalid = read.number("run.max_invalid", 0..=u64::MAX);
    let resume_window = resume_window?;
    let resumes = !(no_resume? || resume_window.is_zero());
    Some(RunSettings {
        labels: Labels::All,
        shard: shard?,
        concurrency: usize::try_from(concurrency?).ok()?,
        deadline: None,
        resume_window: resumes.then_some(resume_window),
        selection: Selection::default(),
        min_chats: min_chats?,
        max_shrink: max_shrink?,
        max_invalid: max_invalid?,
        check_label: true,
        dry_run: false,
    })
}

/// Reads which chats are published, and what is recorded about the list.
fn selection(read: &mut Reader<'_>, mode: RunMode) -> Option<Selection> {
    let suppress_for = read.optional("run.suppress_for", Reader::duration);
    let min_age = read.optional("run.min_age", Reader::duration);
    let max_change = read.percent("run.max_change");
    let only_new = read.switch("run.only_new");
    let removed = read.switch("run.removed");
    let track = read.switch("state.track");
    let (only_new, removed, min_age) = (only_new?, removed?, min_age?);
    let is_kept = only_new || removed || track? || min_age.is_some() || mode == RunMode::Baseline;
    let membership = Membership {
        publish: match (mode, only_new) {
            (RunMode::Baseline, _) => Publish::Nothing,
            (_, true) => Publish::New,
            (_, false) => Publish::All,
        },
        removed,
        min_age,
        max_change: max_change?,
    };
    Some(Selection {
        suppress_for: suppress_for?,
        max_change: membership.max_change,
        membership: is_kept.then_some(membership),
    })
}

/// The settings of some groups, and some by their keys.
pub fn settings_of(
    groups: &[table::Group],
    keys: &[&str],
) -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .filter(move |setting| groups.contains(&setting.group) || keys.contains(&setting.key))
}
