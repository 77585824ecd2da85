//! Proxies from the environment are used or refused, and never ignored.

use crate::support::proxy::Proxy;
use crate::support::{Running, Stage};

fn run(stage: &Stage, variables: &[(&str, &str)]) -> Running {
    variables
        .iter()
        .fold(stage.run(), |run, (name, value)| run.env(name, value))
}

#[test]
fn an_invalid_proxy_variable_is_an_error() {
    for (name, value) in [
        ("HTTP_PROXY", "http://127.0.0.1:1\n"),
        ("http_proxy", "http://user:pass word@127.0.0.1:1"),
        ("HTTPS_PROXY", "socks5://127.0.0.1:1"),
        ("all_proxy", "http://127.0.0.1:port"),
        ("ALL_PROXY", "http://"),
    ] {
        let stage = Stage::with_chats(3);
        let ended = run(&stage, &[(name, value)]).end().expect(78);
        assert!(ended.stderr.contains(name), "{ended:#?}");
        assert!(!ended.stderr.contains("pass word"), "{ended:#?}");
        assert!(stage.mock.requests().is_empty(), "nothing was sent");
    }
}

#[test]
fn proxies_from_the_environment_are_used() {
    let stage = Stage::with_chats(3);
    // The stand-in also accepts requests in the form that a proxy receives.
    let port = stage
        .mock
        .url()
        .rsplit(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let proxy = Proxy::start(port);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
        let before = proxy.connections();
        let url = format!("127.0.0.1:{}", proxy.port);
        run(&stage, &[(name, &url)]).end().expect(0);
        assert!(proxy.connections() > before, "{name} was not used");
    }
}

#[test]
fn an_asterisk_in_no_proxy_means_every_host() {
    let nowhere = "http://127.0.0.1:1";
    for except in ["*", " * ", "example.com, *"] {
        for name in ["NO_PROXY", "no_proxy"] {
            let stage = Stage::with_chats(3);
            run(&stage, &[("HTTP_PROXY", nowhere), (name, except)])
                .end()
                .expect(0);
        }
    }
    let stage = Stage::with_chats(3);
    let no_retry = ["--retries", "0"];
    run(&stage, &[("HTTP_PROXY", nowhere)])
        .args(no_retry)
        .end()
        .expect(69);
    run(
        &stage,
        &[("HTTP_PROXY", nowhere), ("NO_PROXY", "127.0.0.1")],
    )
    .end()
    .expect(0);
}
