//! Look-ups of contacts: paths and login of each dialect, missing contacts, the stand-in.

mod failures;

use std::time::Duration;

use labelcast::api::{ApiError, ApiSettings, Auth, Client, Dialect, FailureKind};
use labelcast::decode::Trust;
use labelcast::http::Proxies;
use labelcast::message::Contact;
use labelcast::mock::Reply;

use crate::support::{INSTANCE, Stage, TOKEN};

const DIALECTS: [(Dialect, Auth); 5] = [
    (Dialect::WawpV2, Auth::Query),
    (Dialect::WawpV2, Auth::Bearer),
    (Dialect::WawpV1, Auth::Query),
    (Dialect::WawpV1, Auth::Bearer),
    (Dialect::Waha, Auth::Query),
];
const ID: &str = "4915112345678@c.us";

fn settings(url: &str, token: &str, dialect: Dialect, auth: Auth) -> ApiSettings {
    ApiSettings {
        url: url.parse().unwrap(),
        dialect,
        instance_id: INSTANCE.to_owned(),
        token: token.to_owned().into(),
        auth,
        connect_timeout: Duration::from_secs(5),
        read_timeout: Duration::from_millis(500),
        retries: 0,
        trust: Trust::default(),
        proxies: Proxies::default(),
    }
}

fn client_at(url: &str, token: &str, dialect: Dialect, auth: Auth) -> Client {
    Client::new(&settings(url, token, dialect, auth)).unwrap()
}

fn client(stage: &Stage, dialect: Dialect, auth: Auth) -> Client {
    client_at(&stage.mock.url(), TOKEN, dialect, auth)
}

fn v2(stage: &Stage) -> Client {
    client(stage, Dialect::WawpV2, Auth::Query)
}

fn kind<T: std::fmt::Debug>(result: Result<T, ApiError>) -> FailureKind {
    result.unwrap_err().failure_kind()
}

#[tokio::test]
async fn each_dialect_has_its_own_paths_queries_and_login() {
    for (dialect, auth) in DIALECTS {
        let stage = Stage::with_chats(0);
        let client = client(&stage, dialect, auth);
        client.contact(ID).await.unwrap().unwrap();
        client.about(ID).await.unwrap();
        client.picture_url(ID).await.unwrap();
        assert!(client.number_exists("+49 151").await.unwrap());
        client.chat_of_lid("8/9@lid").await.unwrap();

        let (base, lids) = match dialect {
            Dialect::WawpV2 => ("/v2", "/v2".to_owned()),
            Dialect::WawpV1 => ("/wp-json/awp/v1", "/wp-json/awp/v1".to_owned()),
            Dialect::Waha => ("/api", format!("/api/{INSTANCE}")),
        };
        let login = match (dialect, auth) {
            (Dialect::Waha, _) => format!("session={INSTANCE}"),
            (_, Auth::Query) => format!("instance_id={INSTANCE}&access_token={TOKEN}"),
            (_, Auth::Bearer) => String::new(),
        };
        let query = |query: &str| format!("{query}&{login}").trim_end_matches('&').to_owned();
        let id = query("contactId=4915112345678%40c.us");
        let expected = [
            (format!("{base}/contacts"), id.clone()),
            (format!("{base}/contacts/about"), id.clone()),
            (format!("{base}/contacts/profile-picture"), id),
            (
                format!("{base}/contacts/check-exists"),
                query("phone=%2B49+151"),
            ),
            (
                format!("{lids}/lids/8%2F9@lid"),
                match dialect {
                    Dialect::Waha => String::new(),
                    _ => login.clone(),
                },
            ),
        ];
        let requests = stage.mock.requests();
        let asked = requests.iter().map(|r| (r.path.clone(), r.query.clone()));
        assert_eq!(asked.collect::<Vec<_>>(), expected);
        for request in &requests {
            let value = |name: &str| {
                let value = request.headers.get(name);
                value.map(|value| value.to_str().unwrap().to_owned())
            };
            let bearer = (auth == Auth::Bearer).then(|| format!("Bearer {TOKEN}"));
            assert_eq!(value("authorization"), bearer);
            let key = (dialect == Dialect::Waha).then(|| TOKEN.to_owned());
            assert_eq!(value("x-api-key"), key);
            assert_eq!(value("accept-encoding"), None);
        }
        let calls = stage.mock.contact_calls();
        let ids: Vec<&str> = calls.iter().map(|call| call.chat_id.as_str()).collect();
        assert_eq!(ids, [ID, ID, ID, "+49 151", "8/9@lid"]);
        assert!(
            calls
                .iter()
                .zip(&requests)
                .all(|(call, request)| call.path == request.path)
        );
    }
}

#[tokio::test]
async fn people_are_read_in_each_dialect() {
    for (dialect, auth) in DIALECTS {
        let stage = Stage::with_chats(0);
        let client = client(&stage, dialect, auth);
        let expected = Contact {
            name: Some("Person 14".to_owned()),
            push_name: None,
            number: Some("14".to_owned()),
            is_business: Some(true),
            ..Contact::default()
        };
        assert_eq!(client.contact("14@c.us").await.unwrap(), Some(expected));
        let lid = client.contact("15@lid").await.unwrap().unwrap();
        assert_eq!(
            (lid.number, lid.push_name.as_deref()),
            (None, Some("P. 15"))
        );
        assert_eq!(
            client.about("2@c.us").await.unwrap().as_deref(),
            Some("About 2")
        );
        assert_eq!(client.about("4@c.us").await.unwrap(), None);
        let picture = client.picture_url("3@c.us").await.unwrap();
        assert_eq!(picture.as_deref(), Some("https://pictures.example/3.jpg"));
        assert_eq!(client.picture_url("2@c.us").await.unwrap(), None);
        let chat = client.chat_of_lid("10@lid").await.unwrap();
        assert_eq!(chat.as_deref(), Some("4410@c.us"));
        assert_eq!(client.chat_of_lid("20@lid").await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_contact_that_does_not_exist_is_no_error() {
    let stage = Stage::with_chats(0);
    let client = v2(&stage);
    for reply in [
        Reply::json("null"),
        Reply::json("{}"),
        Reply::json(r#"{"success":true,"data":null}"#),
        Reply::json(format!(
            r#"{{"success":false,"message":"Contact {ID} not found"}}"#
        )),
        Reply::json(r#"{"statusCode":404,"message":"Contact not found"}"#).status(404),
        Reply::json(format!(r#"{{"message":"{ID} does not exist"}}"#)).status(404),
        Reply::json("The number is not registered on WhatsApp").status(404),
    ] {
        for _ in 0..4 {
            stage.mock.script_contact(ID, reply.clone());
        }
        assert_eq!(client.contact(ID).await.unwrap(), None, "{reply:?}");
        assert_eq!(client.about(ID).await.unwrap(), None, "{reply:?}");
        assert_eq!(client.picture_url(ID).await.unwrap(), None, "{reply:?}");
        assert_eq!(client.chat_of_lid(ID).await.unwrap(), None, "{reply:?}");
    }
    let missing = Reply::json(r#"{"message":"Number not found"}"#).status(404);
    stage.mock.script_contact("49", missing);
    assert!(!client.number_exists("49").await.unwrap());
}

#[tokio::test]
async fn an_empty_body_means_null_to_waha_only() {
    let stage = Stage::with_chats(0);
    stage.mock.refuse_contacts(Some(Reply::json("")));
    let waha = client(&stage, Dialect::Waha, Auth::Query);
    assert_eq!(waha.contact(ID).await.unwrap(), None);
    assert_eq!(waha.picture_url(ID).await.unwrap(), None);
    assert_eq!(kind(waha.number_exists("49").await), FailureKind::Transient);
    for (dialect, auth) in &DIALECTS[..4] {
        let client = client(&stage, *dialect, *auth);
        assert_eq!(kind(client.contact(ID).await), FailureKind::Transient);
    }
    stage.mock.refuse_contacts(None);
    assert!(waha.contact(ID).await.unwrap().is_some());
}

#[tokio::test]
async fn the_stand_in_limits_delays_and_fails() {
    let stage = Stage::with_chats(0);
    let client = v2(&stage);
    stage.mock.set_contact_delay(Duration::from_millis(100));
    let start = std::time::Instant::now();
    client.contact(ID).await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));
    stage.mock.set_contact_delay(Duration::ZERO);

    stage.mock.fail_some_contacts();
    assert_eq!(client.contact("57@c.us").await.unwrap(), None);
    assert!(!client.number_exists("57").await.unwrap());
    assert_eq!(
        kind(client.contact("113@c.us").await),
        FailureKind::Transient
    );
    assert!(client.contact("58@c.us").await.unwrap().is_some());

    stage.mock.limit_contacts(2);
    client.contact(ID).await.unwrap();
    client.about(ID).await.unwrap();
    let error = client.contact(ID).await.unwrap_err();
    let asks = |error: &ApiError| match error {
        ApiError::Status { retry_after, .. } => *retry_after,
        _ => None,
    };
    assert_eq!(asks(&error), Some(Duration::from_secs(1)));
    assert_eq!(error.failure_kind(), FailureKind::Throttled);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    client.contact(ID).await.unwrap();
}

#[tokio::test]
async fn the_served_demo_answers_look_ups_up_to_a_limit() {
    let mut demo = std::process::Command::new(env!("CARGO_BIN_EXE_labelcast"))
        .args(["demo", "--serve", "--chats", "9", "--contact-limit", "2"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(
        &mut std::io::BufReader::new(demo.stdout.take().unwrap()),
        &mut line,
    )
    .unwrap();
    let url = line
        .split(' ')
        .find(|word| word.starts_with("http"))
        .unwrap();
    let settings = ApiSettings {
        instance_id: labelcast::mock::DEMO_INSTANCE.to_owned(),
        ..settings(
            url,
            labelcast::mock::DEMO_TOKEN,
            Dialect::WawpV2,
            Auth::Query,
        )
    };
    let client = Client::new(&settings).unwrap();
    let found = [
        client.contact("7@c.us").await,
        client.contact("8@c.us").await,
    ];
    let limited = client.contact("9@c.us").await;
    demo.kill().unwrap();
    demo.wait().unwrap();
    let [missing, found] = found.map(|contact| contact.unwrap());
    assert_eq!(missing, None);
    assert_eq!(found.unwrap().name.as_deref(), Some("Person 8"));
    assert_eq!(kind(limited), FailureKind::Throttled);
}
