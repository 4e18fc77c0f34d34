//! Accepts the connections of a control socket, the daemon's or the cloud's: each is a task, and all are joined.

use std::future::Future;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tracing::warn;

use super::Listener;
use crate::protocol::Cause;
use crate::protocol::control::{Refusal, reply_line};

/// Limits of a control socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Maximum number of connections at a time; the next is told that there are too many.
    pub(crate) connections: usize,
    /// Limit for the last messages to all connections.
    pub(crate) farewell: Duration,
}

/// Runs `connection` for each client until `shutdown` turns true or its sender is dropped, which the connections must
/// notice themselves. All of them have ended when this returns.
pub(crate) async fn serve<F>(
    listener: Listener,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
    mut connection: impl FnMut(UnixStream) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                continue;
            }
            () = ordered(&mut shutdown) => break,
        };
        match accepted {
            Ok(stream) if connections.len() >= limits.connections => turn_away(&stream, limits.connections),
            Ok(stream) => drop(connections.spawn(connection(stream))),
            Err(error) => {
                // Most likely out of file descriptors. Nothing signals when some are free again.
                warn!(%error, "control socket: cannot accept");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                    () = ordered(&mut shutdown) => break,
                }
            }
        }
    }
    // No new client may find the socket while the last ones are served.
    drop(listener);
    let farewell = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
    };
    if timeout(limits.farewell, farewell).await.is_err() {
        connections.shutdown().await;
    }
}

/// Resolves when `shutdown` is true or can no longer become true.
pub(crate) async fn ordered(shutdown: &mut watch::Receiver<bool>) {
    // An error means that the sender was dropped, which counts as shutdown.
    let _ = shutdown.wait_for(|&ordered| ordered).await;
}

fn turn_away(stream: &UnixStream, connections: usize) {
    warn!(connections, "control socket: too many connections; turned one away");
    let message = format!("there are already {connections} connections to the control socket");
    let line = reply_line(&Err(Refusal { cause: Cause::Internal, message, owner: None }));
    // A fresh socket's buffer takes the line at once; otherwise the client does without the reason.
    let _ = stream.try_write(&line);
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        warn!(%error, "control socket: a connection's task panicked");
    }
}
