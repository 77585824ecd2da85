//! Entries of a list: large ones, keys of all kinds, and invalid ids.

use serde_json::json;

use super::Case;

#[test]
fn members_beside_id_and_name_may_be_large() {
    let participants: Vec<_> = (0..600)
        .map(|i| json!({"id": {"server": "c.us", "_serialized": format!("{i}@c.us")}, "isAdmin": false}))
        .collect();
    let group = json!({"groupMetadata": {"participants": participants}, "id": {"_serialized": "1203@g.us"}});
    let last_message = json!({"id": "1@c.us", "lastMessage": {"body": "x".repeat(65_536)}});
    let picture =
        json!({"picture": "y".repeat(3_000_000), "name": "n".repeat(100_000), "id": "2@c.us"});
    let body = json!([group, last_message, picture]).to_string();
    let ids = &["1203@g.us", "1@c.us", "2@c.us"];
    Case::body(&body, 0).ids(ids).holds();
    Case::body(&body, 0)
        .ids(ids)
        .args(&["--include-names"])
        .holds();
}

#[test]
fn a_member_with_a_chat_is_an_entry_whatever_its_key() {
    let entries = |keys: &[&str]| {
        let entry = |(i, key): (usize, &&str)| format!(r#""{key}":{{"id":"{i}@c.us"}}"#);
        keys.iter()
            .enumerate()
            .map(entry)
            .collect::<Vec<_>>()
            .join(",")
    };
    let ids = &["0@c.us", "1@c.us", "2@c.us"];
    for keys in [
        ["0", "1", "2"],
        ["4915112345678", "4915112345678-14", "2@c.us"],
        ["0", "next one", "-2"],
        ["a", "b", "c"],
        ["chat_0", "chat_1", "chat_2"],
        ["x", "1", "y"],
        ["groupMetadata", "Zoë", ""],
        ["0", "info", "title"],
        ["first", "status", "error"],
    ] {
        let map = entries(&keys);
        for body in [
            format!("{{{map}}}"),
            format!(r#"{{"success":true,{map}}}"#),
            format!(r#"{{{map},"session":{{"id":"s","name":"default"}}}}"#),
            format!(r#"{{"data":{{{map}}}}}"#),
        ] {
            Case::body(&body, 0).ids(ids).holds();
        }
    }
    // More objects than are held before it is clear what they are.
    let keys: Vec<String> = (0..40).map(|i| format!("k{i}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let ended = Case::body(&format!("{{{}}}", entries(&keys)), 0)
        .ids(&FORTY)
        .holds();
    assert_eq!(ended.label()["read"], 40);
}

const FORTY: [&str; 40] = [
    "0@c.us", "1@c.us", "2@c.us", "3@c.us", "4@c.us", "5@c.us", "6@c.us", "7@c.us", "8@c.us",
    "9@c.us", "10@c.us", "11@c.us", "12@c.us", "13@c.us", "14@c.us", "15@c.us", "16@c.us",
    "17@c.us", "18@c.us", "19@c.us", "20@c.us", "21@c.us", "22@c.us", "23@c.us", "24@c.us",
    "25@c.us", "26@c.us", "27@c.us", "28@c.us", "29@c.us", "30@c.us", "31@c.us", "32@c.us",
    "33@c.us", "34@c.us", "35@c.us", "36@c.us", "37@c.us", "38@c.us", "39@c.us",
];

#[test]
fn objects_of_the_envelope_are_not_entries() {
    let me = r#""me":{"id":"9@c.us","pushName":"Zoë"},"session":{"id":"8@c.us"},"engine":{"id":"7@c.us"}"#;
    for body in [
        format!(r#"{{{me},"data":[{{"id":"1@c.us"}}]}}"#),
        format!(r#"{{"data":[{{"id":"1@c.us"}}],{me}}}"#),
        format!(r#"{{{me},"0":{{"id":"1@c.us"}}}}"#),
        r#"{"data":{"0":{"id":"1@c.us"}},"unheard_of":{"id":"9@c.us"}}"#.to_owned(),
        format!(r#"{{"unheard_of":{{"id":"9@c.us"}},{me},"data":[{{"id":"1@c.us"}}]}}"#),
    ] {
        Case::body(&body, 0).ids(&["1@c.us"]).holds();
    }
}

#[test]
fn unusable_members_of_the_list_are_invalid_entries() {
    for body in [
        r#"{"data":{"a":{"id":"1@c.us"},"b":{"name":"x"}}}"#,
        r#"{"a":{"id":"1@c.us"},"b":{"id":"[object Object]"}}"#,
        r#"{"b@c.us":{"name":"x"},"0":{"id":"1@c.us"}}"#,
        r#"{"0":{"id":"1@c.us"},"1":null}"#,
        r#"{"data":{"a":{"id":"1@c.us"},"b":"2@c.us"}}"#,
        r#"{"data":{"a":{"id":"1@c.us"},"b":[{"id":"2@c.us"}]}}"#,
    ] {
        let ended = Case::body(body, 65).ids(&["1@c.us"]).holds();
        assert_eq!(ended.label()["invalid"], 1, "{body}");
    }
}

#[test]
fn a_text_that_is_not_a_chat_id_is_an_invalid_entry() {
    for id in [
        r#""[object Object]""#,
        r#""  ""#,
        r#""1""#,
        r#""@c.us""#,
        r#""1@""#,
        r#""1@c.us,3@c.us""#,
        r#""1 2@c.us""#,
        r#""1@c.us\n""#,
        r#""\u00a01@c.us""#,
        r#""undefined""#,
        r#"{"_serialized":"1"}"#,
        r#"{"user":"1","server":"c.us"}"#,
        "true",
        "[\"1@c.us\"]",
    ] {
        let body = format!(r#"[{{"id":{id}}},{{"id":"2@c.us"}}]"#);
        let ended = Case::body(&body, 65).ids(&["2@c.us"]).holds();
        assert_eq!(ended.label()["invalid"], 1, "{id}");
    }
}

#[test]
fn ids_of_every_whatsapp_server_are_valid() {
    let ids = &[
        "12:3@lid",
        "1@c.us",
        "1@s.whatsapp.net",
        "1-2@g.us",
        "1@newsletter",
        "status@broadcast",
        "zoë@c.us",
    ];
    let entries: Vec<_> = ids.iter().map(|id| json!({ "id": id })).collect();
    Case::body(&json!(entries).to_string(), 0).ids(ids).holds();
}

#[test]
fn a_byte_order_mark_may_follow_white_space() {
    for body in [
        "\n\u{feff}[{\"id\":\"1@c.us\"}]",
        "\u{feff} \r\n[{\"id\":\"1@c.us\"}]",
    ] {
        Case::body(body, 0).ids(&["1@c.us"]).holds();
    }
    Case::body("\u{feff}\u{feff}[{\"id\":\"1@c.us\"}]", 0)
        .ids(&["1@c.us"])
        .holds();
}
