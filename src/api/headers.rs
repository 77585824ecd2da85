//! What the headers of an answer say: how long to wait, and whether the body is one page of several.

use std::time::{Duration, SystemTime};

use reqwest::header::{CONTENT_RANGE, HeaderMap, LINK, RETRY_AFTER};

use crate::decode::{Paging, PagingMember, Scalar, is_next};

/// `Retry-After`, in seconds or as a date (RFC 9110, 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What is said of pages: by `Link` (RFC 8288), `Content-Range` with a unit other than bytes, and headers of
/// many names, like WordPress's `X-WP-TotalPages`.
pub(super) fn paging(headers: &HeaderMap) -> Paging {
    let mut paging = Paging::default();
    for (name, value) in headers {
        let Ok(value) = value.to_str() else { continue };
        if *name == LINK {
            if links_to_next(value) {
                paging.note_more("Link");
            }
        } else if *name == CONTENT_RANGE {
            content_range(value, &mut paging);
        } else if let Some(member) = member(name.as_str()) {
            paging.note(member, name.as_str(), Scalar::of_text(value));
        }
    }
    paging
}

fn member(header: &str) -> Option<PagingMember> {
    let own = header.strip_prefix("x-");
    let mut name: String = own.unwrap_or(header).replace(['-', '_'], "");
    for prefix in ["wp", "pagination", "paging"] {
        if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
            name = rest.to_owned();
            break;
        }
    }
    let member = PagingMember::of(&name)?;
    // Without `X-` only what cannot mean anything else.
    let is_clear = matches!(
        member,
        PagingMember::Next | PagingMember::HasMore | PagingMember::LastPage
    ) || name.starts_with("total");
    (own.is_some() || is_clear).then_some(member)
}

/// Whether a `Link` header has a link to the next page: `<…>; rel="next"`.
fn links_to_next(value: &str) -> bool {
    // Within the brackets anything may stand, so what is looked at is what follows each.
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

/// `items 0-24/250`.
fn content_range(value: &str, paging: &mut Paging) {
    let Some((unit, range)) = value.trim().split_once(' ') else {
        return;
    };
    if unit.eq_ignore_ascii_case("bytes") {
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
    fn headers_of_one_page_of_several() {
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
        ] {
            assert!(paging(&headers(&[pair])).why(2).is_some(), "{pair:?}");
        }
    }

    #[test]
    fn headers_of_a_whole_list() {
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
        assert_eq!(header("soon"), None);
    }
}
