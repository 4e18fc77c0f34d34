//! One WebSocket while it is up.

use futures_util::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::error::Error;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tracing::debug;

use super::{CloudLink, LinkEvent, Outgoing, Socket};
use crate::link::standby::ordered;

/// How a session ended.
pub(super) enum Ended {
    Shutdown,
    Lost(String),
}

impl CloudLink {
    pub(super) async fn session(&mut self, mut socket: Socket) -> Ended {
        // A message for which `events` has no room yet. Until it is delivered nothing more is read, but sending
        // continues.
        let mut undelivered: Option<String> = None;
        let mut last_heard: Option<Instant> = None;
        let mut next_ping = Instant::now() + self.timing.ping;
        loop {
            let silent_at = last_heard.map_or(next_ping, |heard| heard + self.timing.silence);
            let to_send = tokio::select! {
                received = socket.next(), if undelivered.is_none() => {
                    last_heard = Some(Instant::now());
                    match received {
                        Some(Ok(Message::Text(text))) => undelivered = Some(text.as_str().to_owned()),
                        Some(Ok(Message::Close(frame))) => return self.closed(socket, frame).await,
                        Some(Ok(other)) => debug!(bytes = other.len(), "cloud link: a ping, pong or binary message"),
                        Some(Err(Error::Capacity(error))) => return self.too_long(socket, &error.to_string()).await,
                        Some(Err(error)) => return Ended::Lost(error.to_string()),
                        None => return Ended::Lost("closed".into()),
                    }
                    continue;
                }
                permit = self.events.reserve(), if undelivered.is_some() => {
                    let Ok(permit) = permit else { return Ended::Shutdown };
                    if let Some(text) = undelivered.take() {
                        permit.send(LinkEvent::Message(text));
                    }
                    // What arrived while nothing was read has not been heard yet.
                    last_heard = Some(Instant::now());
                    continue;
                }
                Some(outgoing) = self.outgoing.recv() => Some(message(outgoing)),
                () = sleep_until(next_ping) => {
                    next_ping = Instant::now() + self.timing.ping;
                    Some(Message::Ping(Vec::new().into()))
                }
                () = sleep_until(silent_at), if last_heard.is_some() && undelivered.is_none() => {
                    return Ended::Lost(format!("nothing received for {:?}", self.timing.silence));
                }
                () = ordered(&mut self.shutdown) => None,
            };
            let Some(to_send) = to_send else {
                self.farewell(socket).await;
                return Ended::Shutdown;
            };
            let limit = if to_send.is_binary() { self.timing.write_binary } else { self.timing.write };
            match timeout(limit, socket.send(to_send)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Ended::Lost(error.to_string()),
                Err(_) => return Ended::Lost(format!("a message could not be sent within {limit:?}")),
            }
        }
    }

    /// The cloud closes: answers, as the protocol requires.
    async fn closed(&self, mut socket: Socket, frame: Option<CloseFrame>) -> Ended {
        let answered = async { while let Some(Ok(_)) = socket.next().await {} };
        let _ = timeout(self.timing.farewell, answered).await;
        Ended::Lost(match frame {
            Some(CloseFrame { code, reason }) => format!("closed by the cloud: {code} {:?}", reason.as_str()),
            None => "closed by the cloud".into(),
        })
    }

    /// A message longer than any of the protocol: tells the sender with 1009 (RFC 6455, 7.4.1), then the link begins
    /// anew. The rest of the message is read and dropped, since a socket closed with unread data discards what it sent
    /// last.
    async fn too_long(&self, mut socket: Socket, error: &str) -> Ended {
        let words = async {
            let frame = CloseFrame { code: CloseCode::Size, reason: "message too long".into() };
            socket.send(Message::Close(Some(frame))).await?;
            let mut rest = vec![0; 16 * 1024];
            while socket.get_mut().read(&mut rest).await? > 0 {}
            Ok::<(), Error>(())
        };
        let _ = timeout(self.timing.farewell, words).await;
        Ended::Lost(error.into())
    }

    /// Sends what is left to send, and closes.
    async fn farewell(&mut self, mut socket: Socket) {
        let words = async {
            while let Ok(outgoing) = self.outgoing.try_recv() {
                socket.send(message(outgoing)).await?;
            }
            socket.close(Some(CloseFrame { code: CloseCode::Away, reason: "shutting down".into() })).await?;
            // Waits for the answer: dropping the connection earlier would discard our last messages.
            while let Some(received) = socket.next().await {
                received?;
            }
            Ok::<(), Error>(())
        };
        let _ = timeout(self.timing.farewell, words).await;
    }
}

fn message(outgoing: Outgoing) -> Message {
    match outgoing {
        Outgoing::Text(text) => Message::text(text),
        Outgoing::Binary(bytes) => Message::binary(bytes),
    }
}
