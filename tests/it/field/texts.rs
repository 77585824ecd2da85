//! Texts of an API are quoted without personal data.

use labelcast::mock::Reply;

use super::Case;

#[test]
fn long_numbers_are_masked_however_they_are_spaced() {
    for (text, number) in [
        ("contact +44 7911 123456 is blocked", "123456"),
        ("contact (555) 123-4567 is blocked", "123-4567"),
        ("contact 49.151.12345 is blocked", "12345"),
        ("contact 49\u{a0}151\u{a0}12345 is blocked", "12345"),
        ("contact 15551234567-1400@g.us is blocked", "1400"),
    ] {
        let refusal = serde_json::json!({"status": 403, "message": text}).to_string();
        let reply = Reply::json(refusal).status(400);
        let case = Case::reply(reply, 76).says("contact ***");
        case.says("is blocked").never(number).holds();
        let doubtful = serde_json::json!({"data": [], "note": text}).to_string();
        Case::body(&doubtful, 76)
            .says("contact ***")
            .never(number)
            .holds();
    }
    // A member's name may be a number too.
    let body = r#"{"data":[],"+44 7911 123456":"x"}"#;
    Case::body(body, 76).says("***").never("123456").holds();
}
