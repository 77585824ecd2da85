//! `labelcast listen`: receives webhooks, publishes each change, and serves the dashboard.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::replay::replay;
use super::{fail, init_log, listen as listen_for_signals, load, logged};
use crate::cli::ListenFlags;
use crate::config::table::Setting;
use crate::config::{ConfigSources, ServerSettings};
use crate::config_error::{ConfigError, ConfigErrors};
use crate::error::Error;
use crate::exit::Exit;
use crate::live::{Live, LiveSettings};
use crate::progress::{Progress, ProgressMode};
use crate::server::dashboard::Dashboard;
use crate::server::webhook::Webhooks;
use crate::server::{self, http};
use crate::shutdown::Shutdown;

pub(super) async fn listen(mut sources: ConfigSources, flags: ListenFlags) -> Exit {
    if flags.replay.is_some() {
        // Nobody sends webhooks.
        sources.set("listen.webhook_auth", "none");
    }
    let settings = load(sources, |sources| {
        let (listen, log) = (sources.listen(), sources.log());
        Some((listen?, log?))
    });
    let ((live, server), log) = match settings {
        Ok(settings) => settings,
        Err(error) => return fail(&error),
    };
    init_log(&log, &Progress::new(ProgressMode::Never, true));
    let ended = match flags.replay {
        Some(file) => replay_file(&live, &file).await,
        None => serve(&live, server).await,
    };
    ended.unwrap_or_else(|error| logged(&error))
}

async fn replay_file(settings: &LiveSettings, file: &Path) -> Result<Exit, Error> {
    let (shutdown, _listener) = listen_for_signals(None)?;
    let live = Live::new(settings, &shutdown)?;
    replay(&live.receiver, file, &shutdown).await
}

async fn serve(settings: &LiveSettings, server: ServerSettings) -> Result<Exit, Error> {
    let (shutdown, _listener) = listen_for_signals(None)?;
    let live = Live::new(settings, &shutdown)?;
    let listener = TcpListener::bind(server.bind).await;
    let listener = listener.map_err(|error| cannot_bind("listen.bind", server.bind, &error))?;
    serve_on(listener, live, server, &shutdown).await;
    Ok(Exit::Complete)
}

/// Serves until a stop is requested.
pub(super) async fn serve_on(
    listener: TcpListener,
    live: Live,
    server: ServerSettings,
    shutdown: &Shutdown,
) {
    let address = listener.local_addr().unwrap_or(server.bind);
    let stop = CancellationToken::new();
    let (metrics, overview) = (Arc::clone(&live.metrics), live.overview.clone());
    let receiver = Arc::clone(&live.receiver);
    let webhooks = Webhooks::new(server.webhook_auth, receiver, Arc::clone(&metrics));
    let dashboard = Dashboard {
        overview: overview.clone(),
        token: server.dashboard_token,
        is_loopback: address.ip().is_loopback(),
        stop: stop.clone(),
    };
    let router = server::routes(webhooks, dashboard, overview, metrics);
    info!(%address, "listening");
    let stopping = async {
        let cause = shutdown.stopped().await;
        info!("stopping: {cause}");
        stop.cancel();
    };
    tokio::join!(
        stopping,
        http::serve(listener, router, stop.clone()),
        live.run(stop.clone())
    );
}

/// The error for an address that cannot be listened on, of a setting.
pub(super) fn cannot_bind(key: &str, address: SocketAddr, error: &std::io::Error) -> Error {
    let error = ConfigError {
        problem: format!("cannot listen on {address}: {error}"),
        fix: Setting::by_key(key).map(Setting::ways).unwrap_or_default(),
    };
    match ConfigErrors::or_nothing(vec![error]) {
        Err(errors) => Error::Settings(errors),
        Ok(()) => Error::Bug("the error of an address was lost".to_owned()),
    }
}
