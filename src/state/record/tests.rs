use std::time::Duration;

use super::*;

/// The second pass of a run that began with pass 7, and whose queue has lost nothing.
const LIST: ListPass = ListPass {
    as_of: 1000,
    pass: 8,
    first_pass: 7,
    published_from: 7,
};

fn record(text: &str) -> Record {
    text.parse().unwrap()
}

#[test]
fn a_record_is_read_as_it_was_written() {
    for text in ["ml1764209000:1764200000:17:3", "re1764209000.007:0:0:0"] {
        assert_eq!(record(text).to_string(), text);
    }
    for text in ["", "ml", "xl1:1:1:1", "ml1:1:1", "ml1:a:1:1", "mlé"] {
        assert!(text.parse::<Record>().is_err(), "{text}");
    }
}

#[test]
fn a_list_confirms_what_no_newer_event_contradicts() {
    for (found, expected) in [
        // A chat without a record joins.
        ("", "nl1000:1000:8:0"),
        // A member stays one since it joined.
        ("ml900:500:6:3", "ml1000:500:8:3"),
        ("nl900:900:7:0", "nl1000:900:8:0"),
        // A removed chat joins again.
        ("rl900:500:6:3", "nl1000:1000:8:3"),
        ("re999.999:500:6:3", "nl1000:1000:8:3"),
        // An older event gives way, and a newer one or one of the same time does not.
        ("me999.999:500:0:3", "ml1000:500:8:3"),
        ("me1000.000:500:0:3", "me1000.000:500:8:3"),
        ("re1000.000:500:6:3", "re1000.000:500:8:3"),
        // Lists are ordered by their pass, even if the clock went back.
        ("rl1100:500:6:3", "nl1000:1000:8:3"),
    ] {
        let confirmed = confirm(found.parse().ok(), &LIST);
        assert_eq!(confirmed.to_string(), expected, "{found}");
    }
}

#[test]
fn what_is_published_depends_on_the_record_and_the_settings() {
    use Verdict::{Known, Publish as Yes, Suppress};
    let rules = |publish, min_age: u64| Membership {
        publish,
        removed: false,
        min_age: (min_age > 0).then(|| Duration::from_secs(min_age)),
        max_change: 50,
    };
    let lost = ListPass {
        published_from: 8,
        ..LIST
    };
    for (confirmed, publish, min_age, list, expected) in [
        ("nl1000:1000:8:0", Publish::New, 0, LIST, Yes),
        ("ml1000:500:8:3", Publish::New, 0, LIST, Known),
        ("ml1000:500:8:3", Publish::All, 0, LIST, Yes),
        ("re1000.000:500:8:3", Publish::New, 0, LIST, Known),
        ("re1000.000:500:8:3", Publish::All, 0, LIST, Yes),
        ("nl1000:1000:8:0", Publish::Nothing, 0, LIST, Known),
        // This run has published it, and perhaps the queue has lost it.
        ("ml1000:900:8:7", Publish::All, 0, LIST, Suppress),
        ("ml1000:900:8:7", Publish::New, 0, LIST, Suppress),
        ("ml1000:900:8:7", Publish::New, 0, lost, Yes),
        // It has to have been a member for some time.
        ("nl1000:901:8:0", Publish::New, 100, LIST, Suppress),
        ("nl1000:900:8:0", Publish::New, 100, LIST, Yes),
        ("ml1000:900:8:3", Publish::All, 100, LIST, Yes),
        ("ml1000:901:8:3", Publish::All, 100, LIST, Suppress),
        ("re1000.000:500:8:3", Publish::All, 100, LIST, Suppress),
    ] {
        let verdict = judge(&record(confirmed), &list, &rules(publish, min_age));
        assert_eq!(verdict, expected, "{confirmed} {publish:?} {min_age}");
    }
}

#[test]
fn the_later_of_two_times_decides_about_an_event() {
    use Change::{Added, Deleted};
    for (found, change, as_of, expected) in [
        // Without a record, the chat was not in the last list, of second 1000.
        ("", Added, 1_000_000, "joined me1000.000:1000:0:0"),
        ("", Added, 999_999, "stale"),
        ("", Deleted, 1_000_001, "unchanged re1000.001:1000:0:0"),
        ("", Deleted, 999_999, "stale"),
        // On a tie an event beats a list.
        (
            "ml1000:500:6:3",
            Deleted,
            1_000_000,
            "left re1000.000:500:6:3",
        ),
        ("ml1000:500:6:3", Deleted, 999_999, "stale"),
        (
            "ml1000:500:6:3",
            Added,
            1_000_001,
            "unchanged me1000.001:500:6:3",
        ),
        (
            "nl1000:1000:6:3",
            Added,
            1_000_001,
            "unchanged ne1000.001:1000:6:3",
        ),
        (
            "rl1000:500:6:3",
            Added,
            1_000_000,
            "joined me1000.000:1000:6:3",
        ),
        // Of two events of one time, the deletion counts.
        (
            "me1000.000:500:6:3",
            Deleted,
            1_000_000,
            "left re1000.000:500:6:3",
        ),
        ("re1000.000:500:6:3", Added, 1_000_000, "stale"),
        (
            "re1000.000:500:6:3",
            Added,
            1_000_001,
            "joined me1000.001:1000:6:3",
        ),
        (
            "re1000.000:500:6:3",
            Deleted,
            1_000_001,
            "unchanged re1000.001:500:6:3",
        ),
        // A removed chat was not in the last list either.
        ("re900.000:500:6:3", Added, 999_999, "stale"),
        (
            "rl900:500:6:3",
            Added,
            1_000_000,
            "joined me1000.000:1000:6:3",
        ),
    ] {
        let applied = match apply(found.parse().ok(), change, as_of, Some(1000)) {
            Applied::Joined(record) => format!("joined {record}"),
            Applied::Left(record) => format!("left {record}"),
            Applied::Unchanged(record) => format!("unchanged {record}"),
            Applied::Stale => "stale".to_owned(),
        };
        assert_eq!(applied, expected, "{found} {change:?} {as_of}");
    }
}

#[test]
fn before_the_first_list_every_event_counts() {
    let applied = apply(None, Change::Added, 1, None);
    assert!(matches!(applied, Applied::Joined(_)), "{applied:?}");
}

#[test]
fn a_published_chat_is_known() {
    let published = |text: &str| record(text).published_in(8).to_string();
    assert_eq!(published("nl1000:1000:8:0"), "ml1000:1000:8:8");
    assert_eq!(published("re1000.000:1:8:0"), "re1000.000:1:8:8");
}

#[test]
fn a_whole_list_removes_what_it_does_not_contain() {
    for (found, is_absent) in [
        ("ml900:500:6:3", true),
        ("nl900:500:7:3", true),
        ("me999.999:500:6:3", true),
        ("me1000.000:500:6:3", false),
        ("ml1000:500:8:3", false),
        ("rl900:500:6:3", false),
    ] {
        assert_eq!(record(found).is_absent_from(&LIST), is_absent, "{found}");
    }
    let removed = record("me900.001:500:6:3").removed_by(&LIST);
    assert_eq!(removed.to_string(), "rl1000:500:6:3");
}

#[test]
fn a_removal_is_remembered_until_a_list_is_an_hour_younger() {
    let list = |as_of| ListPass { as_of, ..LIST };
    let removed = record("rl1000:500:6:3");
    assert!(!removed.is_outlived_by(&list(4600)));
    assert!(removed.is_outlived_by(&list(4601)));
    assert!(!record("ml1000:500:6:3").is_outlived_by(&list(9000)));
}
