//! Simulated glasses at the real program: which of them get requests, and which requests.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

use crate::support::cloud_server::{CloudServer, TOKEN, USER};
use crate::support::poll_until;

const SOON: Duration = Duration::from_secs(10);
/// The request that every device gets once it is the present one.
const ASKED: &str = "get_stream_status";

struct Glasses {
    socket: WebSocket<TcpStream>,
    /// The types of all messages to them.
    types: Vec<String>,
}

impl Glasses {
    fn link(cloud: &CloudServer, token: &str) -> Self {
        let mut request = format!("ws://127.0.0.1:{}/glasses-ws", cloud.http()).into_client_request().expect("a URL");
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().expect("a header"));
        let stream = TcpStream::connect(("127.0.0.1", cloud.http())).expect("the cloud listens");
        stream.set_read_timeout(Some(SOON)).expect("a limit");
        let (socket, _) = tungstenite::client(request, stream).expect("the right token lets in");
        Self { socket, types: vec![] }
    }

    fn say(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).expect("sent");
    }

    /// Waits for a message of this type.
    fn told(&mut self, kind: &str) -> Value {
        let deadline = Instant::now() + SOON;
        loop {
            assert!(Instant::now() < deadline, "waited {SOON:?} in vain for {kind}; told {:?}", self.types);
            let Message::Text(text) = self.socket.read().expect("a message in time") else { continue };
            let message: Value = serde_json::from_str(&text).expect("JSON");
            let found = message["type"].as_str().expect("a type").to_owned();
            self.types.push(found.clone());
            if found == kind {
                return message;
            }
        }
    }
}

/// Stops the stream, and confirms the stop as the glasses.
fn stop(cloud: &CloudServer, glasses: &mut Glasses, id: &str) {
    cloud.ctl(&["stop", id]);
    assert_eq!(glasses.told("stop_stream")["streamId"], id);
    glasses.say(&json!({"type": "stream_status", "streamId": id, "status": "stopped"}));
    poll_until("the stream's end", SOON, || cloud.log().contains("stream over").then_some(()));
}

#[test]
fn a_stream_stays_with_its_glasses_and_who_leaves_gives_the_place_back() {
    let cloud = CloudServer::start("");
    let token = cloud.ctl(&["device", "add", "second", "--user", USER]).trim().to_owned();
    let mut first = Glasses::link(&cloud, TOKEN);
    first.told(ASKED);
    let mut visitor = Glasses::link(&cloud, &token);
    visitor.told(ASKED);
    drop(visitor);
    first.told(ASKED);
    let id = cloud.ctl(&["start", "--user", USER]).trim().to_owned();
    assert_eq!(first.told("start_stream")["streamId"], id);
    first.say(&json!({"type": "stream_status", "streamId": id, "status": "streaming"}));

    let mut second = Glasses::link(&cloud, &token);
    second.told("connection_ack");
    second.say(&json!({"type": "stream_status", "kind": "snapshot", "status": "stopped"}));
    stop(&cloud, &mut first, &id);
    second.told(ASKED);
    assert_eq!(second.types, ["connection_ack", ASKED], "it was none of theirs; the next one is");
    drop((first, second));
    cloud.finish();
}

#[test]
fn a_start_that_failed_starts_nothing_later() {
    let cloud = CloudServer::start("");
    let mut glasses = Glasses::link(&cloud, TOKEN);
    glasses.told(ASKED);
    let id = cloud.ctl(&["start", "--user", USER]).trim().to_owned();
    glasses.told("start_stream");
    cloud.ctl(&["stop", &id]);
    let failed = Command::new(env!("CARGO_BIN_EXE_lenscastctl"))
        .args(["cloud", "start", "--user", USER])
        .env("LENSCAST_CLOUD_SOCKET", cloud.socket())
        .output()
        .expect("lenscastctl runs");
    assert!(!failed.status.success(), "another stream is just ending");
    glasses.say(&json!({"type": "stream_status", "streamId": id, "status": "stopped"}));
    poll_until("the stream's end", SOON, || cloud.log().contains("stream over").then_some(()));
    assert_eq!(cloud.streams(), json!([]));
    drop(glasses);
    cloud.finish();
}
