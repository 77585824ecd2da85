//! The script that decides about members decides as the library does.

use std::time::Duration;

use labelcast::state::record::{ListPass, Record, Verdict, confirm, judge};
use labelcast::state::{Membership, Publish};

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
