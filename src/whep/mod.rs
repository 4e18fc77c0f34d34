//! Serves broadcasts to WebRTC viewers by WHEP (draft-ietf-wish-whep): one offer, one answer, then media from one UDP
//! port.
//!
//! H.264 is passed on unchanged, and cut into packets once per stream. All viewers share those bytes; only encryption
//! is per viewer (str0m, which also answers NACK by RTX). A viewer begins with everything since the last key frame,
//! with compressed timestamps. WebRTC has no B-frames, so streams with them are refused. It has no AAC either, so sound
//! comes from an [`OpusSource`], which runs only while somebody watches.
//!
//! One task owns all sessions and the socket (`task`); one more per watched stream cuts packets (`stream`). The server
//! is ICE-lite: it has a known address and only answers, so viewers behind any NAT reach it and trickled candidates are
//! not needed.

mod answer;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod http;
mod outbox;
mod registry;
mod rtp;
mod session;
mod stream;
mod stun;
mod task;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::broadcast::Broadcast;
use crate::metrics::Counter;
use registry::Registry;

/// Where media is sent from, and to how many viewers.
#[derive(Clone, Debug)]
pub struct Options {
    /// The UDP socket's address.
    pub bind: SocketAddr,
    /// Where viewers can reach it; required if `bind` is unspecified or behind NAT. Empty: the address of `bind`.
    pub advertise: Vec<SocketAddr>,
    /// The most sessions at a time; the next one is answered 503.
    pub sessions: usize,
}

impl Default for Options {
    /// 127.0.0.1:8189, 500 sessions.
    fn default() -> Self {
        Self { bind: (Ipv4Addr::LOCALHOST, 8189).into(), advertise: Vec::new(), sessions: 500 }
    }
}

/// 20 ms of sound: one Opus packet at 48 kHz.
#[derive(Clone, Debug)]
pub struct Sound {
    /// Time since the stream's beginning, on the scale of [`crate::broadcast::Frame::dts`].
    pub time: Duration,
    pub packet: Arc<[u8]>,
}

/// Provides a stream's sound as Opus while somebody watches.
pub trait OpusSource: Send + Sync {
    /// Sends sound from now on, until it is dropped, the stream ends or `sounds` is closed. If it returns earlier it
    /// has given up, and viewers go on without sound.
    fn run(&self, sounds: mpsc::Sender<Sound>) -> BoxFuture<'static, ()>;
}

/// The service. A clone is another handle to it.
#[derive(Clone, Debug)]
pub struct Whep(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    registry: Registry,
    commands: mpsc::Sender<task::Command>,
    rtc: answer::Template,
    sessions: Sessions,
    stop: watch::Sender<bool>,
    owner: Mutex<Option<JoinHandle<()>>>,
}

/// Counts of viewers' offers by result.
#[derive(Debug, Default)]
pub struct Sessions {
    /// Offers that got an answer.
    pub agreed: Counter,
    /// Offers that were refused: they cannot be served, or there is no room.
    pub refused: Counter,
}

impl Whep {
    /// Binds the socket and starts the task that owns it.
    ///
    /// # Errors Those of the socket, and `InvalidInput` for an unspecified `bind` with nothing to advertise.
    pub async fn start(options: &Options) -> io::Result<Self> {
        if options.advertise.is_empty() && options.bind.ip().is_unspecified() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "WebRTC needs an address that viewers can reach"));
        }
        let socket = UdpSocket::bind(options.bind).await?;
        task::enlarge_buffers(&socket);
        let local = socket.local_addr()?;
        let mut addresses = options.advertise.clone();
        if addresses.is_empty() {
            addresses.push(local);
        }
        let rtc = answer::Template::new(addresses.clone()).map_err(io::Error::other)?;
        let (commands, inbox) = mpsc::channel(64);
        let (stop, stopped) = watch::channel(false);
        let owner = tokio::spawn(task::run(task::Inputs { socket, addresses, inbox, stopped }, options.sessions));
        let owner = Mutex::new(Some(owner));
        Ok(Self(Arc::new(Shared {
            registry: Registry::default(),
            commands,
            rtc,
            sessions: Sessions::default(),
            stop,
            owner,
        })))
    }

    /// Admits viewers at `/whep/{id}`. An open stream with that id is closed first.
    pub fn open(&self, id: &str, broadcast: &Broadcast, opus: Option<Arc<dyn OpusSource>>) {
        self.0.registry.open(id, broadcast, opus);
    }

    /// Ends the stream's sessions; its path answers 404 from now on.
    pub fn close(&self, id: &str) {
        self.0.registry.close(id);
    }

    /// The number of viewers connected to the stream.
    pub fn viewers(&self, id: &str) -> usize {
        self.0.registry.viewers(id)
    }

    /// Counts of viewers' offers so far.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// `POST` and `OPTIONS /whep/{id}`, `DELETE` and `PATCH /whep/{id}/{session}`; open to pages of any origin.
    pub fn router(&self) -> axum::Router {
        http::router(self.0.clone())
    }

    /// Says goodbye to all viewers and ends the task. Takes less than a second.
    pub async fn shut_down(&self) {
        self.0.stop.send_replace(true);
        let owner = self.0.owner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(owner) = owner
            && let Err(error) = owner.await
        {
            tracing::error!(%error, "the WebRTC task failed");
        }
    }
}
