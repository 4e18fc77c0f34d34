//! `/app-ws`: an app of the SDK connects without any header and identifies itself in its first message
//! (docs/protocol.md#an-apps-session).

use std::net::SocketAddr;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use tracing::{debug, info};

use super::connection::{Connection, ordered, say_goodbye};
use super::outgoing::{Farewell, Outgoing, code};
use super::{DeviceMessage, Gateway, GatewayEvent, LinkKey, MAX_TEXT_FRAME, Ticket};
use crate::cloud::accounts::Accounts;
use crate::cloud::credential::KeyHash;
use crate::cloud::timestamp;
use crate::protocol::Secret;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Init {
    r#type: String,
    session_id: String,
    package_name: String,
    api_key: Secret,
}

/// Why an app is not let in.
struct Rejection {
    code: &'static str,
    message: &'static str,
    close: u16,
    /// Whether it counts as a guess at a key.
    guess: bool,
}

const NOT_AN_INIT: Rejection = Rejection {
    code: "INVALID_INIT",
    message: "the first message must be tpa_connection_init with sessionId, packageName and apiKey",
    close: code::POLICY,
    guess: true,
};
/// After this one the SDK comes back.
const TOO_LATE: Rejection = Rejection {
    code: "INIT_TIMEOUT",
    message: "no tpa_connection_init within 5 s",
    close: code::TRY_AGAIN,
    guess: false,
};
/// The same for an unknown app, so that a guess reveals nothing.
const WRONG_KEY: Rejection = Rejection {
    code: "INVALID_API_KEY",
    message: "the API key does not belong to this package",
    close: code::POLICY,
    guess: true,
};
const NO_SESSION: Rejection = Rejection {
    code: "SESSION_NOT_FOUND",
    message: "this session was not started here; use lenscastctl cloud app start",
    close: code::POLICY,
    guess: false,
};

/// An app that was let in.
struct Known {
    user: String,
    app: String,
    session: String,
    key: KeyHash,
    may_stream: bool,
}

pub(super) async fn connect(
    State(gateway): State<Gateway>,
    peer: Result<ConnectInfo<SocketAddr>, axum::extract::rejection::ExtensionRejection>,
    headers: HeaderMap,
    upgrade: WebSocketUpgrade,
) -> Response {
    let ticket = match gateway.admit(&headers, peer.ok().map(|ConnectInfo(address)| address)) {
        Ok(ticket) => ticket,
        Err(response) => return *response,
    };
    upgrade
        .max_message_size(MAX_TEXT_FRAME)
        .max_frame_size(MAX_TEXT_FRAME)
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .on_upgrade(move |socket| serve(ticket, socket))
}

async fn serve(ticket: Ticket, mut socket: WebSocket) {
    let shared = &ticket.gateway.shared;
    let mut shutdown = shared.shutdown.subscribe();
    let introduced = tokio::select! {
        introduced = timeout(shared.timing.init, introduce(&mut socket, &ticket.gateway)) => introduced,
        () = ordered(&mut shutdown) => {
            let bye = say_goodbye(&mut socket, code::RESTART, "the cloud restarts");
            let _ = timeout(shared.timing.farewell, bye).await;
            return;
        }
    };
    let known = match introduced {
        Ok(Ok(Some(known))) => known,
        Ok(Ok(None)) => return, // it went away without a word
        Ok(Err(rejection)) => return reject(&ticket, socket, &rejection).await,
        Err(_) => return reject(&ticket, socket, &TOO_LATE).await,
    };
    let Known { user, app, session, key, may_stream } = known;
    let (outgoing, queue) = Outgoing::pair();
    // Queued before anybody else can send, so the app reads it first.
    outgoing.send(acknowledgement(&session));
    let link = LinkKey::App(session.clone());
    ticket.enter(&link, &outgoing);
    info!(user, app, connection = ticket.id.0, "app connected");
    let connection = ticket.id;
    let up = GatewayEvent::AppUp {
        connection,
        user: user.clone(),
        app: app.clone(),
        session: session.clone(),
        may_stream,
        outgoing,
    };
    let mut deliberate = false;
    if shared.events.send(up).await.is_ok() {
        let event = |message| match message {
            DeviceMessage::Text(text) => {
                Some(GatewayEvent::AppMessage { connection, user: user.clone(), app: app.clone(), text })
            }
            DeviceMessage::Binary(_) => None,
        };
        let revoked = |accounts: &Accounts| match accounts.apps.get(&app) {
            Some(now) if now.key == key && accounts.session_of(&session, &app).is_some() => None,
            // The SDK looks for exactly this text (docs/protocol.md#close-codes).
            Some(now) if now.key == key => Some(Farewell::new(code::NORMAL, "App stopped")),
            _ => Some(Farewell::new(code::POLICY, "the API key was revoked")),
        };
        let pump = Connection {
            socket,
            queue,
            events: &shared.events,
            accounts: shared.registry.subscribe(),
            shutdown,
            timing: shared.timing,
        };
        deliberate = pump.run(event, revoked).await;
    }
    ticket.leave(&link);
    info!(user, app, connection = connection.0, "app disconnected");
    let _ = shared.events.send(GatewayEvent::AppDown { connection, user, app, deliberate }).await;
}

/// Reads the first message. `None` if the connection ends before one.
async fn introduce(socket: &mut WebSocket, gateway: &Gateway) -> Result<Option<Known>, Rejection> {
    let text = loop {
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => break text,
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_))) => return Err(NOT_AN_INIT),
            Some(Ok(Message::Close(_))) | None => return Ok(None),
            Some(Err(error)) => {
                debug!(%error, "gateway: an app disconnected before it identified itself");
                return Ok(None);
            }
        }
    };
    let init: Init = serde_json::from_str(&text).map_err(|_| NOT_AN_INIT)?;
    if init.r#type != "tpa_connection_init" {
        return Err(NOT_AN_INIT);
    }
    let accounts = gateway.shared.registry.accounts();
    let app = accounts.app_with_key(&init.package_name, init.api_key.expose()).ok_or(WRONG_KEY)?;
    let session = accounts.session_of(&init.session_id, &init.package_name).ok_or(NO_SESSION)?;
    Ok(Some(Known {
        user: session.user.clone(),
        app: app.package.clone(),
        session: init.session_id,
        key: app.key.clone(),
        may_stream: app.may_stream(),
    }))
}

async fn reject(ticket: &Ticket, mut socket: WebSocket, rejection: &Rejection) {
    let Rejection { code, message, close, guess } = *rejection;
    info!(from = %ticket.from, code, "app not let in");
    if guess {
        ticket.refused();
    }
    let error =
        json!({"type": "tpa_connection_error", "code": code, "message": message, "timestamp": timestamp::now()});
    let words = async {
        if socket.send(Message::text(error.to_string())).await.is_ok() {
            say_goodbye(&mut socket, close, message).await;
        }
    };
    let _ = timeout(ticket.gateway.shared.timing.farewell, words).await;
}

/// The acknowledgement that the SDK waits for. It describes glasses with a camera and Wi-Fi, and nothing else that we
/// could answer for.
fn acknowledgement(session: &str) -> String {
    let sizes =
        [(1920, 1080), (1280, 720), (640, 480)].map(|(width, height)| json!({"width": width, "height": height}));
    json!({
        "type": "tpa_connection_ack",
        "sessionId": session,
        "settings": [],
        "mentraosSettings": {},
        "capabilities": {
            "modelName": "lenscast",
            "hasCamera": true,
            "camera": {
                "resolution": sizes[0],
                "hasHDR": false,
                "hasFocus": false,
                "video": {
                    "canRecord": false,
                    "canStream": true,
                    "supportedStreamTypes": ["rtmp"],
                    "supportedResolutions": sizes,
                },
            },
            "hasDisplay": false,
            "display": null,
            "hasMicrophone": true,
            "microphone": {"count": 1, "hasVAD": false},
            "hasSpeaker": false,
            "speaker": null,
            "hasIMU": false,
            "imu": null,
            "hasButton": false,
            "button": null,
            "hasLight": false,
            "light": null,
            "power": {"hasExternalBattery": false},
            "hasWifi": true,
        },
        "timestamp": timestamp::now(),
    })
    .to_string()
}
