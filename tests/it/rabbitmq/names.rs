//! Queue names that RabbitMQ does not accept. They are found before any connection, if the labels
//! are known by then.

use labelcast::mock::Chats;

use super::run;
use crate::support::rabbitmq::vhost;
use crate::support::{Running, Stage};

/// There is no broker, so a run that ends with 78 has not connected to one.
const NOWHERE: &str = "amqp://127.0.0.1:1";

fn check(stage: &Stage, url: &str) -> Running {
    let check = stage.program("check");
    check.args(["--label", "1", "--sink", url])
}

#[test]
fn reserved_queue_names_are_refused() {
    let stage = Stage::with_chats(3);
    for queue in ["amq.chats", "amq.{label_id}"] {
        for arguments in [
            vec![],
            vec!["--no-declare"],
            vec!["--exchange", "amq.direct"],
        ] {
            for command in [run(&stage, NOWHERE), check(&stage, NOWHERE)] {
                let command = command.args(["--queue", queue]).args(&arguments);
                let ended = command.end().expect(78);
                assert!(ended.stderr.contains("reserved"), "{ended:?}");
                assert!(ended.stderr.contains("--queue"), "{ended:?}");
            }
        }
    }
    // The same for an instance's name.
    let other = Stage::with_account("amq.x", "{}");
    let ended = run(&other, NOWHERE).args(["--queue", "{instance_id}"]);
    let ended = ended.end().expect(78);
    assert!(ended.stderr.contains("reserved"), "{ended:?}");
}

#[test]
fn reserved_queue_names_of_listed_labels_are_refused() {
    let labels = [("amq.vip", Chats::Generated(2)), ("7", Chats::Generated(2))];
    let stage = Stage::with_labels(labels.to_vec());
    let vhost = vhost();
    let arguments = ["--all-labels", "--queue", "{label_id}"];
    let url = vhost.url();
    let of_all = |command: &str| {
        stage
            .program(command)
            .args(["--sink", &url])
            .args(arguments)
    };
    let checked = of_all("check").end().expect(78);
    assert!(checked.stdout.contains("reserved"), "{checked:?}");
    let ended = of_all("run").end().expect(78);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("reserved"), "{error}");
    assert_eq!(vhost.client().depth("7"), Some(2));
}

#[test]
fn queue_names_that_are_too_long_after_replacement_are_refused() {
    let stage = Stage::with_chats(3);
    let label = "l".repeat(20);
    let labels = [
        (label.as_str(), Chats::Generated(2)),
        ("7", Chats::Generated(2)),
    ];
    let other = Stage::with_labels(labels.to_vec());
    let queue = format!("{}{{label_id}}", "q".repeat(245));
    for exchange in [vec![], vec!["--exchange", "amq.direct"]] {
        for command in ["run", "check"] {
            let run = other
                .program(command)
                .args(["--label", &label, "--sink", NOWHERE]);
            let ended = run
                .args(["--queue", &queue])
                .args(&exchange)
                .end()
                .expect(78);
            assert!(ended.stderr.contains("255 bytes"), "{ended:?}");
            assert!(ended.stderr.contains(&label), "{ended:?}");
        }
    }
    let vhost = vhost();
    let url = vhost.url();
    let arguments = ["--sink", &url, "--all-labels", "--queue", &queue];
    let checked = other.program("check").args(arguments).end().expect(78);
    assert!(checked.stdout.contains("255 bytes"), "{checked:?}");
    let ended = other.program("run").args(arguments).end().expect(78);
    let told = format!("{}", ended.report["labels"]);
    assert!(told.contains("255 bytes"), "{told}");
    // A name of the maximum length, which is longer before the placeholder is replaced.
    let most = format!("{}{{label_id}}{{label_id}}", "q".repeat(253));
    let arguments = ["--queue", &most];
    check(&stage, &url).args(arguments).end().expect(0);
    run(&stage, &url).args(arguments).end().expect(0);
    let queue = most.replace("{label_id}", "1");
    assert_eq!(vhost.client().depth(&queue), Some(3));
}
