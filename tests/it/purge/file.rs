//! The lines of old runs in a file.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use labelcast::mock::Chats;
use serde_json::{Value, json};

use super::{purge, said};
use crate::support::{
    Running, Stage, gated, gated_after, lines_in, map_of, small_list, wait_until,
};

const ALL: [&str; 2] = ["--older-than", "0s"];

fn of(stage: &Stage) -> Running {
    purge(&format!("file:{}", stage.out().display()))
}

/// The id of a run some days ago.
fn run_id(days: u64) -> String {
    let age = Duration::from_secs(days * 24 * 3600);
    let at = (SystemTime::now() - age)
        .duration_since(UNIX_EPOCH)
        .unwrap();
    let millis = u64::try_from(at.as_millis()).unwrap();
    let run_id = uuid::Builder::from_unix_timestamp_millis(millis, &[7; 10]);
    run_id.into_uuid().to_string()
}

fn line(days: u64, label: &str) -> String {
    let run_id = run_id(days);
    format!("{{\"chat_id\":\"1@c.us\",\"label_id\":\"{label}\",\"run_id\":\"{run_id}\"}}\n")
}

#[test]
fn lines_of_old_runs_are_dropped_and_all_others_stay() {
    let stage = Stage::with_chats(3);
    let run_id = run_id(40);
    let data = json!({"chat_ids": ["1@c.us"], "label_id": "1", "run_id": run_id});
    let event = json!({"specversion": "1.0", "data": data});
    let old = [line(40, "1"), format!("{data}\n"), format!("{event}\n")];
    let kept = [
        line(20, "1"),
        line(40, "2"),
        "\n".to_owned(),
        "not JSON\n".to_owned(),
        format!("{}\n", json!({"label_id": "1", "run_id": run_id})),
        format!(
            "{}\n",
            json!({"chat_id": "1@c.us", "label_id": "1", "run_id": "x"})
        ),
        "{\"chat_id\":\"1@c.us\",\"label".to_owned(),
    ];
    let text = [
        &old[0], &kept[0], &kept[1], &old[1], &kept[2], &kept[3], &old[2], &kept[4], &kept[5],
        &kept[6],
    ];
    std::fs::write(stage.out(), text.map(String::as_str).concat()).unwrap();
    let mode = std::fs::Permissions::from_mode(0o640);
    std::fs::set_permissions(stage.out(), mode).unwrap();

    let arguments = ["--older-than", "30d", "--label", "1"];
    let before = std::fs::read(stage.out()).unwrap();
    let ended = of(&stage)
        .args(arguments)
        .args(["--dry-run"])
        .end()
        .expect(0);
    assert_eq!(said(&ended), json!({"messages": 3}));
    assert_eq!(std::fs::read(stage.out()).unwrap(), before);
    let ended = of(&stage).args(arguments).end().expect(0);
    assert_eq!(said(&ended), json!({"messages": 3}));
    assert_eq!(std::fs::read_to_string(stage.out()).unwrap(), kept.concat());
    let mode = std::fs::metadata(stage.out()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let ended = of(&stage).args(["--older-than", "30d"]).end().expect(0);
    assert_eq!(said(&ended), json!({"messages": 1}));
    let removed = stage.path("out.jsonl.removed");
    let young = line(20, "1");
    std::fs::write(&removed, line(40, "1") + &young).unwrap();
    for more in [&["--dry-run"][..], &[]] {
        let ended = of(&stage).args(arguments).args(more).end().expect(0);
        assert_eq!(said(&ended), json!({"removed_messages": 1}));
    }
    assert_eq!(std::fs::read_to_string(&removed).unwrap(), young);
    std::fs::remove_file(removed).unwrap();
    // Nothing else is left in the folder.
    assert_eq!(std::fs::read_dir(stage.folder.path()).unwrap().count(), 1);
}

#[test]
fn everything_goes_with_its_journal() {
    let stage = Stage::with_labels(vec![("1", Chats::Generated(9)), ("2", Chats::Generated(3))]);
    stage
        .run()
        .args(["--label", "2", "--format", "cloudevents"])
        .end()
        .expect(0);
    let journal = stage.path("out.jsonl.labelcast");
    assert!(journal.exists());
    let one = of(&stage).args(ALL).args(["--label", "2"]).end().expect(0);
    assert_eq!(said(&one), json!({"messages": 3, "checkpoints": 1}));
    assert!(journal.exists() && lines_in(&stage.out()) == 9);
    let all = of(&stage).args(ALL).end().expect(0);
    assert_eq!(said(&all), json!({"messages": 9, "checkpoints": 1}));
    assert!(!journal.exists() && lines_in(&stage.out()) == 0);
    stage.run().end().expect(0);
    assert_eq!(lines_in(&stage.out()), 9);
}

#[test]
fn a_file_that_does_not_exist_is_not_created() {
    let stage = Stage::with_chats(1);
    let ended = of(&stage).args(ALL).end().expect(0);
    assert_eq!(said(&ended), json!({}));
    assert!(!stage.out().exists());
    for path in ["/dev/null", "/tmp"] {
        let sink = format!("file:{path}");
        let ended = purge(&sink).args(ALL).end().expect(78);
        assert!(ended.stderr.contains("not a regular file"), "{ended:?}");
    }
    let ended = of(&stage).args(["--acknowledged"]).end().expect(78);
    assert!(
        ended.stderr.contains("use --older-than"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_file_that_a_run_holds_is_left_alone() {
    let stage = Stage::with_chats(1);
    let (_, body) = small_list(5000);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let process = stage.run().spawn();
    wait_until("lines are written", || lines_in(&stage.out()) > 0);
    for more in [&["--dry-run"][..], &[]] {
        let ended = of(&stage).args(ALL).args(more).end().expect(81);
        assert_eq!(said(&ended), json!({}));
    }
    gate.cancel();
    process.end().expect(0);
    assert_eq!(lines_in(&stage.out()), 5000);
}

#[test]
fn an_unfinished_run_is_resumed_behind_what_was_dropped() {
    let (ids, body) = small_list(6000);
    let other: Vec<String> = (0..50).map(|number| format!("{number}@lid")).collect();
    let stage = Stage::with_labels(vec![
        ("1", Chats::Body(body.clone().into())),
        ("2", Chats::Body(map_of(&other).into())),
    ]);
    let sink = format!("file:{}", stage.out().display());
    let run = |label| {
        stage
            .program("run")
            .args(["--label", label, "--sink", &sink])
    };
    run("2").end().expect(0);
    let (reply, _gate) = gated_after(&body, 5000);
    stage.mock.script("1", reply);
    let process = run("1").spawn();
    wait_until("lines are written", || lines_in(&stage.out()) > 2100);
    process.signal("TERM");
    process.end().expect(75);
    let ended = of(&stage).args(ALL).args(["--label", "2"]).end().expect(0);
    assert_eq!(said(&ended), json!({"messages": 50, "checkpoints": 1}));
    let ended = run("1").end().expect(0);
    assert!(ended.label()["resumed"].as_u64() > Some(2000), "{ended:?}");
    assert_eq!(stage.ids(), ids, "no repeats");
}

#[test]
fn lines_of_any_length_are_kept_with_flat_memory() {
    let stage = Stage::with_chats(1);
    let long = format!("{{\"a\":\"{}\"}}\n", "b".repeat(40 << 20));
    let text = format!("{}{long}{}{long}", line(40, "1"), line(40, "1"));
    std::fs::write(stage.out(), text).unwrap();
    let ended = of(&stage).args(["--older-than", "1d"]).end().expect(0);
    assert_eq!(said(&ended), json!({"messages": 2}));
    let left = std::fs::read_to_string(stage.out()).unwrap();
    assert!(left == format!("{long}{long}"));
    let _: Value = serde_json::from_str(left.lines().next().unwrap()).unwrap();
}
