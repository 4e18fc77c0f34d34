//! The WebSocket to the cloud: keeps it up, delivers what arrives, sends what it is given.
//!
//! Messages to send while there is no link are dropped, not kept: by the time the link is back they are stale, and the
//! device first sends its whole state then. A link counts as lost when it closes, when a write takes too long, when
//! sent data stays unacknowledged, or when nothing at all (pongs included) arrives for 45 s after something did. Some
//! relays never answer a ping, so a link on which nothing ever arrived is not dropped for silence.

mod session;
pub(crate) mod tls;

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, HeaderValue};
use tokio_tungstenite::tungstenite::http::{StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use tracing::{debug, error, info, warn};

use super::standby::{Backoff, down};
use super::{LinkEvent, Outgoing};
use crate::protocol::Secret;

use session::Ended;

/// Maximum length of a message from the cloud, bytes. The protocol's longest, a start with everything set, is under 2
/// KiB.
const MAX_MESSAGE: usize = 64 * 1024;

/// The cloud's address and credentials.
#[derive(Clone, Debug)]
pub struct CloudConfig {
    /// `wss://` or, on a trusted network, `ws://`; ends in `/glasses-ws`.
    pub url: String,
    /// Sent as `Authorization: Bearer …`, trimmed: tokens come from files that end with a newline.
    pub token: Option<Secret>,
    /// Certificate authorities (PEM) to trust in addition to the system's.
    pub ca_file: Option<PathBuf>,
}

/// Limits and intervals. Tests shorten them.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// Limit for DNS, TCP, TLS and the WebSocket handshake together.
    connect: Duration,
    /// Limit for one message to leave this machine's buffers.
    write: Duration,
    /// The same for a photo, which shares a slow uplink with the stream. Shorter than the silence that clouds
    /// tolerate: until it is sent, no ping is answered.
    write_binary: Duration,
    /// Interval between pings.
    ping: Duration,
    /// Longest silence on a link that has received something.
    silence: Duration,
    /// Limit for sent data to be acknowledged by the other machine.
    unacknowledged: Duration,
    /// First delay before reconnecting.
    retry_first: Duration,
    /// Longest delay before reconnecting; used at once when the cloud refuses us.
    retry_most: Duration,
    /// How long a link must be up for the delay to start over.
    settled: Duration,
    /// Limit for the last messages at shutdown.
    farewell: Duration,
}

const TIMING: Timing = Timing {
    connect: Duration::from_secs(10),
    write: Duration::from_secs(5),
    write_binary: Duration::from_secs(20),
    ping: Duration::from_secs(15),
    silence: Duration::from_secs(45),
    unacknowledged: Duration::from_secs(30),
    retry_first: Duration::from_millis(500),
    retry_most: Duration::from_secs(30),
    settled: Duration::from_secs(30),
    farewell: Duration::from_secs(1),
};

/// Keeps the link up until `shutdown` turns true (or its sender or the receiver of `events` is dropped). Messages in
/// `outgoing` at shutdown are still sent, within a second.
///
/// Both queues may be tightly bounded: sending continues while the device's task does not take events.
pub async fn run(
    config: CloudConfig,
    events: mpsc::Sender<LinkEvent>,
    outgoing: mpsc::Receiver<Outgoing>,
    shutdown: watch::Receiver<bool>,
) {
    CloudLink { config, timing: TIMING, events, outgoing, shutdown, connector: None }.run().await;
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct CloudLink {
    config: CloudConfig,
    timing: Timing,
    events: mpsc::Sender<LinkEvent>,
    outgoing: mpsc::Receiver<Outgoing>,
    shutdown: watch::Receiver<bool>,
    /// Made at first use, since it reads the system's certificates.
    connector: Option<Connector>,
}

/// Why there is no link.
#[derive(Debug)]
struct LinkFailure {
    reason: String,
    /// An early retry is useless.
    refused: bool,
}

impl LinkFailure {
    fn passing(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), refused: false }
    }

    fn refused(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), refused: true }
    }
}

impl CloudLink {
    async fn run(mut self) {
        let place = place(&self.config.url);
        if self.config.token.is_some() && self.config.url.starts_with("ws://") {
            warn!(%place, "cloud link: the token travels unencrypted; use wss://");
        }
        let mut backoff = Backoff::new(self.timing.retry_first, self.timing.retry_most);
        let mut last_reason = String::new();
        loop {
            let failure = match self.connect().await {
                None => return,
                Some(Err(failure)) => failure,
                Some(Ok(socket)) => {
                    info!(%place, "cloud link: up");
                    last_reason.clear();
                    let since = Instant::now();
                    if !self.tell(LinkEvent::Up).await {
                        return;
                    }
                    let Ended::Lost(reason) = self.session(socket).await else { return };
                    if since.elapsed() >= self.timing.settled {
                        backoff = Backoff::new(self.timing.retry_first, self.timing.retry_most);
                    }
                    if !self.tell(LinkEvent::Down).await {
                        return;
                    }
                    LinkFailure::passing(reason)
                }
            };
            let delay = backoff.next(failure.refused, fastrand::f64());
            let LinkFailure { reason, refused } = failure;
            if reason == last_reason {
                debug!(%place, reason, retry_in = ?delay, "cloud link: still down");
            } else if refused {
                error!(%place, reason, retry_in = ?delay, "cloud link: not let in");
            } else {
                warn!(%place, reason, retry_in = ?delay, "cloud link: down");
            }
            last_reason = reason;
            if down(&mut self.outgoing, &mut self.shutdown, sleep(delay)).await.is_none() {
                return;
            }
        }
    }

    /// `None` at shutdown.
    async fn connect(&mut self) -> Option<Result<Socket, LinkFailure>> {
        // Boxed: the handshakes' state is large and would otherwise remain part of the link's state for its lifetime.
        let attempt = timeout(self.timing.connect, Box::pin(attempt(&self.config, &mut self.connector)));
        let attempted = down(&mut self.outgoing, &mut self.shutdown, attempt).await?;
        let limit = self.timing.connect;
        Some(match attempted {
            Ok(Ok(socket)) => {
                tls::bound_unacknowledged(socket.get_ref(), self.timing.unacknowledged);
                Ok(socket)
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(LinkFailure::passing(format!("no connection within {limit:?}"))),
        })
    }

    /// Tells the device's task of a change, and drops the messages it sent before it could know. `false` at shutdown.
    async fn tell(&mut self, event: LinkEvent) -> bool {
        while self.outgoing.try_recv().is_ok() {}
        let sending = self.events.send(event);
        matches!(down(&mut self.outgoing, &mut self.shutdown, sending).await, Some(Ok(())))
    }
}

async fn attempt(config: &CloudConfig, connector: &mut Option<Connector>) -> Result<Socket, LinkFailure> {
    const UNUSABLE: &str = "the URL is not ws://host/path or wss://host/path";
    let mut request = config.url.as_str().into_client_request().map_err(|_| LinkFailure::refused(UNUSABLE))?;
    if let Some(token) = &config.token {
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose().trim()))
            .map_err(|_| LinkFailure::refused("the token has characters that no HTTP header may have"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    if connector.is_none() && request.uri().scheme_str() == Some("wss") {
        *connector = Some(tls::connector(config.ca_file.clone()).await.map_err(LinkFailure::passing)?);
    }
    // The default buffers of 128 KiB are for servers; the protocol's messages are small.
    let sizes = WebSocketConfig::default()
        .read_buffer_size(8 * 1024)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let connected = connect_async_tls_with_config(request, Some(sizes), true, connector.clone()).await;
    match connected {
        Ok((socket, _)) => Ok(socket),
        Err(Error::Http(response)) => Err(match response.status() {
            StatusCode::UNAUTHORIZED => {
                LinkFailure::refused("401: the cloud does not know the token; is it set and valid?")
            }
            StatusCode::FORBIDDEN => {
                LinkFailure::refused("403: the cloud knows the token but does not let these glasses in")
            }
            status => LinkFailure::passing(format!("the cloud answers {status}")),
        }),
        Err(Error::Url(_)) => Err(LinkFailure::refused(UNUSABLE)),
        Err(error) => Err(LinkFailure::passing(error.to_string())),
    }
}

/// The address in `url`, without what may be secret in it: user, password, query.
pub(crate) fn place(url: &str) -> String {
    let Ok(uri) = url.parse::<Uri>() else { return "(unusable URL)".into() };
    let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return "(unusable URL)".into() };
    let port = uri.port_u16().map_or_else(String::new, |port| format!(":{port}"));
    format!("{scheme}://{host}{port}{}", uri.path())
}

#[cfg(test)]
mod tests;
