//! Errors of gateways and other intermediate servers: which of them are transient.

use labelcast::mock::Reply;

use super::{Case, TWO, TWO_IDS};

#[test]
fn a_failure_of_a_server_passes() {
    for status in [
        500, 502, 503, 504, 507, 508, 511, 520, 521, 522, 523, 524, 525, 526, 527, 530, 599,
    ] {
        let text = format!("error code: {status}");
        let reply = Reply::json(text).status(status).header("retry-after", "0");
        Case::reply(reply, 0)
            .then(Reply::json(TWO))
            .ids(TWO_IDS)
            .holds();
    }
}

#[test]
fn what_is_not_implemented_stays_so() {
    for status in [501, 505] {
        let reply = Reply::json("").status(status);
        Case::reply(reply, 76)
            .says(status.to_string())
            .never("trying again")
            .holds();
    }
}

#[test]
fn a_challenge_page_says_nothing_about_the_token() {
    for page in [
        "<html><title>Just a moment...</title></html>",
        "error code: 1020",
    ] {
        let reply = Reply::json(page)
            .status(403)
            .header("cf-mitigated", "challenge");
        Case::reply(reply, 77)
            .says("firewall")
            .never("token")
            .holds();
    }
    let refusal = Reply::json(r#"{"status":403,"message":"quota exceeded"}"#).status(403);
    Case::reply(refusal, 77)
        .says("quota exceeded")
        .never("token")
        .holds();
}

#[test]
fn a_status_that_leads_nowhere_is_no_redirect() {
    for status in [300, 301, 302, 304, 307] {
        let reply = Reply::json("").status(status);
        Case::reply(reply, 76)
            .says(status.to_string())
            .never("another host")
            .holds();
    }
    let unmodified = Reply::json("").status(304).header("location", "/elsewhere");
    Case::reply(unmodified, 76)
        .says("304")
        .never("redirect")
        .holds();
}

#[test]
fn a_wait_that_is_too_long_names_both_lengths() {
    for status in [429, 503] {
        let reply = Reply::json("").status(status).header("retry-after", "7200");
        let case = Case::reply(reply, 69).says("asks to wait 2h");
        case.says("longer than the 1h")
            .never("trying again")
            .holds();
    }
}
