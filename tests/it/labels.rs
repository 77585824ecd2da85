//! The command `labelcast labels`.

use labelcast::mock::{Chats, Reply};

use crate::support::Stage;

#[test]
fn labels_are_printed_as_a_table_or_as_json_lines() {
    let stage = Stage::with_labels(vec![
        ("1", Chats::Generated(1)),
        ("22", Chats::Generated(1)),
    ]);
    let ended = stage.program("labels").end().expect(0);
    assert_eq!(
        ended.stdout,
        "LABEL  NAME\n1      name of 1\n22     name of 22\n"
    );
    let ended = stage.program("labels").args(["--json"]).end().expect(0);
    let first: serde_json::Value =
        serde_json::from_str(ended.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        first,
        serde_json::json!({"label_id": "1", "label_name": "name of 1", "color_hex": "#64c4ff"})
    );
}

#[test]
fn transient_errors_are_retried_and_names_are_printable() {
    let stage = Stage::with_labels(vec![]);
    let busy = Reply::json("busy").status(503).header("retry-after", "0");
    stage.mock.script_labels(busy);
    stage
        .mock
        .script_labels(Reply::json("[{\"id\":\"1\",\"name\":\"a\\u001b[2Jb\"}]"));
    let ended = stage.program("labels").end().expect(0);
    assert_eq!(ended.stdout, "LABEL  NAME\n1      a [2Jb\n");
}

#[test]
fn a_response_that_is_not_a_list_is_an_error() {
    for (body, code) in [("<html>", 76), ("{\"success\":false}", 76), ("[{}]", 65)] {
        let stage = Stage::with_labels(vec![]);
        stage.mock.script_labels(Reply::json(body));
        stage.program("labels").end().expect(code);
    }
    let stage = Stage::with_labels(vec![]);
    let endless = vec![b' '; 2 * 1024 * 1024];
    stage.mock.script_labels(Reply::json(endless));
    stage.program("labels").end().expect(65);
}

fn six_labels() -> Stage {
    Stage::with_labels(vec![
        ("1", Chats::Generated(4000)),
        ("22", Chats::Generated(0)),
        ("3", Chats::Generated(1)),
        ("4", Chats::Generated(1010)),
        ("5", Chats::Generated(2000)),
        ("6", Chats::Generated(3000)),
    ])
}

#[test]
fn counts_are_printed_as_a_chart() {
    let ended = six_labels()
        .program("labels")
        .args(["--counts"])
        .end()
        .expect(0);
    let bar = |full: usize, rest: &str| format!("{}{rest}", "█".repeat(full));
    let rows = [
        "LABEL  NAME        CHATS".to_owned(),
        format!("1      name of 1    4000  {}", bar(40, "")),
        "22     name of 22      0".to_owned(),
        format!("3      name of 3       1  {}", bar(0, "▏")),
        format!("4      name of 4    1010  {}", bar(10, "")),
        format!("5      name of 5    2000  {}", bar(20, "")),
        format!("6      name of 6    3000  {}", bar(30, "")),
    ];
    assert_eq!(ended.stdout, rows.join("\n") + "\n");
    assert!(ended.stderr.is_empty(), "{}", ended.stderr);
}

#[test]
fn counts_are_printed_as_json() {
    let arguments = ["--counts", "--json"];
    let ended = six_labels()
        .program("labels")
        .args(arguments)
        .end()
        .expect(0);
    let lines: Vec<serde_json::Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let chats: Vec<u64> = lines
        .iter()
        .map(|line| line["chats"].as_u64().unwrap())
        .collect();
    assert_eq!(chats, [4000, 0, 1, 1010, 2000, 3000]);
    let first = lines[0].as_object().unwrap();
    let keys: Vec<&str> = first.keys().map(String::as_str).collect();
    let expected = ["chats", "color_hex", "counted_at", "label_id", "label_name"];
    assert_eq!(keys, expected);
    assert!(humantime::parse_rfc3339(first["counted_at"].as_str().unwrap()).is_ok());
}

#[test]
fn a_label_that_cannot_be_counted_does_not_stop_the_others() {
    let stage = six_labels();
    stage.mock.script("3", Reply::json("{\"success\":false}"));
    let ended = stage
        .program("labels")
        .args(["--counts", "--json"])
        .end()
        .expect(76);
    let third = ended.stdout.lines().nth(2).unwrap();
    let third: serde_json::Value = serde_json::from_str(third).unwrap();
    assert_eq!(third["chats"], serde_json::Value::Null);
    assert!(third["error"].is_string(), "{third}");
    assert_eq!(ended.stdout.lines().count(), 6, "the others are counted");
    stage.mock.script("3", Reply::json("{\"success\":false}"));
    let ended = stage.program("labels").args(["--counts"]).end().expect(76);
    assert!(
        ended.stdout.contains("\n3      name of 3       ?\n"),
        "{}",
        ended.stdout
    );
}

#[test]
fn counts_are_drawn_to_a_file() {
    let stage = Stage::with_labels(vec![
        ("<1>", Chats::Generated(7)),
        ("2", Chats::Generated(3)),
    ]);
    let path = stage.path("chart.svg");
    let arguments = ["--counts", "--svg", path.to_str().unwrap()];
    stage.program("labels").args(arguments).end().expect(0);
    let picture = std::fs::read_to_string(&path).unwrap();
    assert!(
        picture.starts_with("<svg ") && picture.ends_with("</svg>\n"),
        "{picture}"
    );
    assert!(picture.contains("name of &lt;1&gt;"), "{picture}");
    assert_eq!(
        picture.matches("fill=\"#64c4ff\"").count(),
        2,
        "the label's own colour"
    );
    assert!(picture.contains("width=\"400\"") && picture.contains("width=\"171\""));
    let arguments = ["--counts", "--svg", "/nowhere/chart.svg"];
    stage.program("labels").args(arguments).end().expect(74);
    stage
        .program("labels")
        .args(["--svg", "x"])
        .end()
        .expect(64);
}

#[test]
fn counting_is_cut_short_by_a_signal() {
    let stage = six_labels();
    stage
        .mock
        .script("1", Reply::pieces([labelcast::mock::Piece::Hold]));
    let process = stage.program("labels").args(["--counts", "--json"]).spawn();
    crate::support::wait_until("the labels are being counted", || {
        stage.mock.requests().len() > 4
    });
    process.signal("TERM");
    let ended = process.end().expect(75);
    assert!(
        ended
            .stdout
            .lines()
            .next()
            .unwrap()
            .contains("\"chats\":null")
    );
}
