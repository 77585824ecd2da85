//! What real APIs, gateways and proxies answer, by kind. Each module is a table of such answers.

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

/// A run over scripted answers, and what it has to come to.
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
    /// The chats are answered with this body.
    fn body(body: &str, exit: i32) -> Self {
        Self::reply(Reply::json(body.to_owned()), exit).named(body)
    }

    /// The chats are answered with this reply.
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

    /// The request after this one is answered with this reply.
    fn then(mut self, reply: Reply) -> Self {
        self.chats.push(reply);
        self
    }

    /// The list of labels is answered with this reply, each time.
    fn labels(mut self, reply: Reply) -> Self {
        self.labels = Some(reply);
        self
    }

    fn args(mut self, args: &[&'static str]) -> Self {
        self.args.extend(args);
        self
    }

    /// These are published, in this order.
    fn ids(mut self, ids: &[&'static str]) -> Self {
        self.ids.extend(ids);
        self
    }

    /// This stands in the log or in the report.
    fn says(mut self, text: impl Into<String>) -> Self {
        self.says.push(text.into());
        self
    }

    /// This stands nowhere.
    fn never(mut self, text: &'static str) -> Self {
        self.never.push(text);
        self
    }

    #[track_caller]
    fn holds(self) -> Ended {
        let stage = Stage::with_chats(0);
        if let Some(labels) = &self.labels {
            // Asked for before the chats, and again where there are none.
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
            assert!(told.contains(text), "{name} does not say {text}: {told}");
        }
        for text in self.never.into_iter().chain([TOKEN]) {
            assert!(!told.contains(text), "{name} says {text}: {told}");
        }
        let asked = stage.mock.requests();
        let asked = asked
            .iter()
            .filter(|request| request.path.ends_with("/chats"));
        if self.exit == 0 {
            assert_eq!(asked.count(), replies, "{name}: each reply is asked for");
        }
        ended
    }
}

/// Two chats, as an array.
const TWO: &str = r#"[{"id":"1@c.us"},{"id":"2@c.us"}]"#;
const TWO_IDS: &[&str] = &["1@c.us", "2@c.us"];
