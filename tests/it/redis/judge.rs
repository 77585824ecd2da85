//! The scripts that decide about members decide as the library does.

use std::time::Duration;

use labelcast::message::Change;
use labelcast::state::record::{Applied, ListPass, Record, Verdict, apply, confirm, judge};
use labelcast::state::{Membership, Publish};

use redis::Commands as _;

use crate::support::Numbers;
use crate::support::redis::Server;

const JUDGE: &str = concat!(
    include_str!("../../../src/broker/redis/judge.lua"),
    "\nlocal judged = judge(ARGV[20])\n\
     return {judged.verdict, judged.published, judged.known, judged.left}"
);

fn random_record(numbers: &mut Numbers) -> String {
    let mut any = |values: &[&str]| values[numbers.below(values.len() as u64) as usize].to_owned();
    match any(&["", "l", "e", "e"]).as_str() {
        "" => String::new(),
        source => {
            let millis = if source == "e" {
                any(&[".000", ".001", ".999"])
            } else {
                String::new()
            };
            let state = any(&["m", "n", "r"]);
            let as_of = any(&["899", "999", "1000", "1001"]);
            let (since, seen) = (
                any(&["500", "900", "901", "1000"]),
                any(&["0", "6", "7", "8"]),
            );
            let published = any(&["0", "6", "7", "8"]);
            format!("{state}{source}{as_of}{millis}:{since}:{seen}:{published}")
        }
    }
}

#[test]
fn the_script_and_the_library_decide_alike() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let script = redis::Script::new(JUDGE);
    let mut numbers = Numbers(5);
    for _ in 0..3000 {
        let record = random_record(&mut numbers);
        let list = ListPass {
            as_of: 1000,
            pass: 8,
            first_pass: 7,
            published_from: 7 + numbers.below(2),
        };
        let (publish, name) = [
            (Publish::All, "all"),
            (Publish::New, "new"),
            (Publish::Nothing, "none"),
        ][numbers.below(3) as usize];
        let min_age = numbers.below(2) * 100;
        let rules = Membership {
            publish,
            removed: false,
            min_age: (min_age > 0).then(|| Duration::from_secs(min_age)),
            max_change: 50,
        };
        let mut call = script.prepare_invoke();
        call.arg(&[""; 12]);
        call.arg(name)
            .arg("")
            .arg(list.as_of)
            .arg(list.pass)
            .arg(list.first_pass);
        call.arg(list.published_from).arg(min_age).arg(&record);
        let found: [String; 4] = call.invoke(&mut connection).unwrap();

        let confirmed = confirm(record.parse::<Record>().ok(), &list);
        let verdict = match judge(&confirmed, &list, &rules) {
            Verdict::Publish => "publish",
            Verdict::Known => "known",
            Verdict::Suppress => "suppress",
        };
        let expected = [
            verdict.to_owned(),
            confirmed.published_in(list.pass).to_string(),
            confirmed.known().to_string(),
            confirmed.to_string(),
        ];
        assert_eq!(found, expected, "{record} {list:?} {rules:?}");
    }
}

#[test]
fn the_script_and_the_library_apply_events_alike() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let script = redis::Script::new(include_str!("../../../src/broker/redis/event_member.lua"));
    let mut numbers = Numbers(6);
    let keys = [
        "stream",
        "event",
        "members",
        "note",
        "removed",
        "published",
        "checkpoint",
    ];
    for _ in 0..3000 {
        let record = random_record(&mut numbers);
        let last_list = [None, Some(999), Some(1000)][numbers.below(3) as usize];
        let as_of = [998_999, 999_000, 999_001, 1_000_000, 1_000_001][numbers.below(5) as usize];
        let (change, name) =
            [(Change::Added, "added"), (Change::Deleted, "deleted")][numbers.below(2) as usize];
        let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
        let _: () = connection.hset("members", ":", "token").unwrap();
        if !record.is_empty() {
            let _: () = connection.hset("members", "1@c.us", &record).unwrap();
        }
        if let Some(last_list) = last_list {
            let _: () = connection.hset("note", "as_of", last_list).unwrap();
        }
        let mut call = script.prepare_invoke();
        for key in keys {
            call.key(key);
        }
        call.arg(1000).arg(0).arg("1@c.us").arg(name);
        call.arg(format!("{}.{:03}", as_of / 1000, as_of % 1000));
        call.arg(1).arg("new token").arg(0).arg(1);
        call.arg("chat_id").arg("1@c.us");
        let outcome: String = call.invoke(&mut connection).unwrap();
        let found: Option<String> = connection.hget("members", "1@c.us").unwrap();

        let before: Option<Record> = record.parse().ok();
        let applied = apply(before, change, as_of, last_list);
        let is_told = before.is_none_or(|before| before.known() == before);
        let (expected, outcomes) = match applied {
            Applied::Joined(record) => (Some(record), "published"),
            Applied::Left(record) if is_told => (Some(record), "published"),
            Applied::Left(record) => (Some(record), "recorded"),
            Applied::Unchanged(record) => (Some(record), "unchanged"),
            Applied::Stale => (before, "stale"),
        };
        assert_eq!(
            found,
            expected.map(|record| record.to_string()),
            "{record} {name} {as_of}"
        );
        assert_eq!(outcome, outcomes, "{record} {name} {as_of} {last_list:?}");
    }
}

#[test]
fn the_script_and_the_library_remove_alike() {
    let server = Server::start(&[]);
    let mut connection = server.connection();
    let script = redis::Script::new(include_str!("../../../src/broker/redis/remove_absent.lua"));
    let mut numbers = Numbers(7);
    for round in 0..300 {
        // Some of the records are over an hour old for some of the lists.
        let list = ListPass {
            as_of: [1000, 4599, 4600, 4601][numbers.below(4) as usize],
            pass: 8,
            first_pass: 7,
            published_from: 7,
        };
        let records: Vec<(String, String)> = (0..20)
            .map(|number| (format!("{number}@c.us"), random_record(&mut numbers)))
            .filter(|(_, record)| !record.is_empty())
            .collect();
        let _: () = redis::cmd("FLUSHALL").query(&mut connection).unwrap();
        let _: () = connection.hset("members", ":", "token").unwrap();
        let _: () = connection.hset_multiple("members", &records).unwrap();
        let _: () = connection
            .hset_multiple("checkpoint", &[("fence", "1"), ("run_id", "r")])
            .unwrap();
        let mut call = script.prepare_invoke();
        for key in ["checkpoint", "members", "note", "removed"] {
            call.key(key);
        }
        call.arg(1)
            .arg("r")
            .arg(0)
            .arg(500)
            .arg(list.as_of)
            .arg(list.pass);
        call.arg("remove").arg("token").arg(3600);
        let (cursor, absent): (String, usize) = call.invoke(&mut connection).unwrap();
        assert_eq!(cursor, "0");

        let mut expected = vec![(":".to_owned(), "token".to_owned())];
        let mut expected_absent = 0;
        for (chat, record) in records {
            let record: Record = record.parse().unwrap();
            if record.is_absent_from(&list) {
                expected_absent += 1;
                expected.push((chat, record.removed_by(&list).to_string()));
            } else if !record.is_outlived_by(&list) {
                expected.push((chat, record.to_string()));
            }
        }
        expected.sort();
        let mut found: Vec<(String, String)> = connection.hgetall("members").unwrap();
        found.sort();
        assert_eq!(found, expected, "round {round}");
        assert_eq!(absent, expected_absent, "round {round}");
    }
}
