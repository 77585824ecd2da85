use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

fn at(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

fn read_at(reader: &mut InboundReader, body: &str, ms: u64) -> Result<Vec<Inbound>, NotEvents> {
    reader.read(body.as_bytes().to_vec(), at(ms))
}

fn read(body: &str) -> Result<Vec<Inbound>, NotEvents> {
    read_at(&mut InboundReader::new("default"), body, NOW_MS)
}

fn chat(body: &str) -> ChatEvent {
    match read(body).unwrap().pop().unwrap() {
        Inbound::Chat(event) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_event_of_waha_is_read() {
    let event = chat(
        r#"{"id":"evt_01aaaaaaaaaaaaaaaaaaaaaaaa","timestamp":1741249702485,"event":"label.chat.added",
        "session":"default","payload":{"labelId":"6","chatId":"111@c.us","label":null},
        "me":{"id":"71111111111@c.us","pushName":"~"},"engine":"GOWS","environment":{}}"#,
    );
    let expected = ChatEvent {
        label_id: "6".to_owned(),
        event: LabelEvent {
            id: "evt_01aaaaaaaaaaaaaaaaaaaaaaaa".to_owned(),
            change: Change::Added,
            chat_id: "111@c.us".to_owned(),
            occurred_at: at(1_741_249_702_485),
            listed_by: None,
        },
        sent_at: Some(at(1_741_249_702_485)),
    };
    assert_eq!(event, expected);
}

#[test]
fn ids_of_labels_and_chats_have_several_forms() {
    let cases = [
        r#"{"labelId":"6","chatId":"1@lid"}"#,
        r#"{"labelId":6,"chatId":"1@lid"}"#,
        r#"{"labelId":"6","chatId":{"_serialized":"1@lid","user":"1"}}"#,
        r#"{"chatId":"1@lid","label":{"id":"6","name":"half a pair: \ud83d"}}"#,
    ];
    for payload in cases {
        let body = format!(r#"{{"event":"label.chat.deleted","payload":{payload}}}"#);
        let event = chat(&body);
        assert_eq!(event.label_id, "6", "{payload}");
        assert_eq!(event.event.chat_id, "1@lid", "{payload}");
        assert_eq!(event.event.change, Change::Deleted);
    }
}

#[test]
fn the_time_is_the_timestamp_else_that_of_the_ulid_else_the_arrival() {
    // The example of the specification, for this time.
    let ulid = "evt_01ARYZ6S41TSV4RRFFQ69G5FAV";
    let cases = [
        (r#""timestamp":1741249702485"#, 1_741_249_702_485),
        (r#""timestamp":1741249702"#, 1_741_249_702_000),
        (r#""timestamp":1741249702.4857"#, 1_741_249_702_486),
        (r#""timestamp":"1741249702485""#, 1_741_249_702_485),
        (r#""timestamp":0"#, NOW_MS),
        (r#""timestamp":-1"#, NOW_MS),
        (r#""timestamp":null"#, NOW_MS),
        (r#""timestamp":{"a":1}"#, NOW_MS),
        (r#""timestamp":1e300"#, NOW_MS),
        // Ahead of our clock.
        (r#""timestamp":1900000000000"#, NOW_MS),
        (&format!(r#""id":"{ulid}""#), 1_469_918_176_385),
        (
            &format!(r#""id":"{ulid}","timestamp":1741249702"#),
            1_741_249_702_000,
        ),
        (r#""id":"evt_01ARYZ6S41TSV4RRFFQ69G5FA""#, NOW_MS),
        (r#""id":"evt_01ARYZ6S41TSV4RRFFQ69G5FAU""#, NOW_MS),
    ];
    for (members, expected) in cases {
        let body = format!(
            r#"{{{members},"event":"label.chat.added","payload":{{"labelId":"6","chatId":"1@c.us"}}}}"#
        );
        assert_eq!(chat(&body).event.occurred_at, at(expected), "{members}");
    }
}

#[test]
fn an_event_without_an_id_has_the_same_one_each_time_it_is_sent() {
    let body = |change: &str, time: &str| {
        format!(
            r#"{{"event":"label.chat.{change}",{time}"payload":{{"labelId":"6","chatId":"1@c.us"}}}}"#
        )
    };
    let id = |reader: &mut InboundReader, body: &str, ms| match read_at(reader, body, ms)
        .unwrap()
        .pop()
        .unwrap()
    {
        Inbound::Chat(event) => (event.event.id, event.event.occurred_at),
        other => panic!("{other:?}"),
    };
    let (mut one, mut other) = (InboundReader::new("default"), InboundReader::new("default"));
    let stamped = body("added", r#""timestamp":1741249702,"#);
    assert_eq!(
        id(&mut one, &stamped, NOW_MS),
        id(&mut other, &stamped, NOW_MS + 5)
    );
    // Without a time, a repeat has the time of the first arrival.
    let bare = body("added", "");
    let first = id(&mut one, &bare, NOW_MS);
    assert_eq!(id(&mut one, &bare, NOW_MS + 59_999), first);
    assert_eq!(first.1, at(NOW_MS));
    let again = id(&mut one, &bare, NOW_MS + 60_000);
    assert_ne!(again.0, first.0);
    assert_eq!(again.1, at(NOW_MS + 60_000));
    assert_ne!(id(&mut one, &body("deleted", ""), NOW_MS).0, first.0);
}

#[test]
fn an_event_that_is_ahead_of_our_clock_is_the_same_each_time_it_is_sent() {
    for id in ["", r#""id":"evt_1","#] {
        let body = |change: &str, ahead_ms: u64| {
            let timestamp = NOW_MS + ahead_ms;
            format!(
                r#"{{{id}"timestamp":{timestamp},"event":"label.chat.{change}","payload":{{"labelId":"6","chatId":"1@c.us"}}}}"#
            )
        };
        let mut reader = InboundReader::new("default");
        let mut told = |body: &str, ms: u64| match read_at(&mut reader, body, ms).unwrap().pop() {
            Some(Inbound::Chat(event)) => (event.event.id, event.event.occurred_at),
            other => panic!("{other:?}"),
        };
        let added = told(&body("added", 600_000), NOW_MS);
        let deleted = told(&body("deleted", 601_000), NOW_MS + 10);
        assert_eq!(added.1, at(NOW_MS));
        assert_eq!(told(&body("added", 600_000), NOW_MS + 2000), added);
        assert_eq!(told(&body("deleted", 601_000), NOW_MS + 2000), deleted);
    }
}

#[test]
fn an_event_without_id_and_time_is_new_after_its_opposite() {
    let body = |change: &str| {
        format!(
            r#"{{"event":"label.chat.{change}","payload":{{"labelId":"6","chatId":"1@c.us"}}}}"#
        )
    };
    let mut reader = InboundReader::new("default");
    let mut time =
        |change: &str, ms: u64| match read_at(&mut reader, &body(change), ms).unwrap().pop() {
            Some(Inbound::Chat(event)) => event.event.occurred_at,
            other => panic!("{other:?}"),
        };
    assert_eq!(time("added", NOW_MS), at(NOW_MS));
    assert_eq!(time("added", NOW_MS + 5), at(NOW_MS));
    assert_eq!(time("deleted", NOW_MS + 10), at(NOW_MS + 10));
    assert_eq!(time("added", NOW_MS + 20), at(NOW_MS + 20));
}

#[test]
fn labels_are_read_from_all_places() {
    let upsert = |payload: &str| {
        let body = format!(r#"{{"event":"label.upsert","session":"default","payload":{payload}}}"#);
        read(&body).unwrap().pop().unwrap()
    };
    let info = |name: Option<&str>, color: Option<&str>| {
        Inbound::LabelChanged(LabelInfo {
            label_id: "1".to_owned(),
            label_name: name.map(str::to_owned),
            color_hex: color.map(str::to_owned),
        })
    };
    let flat = r##"{"id":"1","name":"VIP","color":1,"colorHex":"#64c4ff"}"##;
    let both = info(Some("VIP"), Some("#64c4ff"));
    assert_eq!(upsert(flat), both);
    assert_eq!(upsert(&format!(r#"{{"label":{flat}}}"#)), both);
    assert_eq!(upsert(r#"{"labelId":1,"name":null}"#), info(None, None));
    assert!(matches!(upsert(r#"{"name":"VIP"}"#), Inbound::Invalid(_)));
    for payload in [r#"{"labelId":"1"}"#, flat, r#"{"label":{"id":"1"}}"#] {
        let body =
            format!(r#"{{"event":"label.deleted","timestamp":1741249702,"payload":{payload}}}"#);
        let deleted = Inbound::LabelDeleted {
            label_id: "1".to_owned(),
            occurred_at: at(1_741_249_702_000),
        };
        assert_eq!(read(&body).unwrap(), [deleted]);
    }
}

#[test]
fn other_kinds_and_sessions_are_passed_over_whatever_their_payload() {
    for payload in ["null", "[]", "\"text\"", r#"{"labelId":{}}"#, "[[[[1]]]]"] {
        let body = format!(r#"{{"event":"message","session":"default","payload":{payload}}}"#);
        assert_eq!(
            read(&body).unwrap(),
            [Inbound::OtherKind("message".to_owned())]
        );
    }
    let body = r#"{"event":"label.chat.added","session":"other","payload":{"labelId":"6","chatId":"1@c.us"}}"#;
    assert_eq!(
        read(body).unwrap(),
        [Inbound::OtherSession("other".to_owned())]
    );
}

#[test]
fn an_array_is_several_events() {
    let one = r#"{"event":"label.chat.added","payload":{"labelId":"6","chatId":"1@c.us"}}"#;
    let read = read(&format!("\u{feff} [{one}, 7, {one}]")).unwrap();
    assert!(matches!(read[0], Inbound::Chat(_)) && matches!(read[2], Inbound::Chat(_)));
    assert!(matches!(read[1], Inbound::Invalid(_)));
    assert_eq!(super::tests::read("[]").unwrap(), []);
}

#[test]
fn what_is_no_event_is_refused_without_quoting_it() {
    let event = |payload: &str| format!(r#"{{"event":"label.chat.added","payload":{payload}}}"#);
    for payload in [
        "null",
        "7",
        "[]",
        "{}",
        r#"{"labelId":"6"}"#,
        r#"{"chatId":"1@c.us"}"#,
        r#"{"labelId":"","chatId":"1@c.us"}"#,
        r#"{"labelId":"6","chatId":"1"}"#,
        r#"{"labelId":"6","chatId":"1 2@c.us"}"#,
        r#"{"labelId":"6","chatId":null}"#,
        &format!(r#"{{"labelId":"6","chatId":"{}@c.us"}}"#, "1".repeat(512)),
    ] {
        let read = read(&event(payload)).unwrap();
        assert!(matches!(read[..], [Inbound::Invalid(_)]), "{payload}");
    }
    let deep = "[".repeat(100_000);
    for (body, expected) in [
        ("", false),
        ("{", false),
        ("<html>", false),
        (&deep, false),
        (&format!(r#"{{"event":{deep}"#), true),
        (
            &format!(r#"{{"event":"label.upsert","payload":{deep}"#),
            false,
        ),
        ("{}", true),
        ("7", true),
        ("\"text\"", true),
        (r#"{"event":7}"#, true),
    ] {
        let error = read(body).unwrap_err();
        assert_eq!(error == NotEvents::Shape, expected, "{body:.40} {error:?}");
    }
}
