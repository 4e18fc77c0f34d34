//! Which key publishes which stream, and which connection does so now.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use crate::broadcast::{Broadcast, Frame, Media};
use crate::metrics::Counter;
use crate::protocol::Secret;

/// The most events that wait for their owner. When the queue is full, connections wait before they begin or end.
const QUEUE: usize = 64;

/// An event of a stream's publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The id given to [`Ingest::open`].
    pub stream_id: String,
    /// The number of the publication, rising from 1 within a stream. At a takeover the old one's `Stopped` may come
    /// after the new one's `Publishing`: compare the numbers.
    pub publication: u64,
    pub what: Happening,
}

/// What happened to a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It was accepted; media is about to come.
    Publishing {
        /// The publisher's address.
        peer: SocketAddr,
        /// The name and version that the publisher's software gives, if any.
        encoder: Option<String>,
    },
    /// It is over.
    Stopped(Stop),
}

/// Why a publication ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The publisher ended it.
    #[error("the publisher ended it")]
    Finished,
    /// The connection broke.
    #[error("the publisher's connection was lost")]
    Lost,
    /// No frame came for too long.
    #[error("the publisher stopped sending")]
    Silent,
    /// Another connection published with the same key.
    #[error("another publisher took over")]
    TakenOver,
    /// The stream was closed by [`Ingest::close`].
    #[error("the stream was closed")]
    Closed,
    /// The media cannot be carried on, for this reason.
    #[error("{0}")]
    Unsupported(String),
    /// The publisher violated the protocol, in this way.
    #[error("{0}")]
    Protocol(String),
    /// The server shuts down.
    #[error("the server is shutting down")]
    Shutdown,
}

impl Stop {
    /// All values of [`Self::name`].
    pub const NAMES: [&str; 8] =
        ["finished", "lost", "silent", "taken_over", "closed", "unsupported", "protocol", "shutdown"];

    /// The reason as one word.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Lost => "lost",
            Self::Silent => "silent",
            Self::TakenOver => "taken_over",
            Self::Closed => "closed",
            Self::Unsupported(_) => "unsupported",
            Self::Protocol(_) => "protocol",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The streams that may be published. A clone is another handle to the same ones.
#[derive(Clone, Debug)]
pub struct Ingest {
    streams: Arc<Mutex<Streams>>,
    refused: Arc<Counter>,
    events: mpsc::Sender<Event>,
}

#[derive(Debug, Default)]
struct Streams {
    /// By the key's hash, so that the time of a look-up reveals nothing about a key.
    ids: HashMap<[u8; 32], String>,
    by_id: HashMap<String, Arc<Stream>>,
}

#[derive(Debug)]
struct Stream {
    id: String,
    key: [u8; 32],
    broadcast: Broadcast,
    begun: Instant,
    writer: Mutex<Writer>,
}

#[derive(Debug, Default)]
struct Writer {
    /// The current publication, or the last one.
    publication: u64,
    /// Ends the current publication.
    stop: Option<oneshot::Sender<Stop>>,
    /// The latest time of any frame.
    newest: Option<Duration>,
    closed: bool,
}

/// Another publisher writes the stream now, or nobody may any more. [`Claim::stopped`] gives the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Superseded;

/// The right to write a stream, until another publisher takes over or the stream is closed.
#[derive(Debug)]
pub(super) struct Claim {
    stream: Arc<Stream>,
    publication: u64,
    /// Resolves when the right ends.
    pub stopped: oneshot::Receiver<Stop>,
}

fn hash(key: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // no change under these locks is left half done
}

impl Ingest {
    /// A handle without streams. Read the receiver for as long as [`super::serve`] runs.
    pub fn new() -> (Self, mpsc::Receiver<Event>) {
        let (events, receiver) = mpsc::channel(QUEUE);
        (Self { streams: Arc::default(), refused: Arc::default(), events }, receiver)
    }

    /// Lets a publisher with `key` write `broadcast`, whose time begins now. A stream with the same id or key is closed
    /// first.
    pub fn open(&self, key: &Secret, stream_id: &str, broadcast: Broadcast) {
        let key = hash(key.expose());
        let mut streams = lock(&self.streams);
        let same_key = streams.ids.get(&key).cloned();
        for id in same_key.iter().map(String::as_str).chain([stream_id]) {
            streams.close(id);
        }
        let stream =
            Stream { id: stream_id.to_owned(), key, broadcast, begun: Instant::now(), writer: Mutex::default() };
        streams.ids.insert(key, stream_id.to_owned());
        streams.by_id.insert(stream_id.to_owned(), Arc::new(stream));
    }

    /// Refuses the stream's key from now on, and ends its publisher and its [`Broadcast`]. Ignores an unknown id.
    pub fn close(&self, stream_id: &str) {
        lock(&self.streams).close(stream_id);
    }

    /// The number of publishers that came with an unknown key.
    pub fn refused(&self) -> u64 {
        self.refused.get()
    }

    pub(super) fn count_refused(&self) {
        self.refused.increment();
    }

    /// The right to the stream of `key`, taken over from its current publisher; `None` if no stream has that key.
    pub(super) fn claim(&self, key: &str) -> Option<Claim> {
        let stream = {
            let streams = lock(&self.streams);
            streams.by_id.get(streams.ids.get(&hash(key))?)?.clone()
        };
        let (stop, stopped) = oneshot::channel();
        let mut writer = lock(&stream.writer);
        if writer.closed {
            return None;
        }
        writer.publication += 1;
        let publication = writer.publication;
        if let Some(before) = writer.stop.replace(stop) {
            let _ = before.send(Stop::TakenOver); // it may have ended by itself
        }
        drop(writer);
        Some(Claim { stream, publication, stopped })
    }

    pub(super) async fn tell(&self, claim: &Claim, what: Happening) {
        let event = Event { stream_id: claim.stream.id.clone(), publication: claim.publication, what };
        let _ = self.events.send(event).await; // nobody listens while the program ends
    }
}

impl Streams {
    fn close(&mut self, id: &str) {
        let Some(stream) = self.by_id.remove(id) else { return };
        self.ids.remove(&stream.key);
        let mut writer = lock(&stream.writer);
        writer.closed = true;
        if let Some(stop) = writer.stop.take() {
            let _ = stop.send(Stop::Closed); // it may have ended by itself
        }
        stream.broadcast.end();
    }
}

impl Claim {
    pub fn stream_id(&self) -> &str {
        &self.stream.id
    }

    pub fn publication(&self) -> u64 {
        self.publication
    }

    /// `now` as time since the stream's beginning.
    pub fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.stream.begun)
    }

    /// A time after every frame of earlier publications. While the claim holds, only its own frames change it.
    pub fn earliest(&self) -> Duration {
        lock(&self.stream.writer).newest.map_or(Duration::ZERO, |newest| newest + Duration::from_millis(1))
    }

    /// Gives a frame to the stream's readers. Never waits.
    pub fn push(&self, dts: Duration, media: Media, data: bytes::Bytes, arrived: Instant) -> Result<(), Superseded> {
        // Under the lock, so that no frame comes after one of a publication that took over.
        let mut writer = lock(&self.stream.writer);
        if writer.closed || writer.publication != self.publication {
            return Err(Superseded);
        }
        writer.newest = writer.newest.max(Some(dts));
        self.stream.broadcast.push(Frame { publication: self.publication, dts, media, data, arrived });
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.stream.broadcast.finish(self.publication);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broadcast::{AudioFormat, Bounds};

    fn sound(claim: &Claim) -> Result<(), Superseded> {
        let format = Arc::new(AudioFormat::parse(bytes::Bytes::from_static(&[0x12, 0x10])).unwrap());
        let at = claim.earliest();
        claim.push(at, Media::Audio { format }, bytes::Bytes::from_static(&[1]), Instant::now())
    }

    #[test]
    fn the_newest_publisher_with_the_key_writes_and_no_other() {
        let (ingest, _events) = Ingest::new();
        let stream = Broadcast::new(Bounds::default());
        ingest.open(&Secret::new("key"), "one", stream.clone());
        assert!(ingest.claim("other").is_none() && ingest.claim("").is_none());
        let mut first = ingest.claim("key").unwrap();
        sound(&first).unwrap();
        let mut second = ingest.claim("key").unwrap();
        assert_eq!((first.publication(), second.publication()), (1, 2));
        assert_eq!(first.stopped.try_recv(), Ok(Stop::TakenOver));
        assert_eq!(sound(&first), Err(Superseded));
        sound(&second).unwrap();
        let mut reader = stream.reader();
        assert!(reader.try_next().is_none(), "a reader begins with what comes");
        ingest.close("one");
        assert_eq!(second.stopped.try_recv(), Ok(Stop::Closed));
        assert_eq!(sound(&second), Err(Superseded));
        assert!(ingest.claim("key").is_none() && stream.has_ended());
        assert_eq!(stream.statistics().sounds, 2);
    }

    #[test]
    fn opening_an_id_or_a_key_again_closes_what_had_it() {
        let (ingest, _events) = Ingest::new();
        let streams: Vec<_> = (0..3).map(|_| Broadcast::new(Bounds::default())).collect();
        ingest.open(&Secret::new("a"), "one", streams[0].clone());
        ingest.open(&Secret::new("b"), "one", streams[1].clone());
        assert!(streams[0].has_ended() && ingest.claim("a").is_none() && ingest.claim("b").is_some());
        ingest.open(&Secret::new("b"), "two", streams[2].clone());
        assert!(streams[1].has_ended() && !streams[2].has_ended());
        ingest.close("one");
        assert_eq!(ingest.claim("b").unwrap().stream_id(), "two");
    }
}
