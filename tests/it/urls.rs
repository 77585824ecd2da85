//! URLs of brokers: every problem is reported before any connection, without quoting the URL.

use crate::support::{Ended, Stage};

fn refused(url: &str) -> Ended {
    let stage = Stage::with_chats(1);
    let run = stage.program("run").args(["--label", "1", "--sink", url]);
    run.end().expect(78)
}

/// Every scheme of a broker, with the parts that may follow the host.
const BROKERS: [(&str, &str); 10] = [
    ("redis", "/0"),
    ("rediss", "/0"),
    ("redis+cluster", ""),
    ("rediss+cluster", ""),
    ("redis+sentinel", "/main"),
    ("rediss+sentinel", "/main"),
    ("amqp", "/v0"),
    ("amqps", "/v0"),
    ("rabbitmq-stream", "/v0"),
    ("rabbitmq-stream+tls", "/v0"),
];

#[test]
fn special_characters_in_a_password_must_be_encoded() {
    for (scheme, path) in BROKERS {
        for login in [
            ":s3cr#t0fmine",
            "user:s3cr#t0fmine",
            // The text before the character could be a host and a port.
            "user:12#t0fmine",
            ":s3cr/t0fmine",
            "user:12/t0fmine",
            "user:s3cr@12/t0fmine",
            ":s3cr?t0fmine",
            "user:12?t0fmine",
            "user:s3cr@12?t0fmine",
        ] {
            let ended = refused(&format!("{scheme}://{login}@127.0.0.1:1{path}"));
            for code in ["%23", "%2F", "%3F", "%40", "%25"] {
                assert!(ended.stderr.contains(code), "{scheme} {login}: {ended:?}");
            }
            let told = format!("{ended:?}");
            for part in ["s3cr", "t0fmine"] {
                assert!(!told.contains(part), "{scheme} {login}: {told}");
            }
        }
    }
}

#[test]
fn unknown_parameters_are_refused() {
    for (scheme, path) in BROKERS {
        let ended = refused(&format!("{scheme}://127.0.0.1:1{path}?databse=3"));
        assert!(ended.stderr.contains("“databse”"), "{scheme}: {ended:?}");
        let exists = match scheme {
            "amqp" | "amqps" => "heartbeat",
            "rabbitmq-stream" | "rabbitmq-stream+tls" => "amqp_port",
            "redis+sentinel" | "rediss+sentinel" => "sentinel_password",
            _ => "db",
        };
        assert!(ended.stderr.contains(exists), "{scheme}: {ended:?}");
    }
    refused("unix:/nowhere.sock?dbs=3");
}

#[test]
fn invalid_parameter_values_are_refused() {
    for (url, told) in [
        ("redis://127.0.0.1:1?db=x", "db"),
        ("redis://127.0.0.1:1?db=-1", "db"),
        ("redis://127.0.0.1:1/x", "db"),
        ("redis://127.0.0.1:1/2?db=3", "database 2"),
        ("redis://127.0.0.1:1?db=2&db=2", "more than once"),
        ("redis://127.0.0.1:1?protocol=4", "protocol"),
        ("redis+sentinel://127.0.0.1:1/main/2?db=3", "database 2"),
        (
            "redis+sentinel://127.0.0.1:1/main?sentinel_username=a",
            "sentinel_password",
        ),
        ("redis+cluster://127.0.0.1:1/3", "database 0"),
        ("redis+cluster://127.0.0.1:1?db=3", "database 0"),
        ("amqp://127.0.0.1:1?heartbeat=often", "heartbeat"),
        ("amqp://127.0.0.1:1?auth_mechanism=magic", "auth_mechanism"),
    ] {
        let ended = refused(url);
        assert!(ended.stderr.contains(told), "{url}: {ended:?}");
    }
    let vhost = "v".repeat(256);
    let ended = refused(&format!("amqp://127.0.0.1:1/{vhost}"));
    assert!(ended.stderr.contains("255 bytes"), "{ended:?}");
}
