use std::io::Write;
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Bytes, Message, accept};
use tokio_tungstenite::{accept_async, accept_hdr_async};

use super::*;

/// Far longer than anything here takes: a hang becomes a failure.
const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_hours(1);
const AT_ONCE: Duration = Duration::from_millis(1);

/// Never late and never impatient, so that each test shortens only what it tests.
const PATIENT: Timing = Timing { ping: NEVER, silence: NEVER, retry_first: AT_ONCE, retry_most: NEVER, ..TIMING };

async fn soon<T>(wait: impl Future<Output = T>) -> T {
    timeout(SOON, wait).await.expect("it hangs")
}

/// The glasses' end.
struct Glasses {
    events: mpsc::Receiver<LinkEvent>,
    outgoing: mpsc::Sender<Outgoing>,
    shutdown: watch::Sender<bool>,
    ran: JoinHandle<()>,
}

impl Glasses {
    fn start(config: CloudConfig, timing: Timing) -> Self {
        let (to_device, events) = mpsc::channel(1);
        let (outgoing, to_send) = mpsc::channel(8);
        let (shutdown, ordered) = watch::channel(false);
        let link =
            CloudLink { config, timing, events: to_device, outgoing: to_send, shutdown: ordered, connector: None };
        Self { events, outgoing, shutdown, ran: tokio::spawn(link.run()) }
    }

    async fn event(&mut self) -> LinkEvent {
        soon(self.events.recv()).await.unwrap()
    }

    async fn send(&self, text: &str) {
        soon(self.outgoing.send(Outgoing::Text(text.into()))).await.unwrap();
    }
}

type ServerSocket = WebSocketStream<TcpStream>;

struct Server(TcpListener);

impl Server {
    async fn start() -> (Self, CloudConfig) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/glasses-ws", listener.local_addr().unwrap());
        (Self(listener), CloudConfig { url, token: None, ca_file: None })
    }

    async fn accept(&self) -> ServerSocket {
        let (stream, _) = soon(self.0.accept()).await.unwrap();
        soon(accept_async(stream)).await.unwrap()
    }

    /// Answers the handshake with `status`; returns the Authorization header.
    #[allow(clippy::result_large_err)]
    async fn refuse(&self, status: u16) -> Option<String> {
        let (stream, _) = soon(self.0.accept()).await.unwrap();
        let mut authorization = None;
        let refused = accept_hdr_async(stream, |request: &Request, _: Response| {
            authorization = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
            let mut response = ErrorResponse::new(None);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Err(response)
        });
        assert!(soon(refused).await.is_err());
        authorization
    }
}

async fn next_text(socket: &mut ServerSocket) -> String {
    loop {
        match soon(socket.next()).await.unwrap().unwrap() {
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn message(text: &str) -> LinkEvent {
    LinkEvent::Message(text.into())
}

#[tokio::test]
async fn messages_go_both_ways_and_pings_are_answered() {
    let (server, config) = Server::start().await;
    let mut glasses = Glasses::start(config, PATIENT);
    let mut socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    socket.send(Message::text("start")).await.unwrap();
    assert_eq!(glasses.event().await, message("start"));
    glasses.send("status").await;
    assert_eq!(next_text(&mut socket).await, "status");
    socket.send(Message::Ping(Bytes::from_static(b"7"))).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Pong(Bytes::from_static(b"7")));
}

#[tokio::test]
async fn the_cloud_gets_the_token_and_its_refusal_is_not_hammered() {
    for status in [401, 403] {
        let (server, mut config) = Server::start().await;
        config.token = Some(Secret::new("abc.def\n"));
        // With the ordinary delay after a refusal, the second attempt would never come.
        let timing = Timing { retry_first: NEVER, retry_most: Duration::from_millis(20), ..PATIENT };
        let mut glasses = Glasses::start(config, timing);
        assert_eq!(server.refuse(status).await.as_deref(), Some("Bearer abc.def"));
        server.accept().await;
        assert_eq!(glasses.event().await, LinkEvent::Up);
    }
}

#[tokio::test]
async fn after_a_lost_link_nothing_stale_is_sent() {
    let (server, config) = Server::start().await;
    let mut glasses = Glasses::start(config, PATIENT);
    let socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    drop(socket);
    assert_eq!(glasses.event().await, LinkEvent::Down);
    // More than the queue holds: the device's task must not block either.
    for _ in 0..20 {
        glasses.send("stale").await;
    }
    let mut socket = server.accept().await;
    glasses.send("stale too").await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    glasses.send("full state").await;
    assert_eq!(next_text(&mut socket).await, "full state");
}

#[tokio::test]
async fn a_close_is_answered_and_the_link_comes_back() {
    let (server, config) = Server::start().await;
    let mut glasses = Glasses::start(config, PATIENT);
    let mut socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    socket.close(None).await.unwrap();
    assert!(matches!(soon(socket.next()).await, Some(Ok(Message::Close(_)))));
    assert_eq!(glasses.event().await, LinkEvent::Down);
    server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn a_link_that_falls_silent_is_replaced() {
    let (server, config) = Server::start().await;
    let mut glasses = Glasses::start(config, Timing { silence: Duration::from_millis(50), ..PATIENT });
    let mut silent = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    silent.send(Message::text("last word")).await.unwrap();
    assert_eq!(glasses.event().await, message("last word"));
    assert_eq!(glasses.event().await, LinkEvent::Down);
    server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
}

#[tokio::test]
async fn a_link_that_never_said_anything_is_kept() {
    let (server, config) = Server::start().await;
    let silence = Duration::from_millis(20);
    let mut glasses = Glasses::start(config, Timing { silence, ping: silence / 2, ..PATIENT });
    let mut socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    sleep(silence * 10).await;
    socket.send(Message::text("at last")).await.unwrap();
    assert_eq!(glasses.event().await, message("at last"));
}

#[tokio::test]
async fn pongs_keep_a_quiet_link_up() {
    let (server, config) = Server::start().await;
    let silence = Duration::from_millis(500);
    let mut glasses = Glasses::start(config, Timing { silence, ping: Duration::from_millis(20), ..PATIENT });
    let mut socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    // Answers pings, but sends nothing itself.
    let quiet = async { while let Some(Ok(Message::Ping(_))) = socket.next().await {} };
    assert!(timeout(silence * 3, quiet).await.is_err(), "the link was dropped");
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(glasses.event().await, message("still here"));
}

#[tokio::test]
async fn an_oversized_message_ends_the_link() {
    let (server, config) = Server::start().await;
    let mut glasses = Glasses::start(config, PATIENT);
    let mut socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    socket.send(Message::text("x".repeat(MAX_MESSAGE))).await.unwrap();
    assert!(matches!(glasses.event().await, LinkEvent::Message(text) if text.len() == MAX_MESSAGE));
    socket.send(Message::text("x".repeat(MAX_MESSAGE + 1))).await.unwrap();
    assert_eq!(glasses.event().await, LinkEvent::Down);
}

#[tokio::test]
async fn a_device_that_takes_no_events_can_still_send() {
    let (server, config) = Server::start().await;
    let mut glasses = Glasses::start(config, PATIENT);
    let mut socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    for _ in 0..5 {
        socket.send(Message::text("in")).await.unwrap();
    }
    for _ in 0..20 {
        glasses.send("out").await;
        assert_eq!(next_text(&mut socket).await, "out");
    }
    for _ in 0..5 {
        assert_eq!(glasses.event().await, message("in"));
    }
}

#[tokio::test]
async fn the_last_words_are_sent_at_shutdown() {
    let (server, config) = Server::start().await;
    let mut glasses = Glasses::start(config, PATIENT);
    let mut socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    glasses.send("stopped: shutdown").await;
    glasses.shutdown.send(true).unwrap();
    assert_eq!(next_text(&mut socket).await, "stopped: shutdown");
    let closed = soon(socket.next()).await.unwrap().unwrap();
    assert!(matches!(closed, Message::Close(Some(frame)) if u16::from(frame.code) == 1001));
    soon(socket.next()).await;
    soon(glasses.ran).await.unwrap();
}

#[tokio::test]
async fn shutdown_needs_no_cloud() {
    let (server, config) = Server::start().await;
    // A server that accepts but never answers the handshake.
    let glasses = Glasses::start(config, PATIENT);
    let _mute = soon(server.0.accept()).await.unwrap();
    glasses.shutdown.send(true).unwrap();
    soon(glasses.ran).await.unwrap();
}

#[tokio::test]
async fn a_cloud_that_accepts_and_says_nothing_is_given_up() {
    let (server, config) = Server::start().await;
    let mut glasses = Glasses::start(config, Timing { connect: Duration::from_millis(500), ..PATIENT });
    let _mute = soon(server.0.accept()).await.unwrap();
    server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
}

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/link/cloud/testdata").join(name)
}

/// Accepts one TLS connection; the result says whether a WebSocket came up on it.
fn tls_server() -> (String, std::thread::JoinHandle<bool>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://localhost:{}/glasses-ws", listener.local_addr().unwrap().port());
    let certificate = CertificateDer::from_pem_file(testdata("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(testdata("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        let Ok(mut socket) = accept(rustls::StreamOwned::new(tls, stream)) else { return false };
        socket.send(Message::text("secure")).is_ok() && socket.read().is_ok()
    });
    (url, server)
}

async fn joined(server: std::thread::JoinHandle<bool>) -> bool {
    tokio::task::spawn_blocking(|| server.join().unwrap()).await.unwrap()
}

#[tokio::test]
async fn wss_trusts_the_ca_file() {
    let (url, server) = tls_server();
    let config = CloudConfig { url, token: Some(Secret::new("t")), ca_file: Some(testdata("ca.pem")) };
    let mut glasses = Glasses::start(config, PATIENT);
    assert_eq!(glasses.event().await, LinkEvent::Up);
    assert_eq!(glasses.event().await, message("secure"));
    glasses.send("indeed").await;
    assert!(joined(server).await);
}

#[tokio::test]
async fn wss_trusts_nobody_unknown() {
    let (url, server) = tls_server();
    let address = format!("127.0.0.1:{}", url.parse::<Uri>().unwrap().port_u16().unwrap());
    let config = CloudConfig { url, token: Some(Secret::new("t")), ca_file: None };
    let failure = Box::pin(soon(attempt(&config, &mut None))).await.unwrap_err();
    assert!(failure.reason.contains("certificate"), "{failure:?}");
    // A machine without any authorities does not even connect; this then ends the server.
    let _ = std::net::TcpStream::connect(address);
    assert!(!joined(server).await);
}

#[tokio::test]
async fn a_ca_file_without_certificate_is_named() {
    let path = testdata("README");
    let reason = tls::connector(Some(path.clone())).await.err().unwrap();
    assert!(reason.contains(path.to_str().unwrap()), "{reason}");
}

#[test]
fn the_delay_doubles_up_to_its_limit() {
    let mut backoff = Backoff::new(TIMING.retry_first, TIMING.retry_most);
    let delays: Vec<u64> = (0..9).map(|_| backoff.next(false, 0.0).as_millis() as u64).collect();
    assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
    let mut backoff = Backoff::new(TIMING.retry_first, TIMING.retry_most);
    assert_eq!(backoff.next(false, 1.0), Duration::from_millis(250), "jitter only shortens");
    assert_eq!(backoff.next(true, 1.0), Duration::from_secs(30));
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_log_holds_a_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _here = tracing::subscriber::set_default(subscriber);
    let (server, mut config) = Server::start().await;
    config.url = config.url.replace("ws://", "ws://user:SECRET@") + "?key=SECRET";
    config.token = Some(Secret::new("SECRET"));
    let shown = format!("{:?}", config.token);
    let mut glasses = Glasses::start(config, PATIENT);
    server.refuse(500).await;
    let mut socket = server.accept().await;
    assert_eq!(glasses.event().await, LinkEvent::Up);
    socket.send(Message::text("rtmp://h/live/SECRET")).await.unwrap();
    glasses.event().await;
    drop(socket);
    assert_eq!(glasses.event().await, LinkEvent::Down);

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("127.0.0.1") && log.contains("500"), "{log}");
    assert!(!log.contains("SECRET") && !shown.contains("SECRET"), "{log}");
    // tungstenite logs to `log`, not to `tracing`; only its trace level would show secrets.
    assert!(log::STATIC_MAX_LEVEL < log::LevelFilter::Trace);
}
