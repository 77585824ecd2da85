//! The settings of `labelcast listen`.

use std::net::SocketAddr;

use axum::http::HeaderName;
use secrecy::SecretString;

use super::values::{Optional, Reader};
use super::{
    ConfigSources, DASHBOARD_TOKEN_VARIABLE, Labels, WEBHOOK_SECRET_VARIABLE, run_of_any_kind, sink,
};
use crate::live::LiveSettings;
use crate::pipeline::RunSettings;
use crate::server::signature::{HmacAlgorithm, WebhookAuth};
use crate::state::{Membership, Selection};

/// The settings of the server.
pub struct ServerSettings {
    /// The address that it listens on.
    pub bind: SocketAddr,
    /// How webhooks are authenticated.
    pub webhook_auth: WebhookAuth,
    /// The token of the dashboard, if there is one.
    pub dashboard_token: Option<SecretString>,
}

/// How webhooks are authenticated, by name.
#[derive(Clone, Copy)]
enum AuthKind {
    Hmac(HmacAlgorithm),
    Secret,
    None,
}

pub(super) fn read(sources: &mut ConfigSources) -> Option<(LiveSettings, ServerSettings)> {
    let api = sources.api();
    let sink = sources.sink();
    let mut read = Reader::new(sources);
    let run = run(&mut read);
    let session = read.text("listen.session");
    let reconcile_every = read.optional("listen.reconcile", Reader::timeout);
    let bind = read.address("listen.bind");
    let webhook_auth = webhook_auth(&mut read);
    let dashboard_token = dashboard_token(&mut read);
    sink::check_followed(&mut read);
    let api = api?;
    let session = match session.as_str() {
        "" => api.instance_id.clone(),
        _ => session,
    };
    let live = LiveSettings {
        api,
        run: run?,
        sink: sink?,
        session,
        reconcile_every: reconcile_every?,
    };
    let server = ServerSettings {
        bind: bind?,
        webhook_auth: webhook_auth?,
        dashboard_token: dashboard_token?,
    };
    Some((live, server))
}

/// The settings of baselines and reconciliations. Without a label, all are followed.
fn run(read: &mut Reader<'_>) -> Option<RunSettings> {
    let names_labels = read.is_set("run.labels") || read.is_set("run.all_labels");
    let labels = match names_labels {
        true => read.labels("run.labels", "run.all_labels"),
        false => Some(Labels::All),
    };
    let others = run_of_any_kind(read);
    let suppress_for = read.optional("run.suppress_for", Reader::duration);
    let max_change = read.percent("run.max_change");
    let removed = read.switch("run.removed");
    let max_change = max_change?;
    Some(RunSettings {
        labels: labels?,
        selection: Selection {
            suppress_for: suppress_for?,
            membership: Some(Membership {
                removed: removed?,
                ..Membership::recorded_only(max_change)
            }),
            max_change,
        },
        ..others?
    })
}

fn webhook_auth(read: &mut Reader<'_>) -> Option<WebhookAuth> {
    let kind = read.one_of(
        "listen.webhook_auth",
        &[
            ("hmac-sha512", AuthKind::Hmac(HmacAlgorithm::Sha512)),
            ("hmac-sha256", AuthKind::Hmac(HmacAlgorithm::Sha256)),
            ("secret", AuthKind::Secret),
            ("none", AuthKind::None),
        ],
    );
    let header = header(read, kind);
    let secrets = match kind {
        Some(AuthKind::None) | None => Some(Vec::new()),
        Some(AuthKind::Hmac(_) | AuthKind::Secret) => webhook_secrets(read),
    };
    let (header, secrets) = (header?, secrets?);
    match kind? {
        AuthKind::Hmac(algorithm) => Some(WebhookAuth::hmac(algorithm, header, &secrets)),
        AuthKind::Secret => WebhookAuth::secret(header, &secrets)
            .map_err(|error| read.error("listen.webhook_auth", &error.to_string()))
            .ok(),
        AuthKind::None => Some(WebhookAuth::None),
    }
}

fn header(read: &mut Reader<'_>, kind: Option<AuthKind>) -> Option<HeaderName> {
    let name = read.text("listen.webhook_header");
    let name = match (name.as_str(), kind) {
        ("", Some(AuthKind::Secret)) => "X-Webhook-Secret",
        ("", _) => "X-Webhook-Hmac",
        (name, _) => name,
    };
    let header = name.parse().ok();
    if header.is_none() {
        read.error("listen.webhook_header", "is not the name of a header");
    }
    header
}

/// Reads the secrets, one a line.
fn webhook_secrets(read: &mut Reader<'_>) -> Option<Vec<SecretString>> {
    let key = "listen.webhook_secret_file";
    let text = read
        .secret(key, WEBHOOK_SECRET_VARIABLE)?
        .unwrap_or_default();
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let secrets: Vec<SecretString> = lines.map(SecretString::from).collect();
    if secrets.is_empty() {
        let problem = format!(
            "a secret of webhooks is required in {WEBHOOK_SECRET_VARIABLE} or in this file, or --webhook-auth none"
        );
        read.error(key, &problem);
        return None;
    }
    Some(secrets)
}

fn dashboard_token(read: &mut Reader<'_>) -> Optional<SecretString> {
    let text = read.secret("listen.dashboard_token_file", DASHBOARD_TOKEN_VARIABLE)?;
    let token = text
        .as_deref()
        .map(str::trim)
        .filter(|token| !token.is_empty());
    Some(token.map(SecretString::from))
}
