//! The configuration file, and an example file.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::TOKEN_VARIABLE;
use super::table::{Group, SETTINGS, Setting};
use crate::config_error::ConfigError;

/// Reads a file into texts by key. Unreadable values and unknown keys are errors.
pub(super) fn read(path: &Path, errors: &mut Vec<ConfigError>) -> BTreeMap<&'static str, String> {
    let mut found = BTreeMap::new();
    let mut report = |problem: String, fix: String| errors.push(ConfigError { problem, fix });
    let shown = path.display();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            report(
                format!("cannot read the file {shown}: {error}"),
                "--config, or LABELCAST_CONFIG".to_owned(),
            );
            return found;
        }
    };
    let tables: Table = match text.parse() {
        Ok(tables) => tables,
        Err(error) => {
            let error: toml::de::Error = error;
            // The whole message would quote the line, which may contain a password.
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            report(
                format!("{shown}, line {line}: {}", error.message()),
                String::new(),
            );
            return found;
        }
    };
    for (table, value) in &tables {
        let Value::Table(keys) = value else {
            report(format!("{shown}: {}", unknown(table)), String::new());
            continue;
        };
        if keys.is_empty() && !Group::ALL.iter().any(|group| group.table() == table) {
            report(format!("{shown}: {}", unknown(table)), String::new());
        }
        for (key, value) in keys {
            let key = format!("{table}.{key}");
            let Some(setting) = Setting::by_key(&key) else {
                report(format!("{shown}: {}", unknown(&key)), String::new());
                continue;
            };
            match text_of(setting, value) {
                Some(text) => {
                    found.insert(setting.key, text);
                }
                None => report(
                    format!("{shown}: {key} takes {}", kind_of(setting)),
                    setting.ways(),
                ),
            }
        }
    }
    found
}

fn text_of(setting: &Setting, value: &Value) -> Option<String> {
    match value {
        Value::Boolean(flag) if setting.is_switch() => Some(flag.to_string()),
        Value::String(text) if !setting.is_switch() => Some(text.clone()),
        Value::Integer(number) if !setting.is_switch() => Some(number.to_string()),
        Value::Array(values) if setting.is_list => {
            let texts: Option<Vec<String>> = values
                .iter()
                .map(|value| match value {
                    Value::String(text) => Some(text.clone()),
                    Value::Integer(number) => Some(number.to_string()),
                    _ => None,
                })
                .collect();
            texts.map(|texts| texts.join(","))
        }
        _ => None,
    }
}

fn kind_of(setting: &Setting) -> &'static str {
    if setting.is_switch() {
        "true or false"
    } else if setting.is_list {
        "a text, or a list of texts"
    } else {
        "a text or a number"
    }
}

fn unknown(key: &str) -> String {
    if key.ends_with("access_token") || key.ends_with("token") {
        return format!(
            "{key} is not allowed in a configuration file; use {TOKEN_VARIABLE} or api.access_token_file"
        );
    }
    let wanted = key.rsplit('.').next().unwrap_or(key).replace('-', "_");
    let similar = SETTINGS
        .iter()
        .map(|setting| setting.key)
        .find(|known| known.rsplit('.').next() == Some(&wanted) || *known == key.replace('-', "_"));
    match similar {
        Some(similar) => format!("unknown key {key}; did you mean {similar}?"),
        None => format!("unknown key {key}"),
    }
}

/// Returns an example of a list: its default, else its possible values, else some ids.
fn list_example(setting: &Setting) -> String {
    let names = match (setting.default, setting.takes) {
        ("", "ID") => "1,2",
        ("", possible) => possible,
        (default, _) => default,
    };
    let names: Vec<String> = names.split(',').map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", names.join(", "))
}

/// Returns an example file with every setting, commented out.
pub fn example() -> String {
    let mut text = "\
# Settings of labelcast. Each key is shown with its default. A key without a default is shown with a
# placeholder in capitals, or with its possible values.
# Flags override environment variables, and these override this file.
#
# Do not put secrets here: the access token comes from WAWP_ACCESS_TOKEN or a file, and a sink URL with a
# password can come from a file too.
"
    .to_owned();
    for group in Group::ALL {
        text.push_str(&format!("\n[{}]\n", group.table()));
        for setting in SETTINGS
            .iter()
            .filter(|setting| setting.table() == group.table())
        {
            let key = setting.key.rsplit('.').next().unwrap_or(setting.key);
            text.push_str(&format!(
                "# {}.\n# --{}, {}\n",
                setting.help, setting.flag, setting.env
            ));
            let value = match setting.default {
                _ if setting.is_switch() => "false".to_owned(),
                _ if setting.is_list => list_example(setting),
                "" => format!("\"{}\"", setting.takes),
                number if number.parse::<u64>().is_ok() => number.to_owned(),
                text => format!("\"{text}\""),
            };
            text.push_str(&format!("#{key} = {value}\n\n"));
        }
        text.pop();
    }
    text
}
