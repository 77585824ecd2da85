//! The pod failure policies in the manifests match the exit codes of the program.
//! `scripts/check-kubernetes` checks the rest of the manifests.

use std::collections::BTreeMap;

use labelcast::config::table::SETTINGS;
use labelcast::exit::Exit;

/// Returns the codes after which Kubernetes may retry: those with “yes” in the README.
const PASSING: [Exit; 3] = [Exit::Unavailable, Exit::File, Exit::Interrupted];

/// Returns the codes of each action in a manifest's policy.
fn policy(manifest: &str) -> BTreeMap<String, Vec<u8>> {
    let mut action = String::new();
    let mut codes: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("- action: ") {
            name.clone_into(&mut action);
        } else if let Some(values) = line.strip_prefix("values: [") {
            let values = values.trim_end_matches(']').split(", ");
            let values = values.map(|code| code.parse::<u8>().unwrap());
            codes.entry(action.clone()).or_default().extend(values);
        }
    }
    codes
}

fn codes(exits: impl IntoIterator<Item = Exit>) -> Vec<u8> {
    let mut codes: Vec<u8> = exits.into_iter().map(Exit::code).collect();
    codes.sort_unstable();
    codes
}

fn final_codes() -> Vec<u8> {
    let is_final = |exit: &Exit| *exit != Exit::Complete && !PASSING.contains(exit);
    codes(Exit::BY_WEIGHT.into_iter().filter(is_final))
}

#[test]
fn every_exit_code_has_its_action_in_the_cronjob() {
    let policy = policy(include_str!("../../config/kubernetes/base/cronjob.yaml"));
    assert_eq!(policy["FailJob"], final_codes());
    assert_eq!(policy["Count"], codes(PASSING));
    assert_eq!(policy.len(), 2);
}

#[test]
fn every_exit_code_has_its_action_in_the_job_for_contacts() {
    let manifest = include_str!("../../config/kubernetes/overlays/enrich-job/job.yaml");
    let policy = policy(manifest);
    assert_eq!(policy["FailJob"], final_codes());
    assert_eq!(policy["Count"], codes(PASSING));
    assert_eq!(policy.len(), 2);
}

#[test]
fn every_exit_code_has_its_action_in_the_sharded_job() {
    let manifest = include_str!("../../config/kubernetes/overlays/sharded/cronjob.yaml");
    let policy = policy(manifest);
    let mut given_up = [&policy["FailJob"][..], &policy["FailIndex"][..]].concat();
    given_up.sort_unstable();
    assert_eq!(given_up, final_codes());
    assert_eq!(policy["Count"], codes(PASSING));
}

#[test]
fn the_readme_lists_every_exit_code() {
    let readme = include_str!("../../README.md");
    for exit in Exit::BY_WEIGHT {
        let row = format!("| {} | ", exit.code());
        let line = readme.lines().find(|line| line.starts_with(&row));
        let line = line.unwrap_or_else(|| panic!("{row} is not in the README"));
        let again = match exit {
            Exit::Complete => "| |",
            exit if PASSING.contains(&exit) => "| yes |",
            _ => "| no |",
        };
        assert!(line.ends_with(again), "{line}");
    }
}

#[test]
fn every_exit_code_has_its_action_in_the_systemd_units() {
    for unit in [
        include_str!("../../config/systemd/labelcast.service"),
        include_str!("../../config/systemd/labelcast-listen.service"),
        include_str!("../../config/systemd/labelcast-enrich.service"),
    ] {
        let mut lines = unit.lines();
        let codes = lines.find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
        let codes = codes.unwrap().split(' ').map(|code| code.parse().unwrap());
        assert_eq!(codes.collect::<Vec<u8>>(), final_codes());
    }
}

#[test]
fn manifests_and_units_set_variables_that_the_program_knows() {
    let known = |name: &str| {
        name == "LABELCAST_CONFIG" || SETTINGS.iter().any(|setting| setting.env == name)
    };
    for (path, text, prefix) in [
        (
            "base/cronjob.yaml",
            include_str!("../../config/kubernetes/base/cronjob.yaml"),
            "- name: ",
        ),
        (
            "listen/deployment.yaml",
            include_str!("../../config/kubernetes/overlays/listen/deployment.yaml"),
            "- name: ",
        ),
        (
            "enrich/deployment.yaml",
            include_str!("../../config/kubernetes/overlays/enrich/deployment.yaml"),
            "- name: ",
        ),
        (
            "enrich-job/job.yaml",
            include_str!("../../config/kubernetes/overlays/enrich-job/job.yaml"),
            "- name: ",
        ),
        (
            "labelcast.service",
            include_str!("../../config/systemd/labelcast.service"),
            "Environment=",
        ),
        (
            "labelcast-listen.service",
            include_str!("../../config/systemd/labelcast-listen.service"),
            "Environment=",
        ),
        (
            "labelcast-enrich.service",
            include_str!("../../config/systemd/labelcast-enrich.service"),
            "Environment=",
        ),
    ] {
        let assigned = text
            .lines()
            .filter_map(|line| line.trim().strip_prefix(prefix));
        let names = assigned.map(|text| text.split('=').next().unwrap_or(text));
        let names: Vec<&str> = names
            .filter(|name| name.chars().all(|it| it.is_ascii_uppercase() || it == '_'))
            .collect();
        assert!(names.len() > 3, "{path}: {names:?}");
        for name in names {
            assert!(known(name), "{path}: {name} is no setting");
        }
    }
}
