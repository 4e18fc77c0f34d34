//! The other end of the control socket, for `lenscastctl` and tests.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::protocol::DaemonState;
use crate::protocol::control::{Event, PhotoHeader, Refusal, Request, Status, parse_reply};

/// Limit for the daemon to accept the connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Limit for a reply: a little more than the daemon's own 15 s, so that its own message arrives.
const REPLY: Duration = Duration::from_secs(20);
/// More than any camera's JPEG, bytes.
const MAX_PHOTO: u64 = 256 * 1024 * 1024;

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket, or this process may not use it.
    #[error("cannot reach the daemon at {}: {source}", path.display())]
    Unreachable {
        /// The socket's path.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The daemon refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The daemon closed the connection before it answered.
    #[error("the daemon closed the connection")]
    Closed,
    /// The daemon did not answer in 20 s.
    #[error("the daemon does not answer")]
    Silent,
    /// The answer makes no sense; the two programs may be of different versions.
    #[error("the daemon's answer is not understood: {0}")]
    Garbled(String),
}

/// A connection to the daemon. Its leases end when it is dropped.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// A partly received line.
    line: Vec<u8>,
}

impl Client {
    /// Connects to the socket at `path`.
    pub async fn connect(path: &Path) -> Result<Self, ClientError> {
        let connected = timeout(CONNECT, UnixStream::connect(path))
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "it accepts no connection")));
        let stream = connected.map_err(|source| ClientError::Unreachable { path: path.into(), source })?;
        let (reader, writer) = stream.into_split();
        Ok(Self { reader: BufReader::new(reader), writer, line: Vec::new() })
    }

    /// Sends a request, and waits at most 20 s for the answer, whose type belongs to `request`: the daemon's
    /// [`Request`] or the cloud's.
    pub async fn call<T: DeserializeOwned>(&mut self, request: &impl Serialize) -> Result<T, ClientError> {
        let reply = self.exchange(written(request)?).await?;
        Ok(parse_reply(&reply).map_err(|e| ClientError::Garbled(e.to_string()))??)
    }

    /// Sends a line and waits at most 20 s for the next one. Not generic, since each kind of [`Self::call`] would hold it.
    async fn exchange(&mut self, line: Vec<u8>) -> Result<Vec<u8>, ClientError> {
        let answer = async {
            // A daemon that turns us away may have closed already; its reason can still be read.
            let _ = self.write(&line).await;
            self.line().await
        };
        timeout(REPLY, answer).await.unwrap_or(Err(ClientError::Silent))
    }

    /// Sends a request without waiting for its answer.
    pub async fn send(&mut self, request: &impl Serialize) -> Result<(), ClientError> {
        self.write(&written(request)?).await
    }

    async fn write(&mut self, line: &[u8]) -> Result<(), ClientError> {
        self.writer.write_all(line).await.map_err(|_| ClientError::Closed)
    }

    /// Takes a photo for `app`; returns the JPEG.
    pub async fn photo(&mut self, app: Option<String>) -> Result<Vec<u8>, ClientError> {
        let PhotoHeader { length } = self.call(&Request::Photo { app }).await?;
        if length > MAX_PHOTO {
            return Err(ClientError::Garbled(format!("a photo of {length} bytes")));
        }
        let mut jpeg = vec![0; length as usize];
        match timeout(REPLY, self.reader.read_exact(&mut jpeg)).await {
            Ok(Ok(_)) => Ok(jpeg),
            Ok(Err(_)) => Err(ClientError::Closed),
            Err(_) => Err(ClientError::Silent),
        }
    }

    /// Turns the connection into one that watches. Returns the current state.
    pub async fn watch(mut self) -> Result<(DaemonState, Watching), ClientError> {
        let Status { state } = self.call(&Request::Watch).await?;
        Ok((*state, Watching(self)))
    }

    /// Waits for the next line of a connection that watches and reads it as `T`. Cancel safe: a partly received line
    /// is kept.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<T, ClientError> {
        let line = self.line().await?;
        serde_json::from_slice(&line).map_err(|e| ClientError::Garbled(e.to_string()))
    }

    /// Waits until the daemon has closed the connection; ignores anything else it sends.
    pub async fn closed(&mut self) {
        while self.line().await.is_ok() {}
    }

    async fn line(&mut self) -> Result<Vec<u8>, ClientError> {
        match self.reader.read_until(b'\n', &mut self.line).await {
            Ok(_) if self.line.last() == Some(&b'\n') => Ok(std::mem::take(&mut self.line)),
            Ok(_) | Err(_) => Err(ClientError::Closed),
        }
    }
}

/// The line for a request, with its newline.
fn written(request: &impl Serialize) -> Result<Vec<u8>, ClientError> {
    let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Garbled(e.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// A connection that watches.
#[derive(Debug)]
pub struct Watching(Client);

impl Watching {
    /// Waits for the next event; [`ClientError::Closed`] when the daemon ends. Cancel safe: a partly received event is
    /// kept.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
        self.0.next().await
    }
}
