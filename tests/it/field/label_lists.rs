//! The list of labels is read as tolerantly as the list of chats, and trusted as little.

use labelcast::mock::Reply;

use super::{Case, TWO, TWO_IDS};
use crate::support::Stage;

fn with_labels(labels: &str, exit: i32) -> Case {
    let case = Case::body(TWO, exit).named(labels);
    case.labels(Reply::json(labels.to_owned()))
}

#[test]
fn odd_labels_do_not_affect_others() {
    for labels in [
        r#"[{"id":"1","name":"VIP"},{"id":"2","name":"hot \ud83d"}]"#,
        "\u{feff}[{\"id\":\"1\",\"name\":\"VIP\"}]",
        " \n\u{feff}[{\"id\":1,\"color\":1e999,\"big\":123456789012345678901234567890}]",
        r#"{"vip":{"id":"1","name":"VIP"}}"#,
        r#"{"success":true,"session":{"id":"s"},"data":{"0":{"id":"1","name":["VIP"]}}}"#,
        r#"[{"id":"1","predefinedId":"9","chats":[{"id":"7@c.us"}]}]"#,
    ] {
        with_labels(labels, 0).ids(TWO_IDS).holds();
    }
}

#[test]
fn a_label_without_an_id_is_skipped_with_a_warning() {
    let labels = r#"[{"id":"1","name":"VIP"},{"name":"x"},{"id":null},{"id":" "},null]"#;
    let ended = with_labels(labels, 0)
        .ids(TWO_IDS)
        .says("labels without an id skipped")
        .holds();
    assert!(
        ended.stderr.contains("labels=4") || ended.stderr.contains(r#""labels":4"#),
        "{ended:#?}"
    );
}

#[test]
fn a_label_marked_as_deleted_does_not_exist() {
    for mark in [
        r#""deleted":true"#,
        r#""isDeleted":1"#,
        r#""deletedAt":"2026-01-01""#,
    ] {
        let labels = format!(r#"[{{"id":"1","name":"VIP",{mark}}}]"#);
        with_labels(&labels, 80).says("does not exist").holds();
    }
    let kept = r#"[{"id":"1","deleted":false,"deletedAt":null}]"#;
    with_labels(kept, 0).ids(TWO_IDS).holds();
}

#[test]
fn one_page_of_labels_is_not_the_whole_list() {
    for labels in [
        r#"{"data":[{"id":"1","name":"VIP"}],"links":{"next":"x"},"meta":{"current_page":1,"last_page":3}}"#,
        r#"{"hasMore":true,"data":[{"id":"1"}]}"#,
        r#"{"total":30,"data":[{"id":"1"}]}"#,
    ] {
        with_labels(labels, 65)
            .args(&["--all-labels"])
            .says("page")
            .holds();
        let ignoring = ["--all-labels", "--ignore-paging"];
        with_labels(labels, 0).args(&ignoring).ids(TWO_IDS).holds();
        // A label on this page exists.
        with_labels(labels, 0).ids(TWO_IDS).holds();
        let stage = Stage::with_chats(0);
        stage.mock.script_labels(Reply::json(labels));
        stage.program("labels").end().expect(65);
        stage.mock.script_labels(Reply::json(labels));
        let check = stage.program("check").args(["--all-labels"]);
        let ended = check.end().expect(65);
        assert!(ended.stdout.contains("page"), "{ended:#?}");
    }
}

#[test]
fn a_label_that_may_be_on_another_page_is_not_reported_missing() {
    let labels = r#"{"data":[{"id":"7"}],"meta":{"current_page":1,"last_page":3}}"#;
    let case = with_labels(labels, 65).says("page 1 of 3");
    case.never("does not exist").holds();
    let ignoring = with_labels(labels, 80).args(&["--ignore-paging"]);
    ignoring.says("does not exist").holds();
}

#[test]
fn labels_under_an_unknown_wrapper_are_an_unknown_shape() {
    let labels = r#"{"success":true,"labels":[{"id":"1"}]}"#;
    with_labels(labels, 65)
        .says("contains no list")
        .never("success true")
        .holds();
}

#[test]
fn an_empty_list_of_labels_may_be_untrusted_too() {
    let labels = r#"{"data":[],"msg":"session stopped"}"#;
    with_labels(labels, 76).says("session stopped").holds();
}
