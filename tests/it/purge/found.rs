//! The queues that are purged if no label is named.

use labelcast::mock::Chats;
use redis::Commands as _;
use serde_json::json;

use super::redis::{add, seed};
use super::{purge, said};
use crate::support::redis::{Server, length};
use crate::support::{INSTANCE, Running, Stage};

const ALL: [&str; 2] = ["--older-than", "0s"];

fn run(labels: &[&str], server: &Server, arguments: &[&str]) {
    let chats = labels.iter().map(|label| (*label, Chats::Generated(5)));
    let stage = Stage::with_labels(chats.collect());
    let run = stage
        .program("run")
        .args(["--all-labels", "--sink", &server.url()]);
    run.args(arguments).end().expect(0);
}

#[test]
fn queues_of_labels_that_do_not_exist_any_more_are_found() {
    let server = Server::start(&[]);
    run(&["1", "2:3", "4"], &server, &[]);
    let mut connection = server.connection();
    // Keys expire, and streams stay.
    let gone: Vec<String> = connection.keys("labelcast:checkpoint:*:4").unwrap();
    let _: () = connection.del(gone).unwrap();
    // Members without a stream.
    let members = format!("labelcast:members:{{labelcast:6}}:labelcast:6:{INSTANCE}:6");
    let _: () = connection.hset(&members, "1@c.us", "ml1:1:1:1").unwrap();
    // Neither the stream of another program, nor the account of another.
    let foreign = [("chat_id", "1@c.us"), ("label_id", "8")];
    add(&mut connection, "labelcast:7", "*", &foreign);
    add(&mut connection, "labelcast:9", "*", &[("a", "b")]);
    // It is not even looked at, so its lock does not matter.
    let lock = format!("labelcast:lock:{{labelcast:7}}:labelcast:7:{INSTANCE}:7");
    let _: () = connection.set(lock, "x").unwrap();
    let other = "labelcast:checkpoint:{labelcast:5}:labelcast:5:inst-2:5";
    let _: () = connection.hset(other, "fence", "1").unwrap();

    let expected = json!({"messages": 15, "members": 1, "checkpoints": 2, "manifests": 3,
        "counts": 3});
    for more in [&["--dry-run"][..], &[]] {
        let ended = purge(&server.url()).args(ALL).args(more).end().expect(0);
        assert_eq!(said(&ended), expected, "{more:?}");
    }
    for (stream, left) in [("1", 0), ("2:3", 0), ("4", 0), ("7", 1), ("9", 1)] {
        let stream = format!("labelcast:{stream}");
        assert_eq!(length(&mut connection, &stream), left, "{stream}");
    }
    assert!(connection.exists::<_, bool>(other).unwrap());
}

#[test]
fn queues_are_found_by_the_account_and_in_partitions() {
    let server = Server::start(&[]);
    let queue = [
        "--queue",
        "q.{instance_id}.{label_id}.x",
        "--partitions",
        "2",
    ];
    run(&["1", "2"], &server, &queue);
    let mut connection = server.connection();
    for key in connection
        .keys::<_, Vec<String>>("labelcast:checkpoint:*")
        .unwrap()
    {
        let _: () = connection.del(key).unwrap();
    }
    let other = Running::new("purge").args(["--json", "--instance-id", "inst-2"]);
    let other = other.args(ALL).args(queue).args(["--sink", &server.url()]);
    assert_eq!(said(&other.end().expect(0)), json!({}));
    let ended = purge(&server.url()).args(ALL).args(queue).end().expect(0);
    assert_eq!(
        said(&ended),
        json!({"messages": 10, "manifests": 4, "counts": 2})
    );
}

#[test]
fn several_labels_are_named_with_commas_or_in_the_environment() {
    let server = Server::start(&[]);
    run(&["1", "2", "3", "4"], &server, &[]);
    let ended = purge(&server.url())
        .args(ALL)
        .args(["--label", "1,2"])
        .end()
        .expect(0);
    assert_eq!(said(&ended)["messages"], 10);
    let by_env = purge(&server.url()).args(ALL).env("LABELCAST_LABELS", "3");
    assert_eq!(said(&by_env.end().expect(0))["messages"], 5);
    let mut connection = server.connection();
    assert_eq!(length(&mut connection, "labelcast:4"), 5);
    let all = purge(&server.url()).args(ALL).args(["--all-labels"]);
    assert_eq!(said(&all.end().expect(0))["messages"], 5);
}

#[test]
fn counts_of_labels_that_are_kept_stay() {
    let server = Server::start(&[]);
    run(&["1", "2"], &server, &[]);
    let ended = purge(&server.url())
        .args(ALL)
        .args(["--label", "1"])
        .end()
        .expect(0);
    assert_eq!(said(&ended)["counts"], 1);
    let left: Vec<String> = server
        .connection()
        .hkeys("labelcast:labels:{inst-1}")
        .unwrap();
    assert_eq!(left, ["2"]);
    let state = Server::start(&[]);
    run(&["1"], &server, &["--state", &state.url()]);
    let purge = purge(&server.url())
        .args(ALL)
        .args(["--state", &state.url()]);
    assert_eq!(said(&purge.end().expect(0))["counts"], 1);
    assert!(
        !state
            .connection()
            .exists::<_, bool>("labelcast:labels:{inst-1}")
            .unwrap()
    );
}

#[test]
fn a_purge_of_a_label_leaves_what_is_beside_others() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    seed(&mut connection, "labelcast:1", "labelcast:1", "1");
    seed(&mut connection, "labelcast:2", "labelcast:2", "2");
    purge(&server.url())
        .args(ALL)
        .args(["--label", "1"])
        .end()
        .expect(0);
    let left: Vec<String> = connection.keys("labelcast:*:2").unwrap();
    assert_eq!(left.len(), 3, "{left:?}");
}
