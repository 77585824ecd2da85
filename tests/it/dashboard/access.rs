//! Strangers see nothing.

use super::served::{Answer, Served, label, overview};

const TOKEN: &str = "correct-horse battery+staple&9=%";
const DATA: [&str; 4] = ["/", "/api/labels", "/api/runs", "/events"];
const NAME: &str = "Name of the label";

async fn served(token: Option<&str>, is_loopback: bool) -> Served {
    let labels = vec![label("1", NAME, Some(5))];
    Served::with(overview(labels), token, is_loopback).await
}

fn form(token: &str) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("token", token).finish()
}

async fn log_in(served: &Served, token: &str, headers: &[(&str, &str)]) -> Answer {
    served
        .request("POST", "/login", headers, &form(token))
        .await
}

#[tokio::test]
async fn without_a_token_strangers_are_told_how_to_set_one() {
    let (local, public) = (served(None, true).await, served(None, false).await);
    let strangers: [(&Served, &[(&str, &str)]); 4] = [
        (
            &local,
            &[("Host", "localhost"), ("X-Forwarded-For", "10.0.0.1")],
        ),
        (
            &local,
            &[("Host", "127.0.0.1"), ("Forwarded", "for=10.0.0.1")],
        ),
        (&local, &[("Host", "rebound.example")]),
        (&public, &[("Host", "localhost")]),
    ];
    for (served, headers) in strangers {
        for path in DATA {
            let answer = served.get(path, headers).await;
            assert_eq!(answer.status, 403, "{path} {headers:?}");
            assert!(answer.body.contains("LABELCAST_DASHBOARD_TOKEN"));
            assert!(!answer.body.contains(NAME));
        }
        assert_eq!(log_in(served, TOKEN, headers).await.status, 403);
    }
    for host in ["localhost:8080", "127.0.0.1", "[::1]:80"] {
        assert_eq!(
            local.get("/api/labels", &[("Host", host)]).await.status,
            200
        );
    }
}

#[tokio::test]
async fn with_a_token_everybody_logs_in() {
    for is_loopback in [true, false] {
        let served = served(Some(TOKEN), is_loopback).await;
        for path in DATA {
            let answer = served.get(path, &[("Host", "localhost")]).await;
            assert_eq!(answer.status, 401, "{path}");
            assert!(!answer.body.contains(NAME));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            match path {
                "/" => assert!(
                    answer
                        .body
                        .contains("<form method=\"post\" action=\"/login\">")
                ),
                _ => assert!(answer.json()["error"].is_string()),
            }
        }
        let answer = log_in(&served, TOKEN, &[]).await;
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")));
        let set = answer.header("set-cookie").unwrap();
        assert!(
            set.contains("HttpOnly; SameSite=Strict") && set.contains("Path=/;"),
            "{set}"
        );
        assert!(!set.contains("correct"), "the token is not in the cookie");
        let cookie = set.split(';').next().unwrap();
        for path in ["/", "/api/labels", "/api/runs"] {
            let headers = [("Cookie", cookie), ("X-Forwarded-For", "10.0.0.1")];
            let answer = served.get(path, &headers).await;
            assert_eq!(answer.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn programs_send_the_token_as_bearer() {
    let served = served(Some(TOKEN), false).await;
    let right = format!("Bearer {TOKEN}");
    let answer = served
        .get("/api/labels", &[("Authorization", &right)])
        .await;
    assert_eq!(answer.status, 200);
    let answer = served
        .get("/api/labels", &[("Authorization", "Bearer wrong")])
        .await;
    assert_eq!(answer.status, 401);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
}

#[tokio::test]
async fn a_wrong_token_gives_the_form_again_and_no_cookie() {
    let served = served(Some(TOKEN), true).await;
    for wrong in ["", "correct", "correct-horse battery+staple&9=%x"] {
        let answer = log_in(&served, wrong, &[]).await;
        assert_eq!(answer.status, 401);
        assert_eq!(answer.header("set-cookie"), None);
        assert!(answer.body.contains("This is not the token."));
    }
    let large = "x".repeat(5000);
    assert_eq!(log_in(&served, &large, &[]).await.status, 413);
    assert_eq!(served.get("/login", &[]).await.status, 303);
}

#[tokio::test]
async fn a_new_token_logs_everybody_out() {
    let first = served(Some(TOKEN), true).await;
    let answer = log_in(&first, TOKEN, &[]).await;
    let cookie = answer.header("set-cookie").unwrap();
    let headers = [("Cookie", cookie.split(';').next().unwrap())];
    let same = served(Some(TOKEN), true).await;
    assert_eq!(same.get("/", &headers).await.status, 200, "after a restart");
    let changed = served(Some("another token"), true).await;
    assert_eq!(changed.get("/", &headers).await.status, 401);
}

#[tokio::test]
async fn the_cookie_is_secure_if_the_browser_uses_https() {
    let served = served(Some(TOKEN), true).await;
    for (headers, is_secure) in [
        (&[][..], false),
        (&[("X-Forwarded-Proto", "https")][..], true),
        (&[("Forwarded", "for=10.0.0.1;proto=https")][..], true),
    ] {
        let answer = log_in(&served, TOKEN, headers).await;
        let set = answer.header("set-cookie").unwrap();
        assert_eq!(set.contains("; Secure"), is_secure, "{headers:?}");
    }
}

#[tokio::test]
async fn the_files_of_the_login_page_need_no_login() {
    let served = served(Some(TOKEN), false).await;
    for path in ["/dashboard.css", "/icon.svg"] {
        assert_eq!(served.get(path, &[]).await.status, 200, "{path}");
    }
}
