//! The cloud's process: its listeners, its services, and the loop of the task that owns the state.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{error, info};

use super::config::Config;
use super::core::{Core, POLL, Pages, log_panic};
use super::documents::Documents;
use super::gateway::Gateway;
use super::live::Services;
use super::photo_delivery::PhotoDelivery;
use super::photos::Photos;
use super::registry::Registry;
use super::store::Store;
use super::thumbnails::Thumbnails;
use super::tls;
use super::webhook::Launcher;
use super::{control, http_client, http_server, metrics, watch_page};
use crate::ingest::{self, Ingest};
use crate::playback::Playback;
use crate::whep::{self, Whep};

/// The most events of one kind that wait for the task; after that, their senders wait.
const QUEUE: usize = 256;
/// Time for everything to end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Why the cloud cannot run.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// A port or socket cannot be opened.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, #[source] io::Error),
    /// The database cannot be opened.
    #[error(transparent)]
    Store(#[from] super::store::StoreError),
    /// A certificate or key cannot be used.
    #[error("{0}")]
    Tls(String),
    /// GStreamer does not work.
    #[error("GStreamer: {0}")]
    Media(String),
}

/// Runs the cloud until `stop` resolves.
///
/// # Errors What prevents its start. Once it runs, nothing that peers do ends it.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), CloudError> {
    crate::media::init().map_err(CloudError::Media)?;
    let limits = http_server::Limits::new(&config.http, descriptors());
    let bind = async |address: SocketAddr| {
        TcpListener::bind(address).await.map_err(|error| CloudError::Listen(address.to_string(), error))
    };
    let http = bind(config.http.listen).await?;
    let rtmp = bind(config.rtmp.listen).await?;
    let rtmps = match config.rtmp.tls_listen {
        Some(address) => {
            Some((bind(address).await?, acceptor(config.rtmp.cert.as_deref(), config.rtmp.key.as_deref())?))
        }
        None => None,
    };
    let https = match &config.http.cert {
        Some(chain) => Some(acceptor(Some(chain), config.http.key.as_deref())?),
        None => None,
    };
    let store = Store::open(&config.store.path())?;
    let registry = Registry::open(&config, store.clone()).await?;
    let client = http_client::client(config.tls.ca_file.clone()).await.map_err(CloudError::Tls)?;

    let (gateway_events, mut from_gateway) = mpsc::channel(QUEUE);
    let (control_events, mut from_control) = mpsc::channel(QUEUE);
    let (news, mut from_live) = mpsc::channel(QUEUE);
    let (metrics, mut from_scrapes) = metrics::router(&config);
    let documents = Documents::default();
    let (pages, page_states) = watch::channel(Pages::new());
    let (end, shutdown) = watch::channel(false);
    let (ingest, mut from_ingest) = Ingest::new();

    let gateway = Gateway::new(&config, registry.clone(), gateway_events);
    let launcher = Launcher::new(&config, client.clone(), registry.clone(), gateway.clone());
    let whep = Whep::start(&webrtc(&config))
        .await
        .map_err(|error| CloudError::Listen(format!("{} (WebRTC)", config.webrtc.listen), error))?;
    let services = Services {
        ingest: ingest.clone(),
        playback: Playback::new(config.http.behind_proxy),
        whep,
        thumbnails: Thumbnails::default(),
        traffic: Arc::default(),
        dvr: config.hls.dvr_window(),
    };
    let delivery = PhotoDelivery::new(client, config.photo.custom_webhooks);
    let photos = Photos::new(delivery, registry.clone(), services.thumbnails.clone());
    let listener = control::bind(&config.control.socket, Some(&config.control.group))
        .map_err(|error| CloudError::Listen(config.control.socket.display().to_string(), error))?;

    let mut servers = JoinSet::new();
    servers.spawn(documents.clone().write(store.clone()));

    let kept = store.sessions().await?;
    let mut core = Core::new(&config, services.clone(), launcher.clone(), photos, news, documents, pages);
    core.restore(kept);
    // Not earlier: a cloud that does not know its streams yet must not answer glasses, apps or people.
    servers.spawn(ingest::serve(rtmp, None, ingest.clone(), ingest::Limits::default(), shutdown.clone()));
    if let Some((listener, acceptor)) = rtmps {
        servers.spawn(ingest::serve(listener, Some(acceptor), ingest, ingest::Limits::default(), shutdown.clone()));
    }
    let service = control::Service { registry, gateway: gateway.clone(), launcher: launcher.clone() };
    servers.spawn(control::serve(listener, service, control_events, shutdown.clone()));
    let router = router(&gateway, &services, page_states, metrics);
    servers.spawn(http_server::serve(http, https, router, limits, services.traffic.clone(), shutdown));
    info!(http = %config.http.listen, rtmp = %config.rtmp.listen, webrtc = %config.webrtc.listen, "ready");

    let mut poll = interval(POLL);
    poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(stop);
    loop {
        let deadline = core.deadline().map(Instant::from_std);
        tokio::select! {
            () = &mut stop => break,
            Some(event) = from_gateway.recv() => core.gateway(event),
            Some(event) = from_control.recv() => core.control(event),
            Some(event) = from_ingest.recv() => core.ingest(event),
            Some(event) = from_live.recv() => core.news(event),
            Some(reply) = from_scrapes.recv() => drop(reply.send(core.numbers())), // who asked may be gone
            _ = poll.tick() => core.poll(),
            () = async { sleep_until(deadline.unwrap_or_else(Instant::now)).await }, if deadline.is_some() => core.tick(),
            Some(ended) = core.errands.join_next() => log_panic(ended),
            Some(ended) = core.farewells.join_next() => log_panic(ended),
        }
    }

    info!("ending");
    // Apps and glasses first, so that they come back to the next process, which also gets the streams.
    gateway.close().await;
    end.send_replace(true);
    launcher.close().await;
    if timeout(FAREWELL, core.close()).await.is_err() {
        error!("streams did not end in time");
    }
    services.close().await;
    let all = async {
        while let Some(ended) = servers.join_next().await {
            log_panic(ended);
        }
    };
    if timeout(FAREWELL, all).await.is_err() {
        servers.shutdown().await;
    }
    store.close().await;
    Ok(())
}

fn webrtc(config: &Config) -> whep::Options {
    let webrtc = &config.webrtc;
    whep::Options { bind: webrtc.listen, advertise: webrtc.candidates(), sessions: webrtc.viewers }
}

fn acceptor(chain: Option<&std::path::Path>, key: Option<&std::path::Path>) -> Result<TlsAcceptor, CloudError> {
    let (Some(chain), Some(key)) = (chain, key) else {
        return Err(CloudError::Tls("TLS needs cert and key".into()));
    };
    tls::acceptor(chain, key).map_err(CloudError::Tls)
}

/// How many files and sockets this process may have open, after raising the limit as far as the system allows.
fn descriptors() -> usize {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok();
    usize::try_from(if raised { hard } else { soft }).unwrap_or(usize::MAX)
}

/// All routes of the HTTP server.
fn router(gateway: &Gateway, services: &Services, pages: watch::Receiver<Pages>, metrics: Router) -> Router {
    let watch = Router::new().route("/api/watch/{id}", get(watch_state)).with_state(Arc::new(pages));
    Router::new()
        .merge(gateway.router())
        .merge(services.playback.router())
        .merge(services.whep.router())
        .merge(services.thumbnails.router())
        .merge(watch_page::router())
        .merge(watch)
        .merge(metrics)
}

async fn watch_state(State(pages): State<Arc<watch::Receiver<Pages>>>, Path(id): Path<String>) -> Response {
    let state = pages.borrow().get(&id).cloned();
    let headers = [("cache-control", "no-store"), ("access-control-allow-origin", "*")];
    match state {
        Some(state) => (headers, Json(state)).into_response(),
        None => (StatusCode::NOT_FOUND, headers).into_response(),
    }
}
