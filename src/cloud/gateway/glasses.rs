//! `/glasses-ws`: glasses with a token of their own, or a phone with the token of its `MentraOS` account, in the
//! `Authorization` header (docs/protocol.md#phones-and-glasses-at-the-cloud). A peer with neither gets 401 and JSON
//! before the upgrade.

use std::net::SocketAddr;
use std::time::SystemTime;

use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use serde_json::json;
use tracing::info;

use super::connection::Connection;
use super::outgoing::{Farewell, Outgoing, code};
use super::{Gateway, GatewayEvent, LinkKey, MAX_BINARY_FRAME, Ticket, jwt};
use crate::cloud::accounts::Accounts;
use crate::cloud::credential::KeyHash;
use crate::cloud::timestamp;

/// Glasses, or a phone, that have been admitted.
struct Known {
    user: String,
    device: String,
    /// The hash of the device's token; none for a phone, which is in no list of ours.
    token: Option<KeyHash>,
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
    let known = match authenticate(&gateway, &headers) {
        Ok(known) => known,
        Err((code, message)) => {
            ticket.refused();
            info!(from = %ticket.from, code, "glasses not let in");
            let error =
                json!({"type": "connection_error", "code": code, "message": message, "timestamp": timestamp::now()});
            return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
        }
    };
    upgrade
        .max_message_size(MAX_BINARY_FRAME)
        .max_frame_size(MAX_BINARY_FRAME)
        .read_buffer_size(16 * 1024)
        .write_buffer_size(0)
        .on_upgrade(move |socket| serve(ticket, known, socket))
}

fn authenticate(gateway: &Gateway, headers: &HeaderMap) -> Result<Known, (&'static str, &'static str)> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let token =
        bearer.filter(|token| !token.is_empty()).ok_or(("MISSING_TOKEN", "Authorization: Bearer is missing"))?;
    if let Some(device) = gateway.shared.registry.accounts().device_with_token(token) {
        let (user, device, token) = (device.user.clone(), device.name.clone(), Some(device.token.clone()));
        return Ok(Known { user, device, token });
    }
    let phone = gateway.shared.phone_secret.as_ref().and_then(|secret| jwt::user(token, secret, SystemTime::now()));
    match phone {
        // With a colon, which no device's name can contain.
        Some(user) => Ok(Known { device: format!("phone:{user}"), user, token: None }),
        None => Err(("INVALID_TOKEN", "the token is unknown or has expired")),
    }
}

async fn serve(ticket: Ticket, known: Known, socket: WebSocket) {
    let Known { user, device, token } = known;
    let shared = &ticket.gateway.shared;
    let connection = ticket.id;
    let (outgoing, queue) = Outgoing::pair();
    // Queued before anybody else can send, so the glasses read it first.
    let acknowledgement = json!({"type": "connection_ack", "sessionId": user, "timestamp": timestamp::now()});
    outgoing.send(acknowledgement.to_string());
    let link = LinkKey::Device(device.clone());
    ticket.enter(&link, &outgoing);
    info!(user, device, connection = connection.0, "glasses connected");
    let up = GatewayEvent::DeviceUp {
        connection,
        user: user.clone(),
        device: device.clone(),
        is_lenscastd: token.is_some(),
        outgoing,
    };
    if shared.events.send(up).await.is_ok() {
        let event = |message| {
            Some(GatewayEvent::DeviceMessage { connection, user: user.clone(), device: device.clone(), message })
        };
        let revoked = |accounts: &Accounts| {
            let token = token.as_ref()?;
            let same = accounts.devices.get(&device).is_some_and(|now| now.token == *token);
            (!same).then(|| Farewell::new(code::POLICY, "the token was revoked"))
        };
        let pump = Connection {
            socket,
            queue,
            events: &shared.events,
            accounts: shared.registry.subscribe(),
            shutdown: shared.shutdown.subscribe(),
            timing: shared.timing,
        };
        pump.run(event, revoked).await;
    }
    ticket.leave(&link);
    info!(user, device, connection = connection.0, "glasses disconnected");
    let _ = shared.events.send(GatewayEvent::DeviceDown { connection, user, device }).await;
}
