//! `labelcast labels`.

use labelcast::mock::{Chats, Reply};

use crate::support::Stage;

#[test]
fn a_table_for_people_and_lines_for_machines() {
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
        serde_json::json!({"label_id": "1", "label_name": "name of 1", "color": "#64c4ff"})
    );
}

#[test]
fn a_passing_failure_is_tried_again_and_a_name_cannot_move_the_cursor() {
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
fn a_list_that_is_none() {
    for (body, code) in [("<html>", 65), ("{\"success\":false}", 76), ("[{}]", 65)] {
        let stage = Stage::with_labels(vec![]);
        stage.mock.script_labels(Reply::json(body));
        stage.program("labels").end().expect(code);
    }
    let stage = Stage::with_labels(vec![]);
    let endless = vec![b' '; 2 * 1024 * 1024];
    stage.mock.script_labels(Reply::json(endless));
    stage.program("labels").end().expect(65);
}
