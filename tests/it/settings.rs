//! Flags override the environment, the environment overrides the file, and the file overrides
//! defaults. All errors are reported together.

use crate::support::{Running, Stage, TOKEN};

/// Returns the queue of a run whose queue is set in some of the sources.
fn queue(flag: bool, env: bool, file: bool) -> String {
    let stage = Stage::with_chats(1);
    let config = stage.path("labelcast.toml");
    let text = if file {
        "[sink]\nqueue = \"from-file\"\n"
    } else {
        ""
    };
    std::fs::write(&config, text).unwrap();
    let mut run = stage
        .run()
        .env("LABELCAST_CONFIG", config.to_str().unwrap());
    if env {
        run = run.env("LABELCAST_QUEUE", "from-env-{instance_id}-{label_id}");
    }
    if flag {
        run = run.args(["--queue", "from-flag"]);
    }
    let ended = run.end().expect(0);
    ended.label()["queue"].as_str().unwrap().to_owned()
}

#[test]
fn sources_have_the_documented_precedence() {
    assert_eq!(queue(true, true, true), "from-flag");
    assert_eq!(queue(false, true, true), "from-env-inst-1-1");
    assert_eq!(queue(false, false, true), "from-file");
    assert_eq!(queue(false, false, false), "labelcast:1");
    assert_eq!(queue(true, false, true), "from-flag");
}

#[test]
fn a_run_can_be_configured_by_the_environment() {
    let stage = Stage::with_chats(3);
    let ended = Running::new("run")
        .env("WAWP_API_URL", &stage.mock.url())
        .env("WAWP_INSTANCE_ID", crate::support::INSTANCE)
        .env("WAWP_ACCESS_TOKEN", TOKEN)
        .env("WAWP_AUTH", "bearer")
        .env("LABELCAST_LABELS", "1")
        .env("LABELCAST_SINK", "-")
        .env("LABELCAST_INCLUDE_NAMES", "true")
        .env("LABELCAST_DEADLINE", "")
        .env("LABELCAST_REPORT", "none")
        .end()
        .expect(0);
    assert_eq!(ended.stdout.lines().count(), 3);
    assert!(ended.stdout.contains("\"name\":\"Chat 2\""));
}

#[test]
fn a_run_can_be_configured_by_a_file_and_a_token_file() {
    let stage = Stage::with_chats(3);
    let token = stage.path("token");
    std::fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let sink = stage.path("sink-url");
    std::fs::write(&sink, format!("file://{}\n", stage.out().display())).unwrap();
    let config = stage.path("labelcast.toml");
    let text = format!(
        "[api]\nurl = \"{}\"\ninstance_id = \"{}\"\naccess_token_file = \"{}\"\nretries = 0\n\
         [run]\nlabels = [1]\nmin_chats = 3\nskip_label_check = true\n\
         [sink]\nurl_file = \"{}\"\nids_per_message = 2\n[report]\nformat = \"json\"\n",
        stage.mock.url(),
        crate::support::INSTANCE,
        token.display(),
        sink.display(),
    );
    std::fs::write(&config, text).unwrap();
    let ended = Running::new("run")
        .args(["--config", config.to_str().unwrap()])
        .end()
        .expect(0);
    let report: serde_json::Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["labels"][0]["messages"], 2);
    assert_eq!(stage.messages()[0]["chat_ids"].as_array().unwrap().len(), 2);
}

#[test]
fn the_token_comes_from_the_source_with_precedence() {
    let stage = Stage::with_chats(1);
    let wrong = stage.path("wrong");
    std::fs::write(&wrong, "wrong").unwrap();
    let wrong = wrong.to_str().unwrap();
    stage
        .run()
        .env("WAWP_ACCESS_TOKEN_FILE", wrong)
        .end()
        .expect(0);
    stage
        .run()
        .args(["--access-token-file", wrong])
        .end()
        .expect(77);
}

#[test]
fn a_run_without_settings_lists_all_required_ones() {
    let ended = Running::new("run").end().expect(78);
    for mend in [
        "--instance-id, WAWP_INSTANCE_ID, or api.instance_id",
        "WAWP_ACCESS_TOKEN, or a file that contains it: --access-token-file",
        "--label, LABELCAST_LABELS, or run.labels",
    ] {
        assert!(ended.stderr.contains(mend), "{}", ended.stderr);
    }
    assert!(ended.stderr.contains("3 settings are wrong"));
}

#[test]
fn all_errors_are_listed_together() {
    let stage = Stage::with_chats(1);
    let config = stage.path("labelcast.toml");
    std::fs::write(
        &config,
        "[api]\nretires = 3\nretries = true\n[sink]\nids-per-message = 3\n[colour]\nx = 1\n",
    )
    .unwrap();
    let ended = stage
        .run()
        .args(["--config", config.to_str().unwrap()])
        .args([
            "--deadline",
            "soon",
            "--max-shrink",
            "101",
            "--format",
            "xml",
        ])
        .args([
            "--sink",
            "kafka://x",
            "--queue",
            "a{b}",
            "--ids-per-message",
            "0",
            "--retain",
            "999ms",
        ])
        .env("LABELCAST_MIN_CHATS", "-1")
        .env("WAWP_DIALECT", "wawp-v3")
        .env("LABELCAST_INCLUDE_NAMES", "perhaps")
        .end()
        .expect(78);
    for fault in [
        "unknown key api.retires",
        "api.retries takes a text or a number",
        "unknown key sink.ids-per-message; did you mean sink.ids_per_message?",
        "unknown key colour.x",
        "--deadline “soon”: is not a duration such as 30s, 15m, 2h or 7d",
        "--max-shrink “101”",
        "--format “xml”: is not one of fields, json, cloudevents",
        "there is no sink “kafka:”",
        "--queue “a{b}”",
        "--ids-per-message “0”: is not a whole number from 1 to 10000",
        "--retain “999ms”: is shorter than one second",
        "LABELCAST_MIN_CHATS “-1”",
        "WAWP_DIALECT “wawp-v3”: is not one of wawp-v2, wawp-v1, waha",
        "LABELCAST_INCLUDE_NAMES",
    ] {
        assert!(ended.stderr.contains(fault), "{fault}: {}", ended.stderr);
    }
    assert!(
        ended.stderr.contains("14 settings are wrong"),
        "{}",
        ended.stderr
    );
}

#[test]
fn contradictory_settings_are_refused() {
    let stage = Stage::with_chats(1);
    let arguments = ["--sink", "-", "--report", "json", "--max-shrink", "10"];
    let ended = stage.run().args(arguments).end().expect(78);
    assert!(
        ended.stderr.contains("use --report-file"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("no memory of the last complete run"));
    let arguments = ["--all-labels", "--sink", "-"];
    let ended = stage.run().args(arguments).end().expect(78);
    assert!(
        ended
            .stderr
            .contains("cannot be combined with --all-labels")
    );
}

#[test]
fn the_report_must_not_overwrite_the_chats() {
    let stage = Stage::with_chats(1);
    for own in ["out.jsonl", "out.jsonl.labelcast"] {
        let path = stage.path(own);
        for flag in ["--report-file", "--metrics-file"] {
            let arguments = [flag, path.to_str().unwrap()];
            let told = stage.run().args(arguments).end().expect(78).stderr;
            assert!(told.contains("the sink's own file"), "{told}");
        }
    }
}

#[test]
fn a_switch_that_is_off_is_not_set() {
    let stage = Stage::with_chats(1);
    for off in ["0", "off", "No", "FALSE"] {
        let run = stage.run().env("LABELCAST_TRACK", off);
        run.env("LABELCAST_ONLY_NEW", off).end().expect(0);
    }
    let run = stage.run().env("LABELCAST_TRACK", "on");
    run.end().expect(78);
}

#[test]
fn the_report_must_not_overwrite_the_state() {
    let stage = Stage::with_chats(1);
    let path = stage.path("state.db");
    let state = format!("file:{}", path.display());
    for flag in ["--report-file", "--metrics-file"] {
        let run = stage.run().args(["--track", "--state", &state]);
        let told = run.args([flag, path.to_str().unwrap()]).end().expect(78);
        assert!(
            told.stderr.contains("the file of --state"),
            "{}",
            told.stderr
        );
    }
}

#[test]
fn report_and_metrics_must_not_share_a_file() {
    let stage = Stage::with_chats(1);
    let path = stage.path("told");
    let path = path.to_str().unwrap();
    let arguments = ["--report-file", path, "--metrics-file", path];
    let told = stage.run().args(arguments).end().expect(78).stderr;
    assert!(told.contains("is the report's file"), "{told}");
}

#[test]
fn contradictions_are_listed_with_all_other_errors() {
    let stage = Stage::with_chats(1);
    let arguments = ["--sink", "-", "--report", "json", "--min-chats", "x"];
    let ended = stage.run().args(arguments).end().expect(78);
    assert!(
        ended.stderr.contains("2 settings are wrong"),
        "{}",
        ended.stderr
    );
    let arguments = ["--report", "xml", "--instance-id", "ü"];
    let ended = stage.run().args(arguments).end().expect(78);
    assert!(
        ended.stderr.contains("2 settings are wrong"),
        "{}",
        ended.stderr
    );
    assert_eq!(
        ended.report["exit_code"], 78,
        "the file was asked for all the same"
    );
}

#[test]
fn durations_have_limits() {
    let stage = Stage::with_chats(1);
    for arguments in [
        ["--deadline", "18446744073709551615s"],
        ["--deadline", "500000000000y"],
        ["--read-timeout", "0s"],
        ["--connect-timeout", "0s"],
    ] {
        stage.run().args(arguments).end().expect(78);
    }
}

#[test]
fn unusual_files_and_variables_are_handled() {
    use std::os::unix::ffi::OsStrExt;
    let stage = Stage::with_chats(1);
    let config = stage.path("labelcast.toml");
    std::fs::write(&config, "[nope]\n").unwrap();
    let run = stage.run().args(["--config", config.to_str().unwrap()]);
    assert!(run.end().expect(78).stderr.contains("unknown key nope"));
    let run = stage
        .run()
        .env_os("LABELCAST_QUEUE", std::ffi::OsStr::from_bytes(b"a\xff"));
    assert!(
        run.end()
            .expect(78)
            .stderr
            .contains("LABELCAST_QUEUE is not UTF-8")
    );
    stage.run().env("RUST_LOG", "info,hyper").end().expect(0);
    stage.run().env("RUST_LOG", "loud").end().expect(78);
    for sink in ["file://host/path", "file:", "file:/folder/"] {
        stage.run().args(["--sink", sink]).end().expect(78);
    }
    stage.run().args(["--label", ".."]).end().expect(78);
    let token = stage.path("token");
    std::fs::write(&token, format!("\u{feff}{TOKEN}\r\n")).unwrap();
    let arguments = ["--access-token-file", token.to_str().unwrap()];
    stage.run().args(arguments).end().expect(0);
}

#[test]
fn a_missing_config_file_is_an_error() {
    let stage = Stage::with_chats(1);
    let ended = stage
        .run()
        .args(["--config", "/no/such.toml"])
        .end()
        .expect(78);
    assert!(ended.stderr.contains("/no/such.toml"), "{}", ended.stderr);
}

#[test]
fn the_example_file_matches_the_settings_and_is_accepted() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/config/labelcast.example.toml");
    let example = labelcast::config::example();
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        std::fs::write(path, &example).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), example);

    let stage = Stage::with_chats(2);
    stage.run().args(["--config", path]).end().expect(0);
    // The result is the same with each default written out.
    let defaults: String = example
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(line) if line.contains(" = ") && !line.starts_with(' ') => line,
            _ => line,
        })
        .filter(|line| {
            let required = ["instance_id", "access_token_file", "labels", "deadline"];
            let unset = [
                "max_shrink",
                "url_file",
                "file",
                "format",
                "max_pending",
                "partitions",
                "exchange",
                "suppress_for",
                "min_age",
                "url = \"URL\"",
                "shard",
                "metrics_",
                "from",
                "to",
            ];
            !required
                .iter()
                .chain(&unset)
                .any(|key| line.starts_with(key))
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let written = stage.path("defaults.toml");
    std::fs::write(&written, defaults).unwrap();
    stage
        .run()
        .args(["--config", written.to_str().unwrap()])
        .end()
        .expect(0);
}

#[test]
fn the_documentation_lists_every_setting() {
    let documentation = include_str!("../../docs/configuration.md");
    for setting in labelcast::config::table::SETTINGS {
        let row = format!("| `--{}", setting.flag);
        // Commands may have different settings with the same flag.
        let variable = format!("`{}`", setting.env);
        let mut lines = documentation.lines();
        let found = lines.find(|line| line.starts_with(&row) && line.contains(&variable));
        let line = found.unwrap_or_else(|| panic!("{row} is not in docs/configuration.md"));
        assert!(line.contains(&format!("`{}`", setting.key)), "{line}");
    }
}
