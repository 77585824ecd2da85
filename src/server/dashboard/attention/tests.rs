use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Reason, attention};
use crate::live::overview::{LabelView, LastRun, Overview, RunStatus, Sample};

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_764_223_478)
}

/// A label that needs no attention.
fn label() -> LabelView {
    LabelView {
        label_id: "1".to_owned(),
        label_name: None,
        color_hex: None,
        chats: Some(100),
        counted_at: Some(now()),
        is_exact: true,
        is_deleted: false,
        queue: "labelcast:1".to_owned(),
        messages: None,
        lag: None,
        last_run: Some(run(RunStatus::Complete, HOUR)),
        trend: Vec::new(),
    }
}

fn run(status: RunStatus, age: Duration) -> LastRun {
    LastRun {
        label_id: "1".to_owned(),
        run_id: String::new(),
        status,
        chats: 100,
        published: 100,
        finished_at: now() - age,
        elapsed: Duration::from_secs(1),
        error: Some("why".to_owned()),
    }
}

fn trend(chats: &[u64]) -> Vec<Sample> {
    let sample = |chats: &u64| Sample {
        at: now(),
        chats: *chats,
    };
    chats.iter().map(sample).collect()
}

fn overview(labels: Vec<LabelView>, reconcile_every: Option<Duration>) -> Overview {
    Overview {
        at: now(),
        labels,
        events_by_minute: Vec::new(),
        error: None,
        reconcile_every,
        enriched: Vec::new(),
    }
}

#[test]
fn labels_need_attention_for_these_reasons() {
    let why = Some("why");
    let day = 24 * HOUR;
    let of = |status, age| LabelView {
        last_run: Some(run(status, age)),
        ..label()
    };
    let fallen = |chats, samples: &[u64]| LabelView {
        chats,
        trend: trend(samples),
        ..label()
    };
    let second = Duration::from_secs(1);
    let table: Vec<(&str, LabelView, Option<Duration>, Vec<Reason<'_>>)> = vec![
        ("all well", label(), None, vec![]),
        (
            "failed",
            of(RunStatus::Failed, HOUR),
            None,
            vec![Reason::Failed(why)],
        ),
        (
            "guarded",
            of(RunStatus::Guarded, HOUR),
            None,
            vec![Reason::Guarded(why)],
        ),
        (
            "partial: the next run resumes",
            of(RunStatus::Partial, HOUR),
            None,
            vec![],
        ),
        (
            "a day and an hour",
            of(RunStatus::Complete, day + HOUR),
            None,
            vec![],
        ),
        (
            "over a day and an hour",
            of(RunStatus::Complete, day + HOUR + second),
            None,
            vec![Reason::Overdue(now() - day - HOUR - second)],
        ),
        (
            "twice the interval",
            of(RunStatus::Complete, 12 * HOUR),
            Some(6 * HOUR),
            vec![],
        ),
        (
            "over twice the interval",
            of(RunStatus::Complete, 12 * HOUR + second),
            Some(6 * HOUR),
            vec![Reason::Overdue(now() - 12 * HOUR - second)],
        ),
        (
            "failed long ago",
            of(RunStatus::Failed, 2 * day),
            None,
            vec![Reason::Failed(why), Reason::Overdue(now() - 2 * day)],
        ),
        (
            "no run yet",
            LabelView {
                last_run: None,
                ..label()
            },
            None,
            vec![],
        ),
        (
            "half",
            fallen(Some(50), &[90, 100, 60]),
            None,
            vec![Reason::Fell { from: 100, to: 50 }],
        ),
        ("more than half", fallen(Some(51), &[100]), None, vec![]),
        (
            "half of an odd number",
            fallen(Some(6), &[13]),
            None,
            vec![Reason::Fell { from: 13, to: 6 }],
        ),
        (
            "none left",
            fallen(Some(0), &[10]),
            None,
            vec![Reason::Fell { from: 10, to: 0 }],
        ),
        ("too few to judge", fallen(Some(0), &[9]), None, vec![]),
        ("grown", fallen(Some(100), &[10]), None, vec![]),
        ("not counted", fallen(None, &[100]), None, vec![]),
        (
            "not exact",
            LabelView {
                is_exact: false,
                ..label()
            },
            None,
            vec![Reason::NotExact],
        ),
        (
            "deleted, and nothing else",
            LabelView {
                is_deleted: true,
                is_exact: false,
                ..of(RunStatus::Failed, 9 * day)
            },
            None,
            vec![Reason::Deleted],
        ),
        (
            "a clock that is behind",
            LabelView {
                last_run: Some(LastRun {
                    finished_at: now() + HOUR,
                    ..run(RunStatus::Complete, HOUR)
                }),
                ..label()
            },
            None,
            vec![],
        ),
    ];
    for (what, label, every, reasons) in table {
        let overview = overview(vec![label], every);
        let found = attention(&overview, now());
        let found: Vec<_> = found.into_iter().map(|it| it.reason).collect();
        assert_eq!(found, reasons, "{what}");
    }
}

#[test]
fn the_most_urgent_comes_first_and_labels_stay_in_order() {
    let named = |id: &str, label: LabelView| LabelView {
        label_id: id.to_owned(),
        ..label
    };
    let failed = LabelView {
        last_run: Some(run(RunStatus::Failed, HOUR)),
        ..label()
    };
    let inexact = LabelView {
        is_exact: false,
        ..label()
    };
    let labels = vec![
        named("1", inexact.clone()),
        named("2", failed.clone()),
        named("3", inexact),
        named("4", failed),
    ];
    let overview = Overview {
        error: Some("cannot reach the broker".to_owned()),
        ..overview(labels, None)
    };
    let found = attention(&overview, now());
    let found: Vec<_> = found
        .iter()
        .map(|it| it.label.map(|label| label.label_id.as_str()))
        .collect();
    assert_eq!(found, [None, Some("2"), Some("4"), Some("1"), Some("3")]);
}
