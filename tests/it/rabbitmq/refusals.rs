//! Refusals by the broker, and the error messages.

use std::sync::atomic::{AtomicBool, Ordering};

use labelcast::mock::Chats;
use labelcast::shard::Shard;
use serde_json::json;

use super::{QUEUE, run};
use crate::support::rabbitmq::{Client, once, vhost};
use crate::support::{Stage, small_list};

#[test]
fn a_wrong_password_is_77_and_not_shown() {
    let vhost = vhost();
    let stage = Stage::with_chats(3);
    let url = vhost.url().replace(":guest@", ":wr0ng-pass@");
    let ended = run(&stage, &url).args(["-vv"]).end().expect(77);
    assert!(!ended.stderr.contains("wr0ng-pass"), "{}", ended.stderr);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("ACCESS_REFUSED"), "{error}");
}

#[test]
fn missing_permissions_and_virtual_hosts_are_reported() {
    let vhost = vhost();
    let stage = Stage::with_chats(3);
    let reader = vhost
        .url()
        .replace("guest:guest", "reader:pass-that-nobody-may-see");
    let ended = run(&stage, &reader).end().expect(77);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("access to queue"), "{error}");
    let nowhere = vhost.url().replace(&vhost.name, "nowhere");
    run(&stage, &nowhere)
        .args(["--retries", "1"])
        .end()
        .expect(78);
    let check = stage.program("check");
    check
        .args(["--label", "1", "--sink", &reader])
        .end()
        .expect(77);
}

#[test]
fn an_unreachable_broker_is_69() {
    let stage = Stage::with_chats(3);
    let port = crate::support::redis::free_port();
    let url = format!("amqp://guest:guest@127.0.0.1:{port}");
    let ended = run(&stage, &url).args(["--retries", "1"]).end().expect(69);
    assert_eq!(ended.label()["published"], 0);
    // One of several hosts is enough.
    let vhost = vhost();
    let url = format!(
        "amqp://guest:guest@127.0.0.1:{port},127.0.0.1:{}/{}",
        vhost.port, vhost.name
    );
    run(&stage, &url).end().expect(0);
}

#[test]
fn a_queue_of_another_type_or_a_missing_one_is_78() {
    let vhost = vhost();
    vhost
        .client()
        .declare(QUEUE, &[("x-queue-type", json!("classic"))]);
    let stage = Stage::with_chats(3);
    let ended = run(&stage, &vhost.url()).end().expect(78);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("inequivalent arg 'x-queue-type'"), "{error}");
    run(&stage, &vhost.url())
        .args(["--no-declare"])
        .end()
        .expect(0);
    let nothing = ["--no-declare", "--queue", "nothing"];
    let ended = run(&stage, &vhost.url()).args(nothing).end().expect(78);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("no queue 'nothing'"), "{error}");
}

#[test]
fn unroutable_messages_are_an_error() {
    let vhost = vhost();
    vhost.client().exchange("empty", None);
    let stage = Stage::with_chats(3000);
    let exchange = ["--exchange", "empty"];
    let ended = run(&stage, &vhost.url()).args(exchange).end().expect(78);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("exchange “empty”"), "{error}");
    assert!(error.contains("routing key “labelcast:1”"), "{error}");
    assert_eq!(ended.label()["published"], 0);
    assert!(!ended.stderr.contains("@c.us"), "{}", ended.stderr);
}

/// A queue that refuses messages beyond 300.
fn declare_small(client: &Client) {
    let arguments = [
        ("x-queue-type", json!("classic")),
        ("x-max-length", json!(300)),
        ("x-overflow", json!("reject-publish")),
    ];
    client.declare(QUEUE, &arguments);
}

#[test]
fn a_full_queue_is_retried_until_there_is_room() {
    let vhost = vhost();
    let client = vhost.client();
    declare_small(&client);
    let (ids, body) = small_list(2000);
    let stage = Stage::with_body(&body);
    let process = run(&stage, &vhost.url())
        .args(["--no-declare", "--retries", "50"])
        .spawn();
    let is_over = AtomicBool::new(false);
    let (messages, ended) = std::thread::scope(|scope| {
        let drained = scope.spawn(|| {
            let mut messages = Vec::new();
            loop {
                let was_over = is_over.load(Ordering::SeqCst);
                match client.take(QUEUE) {
                    Some(message) => messages.push(message),
                    None if was_over => return messages,
                    None => std::thread::yield_now(),
                }
            }
        });
        let ended = process.end();
        is_over.store(true, Ordering::SeqCst);
        (drained.join().unwrap(), ended)
    });
    let ended = ended.expect(0);
    let (mut found, repeats) = once(&messages);
    found.sort();
    let mut expected = ids;
    expected.sort();
    assert_eq!((found == expected, repeats), (true, 0));
    assert_eq!(ended.label()["published"], 2000);
}

#[test]
fn a_queue_that_stays_full_is_69_and_the_run_is_resumed() {
    let vhost = vhost();
    let client = vhost.client();
    declare_small(&client);
    let (ids, body) = small_list(1000);
    let stage = Stage::with_body(&body);
    let ended = run(&stage, &vhost.url())
        .args(["--no-declare", "--retries", "1"])
        .end()
        .expect(69);
    assert!(ended.label()["error"].as_str().unwrap().contains("full"));
    let mut messages = client.drain(QUEUE);
    client.delete(QUEUE);
    client.declare(QUEUE, &[("x-queue-type", json!("classic"))]);
    run(&stage, &vhost.url())
        .args(["--no-declare"])
        .end()
        .expect(0);
    messages.extend(client.drain(QUEUE));
    let (mut found, _) = once(&messages);
    found.sort();
    let mut expected = ids;
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn certificates_are_checked_on_both_sides() {
    let vhost = vhost();
    let stage = Stage::with_chats(3);
    let url = vhost.tls_url("");
    let ended = run(&stage, &url).args(["--retries", "1"]).end().expect(69);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("certificate"), "{error}");
    // The CA is set by a parameter. The second run also presents a client certificate.
    let known = vhost.tls_url("?cacertfile=AUTHORITY");
    run(&stage, &known).end().expect(0);
    let own = vhost.tls_url("?cacertfile=AUTHORITY&certfile=CERT&keyfile=KEY");
    run(&stage, &own).end().expect(0);
    let half = vhost.tls_url("?certfile=CERT");
    let ended = run(&stage, &half).end().expect(78);
    assert!(ended.stderr.contains("certfile and keyfile go together"));
    let missing = vhost.tls_url("?cacertfile=/nowhere.pem");
    let ended = run(&stage, &missing).end().expect(78);
    assert!(ended.stderr.contains("cacertfile: the file cannot be read"));
    assert_eq!(vhost.client().drain(QUEUE).len(), 6);
}

#[test]
fn a_queue_name_that_resembles_an_error_works() {
    let vhost = vhost();
    let stage = Stage::with_chats(3);
    let arguments = ["--queue", "downstream"];
    run(&stage, &vhost.url()).args(arguments).end().expect(0);
    assert_eq!(vhost.client().depth("downstream"), Some(3));
}

#[test]
fn a_check_of_all_labels_only_checks_their_queues() {
    let vhost = vhost();
    let client = vhost.client();
    let ids = ["4", "7", "9"];
    let stage = Stage::with_labels(ids.map(|id| (id, Chats::Generated(1))).to_vec());
    let url = vhost.url();
    let check = |shard: &str| {
        let arguments = ["--all-labels", "--no-declare", "--queue", "pre:{label_id}"];
        let check = stage.program("check").args(["--sink", &url]);
        check.args(arguments).args(["--shard", shard]).end()
    };
    let missing = check("0/1").expect(78);
    assert!(missing.stdout.contains("no queue 'pre:4'"), "{missing:?}");
    for id in ids {
        client.declare(&format!("pre:{id}"), &[]);
    }
    for shard in ["0/1", "0/2", "1/2"] {
        let ended = check(shard).expect(0);
        let shard: Shard = shard.parse().unwrap();
        for id in ids {
            let looks = ended.stdout.contains(&format!("pre:{id}"));
            assert_eq!(looks, shard.has(id), "{id} {ended:?}");
        }
    }
}
