//! Conversion of texts to values. Each invalid text is an error.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::table::Setting;
use super::{ConfigSources, Labels, Origin, TOKEN_VARIABLE};
use crate::config_error::ConfigError;
use crate::shard::Shard;

/// The maximum duration.
const MAX_DURATION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The minimum retention. Brokers count it in milliseconds and seconds, and 0 would mean forever.
const MIN_RETAIN: Duration = Duration::from_secs(1);

/// Reads settings by key. `None` means that an error was recorded.
pub(super) struct Reader<'a> {
    sources: &'a mut ConfigSources,
}

/// Whether this is a word for a switch that is off.
fn is_off(text: &str) -> bool {
    ["", "false", "0", "no", "off"].contains(&text.to_lowercase().as_str())
}

/// An optional value; the outer `None` means that an error was recorded.
pub(super) type Optional<T> = Option<Option<T>>;

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a mut ConfigSources) -> Self {
        Self { sources }
    }

    pub(super) fn get(&self, key: &'static str) -> (&'static Setting, String, Origin) {
        let setting = Setting::by_key(key).unwrap_or(&super::SETTINGS[0]);
        debug_assert_eq!(setting.key, key, "a key that is not in the table");
        let (text, origin) = self.sources.lookup(setting);
        (setting, text, origin)
    }

    /// Records an error of a setting.
    pub(super) fn error(&mut self, key: &'static str, problem: &str) {
        let (setting, text, origin) = self.get(key);
        let place = match &origin {
            Origin::Flag => format!("--{}", setting.flag),
            Origin::Env => setting.env.to_owned(),
            Origin::File(path) => format!("{} in {}", setting.key, path.display()),
            Origin::Default => format!("--{}", setting.flag),
        };
        let value = if setting.is_sensitive || text.is_empty() || setting.is_switch() {
            String::new()
        } else {
            format!(" “{text}”")
        };
        self.sources.errors.push(ConfigError {
            problem: format!("{place}{value}: {problem}"),
            fix: setting.ways(),
        });
    }

    /// Returns whether a value other than the default is set.
    pub(super) fn is_set(&self, key: &'static str) -> bool {
        let (setting, text, origin) = self.get(key);
        let is_off = setting.is_switch() && is_off(&text);
        origin != Origin::Default && text != setting.default && !is_off
    }

    pub(super) fn required(&mut self, key: &'static str) -> Option<String> {
        let (_, text, _) = self.get(key);
        if text.trim().is_empty() {
            self.error(key, "is required");
            return None;
        }
        Some(text)
    }

    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&mut Self, &'static str) -> Option<T>,
    ) -> Optional<T> {
        let (_, text, _) = self.get(key);
        if text.is_empty() {
            Some(None)
        } else {
            read(self, key).map(Some)
        }
    }

    pub(super) fn switch(&mut self, key: &'static str) -> Option<bool> {
        let (_, text, _) = self.get(key);
        match text.to_lowercase().as_str() {
            _ if is_off(&text) => Some(false),
            "true" | "1" | "yes" | "on" => Some(true),
            _ => {
                self.error(key, "is not true or false");
                None
            }
        }
    }

    pub(super) fn one_of<T: Copy>(&mut self, key: &'static str, values: &[(&str, T)]) -> Option<T> {
        let (_, text, _) = self.get(key);
        let found = values.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
            self.error(key, &format!("is not one of {}", names.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let (_, text, _) = self.get(key);
        let number = text.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let what = match (*range.start(), *range.end()) {
                (0, u64::MAX) => "is not a whole number".to_owned(),
                (start, end) => format!("is not a whole number from {start} to {end}"),
            };
            self.error(key, &what);
        }
        number
    }

    pub(super) fn retries(&mut self) -> Option<usize> {
        usize::try_from(self.number("api.retries", 0..=1000)?).ok()
    }

    pub(super) fn percent(&mut self, key: &'static str) -> Option<u8> {
        let (_, text, _) = self.get(key);
        let text = text.trim_end_matches('%').trim_end();
        let percent = text.parse().ok().filter(|percent| *percent <= 100);
        if percent.is_none() {
            self.error(key, "is not a whole percentage from 0 to 100");
        }
        percent
    }

    pub(super) fn duration(&mut self, key: &'static str) -> Option<Duration> {
        let (_, text, _) = self.get(key);
        match humantime::parse_duration(&text) {
            Ok(duration) if duration <= MAX_DURATION => Some(duration),
            Ok(_) => {
                self.error(key, "is longer than ten years");
                None
            }
            Err(_) => {
                self.error(key, "is not a duration such as 30s, 15m, 2h or 7d");
                None
            }
        }
    }

    /// Reads a duration above zero.
    pub(super) fn timeout(&mut self, key: &'static str) -> Option<Duration> {
        let timeout = self.duration(key)?;
        if timeout.is_zero() {
            self.error(key, "must be longer than zero");
            return None;
        }
        Some(timeout)
    }

    /// Reads an address to listen on.
    pub(super) fn address(&mut self, key: &'static str) -> Option<SocketAddr> {
        let address = self.text(key).parse().ok();
        if address.is_none() {
            let problem = "is not an address with a port, such as 127.0.0.1:8080 or [::]:8080";
            self.error(key, problem);
        }
        address
    }

    /// Reads names that are separated by commas.
    pub(super) fn names(
        &mut self,
        key: &'static str,
        known: &[&'static str],
    ) -> Option<Vec<&'static str>> {
        let text = self.text(key);
        let names = text
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty());
        let names: Option<Vec<&'static str>> = names
            .map(|name| known.iter().copied().find(|known| *known == name))
            .collect();
        if names.is_none() {
            let problem = format!("has a name that is not one of {}", known.join(", "));
            self.error(key, &problem);
        }
        names
    }

    /// Returns the text of a setting.
    pub(super) fn text(&self, key: &'static str) -> String {
        self.get(key).1
    }

    pub(super) fn retain(&mut self, key: &'static str) -> Optional<Duration> {
        match self.get(key).1.as_str() {
            "forever" => Some(None),
            _ => {
                let retain = self.duration(key)?;
                if retain < MIN_RETAIN {
                    self.error(key, "is shorter than one second");
                    return None;
                }
                Some(Some(retain))
            }
        }
    }

    pub(super) fn shard(&mut self, key: &'static str) -> Option<Shard> {
        let shard = self.get(key).1.parse().ok();
        if shard.is_none() {
            self.error(
                key,
                "is not INDEX/COUNT, with an index from 0 to below the count",
            );
        }
        shard
    }

    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        Some(PathBuf::from(self.get(key).1))
    }

    pub(super) fn level(&mut self, key: &'static str) -> Option<tracing::Level> {
        let (_, text, _) = self.get(key);
        // RUST_LOG is usually set for one program, but may name several, as in
        // `warn,labelcast=debug`. The last level that applies to labelcast or to all programs
        // counts.
        let mut levels = text
            .split(',')
            .filter_map(|part| match part.trim().split_once('=') {
                Some(("labelcast", level)) => Some(level),
                Some(_) => None,
                None => Some(part.trim()),
            })
            .filter_map(|level| match level {
                "off" => Some(tracing::Level::ERROR),
                level => level.parse().ok(),
            });
        let level = levels.next_back();
        if level.is_none() && !text.contains([',', '=']) {
            self.error(key, "is not one of error, warn, info, debug, trace");
            return None;
        }
        Some(level.unwrap_or(tracing::Level::INFO))
    }

    pub(super) fn api_url(&mut self, key: &'static str) -> Option<Url> {
        let (_, text, _) = self.get(key);
        let problem = match Url::parse(&text) {
            Err(_) => "is not a URL",
            Ok(url) if !["http", "https"].contains(&url.scheme()) => "is not an http or https URL",
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                return self.secret_in_url(key);
            }
            Ok(url) if url.query().is_some() || url.fragment().is_some() => {
                return self.secret_in_url(key);
            }
            Ok(url) => return Some(url),
        };
        self.error(key, problem);
        None
    }

    /// Reads the Pushgateway's URL, which may contain a user and a password.
    pub(super) fn push_url(&mut self, key: &'static str) -> Option<Url> {
        let url = Url::parse(&self.get(key).1).ok();
        let url = url.filter(|url| ["http", "https"].contains(&url.scheme()));
        let url = url.filter(|url| url.query().is_none() && url.fragment().is_none());
        if url.is_none() {
            self.error(key, "is not an http or https URL without a query");
        }
        url
    }

    /// Reads an instance id, which is used in headers and paths.
    pub(super) fn instance_id(&mut self, key: &'static str) -> Option<String> {
        let id = self.required(key)?;
        if id.chars().any(char::is_control) || !id.is_ascii() {
            self.error(
                key,
                "contains characters that are not allowed in an HTTP header",
            );
            return None;
        }
        Some(id)
    }

    /// Records an error of a URL that may contain a secret, so the URL is not shown.
    fn secret_in_url(&mut self, key: &'static str) -> Option<Url> {
        let (setting, ..) = self.get(key);
        self.sources.errors.push(ConfigError {
            problem: format!(
                "--{}: must not contain a user, a password, a query or a fragment; set the token with {TOKEN_VARIABLE}",
                setting.flag
            ),
            fix: setting.ways(),
        });
        None
    }

    pub(super) fn token(&mut self, file_key: &'static str) -> Option<SecretString> {
        let (setting, path, origin) = self.get(file_key);
        let is_from_file = origin == Origin::Flag || (self.sources.env)(TOKEN_VARIABLE).is_none();
        let text = match self.secret(file_key, TOKEN_VARIABLE)? {
            Some(text) => text,
            None => {
                self.sources.errors.push(ConfigError {
                    problem: "the access token is required".to_owned(),
                    fix: format!(
                        "{TOKEN_VARIABLE}, or a file that contains it: {}",
                        setting.ways()
                    ),
                });
                return None;
            }
        };
        let from = match is_from_file && !path.is_empty() {
            true => format!("the file of --{}", setting.flag),
            false => TOKEN_VARIABLE.to_owned(),
        };
        let token = text.trim_start_matches('\u{feff}').trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            self.sources.errors.push(ConfigError {
                problem: format!(
                    "{from} does not contain a valid access token, which is one word of ASCII characters"
                ),
                fix: format!("{TOKEN_VARIABLE}, or {}", setting.ways()),
            });
            return None;
        }
        Some(SecretString::from(token))
    }

    /// Reads a secret from the file that a setting names, or from a variable. A flag overrides the
    /// variable. The inner value is `None` if there is neither.
    pub(super) fn secret(&mut self, file_key: &'static str, variable: &str) -> Optional<String> {
        if let Some(secret) = self.sources.secrets.get(variable) {
            return Some(Some(secret.expose_secret().to_owned()));
        }
        let (_, path, origin) = self.get(file_key);
        match (path.as_str(), (self.sources.env)(variable)) {
            (_, Some(text)) if origin != Origin::Flag => Some(Some(text)),
            ("", text) => Some(text),
            _ => match std::fs::read_to_string(&path) {
                Ok(text) => Some(Some(text.trim_start_matches('\u{feff}').to_owned())),
                Err(error) => {
                    self.error(file_key, &format!("cannot be read: {error}"));
                    None
                }
            },
        }
    }

    pub(super) fn labels(&mut self, key: &'static str, all: &'static str) -> Option<Labels> {
        let all_labels = self.switch(all);
        let (_, text, _) = self.get(key);
        let mut ids: Vec<String> = Vec::new();
        for id in text.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            if !ids.iter().any(|known| known == id) {
                ids.push(id.to_owned());
            }
        }
        // These have a special meaning in a URL's path.
        if ids.iter().any(|id| id == "." || id == "..") {
            self.error(key, "a label's id must not be . or ..");
            return None;
        }
        match (all_labels?, ids.is_empty()) {
            (true, true) => Some(Labels::All),
            (false, false) => Some(Labels::These(ids)),
            (true, false) => {
                // Of different sources, the one with precedence counts.
                let precedence = |origin: &Origin| match origin {
                    Origin::Flag => 3,
                    Origin::Env => 2,
                    Origin::File(_) => 1,
                    Origin::Default => 0,
                };
                let (all, these) = (precedence(&self.get(all).2), precedence(&self.get(key).2));
                match all.cmp(&these) {
                    std::cmp::Ordering::Greater => Some(Labels::All),
                    std::cmp::Ordering::Less => Some(Labels::These(ids)),
                    std::cmp::Ordering::Equal => {
                        self.error(key, "cannot be combined with --all-labels");
                        None
                    }
                }
            }
            (false, true) => {
                self.error(key, "a label is required, or --all-labels");
                None
            }
        }
    }
}
