//! The sockets of apps (`/app-ws`) and glasses (`/glasses-ws`): admits peers, keeps their connections, and passes what
//! they send to the cloud's task as [`GatewayEvent`]s. Decides nothing about streams.
//!
//! One task per connection. All connections share one bounded queue to the cloud's task, so that a task that is behind
//! slows its peers down. Each has a bounded queue of its own for what it sends ([`Outgoing`]). There is one connection
//! per app session and one per device: a later one replaces the earlier. The earlier one's `Down` may come after the
//! later one's `Up`; the connection's id distinguishes them.

mod admission;
mod app;
mod connection;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod glasses;
mod jwt;
mod outgoing;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use super::config::Config;
use super::registry::Registry;
use crate::client_address::forwarded_for;
use crate::protocol::Secret;

use admission::Admission;
pub use outgoing::{Farewell, Next, Outgoing, QUEUE, Queue, code};

/// Identifies a connection; never reused within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the gateway reports to the cloud's task. For each connection: one `Up`, messages, one `Down`, in this order.
#[derive(Debug)]
pub enum GatewayEvent {
    /// An app is connected for a user and has its acknowledgement.
    AppUp {
        connection: ConnectionId,
        user: String,
        /// The app's package name.
        app: String,
        /// The session's id.
        session: String,
        /// Whether it has the permission `CAMERA` or `ALL`.
        may_stream: bool,
        /// Sends to the app.
        outgoing: Outgoing,
    },
    /// A message of an app.
    AppMessage {
        connection: ConnectionId,
        user: String,
        /// The app's package name.
        app: String,
        /// The message, at most 64 KiB, not parsed.
        text: String,
    },
    /// An app's connection ended, for whatever reason.
    AppDown {
        connection: ConnectionId,
        user: String,
        /// The app's package name.
        app: String,
        /// True if the app closed it or was stopped. Otherwise it was lost, and the app will try to come back.
        deliberate: bool,
    },
    /// Glasses, or a phone on their behalf, are connected and have their acknowledgement.
    DeviceUp {
        connection: ConnectionId,
        /// The user who owns them.
        user: String,
        /// The device's name; `phone:USER` for a phone.
        device: String,
        /// They came with a device's token, so they run `lenscastd`; otherwise it is a phone.
        is_lenscastd: bool,
        /// Sends to the glasses.
        outgoing: Outgoing,
    },
    /// A message of glasses.
    DeviceMessage {
        connection: ConnectionId,
        /// The user who owns them.
        user: String,
        /// The device's name.
        device: String,
        message: DeviceMessage,
    },
    /// The glasses' connection ended, for whatever reason.
    DeviceDown {
        connection: ConnectionId,
        /// The user who owns them.
        user: String,
        /// The device's name.
        device: String,
    },
}

/// A message of glasses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceMessage {
    /// At most 64 KiB, not parsed.
    Text(String),
    /// A photo, or a phone's audio; at most 16 MiB.
    Binary(Bytes),
}

/// Time limits and intervals. Tests shorten them.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// Until an app's first message.
    init: Duration,
    /// Between pings, which the cloud has to send: the SDK sends nothing by itself.
    ping: Duration,
    /// The longest time without anything received.
    silence: Duration,
    /// For one message to leave this machine's buffers.
    write: Duration,
    /// For the close frame and its answer.
    farewell: Duration,
}

const TIMING: Timing = Timing {
    init: Duration::from_secs(5),
    ping: Duration::from_secs(10),
    silence: Duration::from_secs(30),
    write: Duration::from_secs(5),
    farewell: Duration::from_secs(1),
};

/// The longest text of an app or of glasses, in bytes.
const MAX_TEXT_FRAME: usize = 64 * 1024;
/// The longest photo of glasses, in bytes.
const MAX_BINARY_FRAME: usize = 16 * 1024 * 1024;
/// The most connections in all, those that have not identified themselves included.
const MAX_CONNECTIONS: usize = 8192;

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    events: mpsc::Sender<GatewayEvent>,
    phone_secret: Option<Secret>,
    behind_proxy: bool,
    timing: Timing,
    links: watch::Sender<BTreeMap<LinkKey, OpenLink>>,
    admission: Mutex<Admission>,
    epoch: Instant,
    last_connection: AtomicU64,
    open: watch::Sender<usize>,
    shutdown: watch::Sender<bool>,
}

/// The owner of a connection. Each has one connection at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LinkKey {
    /// An app, by session id.
    App(String),
    /// A device, by name.
    Device(String),
}

struct OpenLink {
    connection: ConnectionId,
    outgoing: Outgoing,
}

impl Gateway {
    /// A gateway that admits the peers that `registry` knows and reports to `events`.
    pub fn new(config: &Config, registry: Registry, events: mpsc::Sender<GatewayEvent>) -> Self {
        Self::with_timing(config, registry, events, TIMING)
    }

    fn with_timing(config: &Config, registry: Registry, events: mpsc::Sender<GatewayEvent>, timing: Timing) -> Self {
        let shared = Shared {
            registry,
            events,
            phone_secret: config.phone.jwt_secret.clone(),
            behind_proxy: config.http.behind_proxy,
            timing,
            links: watch::Sender::new(BTreeMap::new()),
            admission: Mutex::default(),
            epoch: Instant::now(),
            last_connection: AtomicU64::new(0),
            open: watch::Sender::new(0),
            shutdown: watch::Sender::new(false),
        };
        Self { shared: Arc::new(shared) }
    }

    /// `/app-ws`, `/glasses-ws`, `/api/public/permissions/{package}` and `/healthz`. Must be served with
    /// [`axum::extract::ConnectInfo`] of [`SocketAddr`] (`into_make_service_with_connect_info`); without it, all peers
    /// seem to share one address.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/app-ws", get(app::connect))
            .route("/glasses-ws", get(glasses::connect))
            .route("/api/public/permissions/{package}", get(permissions))
            .route("/healthz", get(|| async { Json(json!({"status": "ok"})) }))
            .with_state(self.clone())
    }

    /// Whether the app of that session is connected.
    pub fn has_session(&self, id: &str) -> bool {
        self.shared.links.borrow().contains_key(&LinkKey::App(id.to_owned()))
    }

    /// Whether the device of that name is connected.
    pub fn has_device(&self, name: &str) -> bool {
        self.shared.links.borrow().contains_key(&LinkKey::Device(name.to_owned()))
    }

    /// Waits until the app of that session is connected. The caller sets a deadline.
    pub async fn session_up(&self, id: &str) {
        self.until(id, true).await;
    }

    /// Waits until the app of that session is not connected. The caller sets a deadline.
    pub async fn session_down(&self, id: &str) {
        self.until(id, false).await;
    }

    async fn until(&self, id: &str, up: bool) {
        let key = LinkKey::App(id.to_owned());
        let mut links = self.shared.links.subscribe();
        // The sender is in `self`, so it outlives this call.
        let _ = links.wait_for(|links| links.contains_key(&key) == up).await;
    }

    /// Closes all connections with 1012, so that apps and glasses come back, and admits no more. Returns when their
    /// tasks have ended, or after 5 s.
    pub async fn close(&self) {
        self.shared.shutdown.send_replace(true);
        let mut open = self.shared.open.subscribe();
        let _ = timeout(Duration::from_secs(5), open.wait_for(|&open| open == 0)).await;
    }

    /// A place for one more connection from this peer, or the response that refuses it.
    fn admit(&self, headers: &HeaderMap, peer: Option<SocketAddr>) -> Result<Ticket, Box<Response>> {
        let from = address_of(headers, peer, self.shared.behind_proxy);
        if *self.shared.shutdown.borrow() {
            return Err(Box::new(busy(StatusCode::SERVICE_UNAVAILABLE, "shutting down")));
        }
        if !self.admission(|admission, now| admission.connect(from, now)) {
            return Err(Box::new(busy(StatusCode::TOO_MANY_REQUESTS, "too many connections from this address")));
        }
        let admitted = self.shared.open.send_if_modified(|open| {
            let room = *open < MAX_CONNECTIONS;
            *open += usize::from(room);
            room
        });
        if !admitted {
            return Err(Box::new(busy(StatusCode::SERVICE_UNAVAILABLE, "too many connections")));
        }
        let id = ConnectionId(self.shared.last_connection.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(Ticket { gateway: self.clone(), id, from })
    }

    fn admission<T>(&self, ask: impl FnOnce(&mut Admission, Duration) -> T) -> T {
        let now = self.shared.epoch.elapsed();
        ask(&mut self.shared.admission.lock().unwrap_or_else(PoisonError::into_inner), now)
    }
}

/// One connection that is counted, until dropped.
struct Ticket {
    gateway: Gateway,
    id: ConnectionId,
    from: IpAddr,
}

impl Ticket {
    /// The peer had a wrong key.
    fn refused(&self) {
        self.gateway.admission(|admission, now| admission.refused(self.from, now));
    }

    /// Takes the place of an earlier connection under that name.
    fn enter(&self, key: &LinkKey, outgoing: &Outgoing) {
        let link = OpenLink { connection: self.id, outgoing: outgoing.clone() };
        let mut before = None;
        self.gateway.shared.links.send_modify(|links| before = links.insert(key.clone(), link));
        if let Some(before) = before {
            before.outgoing.close(code::NORMAL, "replaced by a later connection");
        }
    }

    /// Gives the place up, if it still belongs to this connection.
    fn leave(&self, key: &LinkKey) {
        self.gateway.shared.links.send_if_modified(|links| {
            let ours = links.get(key).is_some_and(|link| link.connection == self.id);
            if ours {
                links.remove(key);
            }
            ours
        });
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gateway.shared.open.send_modify(|open| *open -= 1);
    }
}

/// The address that a request comes from.
fn address_of(headers: &HeaderMap, peer: Option<SocketAddr>, behind_proxy: bool) -> IpAddr {
    let direct = peer.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    if behind_proxy { forwarded_for(headers).unwrap_or(direct) } else { direct }
}

fn busy(status: StatusCode, reason: &str) -> Response {
    (status, [(header::RETRY_AFTER, "1")], Json(json!({"error": reason}))).into_response()
}

/// The SDK looks this up before it warns of a missing permission. Public, as in the real cloud: it shows what an app
/// was granted, never by whom or with which key.
async fn permissions(State(gateway): State<Gateway>, Path(package): Path<String>) -> Response {
    match gateway.shared.registry.accounts().apps.get(&package) {
        Some(app) => {
            let permissions: Vec<Value> = app.permissions.iter().map(|granted| json!({"type": granted})).collect();
            Json(json!({"permissions": permissions})).into_response()
        }
        None => (StatusCode::NOT_FOUND, Json(json!({"error": "no such app"}))).into_response(),
    }
}
