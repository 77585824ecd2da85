//! Errors of gateways and other intermediate servers: which of them are transient.

use labelcast::mock::Reply;

use super::{Case, TWO, TWO_IDS};

#[test]
fn server_errors_are_retried() {
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
fn not_implemented_is_not_retried() {
    for status in [501, 505] {
        let reply = Reply::json("").status(status);
        Case::reply(reply, 76)
            .says(status.to_string())
            .never("trying again")
            .holds();
    }
}

#[test]
fn a_challenge_page_hints_at_a_firewall_and_not_at_the_token() {
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
fn a_redirect_status_without_a_target_is_an_error() {
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
fn a_retry_after_that_is_too_long_names_both_durations() {
    for status in [429, 503] {
        let reply = Reply::json("").status(status).header("retry-after", "7200");
        let case = Case::reply(reply, 69).says("asks to wait 2h");
        case.says("longer than the 1h")
            .never("trying again")
            .holds();
    }
}
