//! Responses of real APIs, gateways and proxies, by kind. Each module is a table of such responses.

mod codings;
mod empty_lists;
mod entries;
mod gateways;
mod label_lists;
mod pages;
mod proxies;
mod sessions;
mod texts;
mod upgrade;

use labelcast::mock::Reply;

use crate::support::{Ended, Stage, TOKEN};

/// A run with scripted responses, and its expected outcome.
struct Case {
    name: String,
    labels: Option<Reply>,
    chats: Vec<Reply>,
    args: Vec<&'static str>,
    exit: i32,
    ids: Vec<&'static str>,
    says: Vec<String>,
    never: Vec<&'static str>,
}

impl Case {
    /// Sets the body of the response with the chats.
    fn body(body: &str, exit: i32) -> Self {
        Self::reply(Reply::json(body.to_owned()), exit).named(body)
    }

    /// Sets the response with the chats.
    fn reply(reply: Reply, exit: i32) -> Self {
        Self {
            name: format!("{reply:?}").chars().take(300).collect(),
            labels: None,
            chats: vec![reply],
            args: Vec::new(),
            exit,
            ids: Vec::new(),
            says: Vec::new(),
            never: Vec::new(),
        }
    }

    fn named(mut self, name: &str) -> Self {
        self.name = name.chars().take(300).collect();
        self
    }

    /// Sets the response to the request after this one.
    fn then(mut self, reply: Reply) -> Self {
        self.chats.push(reply);
        self
    }

    /// Sets the response to every request for the list of labels.
    fn labels(mut self, reply: Reply) -> Self {
        self.labels = Some(reply);
        self
    }

    fn args(mut self, args: &[&'static str]) -> Self {
        self.args.extend(args);
        self
    }

    /// Expects these ids to be published, in this order.
    fn ids(mut self, ids: &[&'static str]) -> Self {
        self.ids.extend(ids);
        self
    }

    /// Expects a text in the log or in the report.
    fn says(mut self, text: impl Into<String>) -> Self {
        self.says.push(text.into());
        self
    }

    /// Expects a text to be absent.
    fn never(mut self, text: &'static str) -> Self {
        self.never.push(text);
        self
    }

    #[track_caller]
    fn holds(self) -> Ended {
        let stage = Stage::with_chats(0);
        if let Some(labels) = &self.labels {
            // The list of labels is requested before the chats, and again if there are none.
            for _ in 0..2 {
                stage.mock.script_labels(labels.clone());
            }
        }
        let replies = self.chats.len();
        for reply in self.chats {
            stage.mock.script("1", reply);
        }
        let sink = format!("file:{}", stage.out().display());
        let mut run = stage
            .program("run")
            .args(["--sink", &sink, "--retries", "2"]);
        if !self.args.contains(&"--all-labels") {
            run = run.args(["--label", "1"]);
        }
        let ended = run.args(&self.args).end();
        let name = &self.name;
        assert_eq!(ended.code, Some(self.exit), "{name}: {ended:#?}");
        assert_eq!(stage.ids(), self.ids, "{name}: {ended:#?}");
        let told = format!("{}{}{}", ended.stderr, ended.stdout, ended.report);
        for text in &self.says {
            assert!(told.contains(text), "{name}: “{text}” is missing: {told}");
        }
        for text in self.never.into_iter().chain([TOKEN]) {
            assert!(
                !told.contains(text),
                "{name}: “{text}” must not appear: {told}"
            );
        }
        let asked = stage.mock.requests();
        let asked = asked
            .iter()
            .filter(|request| request.path.ends_with("/chats"));
        if self.exit == 0 {
            assert_eq!(asked.count(), replies, "{name}: each reply is requested");
        }
        ended
    }
}

/// Two chats, as an array.
const TWO: &str = r#"[{"id":"1@c.us"},{"id":"2@c.us"}]"#;
const TWO_IDS: &[&str] = &["1@c.us", "2@c.us"];
