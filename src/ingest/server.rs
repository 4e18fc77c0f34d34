//! Accepts connections and drives each one's [`Session`].
//!
//! A connection is one task with one deadline, which moves on from handshake to publication to the next frame. A
//! connection that has not shown a valid key yet is *pending*, and only pending connections are limited in number. When
//! there are too many, the oldest gives way. So neither a flood nor a proxy in front, whose address all share, keeps a
//! publisher out for long.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::handle::{Happening, Ingest, Stop};
use super::publication::{Publication, Unsupported};
use super::session::{Request, Session, SessionError};
use crate::client_address::neighbourhood;
use crate::protocol::Secret;

/// Time for a last message to the peer.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time for connections to end when the server shuts down.
const CLOSING: Duration = Duration::from_secs(2);
/// Pause before accepting again when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How far a deadline must have passed before it counts although there is something to read.
const GRACE: Duration = Duration::from_secs(1);
/// The most bytes of one read.
const READ: usize = 16 * 1024;

/// What a peer may do, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the start of the connection to the end of its RTMP handshake, TLS included.
    pub handshake: Duration,
    /// From the start of the connection until its publication is accepted.
    pub publish: Duration,
    /// Between two frames of a publication.
    pub idle: Duration,
    /// The most bytes of one message, and of all unfinished ones together.
    pub message: usize,
    /// The most connections that have not published yet.
    pub pending: usize,
    /// The same for one address (IPv6: for one /64).
    pub pending_per_address: usize,
}

impl Default for Limits {
    /// 5 s, 10 s, 15 s; 4 MiB; 256, with 64 from one address.
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            publish: Duration::from_secs(10),
            idle: Duration::from_secs(15),
            message: 4 << 20,
            pending: 256,
            pending_per_address: 64,
        }
    }
}

/// Accepts RTMP connections, or RTMPS with `tls`, until `shutdown` is true or its sender is gone; then ends them all.
/// Several servers may share one handle.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    ingest: Ingest,
    limits: Limits,
    mut shutdown: watch::Receiver<bool>,
) {
    let pending = Arc::new(Pending::new(limits));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = shutdown.wait_for(|&ended| ended) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (place, evicted) = pending.enter(peer.ip());
                let connection = Connection { ingest: ingest.clone(), limits, peer, shutdown: shutdown.clone() };
                let tls = tls.clone();
                connections.spawn(async move { connection.run(stream, tls, place, evicted).await });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept an RTMP connection");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(CLOSING, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// The connections that have not published yet, oldest first.
struct Pending {
    limits: Limits,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    next: u64,
    /// The address of each; dropping the sender tells the connection to leave.
    taken: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
}

/// A place among the pending connections, until dropped.
struct Place {
    pending: Arc<Pending>,
    number: u64,
}

impl Pending {
    fn new(limits: Limits) -> Self {
        Self { limits, places: Mutex::default() }
    }

    /// A place for a new connection, and the channel that tells it to leave.
    fn enter(self: &Arc<Self>, address: IpAddr) -> (Place, oneshot::Receiver<()>) {
        let address = neighbourhood(address);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let Places { next, taken } = &mut *places;
        let mut same = taken.iter().filter(|(_, (other, _))| *other == address).map(|(&number, _)| number);
        let oldest_of_same = same.next();
        let crowded = same.count() + 1 >= self.limits.pending_per_address;
        let goes = match oldest_of_same {
            Some(number) if crowded => Some(number),
            _ if taken.len() >= self.limits.pending => taken.keys().next().copied(),
            _ => None,
        };
        if let Some(number) = goes {
            taken.remove(&number);
        }
        let number = *next;
        *next += 1;
        let (stays, evicted) = oneshot::channel();
        taken.insert(number, (address, stays));
        (Place { pending: self.clone(), number }, evicted)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.places.lock().unwrap_or_else(PoisonError::into_inner).taken.remove(&self.number);
    }
}

struct Connection {
    ingest: Ingest,
    limits: Limits,
    peer: SocketAddr,
    shutdown: watch::Receiver<bool>,
}

impl Connection {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>, place: Place, mut evicted: oneshot::Receiver<()>) {
        let begun = Instant::now();
        let peer = self.peer;
        let _ = stream.set_nodelay(true); // a slower start is all that is lost
        let stop = match tls {
            None => self.serve(stream, begun, place, evicted).await,
            Some(tls) => {
                let accepted = tokio::select! {
                    accepted = timeout_at(begun + self.limits.handshake, tls.accept(stream)) => accepted,
                    _ = &mut evicted => return,
                };
                match accepted {
                    Ok(Ok(stream)) => self.serve(stream, begun, place, evicted).await,
                    Ok(Err(error)) => Stop::Protocol(format!("TLS: {error}")),
                    Err(_) => Stop::Silent,
                }
            }
        };
        tracing::debug!(%peer, %stop, "RTMP connection over");
    }

    async fn serve(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        begun: Instant,
        place: Place,
        evicted: oneshot::Receiver<()>,
    ) -> Stop {
        let mut life = Life {
            ingest: self.ingest.clone(),
            limits: self.limits,
            peer: self.peer,
            begun,
            session: Session::new(self.limits.message),
            publication: None,
            place: Some(place),
            evicted,
        };
        let (mut reader, mut writer) = tokio::io::split(stream);
        let stop = tokio::select! {
            stop = life.live(&mut reader, &mut writer) => stop,
            _ = self.shutdown.wait_for(|&ended| ended) => Stop::Shutdown,
        };
        if let Some(publication) = life.publication.take() {
            let claim = &publication.claim;
            tracing::info!(stream_id = claim.stream_id(), publication = claim.publication(), %stop, "publisher stopped");
            life.ingest.tell(claim, Happening::Stopped(stop.clone())).await;
        }
        if life.session.is_over() {
            let output = std::mem::take(life.session.buffers().1);
            tokio::select! {
                _ = timeout(FAREWELL, farewell(&mut reader, &mut writer, &output)) => {}
                _ = &mut life.evicted, if life.place.is_some() => {}
            }
        }
        stop
    }
}

/// Sends the last message and lets the peer hang up. rtmp2sink takes a close by us for a failure even after its own
/// `deleteStream`, and closing a socket with unread bytes would discard the message.
async fn farewell(reader: &mut (impl AsyncRead + Unpin), writer: &mut (impl AsyncWrite + Unpin), words: &[u8]) {
    let said = async {
        writer.write_all(words).await?;
        writer.flush().await?;
        let mut rest = [0; 1024];
        while reader.read(&mut rest).await? > 0 {}
        writer.shutdown().await
    };
    let _ = said.await; // then it is gone already
}

struct Life {
    ingest: Ingest,
    limits: Limits,
    peer: SocketAddr,
    begun: Instant,
    session: Session,
    publication: Option<Publication>,
    /// Held until it has published.
    place: Option<Place>,
    evicted: oneshot::Receiver<()>,
}

impl Life {
    /// Runs until there is a reason to end.
    async fn live(&mut self, reader: &mut (impl AsyncRead + Unpin), writer: &mut (impl AsyncWrite + Unpin)) -> Stop {
        let mut unflushed = false;
        loop {
            if let Err(stop) = self.work().await {
                return stop;
            }
            let deadline = self.deadline();
            if Instant::now() > deadline + GRACE {
                return Stop::Silent;
            }
            let (input, output) = self.session.buffers();
            input.reserve(READ);
            let stopped = async {
                match &mut self.publication {
                    Some(publication) => (&mut publication.claim.stopped).await.unwrap_or(Stop::Closed),
                    None => std::future::pending().await,
                }
            };
            // What has arrived is read before the deadline counts: perhaps this program was held up.
            let read = tokio::select! {
                biased;
                stop = stopped => return stop,
                _ = &mut self.evicted, if self.place.is_some() => {
                    return Stop::Protocol("gave way: too many connections have not published".into());
                }
                written = send(writer, output, &mut unflushed), if unflushed || !output.is_empty() => match written {
                    Ok(()) => continue,
                    Err(_) => return Stop::Lost,
                },
                read = reader.read_buf(input) => read,
                () = sleep_until(deadline) => return Stop::Silent,
            };
            match read {
                Ok(0) | Err(_) => return Stop::Lost,
                Ok(count) => {
                    if let Err(error) = self.session.received(count) {
                        return Stop::Protocol(error.to_string());
                    }
                }
            }
        }
    }

    fn deadline(&self) -> Instant {
        match &self.publication {
            Some(publication) => Instant::from_std(publication.last()) + self.limits.idle,
            None if self.session.has_shaken_hands() => self.begun + self.limits.publish,
            None => self.begun + self.limits.handshake,
        }
    }

    /// Handles everything that has arrived completely.
    async fn work(&mut self) -> Result<(), Stop> {
        while let Some(request) = self.session.next().map_err(|error| protocol(&error))? {
            match (request, &mut self.publication) {
                (Request::Publish { key, encoder }, _) => self.publish(&key, encoder).await?,
                (Request::Video { timestamp, data }, Some(publication)) => {
                    if let Err(Unsupported(why)) = publication.video(timestamp, data) {
                        self.session.end(&why).map_err(|error| protocol(&error))?;
                        return Err(Stop::Unsupported(why));
                    }
                }
                (Request::Audio { timestamp, data }, Some(publication)) => publication.audio(timestamp, data),
                (Request::Finished, _) => return Err(Stop::Finished),
                (Request::Refused(why), _) => return Err(Stop::Protocol(why.into())),
                (Request::Video { .. } | Request::Audio { .. }, None) => {}
            }
        }
        Ok(())
    }

    async fn publish(&mut self, key: &Secret, encoder: Option<String>) -> Result<(), Stop> {
        let Some(claim) = self.ingest.claim(key.expose()) else {
            self.ingest.count_refused();
            tracing::warn!(peer = %self.peer, "a publisher was refused: no stream has its key");
            self.session.refuse().map_err(|error| protocol(&error))?;
            return Err(Stop::Protocol("no stream has this key".into()));
        };
        self.session.accept().map_err(|error| protocol(&error))?;
        self.place = None;
        tracing::info!(stream_id = claim.stream_id(), publication = claim.publication(), peer = %self.peer, encoder, "publishing");
        let publication = self.publication.insert(Publication::new(claim));
        self.ingest.tell(&publication.claim, Happening::Publishing { peer: self.peer, encoder }).await;
        Ok(())
    }
}

fn protocol(error: &SessionError) -> Stop {
    Stop::Protocol(error.to_string())
}

/// One step of sending. Done when `output` is empty and nothing is `unflushed`.
async fn send(
    writer: &mut (impl AsyncWrite + Unpin),
    output: &mut BytesMut,
    unflushed: &mut bool,
) -> std::io::Result<()> {
    if output.is_empty() {
        writer.flush().await?;
        *unflushed = false;
    } else {
        *unflushed = true;
        let written = writer.write(output).await?;
        output.advance(written);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_pending_connection_gives_way() {
        let limits = Limits { pending: 4, pending_per_address: 2, ..Limits::default() };
        let pending = Arc::new(Pending::new(limits));
        let enter = |address: &str| pending.enter(address.parse().unwrap());
        let gone = |(_, evicted): &mut (Place, oneshot::Receiver<()>)| {
            evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
        };
        let mut places = vec![enter("10.0.0.1"), enter("10.0.0.2"), enter("10.0.0.1")];
        assert!(!places.iter_mut().any(gone));
        places.push(enter("::ffff:10.0.0.1"));
        assert_eq!(places.iter_mut().map(gone).collect::<Vec<_>>(), [true, false, false, false], "two of one address");
        places.push(enter("2001:db8::1"));
        places.push(enter("10.0.0.3"));
        let now: Vec<bool> = places.iter_mut().map(gone).collect();
        assert_eq!(now, [true, true, false, false, false, false], "four in all");
        places.clear();
        let mut places = [enter("2001:db8::1"), enter("2001:db8::2"), enter("2001:db8:0:1::1"), enter("2001:db8::3")];
        assert_eq!(places.iter_mut().map(gone).collect::<Vec<_>>(), [true, false, false, false], "a /64 is one");
    }
}
