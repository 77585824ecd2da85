//! Protocol and login of servers and sentinels.

use redis::Commands;

use super::{STREAM, holds, run};
use crate::support::redis::{Server, chat_ids, free_port};
use crate::support::resp::answering;
use crate::support::{Stage, make_certificate, small_list};

/// Starts a sentinel that watches a master as "main", with these lines in its configuration.
fn sentinel(folder: &tempfile::TempDir, master: &str, lines: &str) -> Server {
    let config = folder.path().join("sentinel.conf");
    let text = format!("{lines}\nsentinel monitor main {master} 1\n");
    std::fs::write(&config, text).unwrap();
    Server::sentinel(config.to_str().unwrap())
}

#[test]
fn sentinels_work_with_and_without_passwords() {
    let master = Server::with_password("m@ster+pw");
    let mut connection = master.connection_as(":m%40ster+pw@");
    redis::cmd("ACL")
        .arg(&["SETUSER", "app", "on", ">m@ster+pw", "~*", "&*", "+@all"])
        .exec(&mut connection)
        .unwrap();
    let address = format!("127.0.0.1 {}", master.port);
    let same = "requirepass \"m@ster+pw\"";
    let other = "requirepass \"other+pw/?#\"";
    let named = "user default off\nuser watcher on >other+pw ~* &* +@all";
    let stage = Stage::with_chats(10);
    for (lines, login, parameters) in [
        ("", ":m%40ster+pw", ""),
        ("", "app:m%40ster+pw", ""),
        (same, ":m%40ster+pw", ""),
        (same, "app:m%40ster+pw", "?sentinel_password=m%40ster+pw"),
        (
            other,
            ":m%40ster+pw",
            "?sentinel_password=other+pw%2F%3F%23",
        ),
        (
            named,
            ":m%40ster+pw",
            "?db=0&sentinel_username=watcher&sentinel_password=other%2Bpw",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sentinel = sentinel(&folder, &address, lines);
        let url = format!(
            "redis+sentinel://{login}@127.0.0.1:{}/main{parameters}",
            sentinel.port
        );
        let ended = run(&stage, &url).end();
        assert_eq!(
            ended.code,
            Some(0),
            "{lines} {login} {parameters}: {ended:#?}"
        );
        let _: () = connection.del(STREAM).unwrap();
    }
}

#[test]
fn a_login_refused_by_all_sentinels_is_77() {
    let master = Server::with_password("m4ster");
    let address = format!("127.0.0.1 {}", master.port);
    let folder = tempfile::tempdir().unwrap();
    let sentinel = sentinel(&folder, &address, "requirepass other");
    let stage = Stage::with_chats(10);
    for (login, parameters) in [
        (":m4ster@", ""),
        ("", ""),
        (":m4ster@", "?sentinel_password=wr0ng"),
        // If a login for the sentinels is set, no other is tried.
        (":other@", "?sentinel_password=wr0ng"),
    ] {
        let url = format!(
            "redis+sentinel://{login}127.0.0.1:{}/main{parameters}",
            sentinel.port
        );
        let ended = run(&stage, &url).end().expect(77);
        let error = ended.label()["error"].as_str().unwrap();
        assert!(error.contains("sentinel_password"), "{error}");
        let told = format!("{ended:?}");
        assert!(
            !told.contains("m4ster") && !told.contains("wr0ng"),
            "{told}"
        );
    }
    // A refusal by the master is reported as such.
    let url = format!("redis+sentinel://:other@127.0.0.1:{}/main", sentinel.port);
    let ended = run(&stage, &url).end().expect(77);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(!error.contains("sentinel"), "{error}");
}

#[test]
fn sentinels_and_their_master_work_over_tls() {
    let folder = tempfile::tempdir().unwrap();
    make_certificate(folder.path());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let files = ["cert.pem", "key.pem", "cert.pem"].map(path);
    let names = ["tls-cert-file", "tls-key-file", "tls-ca-cert-file"];
    let mut arguments = vec!["--tls-port", "{port}", "--tls-auth-clients", "no"];
    let flags = names.map(|name| format!("--{name}"));
    for (flag, file) in flags.iter().zip(&files) {
        arguments.extend([flag.as_str(), file]);
    }
    let master = Server::start(&arguments);
    let tls_port = free_port();
    let mut lines = format!(
        "tls-port {tls_port}\ntls-auth-clients no\ntls-replication yes\n\
         sentinel resolve-hostnames yes\nsentinel announce-hostnames yes\n"
    );
    for (name, file) in names.iter().zip(&files) {
        lines.push_str(&format!("{name} {file}\n"));
    }
    let address = format!("localhost {}", master.other_port);
    let _sentinel = sentinel(&folder, &address, &lines);
    let (ids, body) = small_list(10);
    let stage = Stage::with_body(body);
    let url = format!("rediss+sentinel://localhost:{tls_port}/main");
    let known = run(&stage, &url).env("SSL_CERT_FILE", &path("ca.pem"));
    known.end().expect(0);
    holds(&master, &ids);
    let unknown = run(&stage, &url).args(["--retries", "0"]).end().expect(69);
    let error = unknown.label()["error"].as_str().unwrap();
    assert!(error.contains("certificate"), "{error}");
}

#[test]
fn a_server_without_hello_works() {
    let server = Server::start(&["--rename-command", "HELLO", "", "--requirepass", "right"]);
    let stage = Stage::with_chats(10);
    for (login, code) in [(":right@", 0), (":wr0ng@", 77), ("", 77)] {
        for database in ["", "/3"] {
            let url = format!("redis://{login}127.0.0.1:{}{database}", server.port);
            let ended = run(&stage, &url).end().expect(code);
            let told = format!("{ended:?}");
            assert!(!told.contains("wr0ng"), "{told}");
        }
    }
    let mut connection = server.connection_as(":right@");
    assert_eq!(chat_ids(&mut connection, STREAM).len(), 10);
    redis::cmd("SELECT").arg(3).exec(&mut connection).unwrap();
    assert_eq!(chat_ids(&mut connection, STREAM).len(), 10);
}

#[test]
fn a_refused_hello_is_recognised_in_any_wording() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(10);
    let mut connection = server.connection();
    for words in [
        "-ERR unsupported command",
        "-ERR unknown command 'HELLO', with args beginning with: '3'",
        "-NOPROTO unsupported protocol version",
        "-NOPROTO sorry, this protocol version is not supported",
        "-ERR syntax error",
        "-NOPERM this user has no permissions to run the 'hello' command",
        "-invalid request",
    ] {
        let port = answering(server.port, move |command| {
            (command == "HELLO").then(|| words.to_owned())
        });
        let url = format!("redis://127.0.0.1:{port}");
        let ended = run(&stage, &url).end();
        assert_eq!(ended.code, Some(0), "{words}: {ended:#?}");
        assert_eq!(chat_ids(&mut connection, STREAM).len(), 10, "{words}");
        let _: () = connection.del(STREAM).unwrap();
    }
}

#[test]
fn the_protocol_parameter_is_respected() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(10);
    let (sender, asked) = std::sync::mpsc::channel();
    let port = answering(server.port, move |command| {
        sender.send(command.to_owned()).unwrap();
        None
    });
    for (protocol, says_hello) in [("2", false), ("resp2", false), ("3", true), ("resp3", true)] {
        let url = format!("redis://127.0.0.1:{port}?protocol={protocol}");
        run(&stage, &url).end().expect(0);
        let commands: Vec<String> = asked.try_iter().collect();
        let hello = commands.iter().any(|command| command == "HELLO");
        assert_eq!(hello, says_hello, "{protocol}: {commands:?}");
    }
}

#[test]
fn an_error_that_quotes_the_command_shows_no_secret() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(10);
    for words in [
        "-ERR unknown command 'AUTH', with args beginning with: 's3cr'",
        "-ERR cannot do AUTH s3cr here",
    ] {
        let port = answering(server.port, move |_| Some(words.to_owned()));
        let url = format!("redis://:s3cr@127.0.0.1:{port}");
        let ended = run(&stage, &url).args(["-vv"]).end().expect(77);
        let error = ended.label()["error"].as_str().unwrap();
        assert!(error.contains(&words[1..12]), "{error}");
        let told = format!("{ended:?}");
        assert!(!told.contains("s3cr"), "{told}");
    }
}

#[test]
fn transient_errors_are_not_refused_logins() {
    let server = Server::start(&[]);
    let stage = Stage::with_chats(10);
    for words in [
        "-LOADING Redis is loading the dataset in memory",
        "-ERR max number of clients reached",
        "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "-BUSY Redis is busy running a script.",
    ] {
        let port = answering(server.port, move |_| Some(words.to_owned()));
        for login in ["", ":pass@"] {
            let url = format!("redis://{login}127.0.0.1:{port}");
            let ended = run(&stage, &url).args(["--retries", "1"]).end();
            assert_eq!(ended.code, Some(69), "{words} {login}: {ended:#?}");
            let error = ended.label()["error"].as_str().unwrap();
            assert!(error.contains(&words[1..12]), "{error}");
        }
    }
}

#[test]
fn databases_are_set_by_path_or_parameter() {
    let server = Server::start(&["--unixsocket", "redis.sock"]);
    let stage = Stage::with_chats(10);
    let folder: (String, String) = redis::cmd("CONFIG")
        .arg(&["GET", "dir"])
        .query(&mut server.connection())
        .unwrap();
    let socket = format!("unix://{}/redis.sock", folder.1);
    let host = server.url();
    let sentinel_folder = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1 {}", server.port);
    let sentinel = sentinel(&sentinel_folder, &address, "");
    let main = format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port);
    for (url, database) in [
        (format!("{host}?db=3"), 3),
        (format!("{host}/?db=4"), 4),
        (format!("{host}/5"), 5),
        (format!("{host}/6?db=6"), 6),
        (format!("{socket}?db=7"), 7),
        (format!("{main}/8"), 8),
        (format!("{main}?db=9"), 9),
    ] {
        run(&stage, &url).end().expect(0);
        let mut connection = server.connection();
        redis::cmd("SELECT")
            .arg(database)
            .exec(&mut connection)
            .unwrap();
        assert_eq!(chat_ids(&mut connection, STREAM).len(), 10, "{url}");
    }
    assert_eq!(chat_ids(&mut server.connection(), STREAM).len(), 0);
    let ended = run(&stage, &format!("{host}?db=99")).end().expect(78);
    let error = ended.label()["error"].as_str().unwrap();
    assert!(error.contains("DB index is out of range"), "{error}");
}
