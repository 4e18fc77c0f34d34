//! Serves HTTP/1.1 to everybody. It bounds the number of connections and how long each may keep the cloud waiting.
//!
//! A connection has a *seat* for as long as its socket lives, also as a WebSocket. Until its first request is read it
//! is a *newcomer*. When all seats are taken, or all of an address, the oldest newcomer gives way, so that silent
//! connections keep nobody out. Viewers behind one proxy share an address, so with a proxy in front only the total
//! counts. A peer on this machine always counts as a proxy. One task per connection, owned by [`serve`].

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::config::Http;
use crate::client_address::neighbourhood;
use crate::metrics::Counter;

/// The most bytes of a request's head; browsers send 2 kB.
const HEAD: usize = 16 << 10;
/// The most header fields of a request.
const FIELDS: usize = 64;
/// Time for connections to end once the server is shut down.
const CLOSING: Duration = Duration::from_secs(2);
/// Pause before accepting again when the process has no file descriptor left.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// Interval between log lines that say that there is no seat.
const COMPLAINT: Duration = Duration::from_secs(10);

/// What a peer may do, and how long it may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a TLS handshake.
    pub handshake: Duration,
    /// Time until a request's head is read, from the start of the connection or the end of the last answer. So it also
    /// limits how long a connection may be idle.
    pub head: Duration,
    /// From a request's head to the start of its answer, reading the request's body included.
    pub answer: Duration,
    /// Time in which the peer must accept at least some of what it is sent.
    pub stall: Duration,
    /// The most connections in total.
    pub connections: usize,
    /// The most connections of one address (IPv6: of one /64); `None` is no limit. This machine's own do not count.
    pub per_address: Option<usize>,
}

impl Limits {
    /// The limits for `config`. `descriptors` is how many the process may have open; a quarter of them is kept for
    /// other use.
    pub fn new(config: &Http, descriptors: usize) -> Self {
        // Proxies keep idle connections open (nginx: 60 s), and a request fails if the server closes first.
        let head = Duration::from_secs(if config.behind_proxy { 75 } else { 20 });
        Self {
            handshake: Duration::from_secs(10),
            head,
            answer: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            connections: config.max_connections.min(descriptors / 4 * 3),
            per_address: (!config.behind_proxy).then_some(config.max_connections_per_address),
        }
    }
}

/// Counts of HTTP connections and answers.
#[derive(Debug, Default)]
pub struct Traffic {
    open: AtomicUsize,
    answers: [Counter; 5],
}

impl Traffic {
    /// The number of open connections.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// The number of answers of each class.
    pub fn answers(&self) -> [(&'static str, u64); 5] {
        let [informed, succeeded, redirected, refused, failed] = self.answers.each_ref().map(Counter::get);
        [("1xx", informed), ("2xx", succeeded), ("3xx", redirected), ("4xx", refused), ("5xx", failed)]
    }

    fn count(&self, status: StatusCode) {
        if let Some(class) = self.answers.get(usize::from(status.as_u16() / 100).saturating_sub(1)) {
            class.increment();
        }
    }
}

/// Serves `router`, over TLS if `tls` is given, until `shutdown` is true or its sender is gone. Requests in progress
/// then have 2 s. Answers are counted in `traffic`. Handlers find the peer's address as [`ConnectInfo`] of
/// [`SocketAddr`].
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    traffic: Arc<Traffic>,
    mut shutdown: watch::Receiver<bool>,
) {
    let seats = Arc::new(Seats::new(limits, traffic.clone()));
    let http = protocol(limits);
    let server = Arc::new(Server { tls, router, limits, traffic, http, shutdown: shutdown.clone() });
    let mut connections = JoinSet::new();
    let mut complained: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            _ = shutdown.wait_for(|&ended| ended) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some((seat, gone)) = seats.enter(peer.ip()) {
                    connections.spawn(server.clone().connection(stream, peer, seat, gone));
                } else if complained.is_none_or(|last| last.elapsed() >= COMPLAINT) {
                    complained = Some(Instant::now());
                    warn!(%peer, "HTTP connections are refused: the limit is reached");
                }
            }
            Err(error) => {
                warn!(%error, "cannot accept an HTTP connection");
                sleep(EXHAUSTED).await;
            }
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if timeout(CLOSING, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

fn protocol(limits: Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head).max_headers(FIELDS).max_buf_size(HEAD);
    http
}

struct Server {
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: Limits,
    traffic: Arc<Traffic>,
    http: http1::Builder,
    shutdown: watch::Receiver<bool>,
}

impl Server {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        seat: Arc<Seat>,
        gone: oneshot::Receiver<()>,
    ) {
        let _ = stream.set_nodelay(true); // a slower answer is all that is lost
        let mut shutdown = self.shutdown.clone();
        let ended = async move {
            let _ = shutdown.wait_for(|&ended| ended).await; // its sender gone is the end too
        };
        let evicted = async {
            // The sender was dropped unused: this is no longer a newcomer.
            if gone.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let served = async {
            match &self.tls {
                None => self.talk(stream, peer, seat, ended).await,
                Some(tls) => match timeout(self.limits.handshake, tls.accept(stream)).await {
                    Ok(Ok(stream)) => self.talk(stream, peer, seat, ended).await,
                    Ok(Err(error)) => debug!(%peer, %error, "the TLS handshake with an HTTP client failed"),
                    Err(_) => debug!(%peer, "an HTTP client's TLS handshake took too long"),
                },
            }
        };
        tokio::select! {
            () = served => {}
            () = evicted => debug!(%peer, "a silent HTTP connection gave way"),
        }
    }

    async fn talk<S>(&self, stream: S, peer: SocketAddr, seat: Arc<Seat>, ended: impl Future<Output = ()>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn({
            let seat = seat.clone();
            move |mut request: hyper::Request<Incoming>| {
                seat.settle();
                request.extensions_mut().insert(ConnectInfo(peer));
                let answer = TowerToHyperService::new(self.router.clone()).call(request);
                async move {
                    let answer: Result<Response, Infallible> = match timeout(self.limits.answer, answer).await {
                        Ok(answer) => answer,
                        Err(_) => Ok((StatusCode::REQUEST_TIMEOUT, [(header::CONNECTION, "close")]).into_response()),
                    };
                    answer.inspect(|answer| self.traffic.count(answer.status()))
                }
            }
        });
        let stream = Patient { stream, limit: self.limits.stall, stalled: None, _seat: seat };
        let connection = self.http.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut connection = pin!(connection);
        let over = tokio::select! {
            over = connection.as_mut() => over,
            () = ended => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = over {
            debug!(%peer, %error, "HTTP connection over");
        }
    }
}

/// All seats that are taken.
struct Seats {
    limits: Limits,
    traffic: Arc<Traffic>,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    /// The address of each connection.
    seats: HashMap<u64, IpAddr>,
    of_address: HashMap<IpAddr, usize>,
    /// Those without a request yet, oldest first, each with a channel that tells it to leave.
    newcomers: BTreeMap<u64, oneshot::Sender<()>>,
}

/// The seat of one connection, until dropped.
struct Seat {
    seats: Arc<Seats>,
    number: u64,
    settled: AtomicBool,
}

impl Seats {
    fn new(limits: Limits, traffic: Arc<Traffic>) -> Self {
        Self { limits, traffic, taken: Mutex::default() }
    }

    /// Takes a seat, and gives the channel that tells its owner to leave. `None` if no seat is free and no newcomer can
    /// give way.
    fn enter(self: &Arc<Self>, address: IpAddr) -> Option<(Arc<Seat>, oneshot::Receiver<()>)> {
        let limit = self.limits.per_address.filter(|_| !address.to_canonical().is_loopback());
        let address = neighbourhood(address);
        let mut guard = self.lock();
        let taken = &mut *guard;
        let of_address = taken.of_address.get(&address).copied().unwrap_or(0);
        let goes = if limit.is_some_and(|limit| of_address >= limit) {
            Some(*taken.newcomers.keys().find(|number| taken.seats.get(number) == Some(&address))?)
        } else if taken.seats.len() >= self.limits.connections {
            Some(*taken.newcomers.keys().next()?)
        } else {
            None
        };
        if let Some(number) = goes {
            if let Some(go) = taken.newcomers.remove(&number) {
                let _ = go.send(()); // it may have gone already
            }
            taken.leave(number);
        }
        let number = taken.next;
        taken.next += 1;
        taken.seats.insert(number, address);
        self.traffic.open.store(taken.seats.len(), Ordering::Relaxed);
        *taken.of_address.entry(address).or_default() += 1;
        let (go, gone) = oneshot::channel();
        taken.newcomers.insert(number, go);
        Some((Arc::new(Seat { seats: self.clone(), number, settled: AtomicBool::new(false) }), gone))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn leave(&mut self, number: u64) {
        let Some(address) = self.seats.remove(&number) else { return };
        if let Some(count) = self.of_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&address);
            }
        }
    }
}

impl Seat {
    /// The connection has made a request, so it keeps its seat.
    fn settle(&self) {
        if !self.settled.swap(true, Ordering::Relaxed) {
            self.seats.lock().newcomers.remove(&self.number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.lock();
        taken.newcomers.remove(&self.number);
        taken.leave(self.number);
        self.seats.traffic.open.store(taken.seats.len(), Ordering::Relaxed);
    }
}

/// A stream that fails when its peer accepts nothing for too long. It holds the seat, so that a WebSocket keeps it.
struct Patient<S> {
    stream: S,
    limit: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    _seat: Arc<Seat>,
}

impl<S> Patient<S> {
    fn judge<T>(&mut self, step: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if step.is_ready() {
            self.stalled = None;
            return step;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write(context, data);
        self.judge(step, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_flush(context);
        self.judge(step, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let step = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judge(step, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let step = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.judge(step, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(connections: usize, per_address: Option<usize>) -> Arc<Seats> {
        let http = Http { max_connections: connections, ..Http::default() };
        Arc::new(Seats::new(Limits { per_address, ..Limits::new(&http, 1000) }, Arc::default()))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_oldest_newcomer_gives_way_and_who_has_asked_for_something_stays() {
        let seats = seats(3, None);
        let mut taken: Vec<_> = (1..=3).map(|n| seats.enter(address(&format!("192.0.2.{n}"))).unwrap()).collect();
        taken[0].0.settle();
        taken.push(seats.enter(address("192.0.2.4")).unwrap());
        let gone: Vec<bool> = taken.iter_mut().map(|(_, gone)| gone.try_recv().is_ok()).collect();
        assert_eq!(gone, [false, true, false, false]);
        for (seat, _) in &taken {
            seat.settle();
        }
        assert!(seats.enter(address("192.0.2.5")).is_none(), "all are at work");
        taken.remove(1);
        assert!(seats.enter(address("192.0.2.5")).is_none(), "its seat was given away before");
        taken.pop();
        assert!(seats.enter(address("192.0.2.5")).is_some());
    }

    #[test]
    fn an_address_has_its_share_and_a_proxy_on_this_machine_all() {
        let seats = seats(100, Some(2));
        let mut taken = vec![];
        let mut enter = |from: &str| {
            let entered = seats.enter(address(from));
            entered.inspect(|(seat, _)| seat.settle()).map(|entered| taken.push(entered)).is_some()
        };
        assert!(enter("192.0.2.1") && enter("::ffff:192.0.2.1"));
        assert!(!enter("192.0.2.1"));
        assert!(enter("192.0.2.2"));
        assert!(enter("2001:db8::1") && enter("2001:db8::2"));
        assert!(!enter("2001:db8::3"), "a /64 is one");
        assert!(enter("2001:db8:0:1::1"));
        assert!((0..20).all(|_| enter("127.0.0.1")), "a proxy on this machine");
        drop(taken);
        assert!(seats.lock().of_address.is_empty() && seats.lock().seats.is_empty());
    }

    #[test]
    fn behind_a_proxy_only_the_total_counts() {
        let http = Http { behind_proxy: true, ..Http::default() };
        let limits = Limits::new(&http, 4096);
        assert_eq!((limits.connections, limits.per_address), (3072, None), "a quarter of the descriptors is kept free");
        assert!(limits.head > Duration::from_mins(1), "nginx would fail requests on connections it keeps");
    }
}
