//! Starts and stops an app's session by its webhook (docs/protocol.md#an-apps-session).
//!
//! A start has succeeded when the app's socket is up, not when the POST is answered: an app that waits for its stream
//! inside `onSession` answers only after half a minute. So the POST goes on after a successful start. None is sent
//! while the socket is up or another start of the same session is in progress.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{info, warn};

use super::accounts::session_id;
use super::config::Config;
use super::gateway::Gateway;
use super::http_client::explain;
use super::registry::{Registry, RegistryError};
use super::timestamp;
use crate::metrics::Tally;

/// Time limits. Tests shorten them.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// For the app to connect, which the SDK does before anything else.
    connect: Duration,
    /// For the answer to a start.
    start_answer: Duration,
    /// For the answer to a stop.
    stop_answer: Duration,
    /// For the app to close its socket after it has answered a stop.
    leave: Duration,
}

const TIMING: Timing = Timing {
    connect: Duration::from_secs(12),
    start_answer: Duration::from_mins(2),
    stop_answer: Duration::from_secs(8),
    leave: Duration::from_secs(2),
};

/// The most POSTs in progress at a time.
const MOST_POSTS: usize = 256;

/// How a start succeeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    /// The app has just connected.
    Now,
    /// The app was connected already.
    Before,
}

/// The reason that an app is given for a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The user asked for it.
    UserDisabled,
    /// The cloud decided it.
    SystemStop,
    /// Something went wrong.
    Error,
}

impl StopReason {
    fn name(self) -> &'static str {
        match self {
            Self::UserDisabled => "user_disabled",
            Self::SystemStop => "system_stop",
            Self::Error => "error",
        }
    }
}

/// Why an app was not started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The app is unknown, the user's name is not valid, or the store failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The app has no webhook.
    #[error("{0} has no webhook URL")]
    NoWebhook(String),
    /// The app has no session with that user.
    #[error("{0} is not running for that user")]
    NotRunning(String),
    /// The webhook could not be called.
    #[error("the app's webhook cannot be reached: {0}")]
    Unreachable(String),
    /// The webhook refused, with this HTTP status.
    #[error("the app's webhook answered with HTTP status {0}")]
    Refused(u16),
    /// The webhook was called, but the app did not connect in time.
    #[error("the app did not connect within {0:?}")]
    NotConnected(Duration),
    /// Too many calls are in progress.
    #[error("too many apps are being started")]
    Busy,
}

/// Calls the apps' webhooks. Cheap to clone.
#[derive(Clone)]
pub struct Launcher {
    shared: Arc<Shared>,
}

struct Shared {
    client: reqwest::Client,
    registry: Registry,
    gateway: Gateway,
    websocket_url: String,
    timing: Timing,
    starting: Mutex<BTreeSet<String>>,
    posts: Mutex<JoinSet<()>>,
    outcomes: Mutex<Tally>,
}

/// The possible results of calling a webhook, for the metrics.
pub(super) const OUTCOMES: &[&str] =
    &["started", "stopped", "unreachable", "refused", "not_connected", "too_many", "not_configured"];

impl LaunchError {
    /// One of [`OUTCOMES`].
    fn outcome(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) => "refused",
            Self::NotConnected(_) => "not_connected",
            Self::Busy => "too_many",
            Self::Registry(_) | Self::NoWebhook(_) | Self::NotRunning(_) => "not_configured",
        }
    }
}

/// Marks a session as being started, until dropped.
struct Starting<'a> {
    shared: &'a Shared,
    session: String,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        self.shared.starting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.session);
    }
}

impl Launcher {
    /// Calls with `client` (see [`super::http_client`]) and waits for sockets at `gateway`.
    pub fn new(config: &Config, client: reqwest::Client, registry: Registry, gateway: Gateway) -> Self {
        Self::with_timing(config, client, registry, gateway, TIMING)
    }

    fn with_timing(
        config: &Config,
        client: reqwest::Client,
        registry: Registry,
        gateway: Gateway,
        timing: Timing,
    ) -> Self {
        let shared = Shared {
            client,
            registry,
            gateway,
            websocket_url: config.http.app_websocket_url(),
            timing,
            starting: Mutex::default(),
            posts: Mutex::default(),
            outcomes: Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the app for the user, and returns when it is connected, within 12 s in any case. A failed start leaves no
    /// new session behind.
    pub async fn start(&self, package: &str, user: &str) -> Result<Started, LaunchError> {
        let shared = &*self.shared;
        let accounts = shared.registry.accounts();
        let app = accounts.apps.get(package).ok_or_else(|| RegistryError::Unknown(package.into()))?;
        let url = app.webhook_url.clone().ok_or_else(|| LaunchError::NoWebhook(package.into()))?;
        let (session, new) = shared.registry.add_session(user, package).await?;
        if shared.gateway.has_session(&session) {
            return Ok(Started::Before);
        }
        let started = self.connect(url, &session, user).await;
        self.count(started.as_ref().map_or_else(LaunchError::outcome, |()| "started"));
        match &started {
            Ok(()) => info!(package, user, "app started"),
            Err(error) => {
                warn!(package, user, %error, "app not started");
                if new {
                    shared.registry.remove_session(user, package).await?;
                }
            }
        }
        started.map(|()| Started::Now)
    }

    async fn connect(&self, url: String, session: &str, user: &str) -> Result<(), LaunchError> {
        let shared = &*self.shared;
        let limit = shared.timing.connect;
        let up = shared.gateway.session_up(session);
        let first = shared.starting.lock().unwrap_or_else(PoisonError::into_inner).insert(session.to_owned());
        if !first {
            return timeout(limit, up).await.map_err(|_| LaunchError::NotConnected(limit));
        }
        let _starting = Starting { shared, session: session.to_owned() };
        let message = json!({
            "type": "session_request",
            "sessionId": session,
            "userId": user,
            "timestamp": timestamp::now(),
            "mentraOSWebsocketUrl": shared.websocket_url,
            // The name that clouds older than the SDK use for it.
            "augmentOSWebsocketUrl": shared.websocket_url,
        });
        let (outcome, mut answered) = oneshot::channel();
        let post = post(shared.client.clone(), url, message, shared.timing.start_answer);
        let post = async move {
            let _ = outcome.send(post.await); // nobody waits for it once the socket is up
        };
        let handle = {
            let mut posts = shared.posts.lock().unwrap_or_else(PoisonError::into_inner);
            while posts.try_join_next().is_some() {}
            if posts.len() >= MOST_POSTS {
                return Err(LaunchError::Busy);
            }
            posts.spawn(post)
        };
        let connected = async {
            tokio::pin!(up);
            tokio::select! {
                biased;
                () = &mut up => Ok(()),
                // A good answer is no success yet; the socket is.
                Ok(Err(error)) = &mut answered => Err(error),
            }
        };
        let connected = timeout(limit, connected).await.unwrap_or(Err(LaunchError::NotConnected(limit)));
        if connected.is_err() {
            // A later start would otherwise have two POSTs in progress.
            handle.abort();
        }
        connected
    }

    /// Stops the app for the user: tells it, gives it 2 s to close its socket, then closes that. An app that cannot be
    /// told is stopped all the same.
    pub async fn stop(&self, package: &str, user: &str, reason: StopReason) -> Result<(), LaunchError> {
        let shared = &*self.shared;
        let session = session_id(user, package);
        let accounts = shared.registry.accounts();
        if accounts.session_of(&session, package).is_none_or(|known| known.user != user) {
            return Err(LaunchError::NotRunning(package.into()));
        }
        if let Some(url) = accounts.apps.get(package).and_then(|app| app.webhook_url.clone()) {
            let message = json!({
                "type": "stop_request",
                "sessionId": session,
                "userId": user,
                "timestamp": timestamp::now(),
                "reason": reason.name(),
            });
            let told = post(shared.client.clone(), url, message, shared.timing.stop_answer).await;
            self.count(told.as_ref().map_or_else(LaunchError::outcome, |()| "stopped"));
            match told {
                Ok(()) => {
                    let _ = timeout(shared.timing.leave, shared.gateway.session_down(&session)).await;
                }
                Err(error) => warn!(package, user, %error, "an app cannot be told that it is stopped"),
            }
        }
        shared.registry.remove_session(user, package).await?;
        info!(package, user, reason = reason.name(), "app stopped");
        Ok(())
    }

    /// How often each of [`OUTCOMES`] happened.
    pub(super) fn outcomes(&self) -> Tally {
        self.shared.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, outcome: &'static str) {
        self.shared.outcomes.lock().unwrap_or_else(PoisonError::into_inner).count(outcome);
    }

    /// Aborts the calls in progress.
    pub async fn close(&self) {
        let mut posts = std::mem::take(&mut *self.shared.posts.lock().unwrap_or_else(PoisonError::into_inner));
        posts.shutdown().await;
    }
}

async fn post(client: reqwest::Client, url: String, message: Value, limit: Duration) -> Result<(), LaunchError> {
    let answer = client.post(url).json(&message).timeout(limit).send().await;
    let status = answer.map_err(|error| LaunchError::Unreachable(explain(error)))?.status();
    if status.is_success() { Ok(()) } else { Err(LaunchError::Refused(status.as_u16())) }
}
