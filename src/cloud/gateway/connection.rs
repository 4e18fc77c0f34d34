//! One admitted connection: reads, writes, pings, and ends it when its time has come.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use super::outgoing::{Farewell, Next, Queue, code};
use super::{DeviceMessage, GatewayEvent, MAX_TEXT_FRAME, Timing};
use crate::cloud::accounts::Accounts;

/// Average interval of the messages read from one connection, with a burst of two seconds' worth. A faster peer is read
/// more slowly, so that it cannot crowd the others out of the common queue.
const PER_MESSAGE: Duration = Duration::from_millis(10);
const BURST: Duration = Duration::from_secs(2);

/// One admitted connection.
pub(super) struct Connection<'a> {
    pub socket: WebSocket,
    pub queue: Queue,
    pub events: &'a mpsc::Sender<GatewayEvent>,
    pub accounts: watch::Receiver<Arc<Accounts>>,
    pub shutdown: watch::Receiver<bool>,
    pub timing: Timing,
}

impl Connection<'_> {
    /// Runs until either side ends the connection. `event` makes an event of a message, or ignores it. `revoked` says
    /// whether the accounts no longer have the peer. Returns true if the connection was closed on purpose: by a close
    /// frame that says so (1000, 1001 or none), or by a farewell after which the SDK does not come back
    /// (docs/protocol.md#close-codes). Otherwise it was lost.
    pub async fn run(
        mut self,
        event: impl Fn(DeviceMessage) -> Option<GatewayEvent>,
        revoked: impl Fn(&Accounts) -> Option<Farewell>,
    ) -> bool {
        // The account may have been revoked meanwhile.
        let end = revoked(&self.accounts.borrow_and_update());
        if let Some(farewell) = end {
            return self.close(&farewell).await;
        }
        // An event for which the task has no room yet. Until the task takes it nothing more is read, but sending goes
        // on.
        let mut undelivered: Option<GatewayEvent> = None;
        let mut last_heard = Instant::now();
        let mut next_ping = last_heard + self.timing.ping;
        // When the messages read so far are all paid for, at one per `PER_MESSAGE`.
        let mut paid_at = last_heard;
        loop {
            let now = Instant::now();
            let read_at = paid_at.checked_sub(BURST).unwrap_or(now);
            let may_read = undelivered.is_none() && read_at <= now;
            let to_send = tokio::select! {
                received = self.socket.recv(), if may_read => {
                    last_heard = Instant::now();
                    paid_at = paid_at.max(last_heard) + PER_MESSAGE;
                    let message = match received {
                        Some(Ok(Message::Text(text))) if text.len() > MAX_TEXT_FRAME => {
                            return self.close(&Farewell::new(code::TOO_BIG, "message too long")).await;
                        }
                        Some(Ok(Message::Text(text))) => DeviceMessage::Text(text.as_str().to_owned()),
                        Some(Ok(Message::Binary(bytes))) => DeviceMessage::Binary(bytes),
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                        Some(Ok(Message::Close(frame))) => {
                            let code = frame.map_or(code::NORMAL, |frame| frame.code);
                            self.closed().await;
                            return matches!(code, code::NORMAL | code::AWAY);
                        }
                        None => return false,
                        Some(Err(error)) if is_too_long(&error) => {
                            return self.close(&Farewell::new(code::TOO_BIG, "message too long")).await;
                        }
                        Some(Err(error)) => {
                            debug!(%error, "gateway: connection lost");
                            return false;
                        }
                    };
                    undelivered = event(message);
                    continue;
                }
                permit = self.events.reserve(), if undelivered.is_some() => {
                    let Ok(permit) = permit else { return false };
                    if let Some(event) = undelivered.take() {
                        permit.send(event);
                    }
                    // Silence is counted from here: nothing was read until now.
                    last_heard = Instant::now();
                    continue;
                }
                () = sleep_until(read_at), if undelivered.is_none() && !may_read => {
                    last_heard = Instant::now();
                    continue;
                }
                next = self.queue.next() => match next {
                    Next::Text(text) => Message::text(text),
                    Next::Close(farewell) => return self.close(&farewell).await,
                },
                () = sleep_until(next_ping) => {
                    next_ping = Instant::now() + self.timing.ping;
                    Message::Ping(bytes::Bytes::new())
                }
                () = sleep_until(last_heard + self.timing.silence), if may_read => {
                    debug!("gateway: nothing received for {:?}", self.timing.silence);
                    return self.close(&Farewell::new(code::TRY_AGAIN, "nothing received")).await;
                }
                Ok(()) = self.accounts.changed() => {
                    let end = revoked(&self.accounts.borrow_and_update());
                    match end {
                        Some(farewell) => return self.close(&farewell).await,
                        None => continue,
                    }
                }
                () = ordered(&mut self.shutdown) => {
                    return self.close(&Farewell::new(code::RESTART, "the cloud restarts")).await;
                }
            };
            match timeout(self.timing.write, self.socket.send(to_send)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    debug!(%error, "gateway: connection lost");
                    return false;
                }
                Err(_) => {
                    debug!("gateway: a message could not be sent within {:?}", self.timing.write);
                    return false;
                }
            }
        }
    }

    async fn close(mut self, farewell: &Farewell) -> bool {
        let words = async {
            if !farewell.at_once {
                while let Some(text) = self.queue.last() {
                    self.socket.send(Message::text(text)).await?;
                }
            }
            say_goodbye(&mut self.socket, farewell.code, farewell.reason).await;
            Ok::<(), axum::Error>(())
        };
        let _ = timeout(self.timing.farewell, words).await;
        matches!(farewell.code, code::NORMAL | code::POLICY)
    }

    /// The peer closes: sends the answer that the protocol demands.
    async fn closed(mut self) {
        let answered = async { while let Some(Ok(_)) = self.socket.recv().await {} };
        let _ = timeout(self.timing.farewell, answered).await;
    }
}

/// Sends a close frame and waits for the peer's answer: a connection that is dropped earlier may lose what was sent
/// last. The caller sets a deadline.
pub(super) async fn say_goodbye(socket: &mut WebSocket, code: u16, reason: &'static str) {
    let frame = CloseFrame { code, reason: reason.into() };
    if socket.send(Message::Close(Some(frame))).await.is_ok() {
        while let Some(Ok(_)) = socket.recv().await {}
    }
}

/// Waits until `shutdown` is true or its sender is gone.
pub(super) async fn ordered(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender is gone, which has the same effect.
    let _ = shutdown.wait_for(|&ordered| ordered).await;
}

/// Whether axum's error hides a message that was too long.
pub(super) fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().starts_with("Space limit exceeded") {
            return true;
        }
        cause = error.source();
    }
    false
}
