//! The control socket: accepts, reads requests, asks the device's task, writes replies.
//!
//! A connection is one task: read a line, answer it, read the next. While the device works on a request, or once the
//! client watches, nothing is read; a client that is gone then shows by the socket hanging up, which the kernel
//! reports even after `kill -9`. A client that only shuts down its writing half (`echo … | socat`) still gets its
//! answers. `status` and `watch` never reach the device: they are served from its published state.

pub(crate) mod accept;
#[cfg(all(feature = "cloud", any(test, fuzzing)))]
pub mod fuzz;
pub(crate) mod socket;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, mpsc, oneshot, watch as state_watch};
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::protocol::control::{Answer, MAX_REQUEST_LINE, Refusal, Reply, ReportLine, Request, Status, reply_line};
use crate::protocol::{Cause, DaemonState};

use accept::ordered;
use socket::Hangup;
pub use socket::{Listener, bind};

/// Events from the control socket for the device's task.
#[derive(Debug)]
pub enum ControlEvent {
    /// A client's request. If the answer can no longer be delivered, `reply.send` returns it as an error: the client
    /// is gone or was told [`Cause::Internal`] after 15 s, so what was granted must be taken back.
    Request {
        /// The connection's number; never reused.
        connection: u64,
        /// The process that asks.
        peer: Peer,
        /// The request. Never [`Request::Status`] or [`Request::Watch`].
        request: Request,
        /// Where to send the answer.
        reply: oneshot::Sender<Reply>,
    },
    /// A connection ended, in whatever way, and its leases with it. Sent once for each connection, after its last
    /// request; not sent for those that the end of [`serve`] closes.
    Closed {
        /// The connection's number.
        connection: u64,
    },
}

/// The process at the other end, as the kernel names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The process id; `None` if this process cannot see it (another pid namespace).
    pub pid: Option<u32>,
    /// The user id.
    pub uid: u32,
    /// The name of its program, at most 15 bytes (`/proc/PID/comm`); empty if unknown.
    pub program: String,
}

/// Limits. Tests shorten them.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connections: usize,
    /// Limit for the device to answer.
    reply: Duration,
    /// Limit for a client to take more data.
    write: Duration,
    /// Interval between states in which only counters changed.
    counters: Duration,
    /// Limit for the last messages to all connections at the end.
    farewell: Duration,
}

const LIMITS: Limits = Limits {
    connections: 32,
    reply: Duration::from_secs(15),
    write: Duration::from_secs(5),
    counters: Duration::from_secs(1),
    farewell: Duration::from_secs(1),
};

/// State shared by all connections.
#[derive(Clone)]
struct Shared {
    limits: Limits,
    events: mpsc::Sender<ControlEvent>,
    state: state_watch::Receiver<DaemonState>,
    reports: broadcast::Sender<ReportLine>,
    shutdown: state_watch::Receiver<bool>,
}

/// Serves the control socket until `shutdown` turns true or its sender is dropped; then all its tasks have ended.
///
/// Watchers still get the reports sent before `shutdown`, and waiting requests are refused with [`Cause::Shutdown`],
/// within a second altogether. `events` may be full or unread for a while. `reports` must hold enough for the bursts
/// of a stream's life (a watcher that falls behind is told so).
pub async fn serve(
    listener: Listener,
    events: mpsc::Sender<ControlEvent>,
    state: state_watch::Receiver<DaemonState>,
    reports: broadcast::Sender<ReportLine>,
    shutdown: state_watch::Receiver<bool>,
) {
    serve_within(LIMITS, listener, events, state, reports, shutdown).await;
}

async fn serve_within(
    limits: Limits,
    listener: Listener,
    events: mpsc::Sender<ControlEvent>,
    state: state_watch::Receiver<DaemonState>,
    reports: broadcast::Sender<ReportLine>,
    shutdown: state_watch::Receiver<bool>,
) {
    let shared = Arc::new(Shared { limits, events, state, reports, shutdown: shutdown.clone() });
    let mut last_connection = 0;
    let bounds = accept::Limits { connections: limits.connections, farewell: limits.farewell };
    accept::serve(listener, bounds, shutdown, |stream| {
        last_connection += 1;
        connection(last_connection, stream, Arc::clone(&shared))
    })
    .await;
}

fn refuse(cause: Cause, message: impl Into<String>) -> Reply {
    Err(Refusal { cause, message: message.into(), owner: None })
}

/// Why a connection ends before the client wants it to.
enum End {
    /// The client is gone or reads too slowly.
    Client,
    Shutdown,
}

async fn connection(id: u64, stream: UnixStream, shared: Arc<Shared>) {
    let peer = socket::peer(&stream);
    let mut shutdown = shared.shutdown.clone();
    match socket::hangup(&stream) {
        Ok(hangup) => {
            let (reader, writer) = stream.into_split();
            let mut connection = Connection {
                id,
                peer,
                reader: BufReader::new(reader),
                writer: Writer { half: writer, limit: shared.limits.write },
                hangup,
                shutdown: shutdown.clone(),
                shared: Arc::clone(&shared),
            };
            let _ = connection.run().await;
        }
        Err(error) => warn!(%error, "control socket: cannot watch over a connection"),
    }
    // The device must be told, however busy it is; but at shutdown it no longer listens.
    tokio::select! {
        _ = shared.events.send(ControlEvent::Closed { connection: id }) => {}
        () = ordered(&mut shutdown) => {}
    }
}

struct Connection {
    id: u64,
    peer: Peer,
    reader: BufReader<OwnedReadHalf>,
    writer: Writer,
    hangup: Hangup,
    shutdown: state_watch::Receiver<bool>,
    shared: Arc<Shared>,
}

impl Connection {
    async fn run(&mut self) -> Result<(), End> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let limit = MAX_REQUEST_LINE as u64 + 1;
            let mut limited = (&mut self.reader).take(limit);
            let read = tokio::select! {
                read = limited.read_until(b'\n', &mut line) => read,
                () = ordered(&mut self.shutdown) => return Err(End::Shutdown),
            };
            if read.map_err(|_| End::Client)? == 0 {
                return Ok(());
            }
            if line.last() != Some(&b'\n') && line.len() > MAX_REQUEST_LINE {
                let message = format!("a request is at most {MAX_REQUEST_LINE} bytes long");
                // Where the next request starts in the rest is unknown.
                return self.writer.reply(&refuse(Cause::InvalidRequest, message)).await;
            }
            if line.trim_ascii().is_empty() {
                continue;
            }
            match Request::parse(&line) {
                Ok(Request::Watch) => return self.watch().await,
                Ok(request) => {
                    let reply = self.answer(request).await?;
                    self.writer.reply(&reply).await?;
                }
                Err(error) => self.writer.reply(&refuse(Cause::InvalidRequest, error.to_string())).await?,
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Result<Reply, End> {
        if matches!(request, Request::Status) {
            return Ok(Ok(Answer::Status(Status { state: Box::new(self.shared.state.borrow().clone()) })));
        }
        debug!(connection = self.id, peer = ?self.peer, ?request, "control request");
        let (reply, answer) = oneshot::channel();
        let event = ControlEvent::Request { connection: self.id, peer: self.peer.clone(), request, reply };
        let asked = async {
            self.shared.events.send(event).await.ok()?;
            answer.await.ok()
        };
        tokio::select! {
            answered = timeout(self.shared.limits.reply, asked) => Ok(match answered {
                Ok(Some(reply)) => reply,
                Ok(None) => refuse(Cause::Internal, "the daemon dropped the request"),
                Err(_) => {
                    warn!(connection = self.id, "control socket: the daemon did not answer a request in time");
                    refuse(Cause::Internal, format!("no answer within {:?}", self.shared.limits.reply))
                }
            }),
            () = self.hangup.wait() => Err(End::Client),
            () = ordered(&mut self.shutdown) => Ok(Err(Cause::Shutdown.into())),
        }
    }
}

/// The writing half: every write has a deadline.
struct Writer {
    half: OwnedWriteHalf,
    limit: Duration,
}

impl Writer {
    async fn reply(&mut self, reply: &Reply) -> Result<(), End> {
        self.write(&reply_line(reply)).await?;
        if let Ok(Answer::Photo(jpeg)) = reply {
            self.write(jpeg).await?;
        }
        Ok(())
    }

    /// Fails when the client takes nothing at all within the time limit; a large photo to a slow but reading client
    /// may take longer.
    async fn write(&mut self, mut bytes: &[u8]) -> Result<(), End> {
        while !bytes.is_empty() {
            match timeout(self.limit, self.half.write(bytes)).await {
                Ok(Ok(0) | Err(_)) => return Err(End::Client),
                Ok(Ok(written)) => bytes = &bytes[written..],
                Err(_) => {
                    warn!("control socket: dropped a client that does not read");
                    return Err(End::Client);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
