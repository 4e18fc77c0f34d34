//! A stand-in for phone or cloud: the far end of `/glasses-ws`.
//!
//! It checks what a real one would (path, bearer token), keeps every message with the time it came, sends what it is
//! told to, and can be away. Its socket runs on a thread of its own, so a test stays a plain sequence of steps.

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;

use super::clock::monotonic;

/// The token it takes.
pub const TOKEN: &str = "cloud-token-3f9a";

/// What came.
#[derive(Clone, Debug)]
pub enum Heard {
    /// The glasses connected.
    Connected,
    /// Somebody came with a wrong token or path.
    TurnedAway,
    /// A message.
    Message(Value),
    /// A binary message.
    Binary(Vec<u8>),
    /// The connection ended, by the glasses' word if there is a code (RFC 6455, 7.4).
    Disconnected(Option<u16>),
}

/// Something that came, and when.
#[derive(Clone, Debug)]
pub struct Received {
    /// On `CLOCK_MONOTONIC`.
    pub at: Duration,
    /// What.
    pub what: Heard,
}

impl Received {
    /// The message, if it is one.
    pub fn message(&self) -> Option<&Value> {
        match &self.what {
            Heard::Message(json) => Some(json),
            _ => None,
        }
    }
}

#[derive(Debug)]
enum Order {
    Send(Message),
    /// Ends the connection without a word.
    Drop,
    /// Ends the connection and takes no new one.
    GoAway,
    ComeBack,
}

/// The stand-in.
pub struct CloudStandIn {
    address: SocketAddr,
    orders: UnboundedSender<Order>,
    received: Receiver<Received>,
    past: Vec<Received>,
    thread: Option<JoinHandle<()>>,
}

impl CloudStandIn {
    /// Starts it on a free port of 127.0.0.1.
    pub fn start() -> Self {
        Self::start_at(IpAddr::from([127, 0, 0, 1]))
    }

    /// The same on another address of this machine.
    pub fn start_at(host: IpAddr) -> Self {
        let (orders, inbox) = unbounded_channel();
        let (heard, received) = channel();
        let listener = std::net::TcpListener::bind((host, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(serve(listener, address, inbox, heard));
        });
        Self { address, orders, received, past: Vec::new(), thread: Some(thread) }
    }

    /// The TOML table that points the daemon here.
    pub fn config(&self) -> String {
        format!("[cloud]\nurl = \"ws://{}/glasses-ws\"\ntoken = \"{TOKEN}\"\n", self.address)
    }

    /// Sends a message.
    pub fn send(&self, message: &Value) {
        self.order(Order::Send(Message::text(message.to_string())));
    }

    /// Sends text as it is.
    pub fn send_text(&self, text: &str) {
        self.order(Order::Send(Message::text(text)));
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&self, bytes: &[u8]) {
        self.order(Order::Send(Message::binary(bytes.to_vec())));
    }

    /// Ends the connection without a word.
    pub fn drop_link(&self) {
        self.order(Order::Drop);
    }

    /// Ends the connection and refuses new ones until [`Self::come_back`].
    pub fn go_away(&self) {
        self.order(Order::GoAway);
    }

    /// Listens again.
    pub fn come_back(&self) {
        self.order(Order::ComeBack);
    }

    /// Waits for the glasses to connect.
    pub fn wait_connected(&mut self, within: Duration) -> Received {
        self.wait("the glasses to connect", within, |heard| matches!(heard.what, Heard::Connected))
    }

    /// Waits for a message. What was waited for once is not found again.
    pub fn wait_message(&mut self, what: &str, within: Duration, is_it: impl Fn(&Value) -> bool) -> Value {
        let received = self.wait(what, within, |heard| heard.message().is_some_and(&is_it));
        received.message().cloned().expect("it was one a moment ago")
    }

    /// Waits for something to come. Panics with `what` once `within` is over.
    pub fn wait(&mut self, what: &str, within: Duration, is_it: impl Fn(&Received) -> bool) -> Received {
        let deadline = Instant::now() + within;
        loop {
            match self.received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(received) => {
                    self.past.push(received.clone());
                    if is_it(&received) {
                        return received;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("waited {within:?} in vain for {what}; {}", self.recent()),
                Err(RecvTimeoutError::Disconnected) => panic!("the stand-in's thread ended before {what}"),
            }
        }
    }

    /// All messages so far, those that no wait matched included.
    pub fn messages(&mut self) -> Vec<(Duration, Value)> {
        self.past.extend(self.received.try_iter());
        self.past.iter().filter_map(|r| r.message().map(|json| (r.at, json.clone()))).collect()
    }

    /// What comes until `within` is over, for what must *not* come meanwhile.
    pub fn listen(&mut self, within: Duration) -> Vec<Received> {
        let deadline = Instant::now() + within;
        let mut heard = Vec::new();
        while let Ok(received) = self.received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            self.past.push(received.clone());
            heard.push(received);
        }
        heard
    }

    fn order(&self, order: Order) {
        self.orders.send(order).expect("the stand-in's thread runs");
    }

    fn recent(&self) -> String {
        let last: Vec<String> = self.past.iter().rev().take(12).rev().map(|r| format!("{r:?}")).collect();
        format!("last received (now {:?}):\n{}", monotonic(), last.join("\n"))
    }
}

impl Drop for CloudStandIn {
    fn drop(&mut self) {
        let (closed, _) = unbounded_channel();
        self.orders = closed;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs until the orders end.
async fn serve(
    listener: std::net::TcpListener,
    address: SocketAddr,
    mut orders: UnboundedReceiver<Order>,
    heard: Sender<Received>,
) {
    let tell = |what| heard.send(Received { at: monotonic(), what });
    let mut listener = Some(TcpListener::from_std(listener).expect("a listener"));
    let mut link = None;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Send(message)) => match &mut link {
                    Some(link) => link_send(link, message).await,
                    None => panic!("nobody is connected to send a message to"),
                },
                Some(Order::Drop) => link = None,
                Some(Order::GoAway) => (link, listener) = (None, None),
                Some(Order::ComeBack) => {
                    // The old listener's connections are in TIME_WAIT; tokio sets SO_REUSEADDR.
                    listener = Some(TcpListener::bind(address).await.expect("the same port again"));
                }
            },
            accepted = accept(listener.as_ref()) => match greet(accepted).await {
                Some(greeted) => {
                    link = Some(greeted);
                    let _ = tell(Heard::Connected);
                }
                None => { let _ = tell(Heard::TurnedAway); }
            },
            message = hear(link.as_mut()) => match message {
                Some(Ok(Message::Text(text))) => {
                    let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("not JSON ({e}): {text}"));
                    let _ = tell(Heard::Message(json));
                }
                Some(Ok(Message::Binary(bytes))) => {
                    let _ = tell(Heard::Binary(bytes.to_vec()));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Frame(_))) => panic!("a bare frame is never read"),
                Some(Ok(Message::Close(frame))) => {
                    link = None;
                    let _ = tell(Heard::Disconnected(frame.map(|frame| frame.code.into())));
                }
                Some(Err(_)) | None => {
                    link = None;
                    let _ = tell(Heard::Disconnected(None));
                }
            },
        }
    }
}

type Link = tokio_tungstenite::WebSocketStream<TcpStream>;

async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    match listener {
        Some(listener) => listener.accept().await.expect("a listener accepts").0,
        None => std::future::pending().await,
    }
}

async fn hear(link: Option<&mut Link>) -> Option<Result<Message, tokio_tungstenite::tungstenite::Error>> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

async fn link_send(link: &mut Link, message: Message) {
    // A peer that closes just now is seen by the reading side.
    let _ = link.send(message).await;
}

/// The WebSocket handshake, for those who come to the right place with the right token.
async fn greet(stream: TcpStream) -> Option<Link> {
    #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
    let check = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        let token = request.headers().get("authorization").and_then(|v| v.to_str().ok());
        if request.uri().path() == "/glasses-ws" && token == Some(&format!("Bearer {TOKEN}")) {
            return Ok(response);
        }
        let mut refusal = ErrorResponse::new(None);
        *refusal.status_mut() = StatusCode::UNAUTHORIZED;
        Err(refusal)
    };
    tokio::time::timeout(Duration::from_secs(10), accept_hdr_async(stream, check)).await.ok()?.ok()
}
