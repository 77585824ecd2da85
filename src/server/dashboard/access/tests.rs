use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::{Access, Decision, is_https, is_loopback_host};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        let value = HeaderValue::from_str(value).ok()?;
        Some((HeaderName::from_static(name), value))
    };
    pairs.iter().filter_map(pair).collect()
}

fn access(token: Option<&str>, is_loopback: bool) -> Access {
    let token = token.map(|token| token.to_owned().into());
    Access::new(token.as_ref(), is_loopback)
}

fn cookie(access: &Access) -> String {
    let set = access.set_cookie(&HeaderMap::new()).unwrap_or_default();
    set.split(';').next().unwrap_or_default().to_owned()
}

#[test]
fn without_a_token_only_direct_requests_on_loopback_are_allowed() {
    let table: [(&[(&'static str, &str)], bool); 17] = [
        (&[], true),
        (&[("host", "localhost")], true),
        (&[("host", "LOCALHOST:8080")], true),
        (&[("host", "127.0.0.1:8080")], true),
        (&[("host", "[::1]:8080")], true),
        (&[("host", "[::1]")], true),
        (&[("host", "dashboard.example")], false),
        (&[("host", "127.0.0.1.evil.example")], false),
        (&[("host", "192.168.1.7")], false),
        (&[("host", "")], false),
        (
            &[("host", "localhost"), ("forwarded", "for=10.0.0.1")],
            false,
        ),
        (
            &[("host", "localhost"), ("x-forwarded-for", "10.0.0.1")],
            false,
        ),
        (&[("host", "localhost"), ("x-forwarded-host", "x")], false),
        (
            &[("host", "localhost"), ("x-forwarded-proto", "https")],
            false,
        ),
        (&[("host", "localhost"), ("x-real-ip", "")], false),
        (&[("host", "localhost"), ("via", "1.1 proxy")], false),
        (
            &[("host", "localhost"), ("authorization", "Bearer x")],
            true,
        ),
    ];
    let root = Uri::from_static("/");
    for (pairs, is_allowed) in table {
        let decide = |is_loopback| access(None, is_loopback).decide(&headers(pairs), &root);
        let expected = match is_allowed {
            true => Decision::Allowed,
            false => Decision::NoToken,
        };
        assert_eq!(decide(true), expected, "{pairs:?}");
        assert_eq!(decide(false), Decision::NoToken, "{pairs:?}");
    }
    let absolute = Uri::from_static("http://evil.example/");
    let decision = access(None, true).decide(&headers(&[("host", "localhost")]), &absolute);
    assert_eq!(decision, Decision::NoToken);
}

#[test]
fn with_a_token_every_request_needs_it() {
    let root = Uri::from_static("/");
    let cookie = cookie(&access(Some(TOKEN), true));
    let bearer = format!("Bearer {TOKEN}");
    let among = format!("a=b; {cookie}; c=d");
    let stale = self::cookie(&access(Some("another token"), true));
    let raw = format!("labelcast_dashboard={TOKEN}");
    let table: [(&[(&'static str, &str)], bool); 11] = [
        (&[], false),
        (&[("host", "localhost")], false),
        (&[("cookie", &cookie)], true),
        (&[("cookie", "x=y"), ("cookie", &among)], true),
        (&[("cookie", &stale)], false),
        (&[("cookie", &raw)], false),
        (&[("cookie", "labelcast_dashboard=")], false),
        (&[("authorization", &bearer)], true),
        (
            &[("authorization", &bearer), ("x-forwarded-for", "10.0.0.1")],
            true,
        ),
        (&[("authorization", "Bearer ")], false),
        (&[("authorization", "Basic x")], false),
    ];
    for (pairs, is_allowed) in table {
        for is_loopback in [true, false] {
            let decision = access(Some(TOKEN), is_loopback).decide(&headers(pairs), &root);
            let expected = match is_allowed {
                true => Decision::Allowed,
                false => Decision::NeedsToken,
            };
            assert_eq!(decision, expected, "{pairs:?}");
        }
    }
}

#[test]
fn an_empty_token_is_none() {
    let (empty, root) = (access(Some(""), false), Uri::from_static("/"));
    assert_eq!(empty.decide(&HeaderMap::new(), &root), Decision::NoToken);
    assert!(!empty.accepts(""));
    assert_eq!(empty.set_cookie(&HeaderMap::new()), None);
}

#[test]
fn the_cookie_is_not_the_token() {
    let access = access(Some(TOKEN), true);
    let set = access.set_cookie(&HeaderMap::new()).unwrap_or_default();
    assert!(!set.contains(TOKEN));
    assert!(
        set.contains("; HttpOnly; SameSite=Strict") && set.contains("; Path=/;"),
        "{set}"
    );
    assert!(!set.contains("Secure"));
    let https = headers(&[("x-forwarded-proto", "https")]);
    let set = access.set_cookie(&https).unwrap_or_default();
    assert!(set.ends_with("; Secure"), "{set}");
}

#[test]
fn https_is_told_by_the_proxy() {
    let table: [(&[(&'static str, &str)], bool); 7] = [
        (&[], false),
        (&[("x-forwarded-proto", "https")], true),
        (&[("x-forwarded-proto", "HTTPS, http")], true),
        (&[("x-forwarded-proto", "http")], false),
        (&[("forwarded", "for=1.2.3.4;proto=https;by=x")], true),
        (
            &[("forwarded", "for=1.2.3.4; Proto=\"https\", for=5.6.7.8")],
            true,
        ),
        (&[("forwarded", "proto=http")], false),
    ];
    for (pairs, is_secure) in table {
        assert_eq!(is_https(&headers(pairs)), is_secure, "{pairs:?}");
    }
}

#[test]
fn hosts_with_anything_else_are_not_loopback() {
    for host in ["localhost:", "127.8.9.1", "[::1]:1", "::1"] {
        // A bare IPv6 address is not a valid host; ":1" would be its port.
        assert_eq!(is_loopback_host(host), host != "::1", "{host}");
    }
    for host in [
        "localhost:80x",
        "[::1",
        "localhost.",
        "x@localhost",
        "[localhost",
    ] {
        assert!(!is_loopback_host(host), "{host}");
    }
}
