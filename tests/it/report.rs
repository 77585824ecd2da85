//! The report on stdout, in a file and as text, and the progress line.

use std::os::unix::fs::PermissionsExt as _;

use crate::support::{Running, Stage};

#[test]
fn json_on_stdout_equals_the_report_file() {
    let stage = Stage::with_chats(1000);
    let ended = stage.run().args(["--report", "json"]).end().expect(0);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report, ended.report);
    assert_eq!(ended.stdout.lines().count(), 1);
    assert_eq!(report["schema"], "labelcast.report/1");
    assert_eq!(report["totals"]["read"], 1000);
    assert_eq!(report["totals"]["bytes"], report["labels"][0]["bytes"]);
    let label = report["labels"][0].as_object().unwrap();
    let keys: Vec<&str> = label.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "attempts",
            "bytes",
            "digest",
            "error",
            "invalid",
            "known",
            "label_id",
            "label_name",
            "messages",
            "published",
            "queue",
            "read",
            "removed",
            "resumed",
            "run_id",
            "status",
            "suppressed",
        ]
    );
    let keys: Vec<&str> = report
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        keys,
        [
            "elapsed_ms",
            "error",
            "exit_code",
            "finished_at",
            "labels",
            "run_id",
            "schema",
            "started_at",
            "status",
            "totals",
        ]
    );
    assert_eq!(label["digest"].as_str().unwrap().len(), 32);
    assert_eq!(label["error"], serde_json::Value::Null);
}

#[test]
fn the_digest_is_that_of_the_list() {
    let digest = |body: &str| {
        let ended = Stage::with_body(body).run().end().expect(0);
        ended.label()["digest"].as_str().unwrap().to_owned()
    };
    let map = digest(r#"{"0":{"id":"1@c.us","name":"A"},"1":{"id":"2@c.us"}}"#);
    assert_eq!(
        map,
        digest(r#"[{"id":"1@c.us"},{"name":"x","id":"2@c.us"}]"#)
    );
    assert_ne!(map, digest(r#"[{"id":"2@c.us"},{"id":"1@c.us"}]"#));
}

#[test]
fn a_file_that_cannot_be_replaced_is_written_to() {
    let stage = Stage::with_chats(1);
    let (target, link) = (stage.path("target"), stage.path("link"));
    std::fs::write(&target, "old contents").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let ended = stage
        .run()
        .args(["--report-file", link.to_str().unwrap()])
        .end();
    assert_eq!(ended.code, Some(0));
    let text = std::fs::read_to_string(&target).unwrap();
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["status"], "complete");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn a_link_to_a_file_that_is_not_there_yet_is_written_through() {
    let stage = Stage::with_chats(1);
    let (target, link) = (stage.path("target"), stage.path("link"));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let arguments = ["--report-file", link.to_str().unwrap()];
    stage.run().args(arguments).end().expect(0);
    let text = std::fs::read_to_string(&target).unwrap();
    assert!(text.contains("complete"), "{text}");
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn the_umask_decides_who_may_read_report_and_metrics() {
    for (mask, expected) in [("022", 0o644), ("027", 0o640), ("077", 0o600)] {
        let stage = Stage::with_chats(1);
        let paths = ["report.json", "labelcast.prom"].map(|name| stage.path(name));
        std::fs::write(&paths[1], "").unwrap();
        let metrics = ["--metrics-file", paths[1].to_str().unwrap()];
        stage.run().args(metrics).with_umask(mask).end().expect(0);
        for path in &paths {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, expected, "{path:?} with umask {mask}");
        }
        let mut left = std::fs::read_dir(stage.folder.path()).unwrap();
        let hidden = |name: &str| name.starts_with('.');
        assert!(!left.any(|entry| hidden(entry.unwrap().file_name().to_str().unwrap())));
    }
}

#[test]
fn an_unwritable_report_file_is_found_before_publishing() {
    let stage = Stage::with_chats(1);
    let folder = stage.path("folder");
    std::fs::create_dir(&folder).unwrap();
    for path in ["/nowhere/report.json", folder.to_str().unwrap()] {
        let arguments = ["--report-file", path];
        let ended = stage.run().args(arguments).end().expect(74);
        assert!(ended.stderr.contains(path), "{}", ended.stderr);
        assert!(!stage.out().exists());
        let told = check(&stage).args(arguments).end().expect(74).stdout;
        assert!(told.contains("FAIL  report: "), "{told}");
    }
}

#[test]
fn checking_the_report_file_changes_nothing() {
    let stage = Stage::with_chats(1);
    let (before, none) = (stage.path("before.json"), stage.path("none.json"));
    std::fs::write(&before, "before").unwrap();
    for path in [&before, &none] {
        let arguments = ["--report-file", path.to_str().unwrap()];
        let told = check(&stage).args(arguments).end().expect(0).stdout;
        assert!(told.contains("ok    report: "), "{told}");
    }
    assert_eq!(std::fs::read_to_string(&before).unwrap(), "before");
    assert_eq!(std::fs::read_dir(stage.folder.path()).unwrap().count(), 1);
}

fn check(stage: &Stage) -> Running {
    let sink = format!("file:{}", stage.out().display());
    let arguments = ["--label", "1", "--sink", &sink];
    stage.program("check").args(arguments)
}

#[test]
fn the_text_report_goes_to_stderr_unless_quiet() {
    let stage = Stage::with_chats(7);
    let ended = stage.run().args(["--log-format", "text"]).end().expect(0);
    assert!(ended.stdout.is_empty());
    assert!(
        ended.stderr.contains("7 chats published, of 7 read"),
        "{}",
        ended.stderr
    );
    let ended = stage.run().args(["--quiet"]).end().expect(0);
    assert!(
        ended.stdout.is_empty() && ended.stderr.is_empty(),
        "{ended:?}"
    );
    let ended = stage.run().args(["--report", "none"]).end().expect(0);
    assert!(!ended.stderr.contains("published, of"), "{}", ended.stderr);
}

#[test]
fn the_log_is_json_lines_without_a_terminal() {
    let stage = Stage::with_chats(7);
    let ended = stage.run().args(["--report", "none"]).end().expect(0);
    for line in ended.stderr.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(
            event["message"].is_string() && event["level"] == "INFO",
            "{event}"
        );
    }
    assert_eq!(ended.stderr.lines().count(), 2);
}

#[test]
fn progress_is_shown_on_request() {
    let stage = Stage::with_chats(50_000);
    let ended = stage.run().args(["--progress", "always"]).end().expect(0);
    assert!(ended.stderr.contains("label 1"), "{}", ended.stderr);
    assert!(ended.stderr.contains(" chats, "), "{}", ended.stderr);
    let ended = stage.run().end().expect(0);
    assert!(!ended.stderr.contains(" chats, "), "{}", ended.stderr);
}

#[test]
fn configuration_errors_are_reported_on_request() {
    let ended = Running::new("run").args(["--report", "json"]).end();
    assert_eq!(ended.code, Some(78));
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["exit_code"], 78);
    assert_eq!(report["labels"], serde_json::json!([]));
}

#[test]
fn a_wrong_command_line_is_reported_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let path = path.to_str().unwrap();
    let joined = format!("--report-file={path}");
    let by_env = || Running::new("run").args(["--bogus"]);
    let config = folder.path().join("labelcast.toml");
    std::fs::write(&config, format!("[report]\nfile = \"{path}\"\n")).unwrap();
    let config = config.to_str().unwrap();
    for run in [
        by_env().env("LABELCAST_REPORT_FILE", path),
        Running::new("run").args(["--bogus", "--config", config]),
        Running::new("run").args(["--bogus", "--report-file", path]),
        Running::new("run").args(["--bogus=1", "-x", "--dry-run=no", "--report-file", path]),
        Running::new("run").args(["--bogus", "--help", "--report-file", path]),
        Running::new("run").args(["--report-file", path, "--label"]),
        Running::new("run").args(["--label", "1", &joined, "stray"]),
    ] {
        let _ = std::fs::remove_file(path);
        let ended = run.end().expect(64);
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(report["exit_code"], 64);
        assert_eq!(report["status"], "failed");
    }
}

#[test]
fn a_wrong_command_line_of_another_command_has_no_report() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    for command in ["check", "labels", "bogus"] {
        let run = Running::new(command).env("LABELCAST_REPORT_FILE", path.to_str().unwrap());
        run.args(["--bogus"]).end().expect(64);
        assert!(!path.exists());
    }
}
