//! The cloud's control socket, for `lenscastctl cloud`. Accounts and app sessions are answered here. Requests about
//! streams go to the cloud's task as [`ControlEvent`]s. The socket's file and its permissions are handled as the
//! daemon's ([`crate::link::control`]).

#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod words;

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use super::gateway::Gateway;
use super::registry::{Registry, RegistryError};
use super::webhook::{LaunchError, Launcher, Started as AppState, StopReason};
use crate::link::control::accept::{self, ordered};
use crate::link::control::socket::{self, Hangup};
pub use crate::link::control::{Listener, bind};
use crate::protocol::Cause;
use crate::protocol::control::MAX_REQUEST_LINE;
pub use crate::protocol::control::Refusal;

pub use words::*;

/// A request of the control socket to the cloud's task.
#[derive(Debug)]
pub enum ControlEvent {
    /// List the running streams.
    Streams {
        /// Receives the answer.
        reply: oneshot::Sender<Streams>,
    },
    /// Start a managed stream. The client may be gone before the answer.
    Start {
        /// What to start.
        start: Start,
        /// Receives the answer: accepted, or why not.
        reply: oneshot::Sender<Result<StreamInfo, Refusal>>,
    },
    /// Stop a stream.
    Stop {
        /// The stream to stop.
        stream_id: String,
        /// Receives the answer.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Send the state, then every change, until the receiver is gone. Send only by `try_send`. A watcher whose queue is
    /// full must be dropped, or given [`Event::State`] once there is room again.
    Watch {
        /// The watcher's queue, with room for [`WATCH_QUEUE`] events.
        events: mpsc::Sender<Event>,
    },
}

/// The most events that wait for one watcher.
pub const WATCH_QUEUE: usize = 256;

/// Time limit of an answer, which may include an app's webhook.
const REPLY: Duration = Duration::from_secs(15);
/// Time in which a client must read some of what it is sent.
const WRITE: Duration = Duration::from_secs(5);
const LIMITS: accept::Limits = accept::Limits { connections: 32, farewell: Duration::from_secs(1) };

/// Answers the requests that need no stream.
#[derive(Clone)]
pub struct Service {
    pub registry: Registry,
    /// The connections of apps and devices.
    pub gateway: Gateway,
    /// Starts and stops apps.
    pub launcher: Launcher,
}

#[derive(Clone)]
struct Shared {
    service: Service,
    events: mpsc::Sender<ControlEvent>,
    shutdown: watch::Receiver<bool>,
}

/// Serves the control socket until `shutdown` is true or its sender is gone. All its tasks have ended when it returns.
pub async fn serve(
    listener: Listener,
    service: Service,
    events: mpsc::Sender<ControlEvent>,
    shutdown: watch::Receiver<bool>,
) {
    let shared = Arc::new(Shared { service, events, shutdown: shutdown.clone() });
    accept::serve(listener, LIMITS, shutdown, |stream| connection(stream, Arc::clone(&shared))).await;
}

/// The server ends the connection: the client is gone or reads too slowly, or the cloud shuts down.
struct End;

async fn connection(stream: UnixStream, shared: Arc<Shared>) {
    let hangup = match socket::hangup(&stream) {
        Ok(hangup) => hangup,
        Err(error) => return warn!(%error, "control socket: cannot watch over a connection"),
    };
    let peer = socket::peer(&stream);
    debug!(?peer, "control connection");
    let (reader, writer) = stream.into_split();
    let shutdown = shared.shutdown.clone();
    let connection = Connection { reader: BufReader::new(reader), writer, hangup, shutdown, shared };
    let _ = connection.run().await;
}

struct Connection {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    hangup: Hangup,
    shutdown: watch::Receiver<bool>,
    shared: Arc<Shared>,
}

impl Connection {
    async fn run(mut self) -> Result<(), End> {
        let mut request = Vec::new();
        loop {
            request.clear();
            let mut limited = (&mut self.reader).take(MAX_REQUEST_LINE as u64 + 1);
            let read = tokio::select! {
                read = limited.read_until(b'\n', &mut request) => read,
                () = ordered(&mut self.shutdown) => return Err(End),
            };
            if read.map_err(|_| End)? == 0 {
                return Ok(());
            }
            if request.last() != Some(&b'\n') && request.len() > MAX_REQUEST_LINE {
                let message = format!("a request is at most {MAX_REQUEST_LINE} bytes long");
                // Where the next request starts cannot be known.
                return self.write(&refused(&refuse(Cause::InvalidRequest, message))).await;
            }
            if request.trim_ascii().is_empty() {
                continue;
            }
            let reply = match parse(&request) {
                Ok(Request::Watch) => return self.watch().await,
                Ok(request) => self.answer(request).await?,
                Err(refusal) => refused(&refusal),
            };
            self.write(&reply).await?;
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Value, End> {
        debug!(?request, "control request");
        tokio::select! {
            answered = timeout(REPLY, answer(&self.shared, request)) => Ok(match answered {
                Ok(Ok(answer)) => answer,
                Ok(Err(refusal)) => refused(&refusal),
                Err(_) => refused(&refuse(Cause::Internal, format!("no answer within {REPLY:?}"))),
            }),
            () = self.hangup.wait() => Err(End),
            () = ordered(&mut self.shutdown) => Ok(refused(&Cause::Shutdown.into())),
        }
    }

    async fn watch(mut self) -> Result<(), End> {
        let (sender, mut events) = mpsc::channel(WATCH_QUEUE);
        let asked = self.shared.events.send(ControlEvent::Watch { events: sender });
        timeout(REPLY, asked).await.map_err(|_| End)?.map_err(|_| End)?;
        loop {
            let event = tokio::select! {
                event = events.recv() => event.ok_or(End)?,
                () = self.hangup.wait() => return Err(End),
                () = ordered(&mut self.shutdown) => return Err(End),
            };
            let event = serde_json::to_value(&event).map_err(|_| End)?;
            self.write(&event).await?;
        }
    }

    /// Fails when the client accepts nothing at all within the time limit.
    async fn write(&mut self, value: &Value) -> Result<(), End> {
        let bytes = line(value);
        match timeout(WRITE, self.writer.write_all(&bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End),
            Err(_) => {
                warn!("control socket: dropped a client that does not read");
                Err(End)
            }
        }
    }
}

/// An error does not repeat what was sent: it may be a stream key.
fn parse(line: &[u8]) -> Result<Request, Refusal> {
    const COMMANDS: &str = "app_add, app_list, app_revoke, app_start, app_stop, device_add, device_list, device_revoke, \
                            streams, start, stop, watch";
    let invalid = |message: String| refuse(Cause::InvalidRequest, message);
    let value: Value = serde_json::from_slice(line).map_err(|error| invalid(format!("not JSON: {error}")))?;
    let Some(command) = value.get("cmd").and_then(Value::as_str) else {
        return Err(invalid(format!("cmd is missing; it is one of {COMMANDS}")));
    };
    let Some(command) = COMMANDS.split(", ").find(|known| *known == command) else {
        return Err(invalid(format!("unknown cmd; it is one of {COMMANDS}")));
    };
    serde_json::from_value(value)
        .map_err(|_| invalid(format!("a field of {command} is missing, unknown or of another type")))
}

async fn answer(shared: &Shared, request: Request) -> Result<Value, Refusal> {
    let Service { registry, gateway, launcher } = &shared.service;
    match request {
        Request::AppAdd { package, permissions, webhook_url } => {
            let key =
                registry.add_app(&package, permissions, webhook_url).await.map_err(|error| registry_refusal(&error))?;
            granted(&Fresh { secret: key.expose().into() })
        }
        Request::AppList => granted(&Apps { apps: apps(registry, gateway) }),
        Request::AppRevoke { package } => {
            registry.revoke_app(&package).await.map_err(|error| registry_refusal(&error))?;
            granted(&Done {})
        }
        Request::AppStart { package, user } => {
            let started = launcher.start(&package, &user).await.map_err(launch_refusal)?;
            granted(&AppStarted { already: started == AppState::Before })
        }
        Request::AppStop { package, user } => {
            launcher.stop(&package, &user, StopReason::UserDisabled).await.map_err(launch_refusal)?;
            granted(&Done {})
        }
        Request::DeviceAdd { name, user } => {
            let token = registry.add_device(&name, &user).await.map_err(|error| registry_refusal(&error))?;
            granted(&Fresh { secret: token.expose().into() })
        }
        Request::DeviceList => granted(&Devices { devices: devices(registry, gateway) }),
        Request::DeviceRevoke { name } => {
            registry.revoke_device(&name).await.map_err(|error| registry_refusal(&error))?;
            granted(&Done {})
        }
        Request::Streams => granted(&ask(shared, |reply| ControlEvent::Streams { reply }).await?),
        Request::Start(start) => {
            let stream = ask(shared, |reply| ControlEvent::Start { start, reply }).await??;
            granted(&Started { stream })
        }
        Request::Stop { stream_id } => {
            ask(shared, |reply| ControlEvent::Stop { stream_id, reply }).await??;
            granted(&Done {})
        }
        Request::Watch => Err(Cause::Internal.into()), // never comes here
    }
}

async fn ask<T>(shared: &Shared, event: impl FnOnce(oneshot::Sender<T>) -> ControlEvent) -> Result<T, Refusal> {
    let (reply, answered) = oneshot::channel();
    let gone = || refuse(Cause::Internal, "the cloud dropped the request");
    shared.events.send(event(reply)).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())
}

fn apps(registry: &Registry, gateway: &Gateway) -> Vec<AppInfo> {
    let accounts = registry.accounts();
    let sessions = |package: &str| {
        let of_app = accounts.sessions.iter().filter(|(_, session)| session.package == package);
        of_app
            .map(|(id, session)| SessionInfo { user: session.user.clone(), connected: gateway.has_session(id) })
            .collect()
    };
    let info = |app: &super::accounts::App| AppInfo {
        package: app.package.clone(),
        permissions: app.permissions.clone(),
        webhook_url: app.webhook_url.clone(),
        origin: app.origin,
        sessions: sessions(&app.package),
    };
    accounts.apps.values().map(info).collect()
}

fn devices(registry: &Registry, gateway: &Gateway) -> Vec<DeviceInfo> {
    let info = |device: &super::accounts::Device| DeviceInfo {
        name: device.name.clone(),
        user: device.user.clone(),
        origin: device.origin,
        connected: gateway.has_device(&device.name),
    };
    registry.accounts().devices.values().map(info).collect()
}

fn registry_refusal(error: &RegistryError) -> Refusal {
    let cause = match error {
        RegistryError::NoRandomness | RegistryError::Store(_) => Cause::Internal,
        RegistryError::Configured(_) => Cause::NotOwner,
        _ => Cause::InvalidRequest,
    };
    refuse(cause, error.to_string())
}

fn launch_refusal(error: LaunchError) -> Refusal {
    let cause = match error {
        LaunchError::Registry(error) => return registry_refusal(&error),
        LaunchError::NoWebhook(_) | LaunchError::NotRunning(_) => Cause::InvalidRequest,
        LaunchError::Unreachable(_) | LaunchError::Refused(_) => Cause::ConnectRefused,
        LaunchError::NotConnected(_) => Cause::ConnectTimeout,
        LaunchError::Busy => Cause::Internal,
    };
    refuse(cause, error.to_string())
}

fn refuse(cause: Cause, message: impl Into<String>) -> Refusal {
    Refusal { cause, message: message.into(), owner: None }
}

fn granted(answer: &impl Serialize) -> Result<Value, Refusal> {
    let mut value = serde_json::to_value(answer).map_err(|_| Refusal::from(Cause::Internal))?;
    value["ok"] = true.into();
    Ok(value)
}

fn refused(refusal: &Refusal) -> Value {
    json!({"ok": false, "error": refusal})
}

fn line(value: &Value) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}
