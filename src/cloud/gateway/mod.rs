//! The sockets of apps (`/app-ws`) and glasses (`/glasses-ws`): lets in who may, keeps the connections, and gives the
//! cloud's task what arrives, as [`GatewayEvent`]s. Decides nothing about streams.
//!
//! One task per connection. Its way in is one bounded queue for all, so that a task that is behind slows its peers down;
//! its way out is a bounded queue of its own ([`Outgoing`]). There is one connection per app session and one per device:
//! a later one replaces the earlier, whose `Down` may come after the later one's `Up`; the connection's id tells.

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

/// Names a connection; never used twice in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// What the gateway tells the cloud's task. For each connection: one `Up`, messages, one `Down`, in this order.
#[derive(Debug)]
pub enum GatewayEvent {
    /// An app is there for a user, and has its acknowledgement.
    AppUp {
        /// The connection.
        connection: ConnectionId,
        /// The user.
        user: String,
        /// The app's package.
        app: String,
        /// The session's id.
        session: String,
        /// It has the permission `CAMERA` or `ALL`.
        may_stream: bool,
        /// To the app.
        outgoing: Outgoing,
    },
    /// An app says something.
    AppMessage {
        /// The connection.
        connection: ConnectionId,
        /// The user.
        user: String,
        /// The app's package.
        app: String,
        /// At most 64 KiB, unread.
        text: String,
    },
    /// An app's connection ended, however it did.
    AppDown {
        /// The connection.
        connection: ConnectionId,
        /// The user.
        user: String,
        /// The app's package.
        app: String,
        /// The app closed it, or was stopped; else it was lost, and the app will try to come back.
        deliberate: bool,
    },
    /// Glasses, or a phone for them, are there, and have their acknowledgement.
    DeviceUp {
        /// The connection.
        connection: ConnectionId,
        /// Whose they are.
        user: String,
        /// The device's name; `phone:USER` for a phone.
        device: String,
        /// They came with a device's token, so there is a `lenscastd`; a phone otherwise.
        is_lenscastd: bool,
        /// To the glasses.
        outgoing: Outgoing,
    },
    /// Glasses say something.
    DeviceMessage {
        /// The connection.
        connection: ConnectionId,
        /// Whose they are.
        user: String,
        /// The device's name.
        device: String,
        /// What.
        message: DeviceMessage,
    },
    /// The glasses' connection ended, however it did.
    DeviceDown {
        /// The connection.
        connection: ConnectionId,
        /// Whose they are.
        user: String,
        /// The device's name.
        device: String,
    },
}

/// A message of glasses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceMessage {
    /// At most 64 KiB, unread.
    Text(String),
    /// A photo, or a phone's audio; at most 16 MiB.
    Binary(Bytes),
}

/// How long. Tests shorten it.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// For an app's first message.
    init: Duration,
    /// Between pings: the SDK sends nothing by itself, so the cloud has to.
    ping: Duration,
    /// Without anything received.
    silence: Duration,
    /// For one message to leave this machine's buffers.
    write: Duration,
    /// For the last words.
    farewell: Duration,
}

const TIMING: Timing = Timing {
    init: Duration::from_secs(5),
    ping: Duration::from_secs(10),
    silence: Duration::from_secs(30),
    write: Duration::from_secs(5),
    farewell: Duration::from_secs(1),
};

/// The longest text of an app or glasses, bytes.
const MAX_TEXT_FRAME: usize = 64 * 1024;
/// The longest photo of glasses, bytes.
const MAX_BINARY_FRAME: usize = 16 * 1024 * 1024;
/// Connections altogether, those without a proven name included.
const MAX_CONNECTIONS: usize = 8192;

/// The gateway. Cheap to clone.
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

/// Whose connection; there is one for each at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum LinkKey {
    /// By session id.
    App(String),
    /// By name.
    Device(String),
}

struct OpenLink {
    connection: ConnectionId,
    outgoing: Outgoing,
}

impl Gateway {
    /// A gateway that lets in whom `registry` knows and tells `events`.
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

    /// `/app-ws`, `/glasses-ws`, `/api/public/permissions/{package}` and `/healthz`. To be served with
    /// [`axum::extract::ConnectInfo`] of [`SocketAddr`] (`into_make_service_with_connect_info`); without it, all come from
    /// one address.
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

    /// Until the app of that session is connected. Wants a deadline.
    pub async fn session_up(&self, id: &str) {
        self.until(id, true).await;
    }

    /// Until the app of that session is not connected. Wants a deadline.
    pub async fn session_down(&self, id: &str) {
        self.until(id, false).await;
    }

    async fn until(&self, id: &str, up: bool) {
        let key = LinkKey::App(id.to_owned());
        let mut links = self.shared.links.subscribe();
        // The sender is in `self`, so it does not end before this.
        let _ = links.wait_for(|links| links.contains_key(&key) == up).await;
    }

    /// Closes all connections with 1012, so that apps and glasses come back, and lets no more in. Their tasks have ended
    /// then, or 5 s have passed.
    pub async fn close(&self) {
        self.shared.shutdown.send_replace(true);
        let mut open = self.shared.open.subscribe();
        let _ = timeout(Duration::from_secs(5), open.wait_for(|&open| open == 0)).await;
    }

    /// A place for one more connection from there, or the answer that there is none.
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

/// A counted connection, until it is dropped.
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

    /// Takes the place of the connection that was there under that name.
    fn enter(&self, key: &LinkKey, outgoing: &Outgoing) {
        let link = OpenLink { connection: self.id, outgoing: outgoing.clone() };
        let mut before = None;
        self.gateway.shared.links.send_modify(|links| before = links.insert(key.clone(), link));
        if let Some(before) = before {
            before.outgoing.close(code::NORMAL, "replaced by a later connection");
        }
    }

    /// Gives the place up, if it is still this connection's.
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

/// Where a request comes from.
fn address_of(headers: &HeaderMap, peer: Option<SocketAddr>, behind_proxy: bool) -> IpAddr {
    let direct = peer.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |peer| peer.ip());
    if behind_proxy { forwarded_for(headers).unwrap_or(direct) } else { direct }
}

fn busy(status: StatusCode, reason: &str) -> Response {
    (status, [(header::RETRY_AFTER, "1")], Json(json!({"error": reason}))).into_response()
}

/// What the SDK looks up before it warns of a missing permission. Public, as in the real cloud: it tells what an app was
/// granted, never by whom or with which key.
async fn permissions(State(gateway): State<Gateway>, Path(package): Path<String>) -> Response {
    match gateway.shared.registry.accounts().apps.get(&package) {
        Some(app) => {
            let permissions: Vec<Value> = app.permissions.iter().map(|granted| json!({"type": granted})).collect();
            Json(json!({"permissions": permissions})).into_response()
        }
        None => (StatusCode::NOT_FOUND, Json(json!({"error": "no such app"}))).into_response(),
    }
}
