//! If a body or header says that the list is one page of several, the list is not complete.

use labelcast::mock::Reply;

use super::{Case, TWO, TWO_IDS};

/// Members beside the two chats of a page.
const PAGES: &[&str] = &[
    r#""links":{"next":"/v2/labels/1/chats?page=2"},"meta":{"current_page":1,"last_page":9,"total":18}"#,
    r#""_links":{"self":{"href":"/a"},"next":{"href":"/b"}}"#,
    r#""links":[{"rel":"self","href":"/a"},{"rel":"next","href":"/b"}]"#,
    r#""success":true,"hasMore":true,"next":"c""#,
    r#""has_more":true"#,
    r#""more":1"#,
    r#""pageInfo":{"hasNextPage":true,"endCursor":"abc"}"#,
    r#""next_page_url":"https://api/x?page=2""#,
    r#""@odata.nextLink":"https://api/x?skip=2""#,
    r#""response_metadata":{"next_cursor":"abc"}"#,
    r#""nextPageToken":"abc""#,
    r#""cursor":"abc""#,
    r#""page":1,"pages":3"#,
    r#""totalPages":2,"number":0,"last":false"#,
    r#""pagination":{"page":1,"total_pages":2}"#,
    r#""page":{"number":0,"size":2,"totalPages":2,"totalElements":3}"#,
    r#""current_page":2,"last_page":2"#,
    r#""offset":100,"limit":100"#,
    r#""done":false"#,
    r#""isTruncated":true"#,
    r#""result_info":{"page":1,"total_pages":9}"#,
    r#""paginatorInfo":{"hasMorePages":true}"#,
    r#""response":{"pagination":{"next":"x"}}"#,
    r#""extra":{"next_page_url":"x"}"#,
    r#""last_page":false"#,
    r#""page":"1 of 9""#,
    r#""links":{"prev":"/a?page=1","next":null}"#,
];

/// Members beside the two chats of a complete list.
const WHOLE: &[&str] = &[
    r#""links":{"next":null},"meta":{"current_page":1,"last_page":1,"total":2}"#,
    r#""links":{"first":"/a?page=1","last":"/a?page=1","prev":null,"next":null},"meta":{"current_page":1,"from":1,"last_page":1,"links":[{"url":null,"label":"&laquo; Previous","active":false},{"url":"/a?page=1","label":"1","active":true},{"url":null,"label":"Next &raquo;","active":false}],"path":"/a","per_page":15,"to":2,"total":2}"#,
    r#""_links":{"self":{"href":"/a"}}"#,
    r#""links":[{"rel":"self","href":"/a"}]"#,
    r#""hasMore":false,"next":null,"nextCursor":"""#,
    r#""pageInfo":{"hasNextPage":false,"endCursor":"abc"}"#,
    r#""cursor":"abc","hasMore":false"#,
    r#""page":1,"pages":1,"limit":100,"count":2"#,
    r#""totalPages":1,"number":0,"last":true,"first":true,"totalElements":2,"size":20"#,
    r#""paging":{"cursors":{"before":"a","after":"b"}}"#,
    r#""stats":{"total":5000,"next":"x"}"#,
    r#""cursor":0"#,
    r#""links":{"next":{"url":null,"label":"Next &raquo;","active":false}}"#,
    r#""sort":{"sorted":false,"unsorted":true,"empty":true}"#,
    r#""done":true,"offset":0"#,
];

#[test]
fn bodies_can_mark_one_page_of_several() {
    for beside in PAGES {
        for body in [
            format!(r#"{{"data":{TWO},{beside}}}"#),
            format!(r#"{{{beside},"data":{TWO}}}"#),
            format!(r#"{{"data":{{"0":{{"id":"1@c.us"}},"1":{{"id":"2@c.us"}},{beside}}}}}"#),
        ] {
            let case = Case::body(&body, 65).says("one page of several");
            // A statement before the list prevents the list from being published.
            let ids = if body.starts_with(r#"{"data""#) {
                TWO_IDS
            } else {
                &[]
            };
            case.ids(ids).says("--ignore-paging").holds();
        }
    }
}

#[test]
fn a_total_above_the_entries_marks_a_page() {
    for total in [
        r#""total":250"#,
        r#""total":"250""#,
        r#""totalCount":250"#,
        r#""total_count":250"#,
        r#""meta":{"total":250}"#,
        r#""pagination":{"count":250}"#,
        r#""@odata.count":250"#,
        r#""totalItemCount":250"#,
        r#""total":{"value":250,"relation":"eq"}"#,
        r#""summary":{"total_count":250}"#,
    ] {
        for (body, ids) in [
            (
                format!(r#"{{"success":true,{total},"data":{TWO}}}"#),
                TWO_IDS,
            ),
            (format!(r#"{{"success":true,{total},"data":[]}}"#), &[]),
        ] {
            Case::body(&body, 65)
                .ids(ids)
                .says("250")
                .says("page")
                .holds();
        }
    }
}

#[test]
fn bodies_without_further_pages_are_complete() {
    for beside in WHOLE {
        let body = format!(r#"{{"success":true,"data":{TWO},{beside}}}"#);
        Case::body(&body, 0).ids(TWO_IDS).holds();
    }
}

#[test]
fn headers_can_mark_one_page_of_several() {
    for (name, value) in [
        ("link", r#"</v2/labels/1/chats?page=2>; rel="next""#),
        ("x-wp-totalpages", "3"),
        ("x-next-page", "2"),
        ("x-has-more", "true"),
        ("x-pagination", r#"{"TotalPages":125,"CurrentPage":1}"#),
    ] {
        let reply = Reply::json(TWO).header(name, value);
        Case::reply(reply, 65).says("page").holds();
    }
    for (name, value) in [("x-total-count", "250"), ("content-range", "0-1/250")] {
        let reply = Reply::json(TWO).header(name, value);
        Case::reply(reply, 65).says("250").ids(TWO_IDS).holds();
    }
    let whole = Reply::json(TWO)
        .header(
            "link",
            r#"<https://wawp.net/wp-json/>; rel="https://api.w.org/""#,
        )
        .header("x-wp-total", "2")
        .header("x-wp-totalpages", "1")
        .header("x-next-page", "");
    Case::reply(whole, 0).ids(TWO_IDS).holds();
}

#[test]
fn ignore_paging_accepts_one_page() {
    for beside in PAGES {
        let body = format!(r#"{{{beside},"data":{TWO}}}"#);
        let case = Case::body(&body, 0).args(&["--ignore-paging"]);
        case.ids(TWO_IDS).holds();
    }
    let reply = Reply::json(TWO).header("x-total-count", "250");
    let case = Case::reply(reply, 0).args(&["--ignore-paging"]);
    case.ids(TWO_IDS).holds();
}
