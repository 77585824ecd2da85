//! The login form, and the answers to requests without the token.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{Html, IntoResponse as _, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::access::{Access, Decision};
use super::page;
use super::text::Escaped;

/// The variable with the token, which texts name as the fix.
const TOKEN_VARIABLE: &str = "LABELCAST_DASHBOARD_TOKEN";
/// The largest body of the form.
const MAX_BODY: usize = 4 * 1024;
/// Wrong tokens within [`DELAY`]. It limits guesses per second.
const MAX_GUESSES: usize = 8;
/// How long a wrong token counts.
const DELAY: Duration = Duration::from_secs(1);

/// A limit for guesses at the token.
pub(super) struct Guesses {
    places: Arc<Semaphore>,
    delay: Duration,
}

impl Guesses {
    pub(super) fn new() -> Self {
        Self::with_delay(DELAY)
    }

    fn with_delay(delay: Duration) -> Self {
        let places = Arc::new(Semaphore::new(MAX_GUESSES));
        Self { places, delay }
    }

    /// Compares a token; `None` if there were too many wrong ones just now.
    ///
    /// A place is taken before the comparison. Otherwise requests beyond the limit would still learn
    /// whether they were right. A task keeps it after a wrong token, also if the client has gone.
    fn guess(&self, is_right: impl FnOnce() -> bool) -> Option<bool> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let is_right = is_right();
        if !is_right {
            let delay = self.delay;
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                drop(place);
            });
        }
        Some(is_right)
    }
}

/// Returns the route of the form.
pub(super) fn routes(access: Access) -> Router {
    Router::new()
        .route("/login", get(Redirect::to("/")).post(log_in))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(access)
}

async fn log_in(
    State(access): State<Access>,
    headers: HeaderMap,
    uri: Uri,
    body: Bytes,
) -> Response {
    match access.decide(&headers, &uri) {
        Decision::Allowed => return (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response(),
        Decision::NoToken => return forbidden(),
        Decision::NeedsToken => {}
    }
    let mut fields = url::form_urlencoded::parse(&body);
    let token = fields.find_map(|(name, value)| (name == "token").then_some(value));
    let token = token.unwrap_or_default();
    match access.guesses().guess(|| access.accepts(token.trim())) {
        Some(true) => {
            let mut response = (StatusCode::SEE_OTHER, [(LOCATION, "/")]).into_response();
            let cookie = access.set_cookie(&headers);
            if let Some(cookie) = cookie.and_then(|it| HeaderValue::from_str(&it).ok()) {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            response
        }
        Some(false) => form(Some("This is not the token.")).into_response(),
        None => {
            let wait = "Too many wrong tokens. Try again in a few seconds.\n";
            (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "2")], wait).into_response()
        }
    }
}

/// Returns the page with the form, with status 401.
pub(super) fn form(problem: Option<&str>) -> (StatusCode, Html<String>) {
    let problem = problem.map_or_else(String::new, |problem| {
        format!(
            "<p class=\"problem\" id=\"problem\" role=\"alert\">{}</p>",
            Escaped(problem)
        )
    });
    let described = if problem.is_empty() {
        ""
    } else {
        " aria-invalid=\"true\" aria-describedby=\"problem\""
    };
    let page = page::filled(include_str!("assets/login.html"), |name, page| {
        page.push_str(match name {
            "problem" => &problem,
            _ => described,
        });
    });
    (StatusCode::UNAUTHORIZED, Html(page))
}

/// Returns the answer to a program, or a script, without the token.
pub(super) fn unauthorized() -> Response {
    let headers = [
        (WWW_AUTHENTICATE, "Bearer"),
        (CONTENT_TYPE, "application/json"),
    ];
    let body = "{\"error\":\"this needs the dashboard's token: log in at /, or send it as Authorization: Bearer\"}\n";
    (StatusCode::UNAUTHORIZED, headers, body).into_response()
}

/// Returns the answer where a token is needed and none is configured.
pub(super) fn forbidden() -> Response {
    let text = format!(
        "The dashboard is open only to direct requests for localhost. For access from other hosts \
         or through a proxy, set {TOKEN_VARIABLE} (or {TOKEN_VARIABLE}_FILE) and log in.\n"
    );
    (StatusCode::FORBIDDEN, text).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Guesses, MAX_GUESSES};

    #[tokio::test]
    async fn wrong_tokens_are_limited_and_right_ones_are_not() {
        let guesses = Guesses::with_delay(Duration::from_secs(3600));
        for _ in 0..2 * MAX_GUESSES {
            assert_eq!(guesses.guess(|| true), Some(true));
        }
        for _ in 0..MAX_GUESSES {
            assert_eq!(guesses.guess(|| false), Some(false));
        }
        assert_eq!(guesses.guess(|| true), None, "not even compared");
    }

    #[tokio::test]
    async fn after_a_while_there_are_new_guesses() {
        let guesses = Guesses::with_delay(Duration::ZERO);
        for _ in 0..MAX_GUESSES {
            guesses.guess(|| false);
        }
        while guesses.guess(|| true).is_none() {
            tokio::task::yield_now().await;
        }
    }
}
