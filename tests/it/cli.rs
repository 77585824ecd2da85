//! The demo, the help, the completions and the manual page.

use std::io::{BufRead, BufReader, Read, Write};

use crate::support::{Running, ids_in};

#[test]
fn the_demo_runs_and_shows_its_result() {
    let folder = tempfile::tempdir().unwrap();
    let ended = Running::new("demo")
        .args(["--chats", "1234"])
        .env("TMPDIR", folder.path().to_str().unwrap())
        .end();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let mut lines = ended.stdout.lines();
    let path = std::path::PathBuf::from(lines.next().unwrap());
    assert!(path.starts_with(folder.path()));
    assert_eq!(lines.count(), 3);
    let ids = ids_in(&path);
    let unique: std::collections::HashSet<&String> = ids.iter().collect();
    assert_eq!((ids.len(), unique.len()), (1234, 1234));
    assert!(ended.stderr.contains("1234 chats published"));
}

#[test]
fn the_demo_accepts_the_settings_of_a_run() {
    let ended = Running::new("demo")
        .args([
            "--chats",
            "5",
            "--sink",
            "-",
            "--label",
            "2",
            "--include-names",
        ])
        .end();
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(ended.stdout.lines().count(), 10);
    assert!(ended.stdout.contains("Chat 9"));
}

#[test]
fn the_demo_uses_only_its_own_flags() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("labelcast.toml");
    std::fs::write(&config, "[sink]\nqueue = \"q\"\n[run]\nmin_chats = 100\n").unwrap();
    let metrics = folder.path().join("real.prom");
    let demo = |arguments: &[&str]| {
        Running::new("demo")
            .args(["--chats", "5"])
            .args(arguments)
            .env("TMPDIR", folder.path().to_str().unwrap())
            .env("LABELCAST_SINK", "redis://127.0.0.1:1")
            .env("LABELCAST_LABELS", "4")
            .env("LABELCAST_METRICS_FILE", metrics.to_str().unwrap())
            .env("LABELCAST_CONFIG", config.to_str().unwrap())
            .end()
    };
    let ended = demo(&[]).expect(0);
    assert!(ended.stderr.contains("5 chats published"), "{ended:?}");
    assert!(!metrics.exists());
    // A failed demo reports the error and does not look for a file that it did not write.
    let ended = demo(&["--config", config.to_str().unwrap()]).expect(80);
    assert!(ended.stderr.contains("exit code 80"), "{ended:?}");
    assert!(!ended.stderr.contains("could not read"), "{ended:?}");
}

#[test]
fn other_commands_can_use_the_served_stand_in() {
    let mut demo = Running::new("demo")
        .args(["--serve", "--chats", "2"])
        .spawn();
    let mut lines = BufReader::new(demo.take_stdout()).lines();
    let line = lines.next().unwrap().unwrap();
    let address = line.split("http://").nth(1).unwrap();
    let address = address.split(' ').next().unwrap();
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    let request = "GET /v2/labels/1/chats?instance_id=demo&access_token=demo-token HTTP/1.1\r\n\
                   host: x\r\nconnection: close\r\n\r\n";
    connection.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains(r#""0":{"id":"4900000000000@lid","name":"Chat 0"}"#));
    demo.signal("TERM");
    assert_eq!(demo.end().code, Some(0));
}

#[test]
fn help_and_version_go_to_stdout() {
    let ended = Running::new("--help").end();
    assert_eq!(ended.code, Some(0));
    for command in ["run", "check", "labels", "demo", "completions", "man"] {
        assert!(ended.stdout.contains(command), "{}", ended.stdout);
    }
    let ended = Running::new("run").args(["--help"]).end();
    assert!(
        ended.stdout.contains("WAWP_INSTANCE_ID"),
        "{}",
        ended.stdout
    );
    let words: Vec<&str> = ended.stdout.split_whitespace().collect();
    assert!(words.join(" ").contains("[default: labelcast:{label_id}]"));
    assert_eq!(
        Running::new("--version").end().stdout.trim(),
        "labelcast 0.1.0"
    );
}

#[test]
fn completions_and_manual_page_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = Running::new("completions").args([shell]).end();
        assert_eq!(ended.code, Some(0));
        assert!(ended.stdout.contains("include-names"), "{shell}");
    }
    let ended = Running::new("man").end();
    assert!(ended.stdout.contains(".TH labelcast"), "{}", ended.stdout);
    for section in [".SH LABELCAST RUN", "max\\-shrink", ".SH LABELCAST TAIL"] {
        assert!(ended.stdout.contains(section), "{section}");
    }
}
