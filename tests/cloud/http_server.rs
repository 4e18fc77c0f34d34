//! What slow, silent or many clients can do to the HTTP server, with its limits shortened.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{State, WebSocketUpgrade};
use axum::routing::{get, post};
use lenscast::cloud::config::Http;
use lenscast::cloud::http_server::{Limits, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Far longer than anything here takes: a hang becomes a failure.
const SOON: Duration = Duration::from_secs(20);
/// For limits that the test is not about.
const LONG: Duration = Duration::from_mins(10);
const SHORT: Duration = Duration::from_millis(300);

const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: h\r\n\r\n";

struct Server {
    address: std::net::SocketAddr,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Receives when a request for `/slow` has arrived.
    slow: mpsc::Receiver<()>,
}

/// All limits long.
fn patient() -> Limits {
    let long = Limits::new(&Http::default(), 10_000);
    Limits { handshake: LONG, head: LONG, answer: LONG, stall: LONG, ..long }
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, slow) = mpsc::channel(8);
        let router = Router::new()
            .route("/hello", get(|| async { "hello" }))
            .route("/large", get(|| async { vec![b'x'; 64 << 20] }))
            .route("/length", post(|body: Bytes| async move { body.len().to_string() }))
            .route(
                "/ws",
                get(|upgrade: WebSocketUpgrade| async {
                    upgrade.on_upgrade(|mut ws| async move {
                        ws.recv().await;
                    })
                }),
            )
            .route(
                "/slow",
                get(|State(arrived): State<mpsc::Sender<()>>| async move {
                    arrived.send(()).await.unwrap();
                    tokio::time::sleep(SHORT).await;
                    "at last"
                }),
            )
            .route(
                "/never",
                get(|State(arrived): State<mpsc::Sender<()>>| async move {
                    arrived.send(()).await.unwrap();
                    std::future::pending::<()>().await;
                }),
            )
            .with_state(arrived);
        let (end, ended) = watch::channel(false);
        let task = tokio::spawn(serve(listener, None, router, limits, Arc::default(), ended));
        Self { address, end, task, slow }
    }

    async fn client(&self) -> Client {
        Client(soon("a connection", TcpStream::connect(self.address)).await.unwrap())
    }

    async fn ask(&self, request: &str) -> String {
        let mut client = self.client().await;
        client.say(request).await;
        client.hear().await
    }
}

struct Client(TcpStream);

impl Client {
    async fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next bytes; empty when the server has closed.
    async fn hear(&mut self) -> String {
        let mut buffer = vec![0; 4096];
        let count = soon("an answer", self.0.read(&mut buffer)).await.unwrap_or(0);
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    async fn is_closed(&mut self) -> bool {
        self.hear().await.is_empty()
    }
}

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(SOON, wait).await.unwrap_or_else(|_| panic!("waited {SOON:?} in vain for {what}"))
}

#[tokio::test]
async fn who_never_finishes_a_head_or_only_sits_there_is_cut_off() {
    let server = Server::start(Limits { head: SHORT, ..patient() }).await;
    let mut silent = server.client().await;
    let mut idle = server.client().await;
    idle.say(HELLO).await;
    assert!(idle.hear().await.ends_with("hello"));
    let mut loris = server.client().await;
    loris.say("GET /hello HTTP/1.1\r\na: ").await;
    let dripped = soon("the end of a slow head", async {
        loop {
            if loris.0.write_all(b"b").await.is_err() {
                break;
            }
            tokio::select! {
                read = loris.0.read_u8() => if read.is_err() { break },
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
        }
    });
    let (silent, idle, ()) = tokio::join!(silent.is_closed(), idle.is_closed(), dripped);
    assert!(silent && idle);
    assert!(server.ask(HELLO).await.ends_with("hello"));
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let server = Server::start(Limits { answer: SHORT, ..patient() }).await;
    let answer = server.ask("POST /length HTTP/1.1\r\nhost: h\r\ncontent-length: 10\r\n\r\n12345").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = server.ask("POST /length HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\n12345").await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n5"), "{answer}");
}

#[tokio::test]
async fn a_reader_that_stops_loses_its_seat_and_a_slow_one_does_not() {
    const STALL: Duration = Duration::from_secs(1);
    let server = Server::start(Limits { stall: STALL, connections: 2, ..patient() }).await;
    let request = "GET /large HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let mut slow = server.client().await;
    slow.say(request).await;
    let mut stopped = server.client().await;
    stopped.say(request).await;
    assert!(!stopped.hear().await.is_empty());
    let mut read = 0;
    let mut buffer = vec![0; 4 << 20];
    let mut seated = false;
    soon("all of it", async {
        loop {
            let count = slow.0.read(&mut buffer).await.unwrap();
            read += count;
            if count == 0 {
                break;
            }
            seated = seated || server.ask(HELLO).await.ends_with("hello");
            tokio::time::sleep(STALL / 20).await;
        }
    })
    .await;
    assert!(read > 64 << 20, "{read} bytes");
    assert!(seated, "the seat of the one that stopped is given to another");
}

#[tokio::test]
async fn a_flood_of_silent_connections_keeps_nobody_out() {
    let server = Server::start(Limits { connections: 50, ..patient() }).await;
    let mut at_work = server.client().await;
    at_work.say(HELLO).await;
    assert!(at_work.hear().await.ends_with("hello"));
    let mut flood = vec![];
    for _ in 0..200 {
        flood.push(server.client().await);
    }
    assert!(server.ask(HELLO).await.ends_with("hello"), "a new client");
    at_work.say(HELLO).await;
    assert!(at_work.hear().await.ends_with("hello"), "one that was there");
    assert!(flood[0].is_closed().await, "the oldest gave way");
}

#[tokio::test]
async fn a_websocket_keeps_its_seat() {
    let server = Server::start(Limits { connections: 1, ..patient() }).await;
    let mut socket = server.client().await;
    socket
        .say(
            "GET /ws HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
              sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert!(socket.hear().await.starts_with("HTTP/1.1 101"));
    assert_eq!(server.ask(HELLO).await, "");
    drop(socket);
    soon("the seat", async {
        while server.ask(HELLO).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn when_it_ends_requests_under_way_are_answered_and_nothing_holds_it() {
    let mut server = Server::start(patient()).await;
    let mut idle = server.client().await;
    idle.say(HELLO).await;
    assert!(idle.hear().await.ends_with("hello"));
    let [mut slow, mut stuck] = [server.client().await, server.client().await];
    slow.say("GET /slow HTTP/1.1\r\nhost: h\r\n\r\n").await;
    stuck.say("GET /never HTTP/1.1\r\nhost: h\r\n\r\n").await;
    for _ in 0..2 {
        soon("a request", server.slow.recv()).await.unwrap();
    }
    server.end.send_replace(true);
    assert!(idle.is_closed().await);
    assert!(slow.hear().await.ends_with("at last"));
    assert!(stuck.is_closed().await);
    soon("the server's end", server.task).await.unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
}
