//! Response headers: the time to wait, and whether the body is one page of several.

use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_RANGE, HeaderMap, LINK, RETRY_AFTER};

use crate::decode::{Paging, PagingMember, Scalar, is_next, paging_in_json};

/// Reads `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    if digits > 0 {
        // A number over the range of `u64` exceeds every limit.
        let seconds = text[..digits].parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Reads what the headers say about pages: `Link` (RFC 8288), `Content-Range` with a unit other
/// than bytes, and headers of many names, like WordPress's `X-WP-TotalPages` or an `X-Pagination`
/// with JSON.
pub(super) fn paging(headers: &HeaderMap) -> Paging {
    let mut paging = Paging::default();
    for (name, value) in headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let name = name.as_str();
        let own_name = name.strip_prefix("x-").unwrap_or(name);
        if own_name == LINK {
            if links_to_next(&value) {
                paging.note_more("Link");
            }
        } else if own_name == CONTENT_RANGE {
            content_range(&value, &mut paging);
        } else if let Some(member) = member(name) {
            if value.trim_start().starts_with('{') {
                paging = paging_in_json(value.as_bytes(), paging);
            } else {
                paging.note(member, name, Scalar::of_text(&value));
            }
        }
    }
    paging
}

fn member(header: &str) -> Option<PagingMember> {
    let own = header.strip_prefix("x-");
    let name: String = own.unwrap_or(header).replace(['-', '_'], "");
    let mut rest = name.as_str();
    for prefix in ["wp", "pagination", "paging"] {
        rest = rest
            .strip_prefix(prefix)
            .filter(|rest| !rest.is_empty())
            .unwrap_or(rest);
    }
    let member = PagingMember::of(rest)?;
    // Without `X-`, only names that cannot mean anything else count.
    let is_unambiguous = name.starts_with("pag")
        || name.starts_with("total")
        || matches!(
            member,
            PagingMember::Next | PagingMember::HasMore | PagingMember::LastPage
        );
    (own.is_some() || is_unambiguous).then_some(member)
}

/// Returns whether a `Link` header contains a link to the next page: `<…>; rel="next"`.
fn links_to_next(value: &str) -> bool {
    // A URL in brackets may contain any characters, so only the text after each bracket is
    // examined.
    value.split('>').skip(1).any(|parameters| {
        let parameters = parameters.split('<').next().unwrap_or_default();
        parameters.split([';', ',']).any(|parameter| {
            let Some((name, relations)) = parameter.split_once('=') else {
                return false;
            };
            let relations = relations.trim().trim_matches('"');
            name.trim().eq_ignore_ascii_case("rel") && relations.split_whitespace().any(is_next)
        })
    })
}

/// Reads `items 0-24/250`, also without a unit or with `=` after it.
fn content_range(value: &str, paging: &mut Paging) {
    let is_number = |c: char| c.is_ascii_digit() || c == '*';
    let (unit, range) = value.split_at(value.find(is_number).unwrap_or(value.len()));
    if unit.trim().eq_ignore_ascii_case("bytes") {
        return;
    }
    let (range, total) = range.split_once('/').unwrap_or((range, ""));
    let first = range.split('-').next().unwrap_or_default();
    for (member, text) in [(PagingMember::Offset, first), (PagingMember::Total, total)] {
        paging.note(member, "Content-Range", Scalar::of_text(text));
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn headers_can_mark_one_page_of_several() {
        for pair in [
            (
                "link",
                "</chats?page=2>; rel=\"next\", </chats?page=9>; rel=\"last\"",
            ),
            ("link", "<a,b;c>;rel=next"),
            ("link", "<x>; title=\"a\"; REL=\"last next\""),
            ("x-next-page", "2"),
            ("x-next-cursor", "abc"),
            ("x-has-more", "true"),
            ("has-more", "true"),
            ("x-wp-totalpages", "3"),
            ("x-total-pages", "3"),
            ("x-pagination-page-count", "3"),
            ("x-total-count", "250"),
            ("x-wp-total", "250"),
            ("total-count", "250"),
            ("content-range", "items 0-1/250"),
            ("content-range", "items 2-3/4"),
            ("content-range", "0-1/250"),
            ("content-range", "chats=0-1/250"),
            ("x-content-range", "items 0-1/250"),
            ("x-pagination", r#"{"TotalCount":250,"PageSize":2}"#),
            ("pagination", r#"{"totalPages":9,"currentPage":1}"#),
            ("pagination-count", "250"),
            ("x-list-total", "250"),
            ("x-ms-continuation", "abc"),
            ("opc-next-page", "abc"),
        ] {
            assert!(paging(&headers(&[pair])).why(2).is_some(), "{pair:?}");
        }
    }

    #[test]
    fn headers_of_a_complete_list_are_ignored() {
        for pair in [
            (
                "link",
                "<https://wawp.net/wp-json/>; rel=\"https://api.w.org/\"",
            ),
            ("link", "</next>; rel=preload; as=script"),
            ("x-next-page", ""),
            ("x-wp-totalpages", "1"),
            ("x-total-count", "2"),
            ("x-page", "1"),
            ("x-ratelimit-limit", "100"),
            ("content-range", "items 0-1/2"),
            ("content-range", "items 0-1/*"),
            ("content-range", "bytes 0-99/250"),
            ("content-length", "250"),
            ("count", "250"),
            ("x-pagination", r#"{"TotalCount":2,"TotalPages":1}"#),
        ] {
            assert_eq!(paging(&headers(&[pair])).why(2), None, "{pair:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let header = |text| retry_after(&headers(&[("retry-after", text)]));
        assert_eq!(header("7"), Some(Duration::from_secs(7)));
        assert_eq!(
            header("Wed, 21 Oct 2015 07:28:00 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(header("7200.5"), Some(Duration::from_secs(7200)));
        assert_eq!(
            header("99999999999999999999"),
            Some(Duration::from_secs(u64::MAX))
        );
        assert_eq!(header("soon"), None);
    }
}
