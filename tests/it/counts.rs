//! Stored counts: written by runs and by `labels --counts`, and shown by `labels --cached`.

use std::collections::BTreeMap;
use std::time::SystemTime;

use labelcast::mock::{Chats, Reply};
use redis::Commands as _;
use serde_json::{Value, json};

use crate::support::redis::{Server, length};
use crate::support::{Ended, INSTANCE, Running, Stage, gated, small_list, wait_until};

const KEY: &str = "labelcast:labels:{inst-1}";

/// Starts `labels --cached`, for an account without a token and an API that nobody listens for.
fn cached(sink: &[&str]) -> Running {
    let program = Running::new("labels").args(["--cached", "--instance-id", INSTANCE]);
    program.args(["--api-url", "http://127.0.0.1:1"]).args(sink)
}

fn lines(ended: &Ended) -> Vec<Value> {
    let lines = ended.stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The stored number of chats of each label.
fn stored(url: &str) -> BTreeMap<String, u64> {
    let ended = cached(&["--json", "--sink", url]).end().expect(0);
    let lines = lines(&ended);
    let count = |line: &Value| {
        let label_id = line["label_id"].as_str().unwrap().to_owned();
        (label_id, line["chats"].as_u64().unwrap())
    };
    lines.iter().map(count).collect()
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> BTreeMap<String, u64> {
    counts.map(|(id, chats)| (id.to_owned(), chats)).into()
}

fn three_labels() -> Stage {
    Stage::with_labels(vec![
        ("22", Chats::Generated(10)),
        ("3", Chats::Generated(0)),
        ("1", Chats::Generated(4000)),
    ])
}

#[test]
fn live_counts_are_shown_again_without_the_api() {
    let (server, stage) = (Server::start(&[]), three_labels());
    let arguments = ["--counts", "--json", "--sink", &server.url()];
    let live = stage.program("labels").args(arguments).end().expect(0);
    let again = cached(&["--json", "--sink", &server.url()]).end().expect(0);
    let mut live = lines(&live);
    live.rotate_right(1);
    live.swap(1, 2);
    assert_eq!(lines(&again), live, "in the order of their ids");

    let times: Vec<&str> = live
        .iter()
        .map(|line| &line["counted_at"].as_str().unwrap()[..19])
        .collect();
    let chart = cached(&["--counts", "--sink", &server.url()]);
    let svg = stage.path("chart.svg");
    let chart = chart.args(["--svg", svg.to_str().unwrap()]).end().expect(0);
    let rows = [
        "LABEL  NAME        CHATS  COUNTED AT".to_owned(),
        format!(
            "1      name of 1    4000  {}Z  {}",
            times[0],
            "█".repeat(40)
        ),
        format!("3      name of 3       0  {}Z", times[1]),
        format!("22     name of 22     10  {}Z  ▏", times[2]),
    ];
    assert_eq!(chart.stdout, rows.join("\n") + "\n");
    let svg = std::fs::read_to_string(svg).unwrap();
    assert!(svg.contains("name of 22"), "{svg}");
}

#[test]
fn each_complete_run_stores_the_count_of_the_whole_list() {
    let (server, stage) = (Server::start(&[]), three_labels());
    let run = || stage.program("run").args(["--sink", &server.url()]);
    let before = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    let all = ["--all-labels", "--concurrency", "3"];
    run().args(all).end().expect(0);
    let whole = counts([("1", 4000), ("22", 10), ("3", 0)]);
    assert_eq!(stored(&server.url()), whole);
    let shown = cached(&["--json", "--sink", &server.url()]).end().expect(0);
    let first = &lines(&shown)[0];
    assert_eq!(first["label_name"], "name of 1");
    assert_eq!(first["color_hex"], "#64c4ff");
    assert!(first["counted_at"].as_str().unwrap() >= before.as_str());

    // Invalid entries are no chats, and chats that were left out are.
    let body = r#"[{"id":"1@c.us"},{"id":"2@c.us"},{"id":7},{"id":"3@c.us"}]"#;
    let suppressing = ["--max-invalid", "1", "--suppress-for", "1h"];
    for label in [["--label", "22"], ["--label", "22"]] {
        stage.mock.script("22", Reply::json(body));
        run().args(label).args(suppressing).end().expect(0);
        let expected = counts([("1", 4000), ("22", 3), ("3", 0)]);
        assert_eq!(stored(&server.url()), expected);
    }
}

#[test]
fn a_resumed_run_counts_the_whole_list() {
    let server = Server::start(&[]);
    let (_, body) = small_list(6000);
    let stage = Stage::with_body(&body);
    let (reply, _gate) = gated(&body);
    stage.mock.script("1", reply);
    let run = || {
        let run = stage.program("run").args(["--label", "1"]);
        run.args(["--sink", &server.url()])
    };
    let process = run().spawn();
    wait_until("the first half is published", || {
        length(&mut server.connection(), "labelcast:1") > 2000
    });
    process.signal("TERM");
    process.end().expect(75);
    assert_eq!(stored(&server.url()), counts([]), "it was not complete");
    let ended = run().end().expect(0);
    assert!(ended.label()["resumed"].as_u64() > Some(0), "{ended:?}");
    assert_eq!(stored(&server.url()), counts([("1", 6000)]));
}

#[test]
fn runs_that_do_not_see_a_whole_list_store_nothing() {
    let server = Server::start(&[]);
    let stage = Stage::with_labels(vec![("1", Chats::Generated(5))]);
    for (arguments, code) in [
        (["--dry-run", "--quiet"], 0),
        (["--min-chats", "6"], 80),
        (["--label", "9"], 80),
    ] {
        let run = stage.program("run").args(["--sink", &server.url()]);
        let run = match arguments[0] {
            "--label" => run,
            _ => run.args(["--label", "1"]),
        };
        run.args(arguments).end().expect(code);
        let is_there: bool = server.connection().exists(KEY).unwrap();
        assert!(!is_there, "{arguments:?}");
    }
}

#[test]
fn names_are_kept_by_runs_that_do_not_know_them() {
    let (server, stage) = (Server::start(&[]), three_labels());
    let live = ["--counts", "--sink", &server.url()];
    stage.program("labels").args(live).end().expect(0);
    stage.mock.set_chats("22", &Chats::Generated(7));
    let run = stage.program("run").args(["--skip-label-check", "--label"]);
    run.args(["22", "--sink", &server.url()]).end().expect(0);
    let shown = cached(&["--json", "--sink", &server.url()]).end().expect(0);
    let mut last = lines(&shown).pop().unwrap();
    last["counted_at"] = json!("");
    assert_eq!(
        last,
        json!({"label_id": "22", "label_name": "name of 22", "color_hex": "#64c4ff",
               "chats": 7, "counted_at": ""})
    );
}

#[test]
fn live_counts_drop_labels_that_are_gone_and_keep_those_that_failed() {
    let (server, stage) = (Server::start(&[]), three_labels());
    let live = || {
        let arguments = ["--counts", "--sink", &server.url()];
        stage.program("labels").args(arguments)
    };
    live().end().expect(0);
    let list = r#"[{"id":"1","name":"new"},{"id":"22"}]"#;
    stage.mock.script_labels(Reply::json(list));
    stage.mock.script("1", Reply::json("[]"));
    stage.mock.script("22", Reply::json("{\"success\":false}"));
    live().end().expect(76);
    assert_eq!(stored(&server.url()), counts([("1", 0), ("22", 10)]));
}

#[test]
fn counts_expire_after_the_retention() {
    let (server, stage) = (Server::start(&[]), three_labels());
    let mut connection = server.connection();
    let mut left = |retain: &str| {
        let run = stage.program("run").args(["--label", "1", "--retain"]);
        run.args([retain, "--sink", &server.url()]).end().expect(0);
        let by_run: i64 = connection.ttl(KEY).unwrap();
        let live = ["--counts", "--retain", retain, "--sink", &server.url()];
        stage.program("labels").args(live).end().expect(0);
        [by_run, connection.ttl(KEY).unwrap()]
    };
    for left in left("2h") {
        assert!((7000..=7200).contains(&left), "{left}");
    }
    assert_eq!(left("forever"), [-1, -1]);
    for left in left("7d") {
        assert!((604_000..=604_800).contains(&left), "{left}");
    }
}

#[test]
fn counts_are_in_the_state_where_there_is_one() {
    let (server, stage) = (Server::start(&[]), three_labels());
    let state = ["--state", &server.url()];
    let run = stage.run().args(state);
    run.end().expect(0);
    let other = Server::start(&[]);
    let live = stage.program("labels").args(["--counts"]).args(state);
    live.args(["--sink", &other.url()]).end().expect(0);
    let shown = cached(&["--json"]).args(state).end().expect(0);
    assert_eq!(lines(&shown).len(), 3);
    let keys: Vec<String> = other.connection().keys("*").unwrap();
    assert!(keys.is_empty(), "{keys:?}");
}

#[test]
fn an_account_has_counts_of_its_own() {
    let (server, stage) = (Server::start(&[]), three_labels());
    let live = ["--counts", "--sink", &server.url()];
    stage.program("labels").args(live).end().expect(0);
    let other = Running::new("labels").args(["--cached", "--instance-id", "inst-2"]);
    let ended = other.args(["--sink", &server.url()]).end().expect(0);
    assert_eq!(ended.stdout, "LABEL  NAME  CHATS  COUNTED AT\n");
    assert!(ended.stderr.contains("no counts are stored"), "{ended:?}");
}

#[test]
fn a_count_that_cannot_be_stored_is_a_warning() {
    let (server, stage) = (Server::start(&[]), three_labels());
    let _: () = server.connection().set(KEY, "something else").unwrap();
    let run = stage.program("run").args(["--label", "1"]);
    let ended = run.args(["--sink", &server.url()]).end().expect(0);
    assert!(ended.stderr.contains("cannot store the count"), "{ended:?}");
    let live = ["--counts", "--sink", &server.url()];
    let ended = stage.program("labels").args(live).end().expect(0);
    assert!(ended.stderr.contains("cannot store the counts"));
    assert_eq!(ended.stdout.lines().count(), 4);
}

#[test]
fn cached_counts_need_a_state_and_an_account() {
    for sink in ["-", "file:/nowhere/x", "amqp://localhost"] {
        let ended = cached(&["--sink", sink]).end().expect(78);
        let fix = "use a Redis sink in --sink, or --state";
        assert!(ended.stderr.contains(fix), "{}", ended.stderr);
    }
    let ended = Running::new("labels").args(["--cached"]).end().expect(78);
    assert!(ended.stderr.contains("--instance-id"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("token"), "{}", ended.stderr);
    let nobody = ["--sink", "redis://127.0.0.1:1", "--retries", "1"];
    cached(&nobody).end().expect(69);
    cached(&["--sink", "kafka://x"]).end().expect(78);
}
