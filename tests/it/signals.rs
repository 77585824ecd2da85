//! A signal is an orderly stop, and a second signal an immediate exit.

use labelcast::mock::{Piece, Reply};

use crate::support::{Ended, Process, Running, Stage, lines_in, part_of, small_list, wait_until};

/// Two signals count as two only if the first was handled. So they are repeated until they take
/// effect.
fn signal_until_it_ends(process: Process) -> Ended {
    let id = process.id();
    let ended = std::thread::spawn(move || process.end());
    wait_until("the signals were handled", || {
        let line = format!("kill -TERM {id} 2>/dev/null");
        let _ = std::process::Command::new("sh")
            .args(["-c", &line])
            .status();
        ended.is_finished()
    });
    ended.join().unwrap()
}

#[test]
fn a_signal_stops_the_run_and_the_next_run_resumes() {
    for signal in ["TERM", "INT"] {
        let (ids, body) = small_list(5000);
        let stage = Stage::with_body(&body);
        stage.mock.script("1", part_of(&body, 0.5, Piece::Hold));
        let process = stage.run().spawn();
        wait_until("the run is publishing", || lines_in(&stage.out()) > 1000);
        process.signal(signal);
        let first = process.end().expect(75);
        assert_eq!(first.label()["status"], "partial");
        let published = first.label()["published"].as_u64().unwrap() as usize;
        assert_eq!(stage.ids(), ids[..published], "no more, no less");

        let second = stage.run().end().expect(0);
        assert_eq!(second.label()["resumed"], published);
        assert_eq!(stage.ids(), ids);
    }
}

#[test]
fn a_signal_during_a_pause_or_before_a_response_stops_the_run() {
    for reply in [
        Reply::json("busy").status(503).header("retry-after", "600"),
        Reply::pieces([Piece::Hold]),
    ] {
        let stage = Stage::with_chats(10);
        stage.mock.script("1", reply);
        let process = stage.run().spawn();
        wait_until("the list was requested", || {
            stage.mock.requests().len() == 2
        });
        process.signal("TERM");
        process.end().expect(75);
    }
}

#[test]
fn labels_after_a_signal_are_reported() {
    use labelcast::mock::Chats;
    let labels = ["1", "2", "3"].map(|id| (id, Chats::Generated(5)));
    let stage = Stage::with_labels(labels.to_vec());
    stage.mock.script("2", Reply::pieces([Piece::Hold]));
    let process = stage.run().args(["--label", "2,3"]).spawn();
    wait_until("the second list is requested", || {
        stage.mock.requests().len() == 3
    });
    process.signal("TERM");
    let ended = process.end().expect(75);
    let statuses: Vec<_> = (0..3)
        .map(|i| ended.report["labels"][i]["status"].as_str().unwrap())
        .collect();
    assert_eq!(statuses, ["complete", "partial", "partial"]);
    assert_eq!(ended.report["status"], "partial");
}

#[test]
fn a_blocked_stdout_does_not_prevent_the_stop() {
    let stage = Stage::with_chats(100_000);
    let mut process = stage.run().args(["--sink", "-"]).spawn();
    // The pipe is held open and never read, so that it fills up.
    let stdout = process.take_stdout();
    wait_until("the list was requested", || {
        stage.mock.requests().len() == 2
    });
    process.signal("TERM");
    process.end().expect(75);
    drop(stdout);
}

#[test]
fn a_signal_ends_a_check_that_waits_for_a_broker() {
    let stage = Stage::with_chats(10);
    // A server that accepts connections and sends nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    for (scheme, api) in [
        ("redis", stage.mock.url()),
        ("amqp", stage.mock.url()),
        // The API fails at once, and the check goes on to the sink.
        ("redis", "http://127.0.0.1:1".to_owned()),
    ] {
        let sink = format!("{scheme}://{address}");
        let arguments = ["--label", "1", "--retries", "0", "--sink", &sink];
        let check = stage.program("check").args(arguments);
        let process = check.args(["--api-url", &api]).spawn();
        let _connection = mute.accept().unwrap();
        process.signal("TERM");
        let ended = process.end();
        let told = ended.stdout.contains("FAIL  sink: cut short by SIGTERM");
        assert!(told, "{ended:?}");
        assert_eq!(
            ended.code,
            Some(if api == stage.mock.url() { 75 } else { 69 })
        );
    }
}

#[test]
fn a_tail_that_waits_for_a_broker_ends_at_a_signal() {
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap();
    for scheme in ["redis", "amqp"] {
        let sink = format!("{scheme}://{address}");
        let process = Running::new("tail")
            .args(["--queue", "q", "--sink", &sink])
            .spawn();
        let _connection = mute.accept().unwrap();
        process.signal("TERM");
        process.end().expect(0);
    }
}

#[test]
fn a_second_signal_exits_at_once() {
    let stage = Stage::with_chats(500_000);
    let mut process = stage.run().args(["--sink", "-"]).spawn();
    let mut stdout = process.take_stdout();
    // The output is large enough for the next write to block in the full pipe.
    std::io::Read::read_exact(&mut stdout, &mut [0; 100]).unwrap();
    process.signal("TERM");
    let report = stage.path("report.json");
    assert_eq!(signal_until_it_ends(process).code, Some(75));
    assert!(!report.exists(), "an immediate exit writes no report");
    drop(stdout);
}

#[test]
fn a_blocked_report_file_does_not_prevent_the_stop() {
    let stage = Stage::with_chats(10);
    let fifo = stage.path("fifo");
    let made = std::process::Command::new("mkfifo")
        .arg(&fifo)
        .status()
        .unwrap();
    assert!(made.success());
    // Nobody opens the other end, so opening the pipe for writing blocks.
    let process = stage
        .run()
        .args(["--report-file", fifo.to_str().unwrap()])
        .spawn();
    wait_until("the run is over", || lines_in(&stage.out()) == 10);
    assert_eq!(signal_until_it_ends(process).code, Some(75));
}
