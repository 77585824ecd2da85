//! Refusals by a server, and the error messages.

use redis::Commands;

use super::{STREAM, holds, run};
use crate::support::redis::{Server, chat_ids, expire_locks, length};
use crate::support::{Ended, Stage, gated, make_certificate, small_list, wait_until};

fn error(ended: &Ended) -> String {
    ended.label()["error"].as_str().unwrap().to_owned()
}

#[test]
fn an_unreachable_server_is_69() {
    let stage = Stage::with_chats(10);
    let url = format!("redis://127.0.0.1:{}", crate::support::redis::free_port());
    let ended = run(&stage, &url).args(["--retries", "1"]).end().expect(69);
    assert_eq!(ended.label()["status"], "failed");
    assert!(
        error(&ended).contains("cannot reach the broker"),
        "{}",
        error(&ended)
    );
}

#[test]
fn a_wrong_password_is_77_and_not_shown() {
    let server = Server::with_password("right");
    let stage = Stage::with_chats(10);
    for url in [
        format!("redis://:wr0ng@127.0.0.1:{}", server.port),
        format!("redis://127.0.0.1:{}", server.port),
    ] {
        let ended = run(&stage, &url).end().expect(77);
        let told = format!("{ended:?}");
        assert!(!told.contains("wr0ng"), "{told}");
    }
    let path = stage.path("sink-url");
    std::fs::write(&path, server.url()).unwrap();
    let sink_file = ["--label", "1", "--sink-file", path.to_str().unwrap()];
    stage.program("run").args(sink_file).end().expect(0);
    assert_eq!(chat_ids(&mut server.connection(), STREAM).len(), 10);
}

#[test]
fn a_key_of_another_type_is_an_error() {
    let server = Server::start(&[]);
    let _: () = server.connection().set(STREAM, "text").unwrap();
    let stage = Stage::with_chats(10);
    let ended = run(&stage, &server.url()).end().expect(78);
    assert!(error(&ended).contains("WRONGTYPE"), "{}", error(&ended));
    let value: String = server.connection().get(STREAM).unwrap();
    assert_eq!(value, "text");
}

#[test]
fn a_server_without_memory_is_an_error() {
    let server = Server::start(&["--maxmemory", "3mb", "--maxmemory-policy", "noeviction"]);
    let (ids, body) = small_list(60_000);
    let stage = Stage::with_body(body);
    let arguments = ["--retries", "1"];
    let ended = run(&stage, &server.url()).args(arguments).end().expect(69);
    assert!(error(&ended).contains("OOM"), "{}", error(&ended));
    let published = ended.label()["published"].as_u64().unwrap() as usize;
    let mut connection = server.connection();
    assert_eq!(chat_ids(&mut connection, STREAM), ids[..published]);
    let _: () = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "0"])
        .exec(&mut connection)
        .unwrap();
    expire_locks(&mut connection);
    run(&stage, &server.url()).end().expect(0);
    holds(&server, &ids);
}

#[test]
fn a_replica_is_refused() {
    let master = Server::start(&[]);
    let port = master.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]);
    let stage = Stage::with_chats(10);
    let arguments = ["--retries", "1"];
    let ended = run(&stage, &replica.url()).args(arguments).end().expect(69);
    assert!(error(&ended).contains("READONLY"), "{}", error(&ended));
}

#[test]
fn a_certificate_of_an_unknown_authority_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let server = Server::start(&[
        "--tls-port",
        "{port}",
        "--tls-auth-clients",
        "no",
        "--tls-cert-file",
        &path("cert.pem"),
        "--tls-key-file",
        &path("key.pem"),
        "--tls-ca-cert-file",
        &path("cert.pem"),
    ]);
    let stage = Stage::with_chats(10);
    let url = format!("rediss://localhost:{}", server.other_port);
    let ended = run(&stage, &url).args(["--retries", "1"]).end().expect(69);
    assert!(error(&ended).contains("certificate"), "{}", error(&ended));
    let known = run(&stage, &url).env("SSL_CERT_FILE", &path("ca.pem"));
    known.end().expect(0);
    assert_eq!(chat_ids(&mut server.connection(), STREAM).len(), 10);
}

#[test]
fn a_queue_name_that_cannot_be_a_hash_tag_is_refused() {
    let stage = Stage::with_chats(10);
    let arguments = ["--queue", "a{}b"];
    let ended = run(&stage, "redis://127.0.0.1:1")
        .args(arguments)
        .end()
        .expect(78);
    assert!(ended.stderr.contains("hash tag"), "{}", ended.stderr);
}

#[test]
fn error_messages_contain_no_ids() {
    let server = Server::start(&["--maxmemory", "2mb", "--maxmemory-policy", "noeviction"]);
    let stage = Stage::with_chats(60_000);
    let arguments = ["--retries", "1", "-vv"];
    let ended = run(&stage, &server.url()).args(arguments).end().expect(69);
    let told = format!("{ended:?}");
    assert!(!told.contains("@c.us"), "{told}");
}

#[test]
fn invalid_entries_do_not_hide_refused_chats() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]);
    let (_, body) = small_list(500);
    let stage = Stage::with_body(&body);
    let entry = r#","x":{"id":null}}"#;
    let body = format!("{}{entry}", &body[..body.len() - 1]);
    let (reply, gate) = gated(&body);
    stage.mock.script("1", reply);
    let process = run(&stage, &server.url()).args(["--retries", "1"]).spawn();
    let mut connection = server.connection();
    wait_until("the run has started", || {
        length(&mut connection, STREAM) > 100
    });
    redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "1"])
        .exec(&mut connection)
        .unwrap();
    gate.cancel();
    let ended = process.end().expect(69);
    assert!(error(&ended).contains("OOM"), "{}", error(&ended));
}
