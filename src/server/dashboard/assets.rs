//! The page's own files. They contain no data, so they need no login.

use std::sync::OnceLock;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use xxhash_rust::xxh3::xxh3_64;

/// A file in the program.
struct Asset {
    path: &'static str,
    kind: &'static str,
    content: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset {
        path: "/dashboard.css",
        kind: "text/css; charset=utf-8",
        content: concat!(
            include_str!("assets/page.css"),
            include_str!("assets/tables.css")
        ),
    },
    Asset {
        path: "/dashboard.js",
        kind: "text/javascript; charset=utf-8",
        content: include_str!("assets/dashboard.js"),
    },
    Asset {
        path: "/icon.svg",
        kind: "image/svg+xml",
        content: include_str!("assets/icon.svg"),
    },
];

/// Returns a digest of all files and of the page's frame. A page of another build loads itself again.
pub(super) fn build() -> &'static str {
    static BUILD: OnceLock<String> = OnceLock::new();
    BUILD.get_or_init(|| {
        let contents = ASSETS.map(|asset| asset.content).concat();
        let frame = include_str!("assets/page.html");
        format!("{:016x}", xxh3_64((contents + frame).as_bytes()))
    })
}

/// Returns the routes of the files.
pub(super) fn routes() -> Router {
    ASSETS.iter().fold(Router::new(), |router, asset| {
        let etag = format!("\"{:016x}\"", xxh3_64(asset.content.as_bytes()));
        let answer = async move |headers: HeaderMap| asset.answer(&etag, &headers);
        router.route(asset.path, get(answer))
    })
}

impl Asset {
    /// Answers with the file, or with 304 if the browser has it. Browsers ask each time, so the
    /// files always fit the page.
    fn answer(&self, etag: &str, headers: &HeaderMap) -> Response {
        let caching = [(ETAG, etag), (CACHE_CONTROL, "no-cache")];
        let known = headers.get(IF_NONE_MATCH).and_then(|it| it.to_str().ok());
        if known.is_some_and(|known| known.split(',').any(|it| it.trim().ends_with(etag))) {
            return (StatusCode::NOT_MODIFIED, caching).into_response();
        }
        let kind = [(CONTENT_TYPE, self.kind)];
        (caching, kind, self.content).into_response()
    }
}
